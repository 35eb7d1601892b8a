//! A model of the cluster at one moment of a run, derived from the journal alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    time::Duration,
};

use crate::{
    counters::{Counters, Counts},
    metric_log::MetricLogEvent,
};
use stormkeeper_access::quota::Quota;
use stormkeeper_coordination::{
    cluster::record::{self, TopologyRecord},
    tree::{
        Op, OpResult, TreePath, Version,
        memory::listener::{Commit, TreeSnapshot, What},
    },
};
use stormkeeper_model::{
    Slot, SupervisorId, TaskId, Timestamp, TopologyId, WorkerId, assignment::Assignment, task_set::TaskSet,
};
use stormkeeper_supervisor::process::{ExitReport, StopSignal};

/// State of the tree and of the machines.
#[derive(Debug, Default)]
pub(super) struct ClusterModel {
    /// Time since the start of the run.
    pub(super) now: Duration,
    /// The current term.
    pub(super) term: i32,
    /// The connections that won the terms.
    pub(super) winners: BTreeMap<i32, u64>,
    pub(super) topologies: BTreeMap<TopologyId, TopologyRecord>,
    pub(super) assignments: BTreeMap<TopologyId, Assignment>,
    pub(super) heartbeats: BTreeMap<(TopologyId, TaskId), TaskHeartbeat>,
    /// The drained hosts.
    pub(super) drains: BTreeSet<String>,
    /// Beginning of the current term.
    pub(super) term_since: Duration,
    /// All supervisors that ever registered.
    pub(super) supervisors: BTreeMap<SupervisorId, Registration>,
    /// Supervisors whose announced stop is in the tree.
    pub(super) stopped: BTreeSet<SupervisorId>,
    /// The worker processes that run.
    pub(super) processes: BTreeMap<WorkerId, Process>,
    /// Counts of all workers.
    pub(super) counters: Counters,
    /// Quota of every owner, if the run has one.
    pub(super) quota: Option<Quota>,
}

/// The last registration of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) since: Duration,
    /// Time of its removal, if it was removed.
    pub(super) until: Option<Duration>,
}

/// The last heartbeat znode of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskHeartbeat {
    pub(super) since: Duration,
    /// Time of its removal, if it was removed.
    pub(super) until: Option<Duration>,
    pub(super) connection: u64,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) worker: WorkerId,
    pub(super) topology: TopologyId,
    pub(super) slot: Slot,
    pub(super) start: Timestamp,
    pub(super) connection: u64,
    pub(super) launched: Duration,
    /// The tasks that the process runs, once it has read them.
    pub(super) tasks: Option<TaskSet>,
    /// False once the process hangs.
    pub(super) is_responsive: bool,
    /// Key of the package that the process runs.
    pub(super) blob: String,
}

/// An event on a machine.
#[derive(Debug, Clone)]
pub(super) enum MachineEvent {
    /// A process was started.
    Launched(Process),
    /// The process has read which tasks it must run.
    ReadTasks { worker: WorkerId, tasks: TaskSet },
    /// The process hangs from now on.
    Hangs { worker: WorkerId },
    /// The supervisor signalled the process.
    Signalled { worker: WorkerId, signal: StopSignal },
    /// The process has ended.
    Ended { worker: WorkerId, report: ExitReport },
    /// The process received the confirmation that its error report is stored.
    ErrorStored { topology: TopologyId, task: TaskId, message: String },
    /// The process counted tuples.
    Counted(Counts),
}

impl Display for MachineEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launched(Process { worker, topology, slot, .. }) => {
                write!(f, "{slot} launched {worker} of {topology}")
            }
            Self::ReadTasks { worker, tasks } => write!(f, "{worker} runs tasks {tasks}"),
            Self::Hangs { worker } => write!(f, "{worker} hangs"),
            Self::Signalled { worker, signal } => write!(f, "{worker} received {signal}"),
            Self::Ended { worker, report } => write!(f, "{worker} {report}"),
            Self::ErrorStored { topology, task, message } => {
                write!(f, "task {task} of {topology} stored {message:?}")
            }
            Self::Counted(counts) => counts.fmt(f),
        }
    }
}

impl ClusterModel {
    /// Applies a commit in the tree.
    pub(super) fn commit(&mut self, commit: &Commit<'_>) {
        match commit.what {
            What::SessionEnded(paths) => paths.iter().for_each(|path| self.ephemeral_gone(path)),
            What::Transaction { ops, results } => {
                for (op, result) in ops.iter().zip(results) {
                    self.operation(commit, op, result);
                }
            }
        }
    }

