//! What one process measured since it last said so.

use serde::{Deserialize, Serialize};

use super::{MetricId, Minute, Point};
use crate::model::{Timestamp, TopologyId, WorkerId};

/// One cut through the instruments of a process: what was added since the cut before. Leaves
/// only; the levels above are made from them.
///
/// Cuts of one launch are numbered from 1 without gaps, and whoever takes them in takes each
/// number once, so that sending one again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The topology that it works for; `__SUPERVISOR__`, `__NIMBUS__` for those.
    pub topology: TopologyId,
    /// The launch of the process.
    pub worker: WorkerId,
    /// Which cut of it this is.
    pub number: u64,
    /// The minute that it counts for.
    pub minute: Minute,
    /// Since when the process measures.
    pub started: Timestamp,
    /// What was measured.
    pub leaves: Vec<Leaf>,
}

/// One metric of the lowest level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// Which metric.
    pub id: MetricId,
    /// What was added since the cut before.
    pub point: Point,
    /// Of a counter: all that it counted since the process started.
    pub total: Option<u64>,
}
