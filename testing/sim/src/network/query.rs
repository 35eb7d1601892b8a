//! Metas of the leader, with which followers compare their own.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::StatusCode;

use super::{Network, NoAnswer, refused};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_store::{HistoryEntry, TrackEntry};
use stormkeeper_metrics::{
    MetricId, Minute, Point,
    protocol::{MetaPage, MetaQuery, PointsQuery},
};
use stormkeeper_metrics_service::query::{LeaderLocator, MetricQueryClient, QueryError};
use stormkeeper_model::{TaskId, TopologyId, TopologyName};
use stormkeeper_nimbus::{Handle, refusal::Refusal};

/// Reads the metas of the leader for one nimbus. The metrics service reads nothing else.
#[derive(Debug)]
pub(crate) struct NetworkQuery {
    network: Arc<Network>,
    from: String,
    store: Store,
}

impl NetworkQuery {
    /// Reads for the nimbus at `from`, which reads the leader from the tree of `store`.
    pub(crate) fn new(network: &Arc<Network>, from: String, store: Store) -> Self {
        Self { network: Arc::clone(network), from, store }
    }
}

fn unsupported<T>(what: &'static str) -> Result<T, QueryError> {
    Err(QueryError::Unsupported { client: "the simulated network", what })
}

#[async_trait]
impl MetricQueryClient for NetworkQuery {
    async fn metas(&self, query: &MetaQuery) -> Result<MetaPage, QueryError> {
        let api = LeaderLocator::leader(&self.store).await.ok_or(QueryError::NoLeader)?;
        let query = query.clone();
        let request = async move |nimbus: Handle| nimbus.metrics_metas(query).await;
        let answer = self.network.call(&self.from, &api, request).await;
        let lost = |NoAnswer(reason)| refused(&api, StatusCode::GATEWAY_TIMEOUT, reason.to_owned());
        let rejected = answer.map_err(lost)?;
        let rejected_by =
            |refusal: Refusal| refused(&api, StatusCode::SERVICE_UNAVAILABLE, refusal.to_string());
        Ok(rejected.map_err(rejected_by)?)
    }

    async fn data(&self, _query: &PointsQuery) -> Result<Vec<(Minute, Point)>, QueryError> {
        unsupported("read points")
    }

    async fn task_track(
        &self,
        _topology: &TopologyId,
        _task: Option<TaskId>,
    ) -> Result<Vec<TrackEntry>, QueryError> {
        unsupported("read placements")
    }

    async fn topology_history(
        &self,
        _name: &TopologyName,
        _limit: usize,
    ) -> Result<Vec<HistoryEntry>, QueryError> {
        unsupported("read the history")
    }

    async fn delete_metas(&self, _topology: &TopologyId, _ids: &[MetricId]) -> Result<(), QueryError> {
        unsupported("delete metas")
    }
}