    fn operation(&mut self, commit: &Commit<'_>, op: &Op, result: &OpResult) {
        let path = op.path();
        let mut parts = path.parts();
        match (parts.next(), parts.next(), parts.next()) {
            (Some("term"), None, None) => {
                if let OpResult::Set(Version(term)) = result {
                    (self.term, self.term_since) = (*term, self.now);
                    self.winners.insert(*term, commit.connection);
                }
            }
            (Some("storms"), Some(id), None) => {
                fold(&mut self.topologies, id, path, commit.after, record::decode::<TopologyRecord>);
            }
            (Some("assignments"), Some(id), None) => {
                fold(&mut self.assignments, id, path, commit.after, record::decode_assignment);
            }
            (Some("taskbeats"), Some(_), Some(_)) => match (op, heartbeat_of(path)) {
                (Op::Create { .. }, Some(key)) => {
                    let heartbeat =
                        TaskHeartbeat { since: self.now, until: None, connection: commit.connection };
                    self.heartbeats.insert(key, heartbeat);
                }
                (Op::Delete { .. }, _) => self.ephemeral_gone(path),
                (Op::Create { .. } | Op::Set { .. } | Op::Check { .. }, _) => {}
            },
            (Some("drains"), Some(host), None) => match commit.after.get(path) {
                Some(_) => _ = self.drains.insert(host.to_owned()),
                None => _ = self.drains.remove(host),
            },
            (Some("stopped-supervisors"), Some(id), None) => {
                let Ok(id) = id.parse() else { return };
                match commit.after.get(path) {
                    Some(_) => _ = self.stopped.insert(id),
                    None => _ = self.stopped.remove(&id),
                }
            }
            (Some("supervisors"), Some(id), None) => match op {
                Op::Create { .. } => {
                    if let Ok(id) = id.parse() {
                        self.supervisors.insert(id, Registration { since: self.now, until: None });
                    }
                }
                Op::Delete { .. } => self.ephemeral_gone(path),
                Op::Set { .. } | Op::Check { .. } => {}
            },
            _ => {}
        }
    }

    fn ephemeral_gone(&mut self, path: &TreePath) {
        if let Some(heartbeat) = heartbeat_of(path).and_then(|key| self.heartbeats.get_mut(&key)) {
            heartbeat.until = Some(self.now);
        }
        let mut parts = path.parts();
        if let (Some("supervisors"), Some(Ok(id))) = (parts.next(), parts.next().map(str::parse)) {
            let registration = self.supervisors.get_mut::<SupervisorId>(&id);
            if let Some(registration) = registration {
                registration.until = Some(self.now);
            }
        }
    }

    /// Applies an event on a machine.
    pub(super) fn machine(&mut self, event: &MachineEvent) {
        match event {
            MachineEvent::Launched(process) => {
                self.processes.insert(process.worker.clone(), process.clone());
            }
            MachineEvent::ReadTasks { worker, tasks } => {
                if let Some(process) = self.processes.get_mut(worker) {
                    process.tasks = Some(tasks.clone());
                }
            }
            MachineEvent::Hangs { worker } => {
                if let Some(process) = self.processes.get_mut(worker) {
                    process.is_responsive = false;
                }
            }
            MachineEvent::Ended { worker, report } => {
                self.processes.remove(worker);
                if *report != ExitReport::Code(0) {
                    self.counters.killed(worker);
                }
            }
            MachineEvent::Counted(counts) => self.counters.count(counts),
            MachineEvent::Signalled { .. } | MachineEvent::ErrorStored { .. } => {}
        }
    }

    /// Applies an event of the metric logs.
    pub(super) fn metric_log(&mut self, event: &MetricLogEvent) {
        self.counters.metric_log(event);
    }

    /// The heartbeat of a task, if it exists now.
    pub(super) fn heartbeat(&self, id: &TopologyId, task: TaskId) -> Option<&TaskHeartbeat> {
        self.heartbeats.get(&(id.clone(), task)).filter(|heartbeat| heartbeat.until.is_none())
    }

    /// True if the assignment in the tree names exactly this process.
    pub(super) fn is_assigned(&self, process: &Process) -> bool {
        let assignment = self.assignments.get(&process.topology);
        let worker = assignment.and_then(|assignment| assignment.workers.get(&process.slot));
        worker.is_some_and(|worker| worker.start == process.start)
    }
}

/// The task of the heartbeat at `path`.
fn heartbeat_of(path: &TreePath) -> Option<(TopologyId, TaskId)> {
    let mut parts = path.parts();
    if parts.next() != Some("taskbeats") {
        return None;
    }
    let (id, task) = (parts.next()?, parts.next()?);
    Some((id.parse().ok()?, task.parse().ok()?))
}

fn fold<T>(
    map: &mut BTreeMap<TopologyId, T>,
    id: &str,
    path: &TreePath,
    after: TreeSnapshot<'_>,
    decode: impl Fn(&TreePath, &[u8]) -> Result<T, record::Unreadable>,
) {
    let Ok(id) = id.parse() else { return };
    match after.get(path).map(|node| decode(path, &node.data)) {
        Some(Ok(value)) => _ = map.insert(id, value),
        Some(Err(_)) | None => _ = map.remove(&id),
    }
}
