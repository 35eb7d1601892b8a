//! What some processes of one topology measured in one minute, on every level.

use serde::{Deserialize, Serialize};

use super::{MetricId, Minute, Point};
use crate::model::{TopologyId, WorkerId};

/// Snapshots of one minute, rolled up and merged. It is taken in as a whole or not at all, and
/// adds to what others contribute to the same minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose workers they are.
    pub topology: TopologyId,
    /// The minute that it adds to.
    pub minute: Minute,
    /// Which cuts are in it.
    pub cuts: Vec<Cuts>,
    /// What it adds, metrics of `__CLUSTER__` included; each id once.
    pub points: Vec<(MetricId, Point)>,
}

/// Neighbouring cuts of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    /// The launch.
    pub worker: WorkerId,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}
