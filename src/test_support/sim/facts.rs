//! What is true of the cluster at one moment of a run, told from the journal alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    time::Duration,
};

use crate::{
    cluster::record::{self, Storm},
    model::{
        Slot, SupervisorId, TaskId, Timestamp, TopologyId, WorkerId, assignment::Assignment,
        task_set::TaskSet,
    },
    supervisor::process::{ExitReport, StopSignal},
    tree::{
        Op, OpResult, TreePath, Version,
        memory::listen::{Commit, Snapshot, What},
    },
};

/// The tree and the machines as they are.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// How long the run has lasted.
    pub(super) now: Duration,
    /// The current term.
    pub(super) term: i32,
    /// The connections that won the terms.
    pub(super) winners: BTreeMap<i32, u64>,
    pub(super) storms: BTreeMap<TopologyId, Storm>,
    pub(super) assignments: BTreeMap<TopologyId, Assignment>,
    pub(super) beats: BTreeMap<(TopologyId, TaskId), Beat>,
    /// The hosts that are to be empty.
    pub(super) drains: BTreeSet<String>,
    /// Since when each supervisor that was ever there has not been.
    pub(super) supervisors: BTreeMap<SupervisorId, Option<Duration>>,
    /// The worker processes that run.
    pub(super) processes: BTreeMap<WorkerId, Process>,
}

/// A task's last beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) since: Duration,
    /// When it went, if it did.
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
    /// What it runs, once it has read that.
    pub(super) tasks: Option<TaskSet>,
    /// Whether it does what a worker does.
    pub(super) is_well: bool,
}

/// Something that happened on a machine.
#[derive(Debug, Clone)]
pub(super) enum MachineEvent {
    /// A process was started.
    Launched(Process),
    /// It has read what it is to run.
    Began { worker: WorkerId, tasks: TaskSet },
    /// It hangs from now on.
    Hangs { worker: WorkerId },
    /// Its supervisor signalled it.
    Signalled { worker: WorkerId, signal: StopSignal },
    /// It is gone.
    Ended { worker: WorkerId, report: ExitReport },
    /// It was told that its report of an error is stored.
    ErrorStored { topology: TopologyId, task: TaskId, message: String },
}

impl Display for MachineEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launched(Process { worker, topology, slot, .. }) => {
                write!(f, "{slot} launched {worker} of {topology}")
            }
            Self::Began { worker, tasks } => write!(f, "{worker} runs tasks {tasks}"),
            Self::Hangs { worker } => write!(f, "{worker} hangs"),
            Self::Signalled { worker, signal } => write!(f, "{worker} got {signal}"),
            Self::Ended { worker, report } => write!(f, "{worker} {report}"),
            Self::ErrorStored { topology, task, message } => {
                write!(f, "task {task} of {topology} stored {message:?}")
            }
        }
    }
}

impl Facts {
    /// Takes in what took effect in the tree.
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
                    self.term = *term;
                    self.winners.insert(*term, commit.connection);
                }
            }
            (Some("storms"), Some(id), None) => {
                fold(&mut self.storms, id, path, commit.after, record::decode::<Storm>);
            }
            (Some("assignments"), Some(id), None) => {
                fold(&mut self.assignments, id, path, commit.after, record::decode_assignment);
            }
            (Some("taskbeats"), Some(_), Some(_)) => match (op, beat_of(path)) {
                (Op::Create { .. }, Some(key)) => {
                    let beat = Beat { since: self.now, until: None, connection: commit.connection };
                    self.beats.insert(key, beat);
                }
                (Op::Delete { .. }, _) => self.ephemeral_gone(path),
                (Op::Create { .. } | Op::Set { .. } | Op::Check { .. }, _) => {}
            },
            (Some("drains"), Some(host), None) => match commit.after.get(path) {
                Some(_) => _ = self.drains.insert(host.to_owned()),
                None => _ = self.drains.remove(host),
            },
            (Some("supervisors"), Some(id), None) => match op {
                Op::Create { .. } => {
                    if let Ok(id) = id.parse() {
                        self.supervisors.insert(id, None);
                    }
                }
                Op::Delete { .. } => self.ephemeral_gone(path),
                Op::Set { .. } | Op::Check { .. } => {}
            },
            _ => {}
        }
    }

    fn ephemeral_gone(&mut self, path: &TreePath) {
        if let Some(beat) = beat_of(path).and_then(|key| self.beats.get_mut(&key)) {
            beat.until = Some(self.now);
        }
        let mut parts = path.parts();
        if let (Some("supervisors"), Some(Ok(id))) = (parts.next(), parts.next().map(str::parse)) {
            self.supervisors.insert(id, Some(self.now));
        }
    }

    /// Takes in what happened on a machine.
    pub(super) fn machine(&mut self, event: &MachineEvent) {
        match event {
            MachineEvent::Launched(process) => {
                self.processes.insert(process.worker.clone(), process.clone());
            }
            MachineEvent::Began { worker, tasks } => {
                if let Some(process) = self.processes.get_mut(worker) {
                    process.tasks = Some(tasks.clone());
                }
            }
            MachineEvent::Hangs { worker } => {
                if let Some(process) = self.processes.get_mut(worker) {
                    process.is_well = false;
                }
            }
            MachineEvent::Ended { worker, .. } => drop(self.processes.remove(worker)),
            MachineEvent::Signalled { .. } | MachineEvent::ErrorStored { .. } => {}
        }
    }

    /// The beat of a task that is there now.
    pub(super) fn beat(&self, id: &TopologyId, task: TaskId) -> Option<&Beat> {
        self.beats.get(&(id.clone(), task)).filter(|beat| beat.until.is_none())
    }

    /// Whether the tree wants exactly this process.
    pub(super) fn is_assigned(&self, process: &Process) -> bool {
        let assignment = self.assignments.get(&process.topology);
        let worker = assignment.and_then(|assignment| assignment.workers.get(&process.slot));
        worker.is_some_and(|worker| worker.start == process.start)
    }
}

/// The task that the beat at `path` is of.
fn beat_of(path: &TreePath) -> Option<(TopologyId, TaskId)> {
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
    after: Snapshot<'_>,
    decode: impl Fn(&TreePath, &[u8]) -> Result<T, record::Unreadable>,
) {
    let Ok(id) = id.parse() else { return };
    match after.get(path).map(|node| decode(path, &node.data)) {
        Some(Ok(value)) => _ = map.insert(id, value),
        Some(Err(_)) | None => _ = map.remove(&id),
    }
}
