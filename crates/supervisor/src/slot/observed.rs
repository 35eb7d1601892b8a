//! Inputs of a step: the worker that a slot should run, and the last launch in it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::process::ExitReport;
use stormkeeper_model::{BlobKey, TopologyId, WorkerId, assignment::AssignedWorker, clock::Monotonic};

/// The worker that a slot should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredWorker {
    /// The worker's topology.
    pub topology: TopologyId,
    /// The worker's tasks and the time of its placement.
    #[serde(flatten)]
    pub worker: AssignedWorker,
    /// The topology package that the worker runs.
    pub blob: BlobKey,
    /// Owner of the topology; empty in the ledger of an earlier build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
}

impl DesiredWorker {
    /// True if a process launched for `self` is the worker that `other` asks for.
    pub fn is_same_worker(&self, other: &Self) -> bool {
        self.topology == other.topology
            && self.worker.tasks == other.worker.tasks
            && self.worker.start == other.worker.start
    }
}

/// The content of a slot that the cluster wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Not known, because the assignments could not be read. The slot keeps its content.
    Unknown,
    /// The slot should be empty.
    Nothing,
    /// The slot should run this worker.
    Worker(DesiredWorker),
}

/// Progress of localizing the blob of the desired worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blob {
    /// Unpacked on disk.
    Present,
    /// Not on this host yet, or an attempt failed; fetched again for as long as it is needed.
    Fetching,
}

/// Progress of the last launch in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Launching,
    /// No process was started.
    Failed(Arc<str>),
    /// The process exists.
    Alive {
        /// Time at which the heartbeat was last seen to change, by our clock.
        heartbeat: Option<Monotonic>,
    },
    /// The process has ended.
    Exited(ExitReport),
}

/// The last launch in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The id of the launch.
    pub worker: WorkerId,
    /// Progress of the launch.
    pub progress: Progress,
}

/// The timeouts of a supervisor for its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerTimeouts {
    /// From launch to the first heartbeat.
    pub start: Duration,
    /// Between two heartbeats.
    pub silence: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// The inputs of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The time of the observation.
    pub now: Monotonic,
    /// Time at which the heartbeats were last read. Silence is measured up to this time: a
    /// supervisor that was delayed itself has not seen the heartbeats of the delay.
    pub heartbeats_read_at: Monotonic,
    /// The content that the slot should have.
    pub target: Target,
    /// The blob of the target worker or, while the target is unknown, of the worker in the slot.
    pub blob: Blob,
    /// The last launch, also after its process has ended.
    pub launched: Option<Launched>,
    /// The id of the next launch, not used by any launch before.
    pub next_worker_id: WorkerId,
    /// The timeouts for workers.
    pub timeouts: WorkerTimeouts,
}

impl Launched {
    pub(super) fn heartbeat(&self) -> Option<Monotonic> {
        match self.progress {
            Progress::Alive { heartbeat } => heartbeat,
            Progress::Launching | Progress::Failed(_) | Progress::Exited(_) => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self.progress {
            Progress::Launching | Progress::Alive { .. } => false,
            Progress::Failed(_) | Progress::Exited(_) => true,
        }
    }
}
