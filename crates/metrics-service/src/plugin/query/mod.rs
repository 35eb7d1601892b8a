//! Asking an external store, or another nimbus, for what it knows of metrics.

pub mod nimbus;

use std::fmt::Debug;

use async_trait::async_trait;

use stormkeeper_metric_store::{HistoryEntry, TrackEntry};
use stormkeeper_metrics::{
    MetricId, Minute, Point, Window,
    protocol::{MetaPage, MetaQuery},
};
use stormkeeper_model::{TaskId, TopologyId, TopologyName};

/// A place that knows metrics: what following nimbuses compare their own with.
#[async_trait]
pub trait MetricQueryClient: Send + Sync + Debug {
    /// A page of the metas of a topology.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn metas(&self, query: &MetaQuery) -> Result<MetaPage, QueryError>;

    /// The points of one metric from `from` to `to`, both included, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn data(
        &self,
        id: MetricId,
        window: Window,
        from: Minute,
        to: Minute,
        limit: usize,
    ) -> Result<Vec<(Minute, Point)>, QueryError>;

    /// Where the tasks of a topology ran, and when; of one task, or of all.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn task_track(
        &self,
        topology: &TopologyId,
        task: Option<TaskId>,
    ) -> Result<Vec<TrackEntry>, QueryError>;

    /// The submissions of a topology, the latest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn topology_history(
        &self,
        name: &TopologyName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, QueryError>;

    /// Forgets metas of a topology that is not measured any more. Those that are not known, or
    /// forgotten already, change nothing.
    ///
    /// # Errors
    /// [`QueryError`]; of a topology that runs nothing is forgotten, as it would be registered
    /// again.
    async fn delete_metas(&self, topology: &TopologyId, ids: &[MetricId]) -> Result<(), QueryError>;
}

/// Says who leads at the moment: the query client `nimbus` asks anew before each request.
pub trait WhoLeads: Send + Sync + Debug {
    /// The leader's API, `host:port`, when a leader is known.
    fn leader(&self) -> Option<String>;
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nobody is known to lead.
    #[error("no leader is known")]
    NoLeader,
    /// The one that was asked could not be reached, or its answer broke off.
    #[error("no answer from {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("{url} answered {status}: {said}")]
    Answered {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        said: String,
    },
    /// The answer is longer than any that makes sense.
    #[error("the answer of {url} is longer than {max} bytes")]
    TooLong {
        /// What was asked.
        url: String,
        /// The limit.
        max: usize,
    },
    /// The answer is not what such an answer is.
    #[error("the answer of {url} makes no sense: {what}")]
    Senseless {
        /// What was asked.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The one that was asked does not do that.
    #[error("{client} cannot {what}")]
    Unsupported {
        /// The query client.
        client: &'static str,
        /// What was asked for.
        what: &'static str,
    },
}

impl QueryError {
    /// Whether the same question may be answered a little later.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::NoLeader | Self::Unreachable { .. } => true,
            Self::Answered { status, .. } => *status == 429 || *status >= 500,
            Self::TooLong { .. } | Self::Senseless { .. } | Self::Unsupported { .. } => false,
        }
    }
}
