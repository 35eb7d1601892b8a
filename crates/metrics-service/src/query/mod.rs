//! Queries for metrics to an external store or another nimbus.

pub mod nimbus;

use std::fmt::Debug;

use async_trait::async_trait;
use tracing::debug;

use stormkeeper_api_types::http;
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_store::{HistoryEntry, TrackEntry};
use stormkeeper_metrics::{
    MetricId, Minute, Point,
    protocol::{MetaPage, MetaQuery, PointsQuery},
};
use stormkeeper_model::{TaskId, TopologyId, TopologyName};

/// Source of metrics with which followers compare their own.
#[async_trait]
pub trait MetricQueryClient: Send + Sync + Debug {
    /// Returns a page of the metas of a topology.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn metas(&self, query: &MetaQuery) -> Result<MetaPage, QueryError>;

    /// Returns the points of one metric.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn data(&self, query: &PointsQuery) -> Result<Vec<(Minute, Point)>, QueryError>;

    /// Returns the placements of a topology's tasks, or of one task.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn task_track(
        &self,
        topology: &TopologyId,
        task: Option<TaskId>,
    ) -> Result<Vec<TrackEntry>, QueryError>;

    /// Returns the submissions of a topology, the latest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn topology_history(
        &self,
        name: &TopologyName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, QueryError>;

    /// Deletes metas of a topology that is not measured any more. Unknown or deleted metas have no
    /// effect.
    ///
    /// # Errors
    /// [`QueryError`]; metas of a running topology are not deleted, as they would be registered
    /// again.
    async fn delete_metas(&self, topology: &TopologyId, ids: &[MetricId]) -> Result<(), QueryError>;
}

/// Source of the current leader: the query client `nimbus` reads it before each request.
#[async_trait]
pub trait LeaderLocator: Send + Sync + Debug {
    /// Returns the address of the leader's API, `host:port`, if a leader is known.
    async fn leader(&self) -> Option<String>;
}

#[async_trait]
impl LeaderLocator for Store {
    async fn leader(&self) -> Option<String> {
        match Store::leader(self).await {
            Ok(leader) => leader.map(|leader| leader.api),
            Err(error) => {
                debug!(%error, "cannot read the leader for a query of metrics");
                None
            }
        }
    }
}

/// Error of a query.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No leader is known.
    #[error("no leader is known")]
    NoLeader,
    /// The request failed.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The query client does not support the query.
    #[error("{client} cannot {what}")]
    Unsupported {
        /// Name of the query client.
        client: &'static str,
        /// Unsupported operation.
        what: &'static str,
    },
}

impl QueryError {
    /// Returns whether the same query may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoLeader => true,
            Self::Http(error) => error.is_retryable(),
            Self::Unsupported { .. } => false,
        }
    }
}
