//! Report: the increments that one process measured since its last report.

use serde::{Deserialize, Serialize};

use super::{MetricId, Minute, Point};
use stormkeeper_model::{Timestamp, TopologyId, WorkerId};

/// One report of a process: the increments since the report before. Leaves only; the levels above
/// are computed from them.
///
/// Reports of one launch are numbered from 1 without gaps, and the receiver ingests each number
/// once, so that sending a report again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// The process' topology; `__SUPERVISOR__` or `__NIMBUS__` for those daemons.
    pub topology: TopologyId,
    /// The launch of the process.
    pub worker: WorkerId,
    /// Sequence number of the report.
    pub number: u64,
    /// The minute of the report.
    pub minute: Minute,
    /// Start time of the measurement in this process.
    pub started: Timestamp,
    /// The changed metrics.
    pub leaves: Vec<Leaf>,
}

/// The increment of one metric of the lowest level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// The metric.
    pub id: MetricId,
    /// The increment since the report before.
    pub point: Point,
    /// For a counter, its total since the process started.
    pub total: Option<u64>,
}
