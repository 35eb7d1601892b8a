//! Problems of what does not start, or starts again and again, for operators.

use stormkeeper_model::{ComponentId, Port, SupervisorId, TopologyName, task_set::TaskSet};

/// Longest list of tasks in a problem, in bytes.
const TASKS_BYTES_MAX: usize = 80;

/// Something that does not start or does not stay up. The texts have no times, so that a problem that
/// lasts stays the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailingProblem {
    /// A supervisor starts again and again.
    #[error(
        "supervisor {supervisor} on {host} started again {n} times in the last 10 minutes; last: {reason}; see its log, and the memory limit of its container or unit"
    )]
    SupervisorRestarts {
        /// The supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
        /// Number of restarts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// A supervisor cannot bring workers up.
    #[error(
        "supervisor {supervisor} on {host} could not bring workers up, {n} attempts failed in the last 10 minutes; last: {reason}; its slots are used last: repair the host, or drain it"
    )]
    SupervisorFails {
        /// The supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
        /// Number of failed attempts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// Tasks do not run, and their supervisor says why.
    #[error(
        "tasks {} do not run: supervisor {supervisor} cannot start their worker at {host}:{port}, {n} attempts failed; last: {reason}; repair that host: the tasks move when another has a free slot",
        shown(.tasks)
    )]
    NotStarted {
        /// The tasks.
        tasks: TaskSet,
        /// Their supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
        /// Port of the slot.
        port: Port,
        /// Number of failed attempts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// Tasks do not run, for a reason that may be in their topology.
    #[error(
        "tasks {} do not run: their worker at {host}:{port} failed {n} times at its start, for a reason that may be in the topology or its owner; last: {reason}; see `stormkeeper get-errors {topology}`",
        shown(.tasks)
    )]
    TopologyFails {
        /// The tasks.
        tasks: TaskSet,
        /// Name of the topology.
        topology: TopologyName,
        /// Host of the worker.
        host: String,
        /// Port of the slot.
        port: Port,
        /// Number of failed attempts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// The code of tasks cannot be brought to any host.
    #[error(
        "tasks {} do not run: supervisor {supervisor} on {host} cannot get the code of the topology, {n} attempts failed; last: {reason}; if that is a 401, see `stormkeeper list` for the supervisor; else start a nimbus that has it, or kill the topology and submit it again",
        shown(.tasks)
    )]
    NoCode {
        /// The tasks.
        tasks: TaskSet,
        /// Their supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
        /// Number of failed attempts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// Tasks have no heartbeat, and their supervisor reports no failure.
    #[error(
        "tasks {} have sent no heartbeat since they were placed or since it stopped, and their {n_workers} worker(s) start or hang, the first at {host}:{port}; see the log of supervisor {supervisor} and of that worker if this lasts",
        shown(.tasks)
    )]
    Silent {
        /// The tasks.
        tasks: TaskSet,
        /// Number of their workers.
        n_workers: usize,
        /// Supervisor of the first worker.
        supervisor: SupervisorId,
        /// Host of the first worker.
        host: String,
        /// Port of the first worker.
        port: Port,
    },
    /// A worker starts again and again.
    #[error(
        "the worker at {host}:{port} started again {n} times in the last 10 minutes; last: {reason}; see its log, or `stormkeeper get-errors {topology}`"
    )]
    WorkerRestarts {
        /// Name of the topology.
        topology: TopologyName,
        /// Host of the worker.
        host: String,
        /// Port of the worker.
        port: Port,
        /// Number of restarts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// A component starts again and again.
    #[error(
        "component {component} started again {n} times in the last 10 minutes in the worker at {host}:{port}; last: {reason}; see `stormkeeper get-errors {topology}`"
    )]
    ComponentRestarts {
        /// Name of the topology.
        topology: TopologyName,
        /// The component.
        component: ComponentId,
        /// Host of the worker.
        host: String,
        /// Port of the worker.
        port: Port,
        /// Number of restarts.
        n: u32,
        /// Reason of the last one.
        reason: String,
    },
    /// More problems of this kind than are listed.
    #[error("{n} more workers or components fail; see `stormkeeper get-errors {topology}`")]
    More {
        /// Name of the topology.
        topology: TopologyName,
        /// Number of the others.
        n: usize,
    },
}

impl FailingProblem {
    /// The supervisor, for a problem of one.
    pub fn supervisor(&self) -> Option<&SupervisorId> {
        match self {
            Self::SupervisorRestarts { supervisor, .. } | Self::SupervisorFails { supervisor, .. } => {
                Some(supervisor)
            }
            Self::NotStarted { .. }
            | Self::TopologyFails { .. }
            | Self::NoCode { .. }
            | Self::Silent { .. }
            | Self::WorkerRestarts { .. }
            | Self::ComponentRestarts { .. }
            | Self::More { .. } => None,
        }
    }
}

fn shown(tasks: &TaskSet) -> String {
    let mut text = tasks.to_string();
    if text.len() > TASKS_BYTES_MAX {
        // Digits, commas and dashes: each is one byte.
        text.truncate(TASKS_BYTES_MAX);
        text.push('…');
    }
    text
}
