//! Errors of tasks, for authors and operators.

use crate::{ComponentId, Port, TaskId, Timestamp};

/// Error of a task, reported by its component or detected by its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// The component of the task.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// Time of the error, by the clock of its writer: the worker, or the supervisor of a failed worker.
    pub time: Timestamp,
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// Message of one line.
    pub message: String,
    /// A stack trace, or the last lines of the child's stderr or of the failed worker's log; may be empty.
    pub stack: String,
}
