//! Errors of tasks, as authors and operators see them.

use crate::model::{ComponentId, Port, TaskId, Timestamp};

/// Something that went wrong in a task: reported by its component, or seen by its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// The component of the task.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// When, by the worker's clock.
    pub time: Timestamp,
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// One line.
    pub message: String,
    /// A stack trace or the child's last words; may be empty.
    pub stack: String,
}
