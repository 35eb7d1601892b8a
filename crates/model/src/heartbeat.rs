//! Status and counts in the heartbeat of a task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Its component is being started.
    Starting,
    /// Its component is up; its spout is asked for tuples, or its bolt receives tuples.
    Running,
    /// Its spout is up but is not asked for tuples, because the topology is not active.
    Inactive,
    /// Its component died and will be started again.
    Restarting,
}

/// Tuples counted since the task's worker started. The counts are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskCounts {
    /// Tuples that the component emitted.
    pub emitted: u64,
    /// Copies sent to receiving tasks.
    pub transferred: u64,
    /// Tuples executed by a bolt, or `next` calls of a spout that emitted something.
    pub executed: u64,
    /// Tuples that the component acked, or that were acked for a spout.
    pub acked: u64,
    /// Tuples that the component failed.
    pub failed: u64,
}

impl std::ops::AddAssign for TaskCounts {
    fn add_assign(&mut self, other: Self) {
        self.emitted = self.emitted.saturating_add(other.emitted);
        self.transferred = self.transferred.saturating_add(other.transferred);
        self.executed = self.executed.saturating_add(other.executed);
        self.acked = self.acked.saturating_add(other.acked);
        self.failed = self.failed.saturating_add(other.failed);
    }
}
