//! A slot of this host: its state and its last launch.

use tracing::warn;

use crate::{
    process::ProcessId,
    slot::{DesiredWorker, Launched, Progress, SlotReason, SlotState},
    status::SlotStatus,
    worker_dir::Heartbeat,
};
use stormkeeper_model::{
    Port, WorkerId,
    clock::{Clock, Monotonic},
};
use stormkeeper_topology_package::worker_report::WorkerReport;

/// Number of heartbeats in memory alone that are reported: one may be read before its file.
const UNWRITTEN_HEARTBEATS: u32 = 2;

/// A slot with its last launch, whose process may have ended.
#[derive(Debug)]
pub(super) struct SlotRuntime {
    pub(super) state: SlotState,
    pub(super) launched: Option<Launched>,
    /// The process of the last launch.
    pub(super) process: Option<ProcessId>,
    /// The worker of the last launch.
    pub(super) desired: Option<DesiredWorker>,
    /// The heartbeat of the last launch, as last read.
    pub(super) heartbeat: Option<Heartbeat>,
    /// True if the last launch failed or ended for a reason that may be in its topology: its owner may not
    /// run here, or it ended after its first heartbeat.
    pub(super) is_of_topology: bool,
    /// Number of heartbeats in a row that only the worker's memory had.
    n_in_memory: u32,
    /// The report of the last launch about itself, as last read.
    pub(super) report: WorkerReport,
    /// The id of the next launch.
    pub(super) next_worker_id: WorkerId,
    /// Reason of the last action.
    pub(super) reason: Option<SlotReason>,
}

impl SlotRuntime {
    /// A slot without a launch.
    pub(super) fn new(next_worker_id: WorkerId) -> Self {
        let state = SlotState::Empty;
        Self {
            state,
            launched: None,
            process: None,
            desired: None,
            heartbeat: None,
            is_of_topology: false,
            n_in_memory: 0,
            report: WorkerReport::default(),
            next_worker_id,
            reason: None,
        }
    }

    /// A slot whose process was found alive by a starting supervisor.
    pub(super) fn adopted(
        next_worker_id: WorkerId,
        (worker, process): (WorkerId, ProcessId),
        desired: DesiredWorker,
        now: Monotonic,
    ) -> Self {
        let progress = Progress::Alive { heartbeat: None };
        Self {
            state: SlotState::adopted(worker.clone(), desired.clone(), now),
            launched: Some(Launched { worker, progress }),
            process: Some(process),
            desired: Some(desired),
            heartbeat: None,
            is_of_topology: false,
            n_in_memory: 0,
            report: WorkerReport::default(),
            next_worker_id,
            reason: None,
        }
    }

    /// Keeps a heartbeat that has changed, and says once if its file has not.
    pub(super) fn note_heartbeat(&mut self, port: Port, heartbeat: Heartbeat) {
        let is_in_file = self.heartbeat.as_ref().is_none_or(|last| last.file != heartbeat.file);
        self.n_in_memory = if is_in_file { 0 } else { self.n_in_memory.saturating_add(1) };
        if self.n_in_memory == UNWRITTEN_HEARTBEATS {
            let worker = self.launched.as_ref().map(|launched| launched.worker.to_string());
            warn!(
                %port, worker,
                "a worker lives and cannot write its heartbeat file: its disk is full or its directory was deleted"
            );
        }
        self.heartbeat = Some(heartbeat);
    }

    /// The problem of a worker whose heartbeat is in its memory only.
    pub(super) fn unwritten_heartbeat(&self) -> Option<&'static str> {
        let text = "it lives and cannot write its heartbeat file: its disk is full or read-only, or its directory was \
                    deleted or moved; it runs on. Make room there, or start it again (`rebalance --restart`)";
        (self.n_in_memory >= UNWRITTEN_HEARTBEATS).then_some(text)
    }

    /// The launch `worker`, if it is still the last launch of the slot.
    pub(super) fn launch(&mut self, worker: &WorkerId) -> Option<&mut Launched> {
        self.launched.as_mut().filter(|launched| launched.worker == *worker)
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(&self.launched, Some(Launched { progress: Progress::Alive { .. }, .. }))
    }

    /// The launch whose process exists or is being started, with its worker.
    pub(super) fn occupied_by(&self) -> Option<(&WorkerId, &DesiredWorker)> {
        match &self.launched.as_ref()?.progress {
            Progress::Launching | Progress::Alive { .. } => {
                Some((&self.launched.as_ref()?.worker, self.desired.as_ref()?))
            }
            Progress::Failed(_) | Progress::Exited(_) => None,
        }
    }

    pub(super) fn status(&self) -> SlotStatus {
        let worker = self.state.worker();
        let desired = self.state.desired().or(worker.map(|(_, desired)| desired));
        SlotStatus {
            state: self.state.name(),
            topology: desired.map(|desired| desired.topology.clone()),
            worker: worker.map(|(worker, _)| worker.clone()),
            process: self.process.filter(|_| self.is_alive()),
            reason: self.reason.as_ref().map(ToString::to_string),
        }
    }
}

/// A new id for a launch in the slot at `port`.
pub(super) fn new_worker_id(port: Port, clock: &Clock) -> WorkerId {
    let secs = clock.now().as_millis() / 1000;
    format!("{port}-{secs}-{:06x}", fastrand::u32(..1 << 24)).parse().expect("digits and dashes make an id")
}
