//! Errors of tasks, for authors and operators.

use crate::{ComponentId, Port, TaskId, Timestamp};

/// Error of a task, reported by its component or detected by its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// The component of the task.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// Time of the error, by the worker's clock.
    pub time: Timestamp,
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// Message of one line.
    pub message: String,
    /// A stack trace, or the last lines that the child wrote to stderr; may be empty.
    pub stack: String,
}
