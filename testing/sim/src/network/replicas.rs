//! Metric log and checkpoints of other nimbuses.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use reqwest::StatusCode;

use super::{Network, NoAnswer, refused};
use stormkeeper_api_types::replica_client::{ReplicaError, ReplicaPeers};
use stormkeeper_metric_store::{Medium, MemoryDisk};
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::LogPosition;
use stormkeeper_nimbus::{Handle, refusal::Refusal};

/// Fetches for one nimbus. Checkpoints are copied from the other nimbus' disk to its disk.
#[derive(Debug)]
pub(crate) struct NetworkReplicas {
    network: Arc<Network>,
    from: String,
    disk: MemoryDisk,
}

impl NetworkReplicas {
    /// Fetches for the nimbus at `from`, whose metric store is on `disk`.
    pub(crate) fn new(network: &Arc<Network>, from: String, disk: &MemoryDisk) -> Self {
        Self { network: Arc::clone(network), from, disk: disk.clone() }
    }
}

/// Failure of a request without an answer.
fn lost(api: &str) -> impl FnOnce(NoAnswer) -> ReplicaError {
    // An error of HTTP cannot be made here; the shipping code treats both in the same way.
    move |NoAnswer(reason)| refused(api, StatusCode::GATEWAY_TIMEOUT, reason.to_owned()).into()
}

/// Answer of a nimbus that did not execute the request.
fn rejected(api: &str) -> impl FnOnce(Refusal) -> ReplicaError {
    move |refusal| refused(api, StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()).into()
}

#[async_trait]
impl ReplicaPeers for NetworkReplicas {
    async fn log(&self, api: &str, query: &LogQuery) -> Result<(LogPage, LogPosition), ReplicaError> {
        let query = query.clone();
        let request = async move |nimbus: Handle| nimbus.metrics_log(query).await;
        let answer = self.network.call(&self.from, api, request).await;
        answer.map_err(lost(api))?.map_err(rejected(api))
    }

    async fn checkpoint(&self, api: &str, into: &Path) -> Result<u64, ReplicaError> {
        let request = async |nimbus: Handle| nimbus.metrics_checkpoint().await.map(|(made, _tasks)| made);
        let answer = self.network.call(&self.from, api, request).await;
        let checkpoint = answer.map_err(lost(api))?.map_err(rejected(api))?;
        let copied = checkpoint.source().copy_to(&Medium::Memory(self.disk.clone()), into);
        copied.map_err(|source| ReplicaError::Write { path: into.to_owned(), source })?;
        // A database in memory has no size.
        Ok(0)
    }
}
