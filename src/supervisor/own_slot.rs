//! A slot of this machine: its state, and what is known of its last launch.

use crate::{
    clock::{Clock, Monotonic},
    model::{Port, WorkerId},
    supervisor::{
        process::ProcessId,
        slot::{Desired, Launched, Progress, Reason, SlotState},
        status::SlotStatus,
        worker_dir::Beat,
    },
};

/// A slot with its last launch, whose process may be gone.
#[derive(Debug)]
pub(super) struct OwnSlot {
    pub(super) state: SlotState,
    pub(super) launched: Option<Launched>,
    /// The process of the last launch.
    pub(super) process: Option<ProcessId>,
    /// What the last launch runs.
    pub(super) desired: Option<Desired>,
    /// Its heartbeat file as it was last seen.
    pub(super) beat: Option<Beat>,
    /// The id of the next launch.
    pub(super) fresh: WorkerId,
    /// Why it did last what it did.
    pub(super) reason: Option<Reason>,
}

impl OwnSlot {
    /// A slot without a launch.
    pub(super) fn new(fresh: WorkerId) -> Self {
        let state = SlotState::Empty;
        Self { state, launched: None, process: None, desired: None, beat: None, fresh, reason: None }
    }

    /// A slot whose process was found.
    pub(super) fn adopted(
        fresh: WorkerId,
        (worker, process): (WorkerId, ProcessId),
        desired: Desired,
        now: Monotonic,
    ) -> Self {
        let progress = Progress::Alive { beat: None };
        Self {
            state: SlotState::adopted(worker.clone(), desired.clone(), now),
            launched: Some(Launched { worker, progress }),
            process: Some(process),
            desired: Some(desired),
            beat: None,
            fresh,
            reason: None,
        }
    }

    /// The launch `worker`, if it is still the slot's.
    pub(super) fn launch(&mut self, worker: &WorkerId) -> Option<&mut Launched> {
        self.launched.as_mut().filter(|launched| launched.worker == *worker)
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(&self.launched, Some(Launched { progress: Progress::Alive { .. }, .. }))
    }

    /// What its process runs, or is about to run.
    pub(super) fn occupied_by(&self) -> Option<(&WorkerId, &Desired)> {
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
pub(super) fn fresh_worker(port: Port, clock: &Clock) -> WorkerId {
    let secs = clock.now().as_millis() / 1000;
    format!("{port}-{secs}-{:06x}", fastrand::u32(..1 << 24)).parse().expect("digits and dashes make an id")
}
