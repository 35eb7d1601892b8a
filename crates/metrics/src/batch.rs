//! Metric batch: the values of some processes of one topology in one minute, on every level.

use serde::{Deserialize, Serialize};

use super::{MetricId, Minute, Point};
use stormkeeper_model::{Timestamp, TopologyId, WorkerId};

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
    /// The readings in the points, by launch: a later launch's reading of a leaf replaces an earlier
    /// launch's reading of the same minute. Readings that are not listed here are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<LaunchReadings>,
}

/// The leaves of which one launch has a reading in a metric batch: a value of a gauge, or rates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchReadings {
    /// Start time of the launch.
    pub started: Timestamp,
    /// The leaves; each leaf is listed for one launch.
    pub leaves: Vec<MetricId>,
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
