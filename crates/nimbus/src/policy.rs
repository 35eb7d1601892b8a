//! Time and move limits of decisions.

use std::time::Duration;

use crate::Options;

/// The part of [`Options`] that concerns decisions.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Time without a heartbeat after which a task is dead.
    pub task_timeout: Duration,
    /// Time that a task may take from its assignment to its first heartbeat.
    pub task_launch: Duration,
    /// Time that a supervisor may be absent before its tasks move, if they are absent too.
    pub supervisor_timeout: Duration,
    /// Time during which a leader moves nothing after its term began or its connection came back.
    pub settle: Duration,
    /// Most tasks that are moved away from lost workers in one round.
    pub max_moves_per_round: usize,
}

impl From<&Options> for Policy {
    fn from(options: &Options) -> Self {
        Self {
            task_timeout: options.task_timeout,
            task_launch: options.task_launch,
            supervisor_timeout: options.supervisor_timeout,
            settle: options.settle,
            max_moves_per_round: options.max_moves_per_round,
        }
    }
}
