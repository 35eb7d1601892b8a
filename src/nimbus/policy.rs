//! The bounds that decisions keep to.

use std::time::Duration;

use crate::nimbus::Options;

/// What of the options concerns decisions.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long a task may be without a beat before it is dead.
    pub task_timeout: Duration,
    /// How long a task may take from its assignment to its first beat.
    pub task_launch: Duration,
    /// How long a supervisor may be gone before its tasks, if they are gone too, move.
    pub supervisor_timeout: Duration,
    /// How long a new leader, or one whose connection came back, moves nothing.
    pub settle: Duration,
    /// The most tasks that one round moves away from a lost place.
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
