//! Rejection of a request about metrics.

use stormkeeper_metric_store as metric_store;
use stormkeeper_model::TopologyId;

/// A request that the metrics service did not execute. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Metrics cannot be ingested or read here now; the request may succeed later.
    #[error("no metrics here now: {reason}")]
    Unavailable {
        /// The missing precondition, as text for operators.
        reason: String,
    },
    /// This nimbus has not read the cluster state yet.
    #[error("this nimbus has not read the cluster state yet")]
    NotReady,
    /// A later leader has been elected.
    #[error("this nimbus does not lead any more")]
    Deposed,
    /// Metas of a topology that exists cannot be deleted: its workers would register them again.
    #[error("{topology} still runs: its workers would register deleted metas again")]
    StillMeasured {
        /// The topology.
        topology: TopologyId,
    },
    /// The sender is limited to the metrics of another topology.
    #[error("a worker of {own} cannot send metrics of {topology}")]
    OtherTopology {
        /// Topology of the sender.
        own: TopologyId,
        /// Topology of the metrics.
        topology: TopologyId,
    },
    /// The request makes no sense and must not be repeated.
    #[error("{0}")]
    Invalid(String),
}

/// Refusal of a request that failed with an error of the metric store.
impl From<metric_store::Error> for RequestError {
    fn from(error: metric_store::Error) -> Self {
        match error {
            metric_store::Error::StaleTerm { .. } => Self::Deposed,
            metric_store::Error::Invalid(reason) => Self::Invalid(reason),
            error => Self::Unavailable { reason: error.to_string() },
        }
    }
}
