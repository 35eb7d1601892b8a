//! Connections of the metrics service to other processes.

use std::sync::Arc;

use crate::{
    MetricOptions,
    export::exporters::{self, MetricExporter},
    query::MetricQueryClient,
};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_api_types::replica_client::{ReplicaClient, ReplicaError, ReplicaPeers};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestError, IngestTransport, OwnLeaderOnly};

/// Connections to other nimbuses and to external stores. The service makes none itself, so a
/// simulation replaces all of them.
#[derive(Debug, Clone)]
pub struct MetricsClients {
    /// Fetches the metric log and checkpoints from other nimbuses.
    pub replicas: Arc<dyn ReplicaPeers>,
    /// Sends self metrics to the leader.
    pub ingest: Arc<dyn IngestTransport>,
    /// Reads the leader's metas.
    pub query: Arc<dyn MetricQueryClient>,
    /// External stores.
    pub exporters: Vec<Arc<dyn MetricExporter>>,
}

/// Failure to set up the clients of the metrics service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plugin cannot be created.
    #[error(transparent)]
    Plugin(#[from] exporters::Error),
    /// The HTTP client for other nimbuses cannot be created.
    #[error("cannot create the HTTP client that fetches metrics from other nimbuses")]
    Replicas(#[from] ReplicaError),
    /// The HTTP client that sends this nimbus' self metrics to the leader cannot be created.
    #[error("cannot create the HTTP client that sends self metrics to the leader")]
    Ingest(#[from] IngestError),
}

impl MetricsClients {
    /// Makes the clients read the leader from `store`: self metrics must not go to the leader of
    /// another cluster, to which the tree of [`MetricsClients::over_http`] may lead.
    pub fn with_leader_of(self, store: &Store) -> Self {
        Self { ingest: OwnLeaderOnly::new(self.ingest, store.clone()), ..self }
    }

    /// Creates HTTP clients, which read the leader from `store` and send their requests with
    /// `credentials`, and the configured exporters.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn over_http(
        options: &MetricOptions,
        store: &Store,
        (credentials, tls): (&Credentials, &ClientTls),
    ) -> Result<Self, Error> {
        let leader = Arc::new(store.clone());
        Ok(Self {
            replicas: Arc::new(ReplicaClient::new(tls)?.with_credentials(credentials.clone())),
            ingest: Arc::new(IngestClient::over(tls, store.clone())?.with_credentials(credentials.clone())),
            query: exporters::query_client(&options.exporters, leader, (credentials.clone(), tls))?,
            exporters: exporters::exporters(&options.exporters)?,
        })
    }
}
