//! Metric batch: the values of some processes of one topology in one minute, on every level.

use serde::{Deserialize, Serialize};

use super::{MetricId, Minute, Point};
use stormkeeper_model::{TopologyId, WorkerId};

/// Reports of one minute, rolled up and merged. The leader ingests a batch as a whole or not at
/// all, and adds the points to those of other batches of the same minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricBatch {
    /// The topology of the reporting workers.
    pub topology: TopologyId,
    /// The minute of the points.
    pub minute: Minute,
    /// The reports that the batch contains.
    pub reports: Vec<SequenceRange>,
    /// The points to add, including metrics of `__CLUSTER__`; each id once.
    pub points: Vec<(MetricId, Point)>,
}

/// Consecutive reports of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRange {
    /// The launch.
    pub worker: WorkerId,
    /// Sequence number of the first report.
    pub first: u64,
    /// Sequence number of the last report.
    pub last: u64,
}
