//! The states of one slot as a pure state machine.
//!
//! ```text
//!            assigned             blob there            first heartbeat
//!   empty ─────────────▶ localizing ────────▶ starting ────────────────▶ running
//!     ▲                      ▲                   │  │                      │  │
//!     │ nothing assigned     │ other worker      │  └───── exit ─┐  exit ──┘  │
//!     │                      │                   ▼               ▼            │
//!     └──────────────────────┴──── gone ──── stopping ──────▶ relaunching     │
//!                                                ▲  (silent)     │ due ─▶ starting
//!                                                └───────────────│────────────┘
//!                                  reassigned, unassigned, silent
//! ```
//!
//! [`SlotState::step`] takes an [`Observed`] and returns the next state with the [`SlotAction`]s to
//! take. It never waits, reads no clock and does no I/O. Invariants:
//!
//! - There is at most one process in a slot: a launch is requested only when the process of the
//!   previous launch is known to have ended.
//! - An unknown target ([`Target::Unknown`]) never stops a process, and a process that crashes
//!   meanwhile is launched again.
//! - A second step with the same observation changes nothing.

mod observed;
mod reason;
mod stop;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use observed::{Blob, DesiredWorker, Launched, Observed, Progress, Target, WorkerTimeouts};
pub use reason::SlotReason;
use stop::{Leaving, StopCounts, stopping};

use crate::process::{ExitReport, StopSignal};
use stormkeeper_model::{WorkerId, clock::Monotonic};

/// Running time with a heartbeat after which a worker is healthy: its next crash counts as the
/// first in a row.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The longest pause before a crashing worker is launched again: long enough to cost nothing,
/// short enough that a repaired topology is back while its author is still watching.
pub const RELAUNCH_DELAY_MAX: Duration = Duration::from_secs(60);

/// Pause before a worker that exited by itself with status 0 is launched again. Such a worker
/// usually saw before its supervisor that the slot is no longer its own.
pub const CLEAN_EXIT_PAUSE: Duration = Duration::from_millis(500);

/// Period of sending SIGKILL again to a process that does not exit.
pub const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// An action for a slot, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotAction {
    /// Start a process.
    Launch {
        /// The id of this launch.
        worker: WorkerId,
        /// The worker to run.
        desired: DesiredWorker,
        /// Reason of the launch.
        reason: SlotReason,
    },
    /// Signal the process group of a launch.
    Signal {
        /// The id of the launch.
        worker: WorkerId,
        /// The signal.
        signal: StopSignal,
        /// Reason of the signal.
        reason: SlotReason,
    },
    /// Report a failed launch to the author of the topology and to the operator.
    Report {
        /// The id of the launch.
        worker: WorkerId,
        /// The worker that was launched.
        desired: DesiredWorker,
        /// The failure.
        reason: SlotReason,
    },
}

/// The condition of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing runs and nothing should run.
    Empty,
    /// Waits for the blob.
    Localizing {
        /// The worker to launch.
        desired: DesiredWorker,
        /// Failed launches in a row before.
        n_failures: u32,
    },
    /// Launched, no heartbeat seen yet.
    Starting {
        /// The launch.
        worker: WorkerId,
        /// The worker that the launch runs.
        desired: DesiredWorker,
        /// Time of the launch action.
        since: Monotonic,
        /// Failed launches in a row before.
        n_failures: u32,
    },
    /// The launch has written a heartbeat.
    Running {
        /// The launch.
        worker: WorkerId,
        /// The worker that the launch runs.
        desired: DesiredWorker,
        /// Time of the first heartbeat, or of the adoption.
        since: Monotonic,
        /// Failed launches in a row before.
        n_failures: u32,
    },
    /// The process of the launch must end.
    Stopping {
        /// The launch.
        worker: WorkerId,
        /// The worker that the launch runs.
        desired: DesiredWorker,
        /// Reason of the stop.
        reason: SlotReason,
        /// The last signal and its time; none before there is a process.
        signalled: Option<(StopSignal, Monotonic)>,
        /// Failed launches in a row, including this one if it failed.
        n_failures: u32,
    },
    /// The process has ended and is launched again after a pause.
    Relaunching {
        /// The worker to launch.
        desired: DesiredWorker,
        /// Time of the next launch.
        due: Monotonic,
        /// Failed launches in a row.
        n_failures: u32,
    },
}

impl SlotState {
    /// The state of a slot in which a starting supervisor found a live process.
    pub fn adopted(worker: WorkerId, desired: DesiredWorker, now: Monotonic) -> Self {
        Self::Running { worker, desired, since: now, n_failures: 0 }
    }

    /// Returns the next state and the actions that lead to it.
    pub fn step(self, seen: &Observed) -> (Self, Vec<SlotAction>) {
        let mut actions = Vec::new();
        let mut state = self;
        // No state is entered twice without a change of the observation, so this loop ends.
        loop {
            let before = state.clone();
            state = state.advance(seen, &mut actions);
            if state == before {
                return (state, actions);
            }
        }
    }

    fn advance(self, seen: &Observed, actions: &mut Vec<SlotAction>) -> Self {
        match self {
            Self::Empty => match &seen.target {
                Target::Worker(desired) => Self::Localizing { desired: desired.clone(), n_failures: 0 },
                Target::Unknown | Target::Nothing => Self::Empty,
            },
            Self::Localizing { desired, n_failures } => localizing(desired, n_failures, seen, actions),
            Self::Starting { worker, desired, since, n_failures } => {
                Live { worker, desired, since, n_failures }.starting(seen, actions)
            }
            Self::Running { worker, desired, since, n_failures } => {
                Live { worker, desired, since, n_failures }.running(seen, actions)
            }
            Self::Stopping { worker, desired, reason, signalled, n_failures } => {
                stopping(Leaving { worker, desired, reason, signalled, n_failures }, seen, actions)
            }
            Self::Relaunching { desired, due, n_failures } => match reason_to_stop(&desired, &seen.target) {
                Some(_) => Self::Empty,
                None if seen.now >= due => Self::Localizing { desired, n_failures },
                None => Self::Relaunching { desired, due, n_failures },
            },
        }
    }

    /// Ends the pause before a launch: what made the last one fail is gone.
    pub fn relaunch_now(&mut self, now: Monotonic) {
        if let Self::Relaunching { due, .. } = self {
            *due = (*due).min(now);
        }
    }

    /// The worker that the slot runs or is about to run; none while it is being stopped.
    pub fn desired(&self) -> Option<&DesiredWorker> {
        match self {
            Self::Empty | Self::Stopping { .. } => None,
            Self::Localizing { desired, .. }
            | Self::Starting { desired, .. }
            | Self::Running { desired, .. }
            | Self::Relaunching { desired, .. } => Some(desired),
        }
    }

    /// The launch whose process exists or may exist.
    pub fn worker(&self) -> Option<(&WorkerId, &DesiredWorker)> {
        match self {
            Self::Empty | Self::Localizing { .. } | Self::Relaunching { .. } => None,
            Self::Starting { worker, desired, .. }
            | Self::Running { worker, desired, .. }
            | Self::Stopping { worker, desired, .. } => Some((worker, desired)),
        }
    }

    /// Time at which a step may act although nothing else happened.
    pub fn deadline(&self, launched: Option<&Launched>, timeouts: &WorkerTimeouts) -> Option<Monotonic> {
        match self {
            Self::Empty | Self::Localizing { .. } => None,
            Self::Starting { since, .. } => Some(since.plus(timeouts.start)),
            Self::Running { worker, since, .. } => {
                let heartbeat = launched.filter(|l| l.worker == *worker).and_then(Launched::heartbeat);
                Some((*since).max(heartbeat.unwrap_or(*since)).plus(timeouts.silence))
            }
            Self::Stopping { signalled, .. } => signalled.map(|(signal, at)| match signal {
                StopSignal::Terminate => at.plus(timeouts.grace),
                StopSignal::Kill => at.plus(KILL_AGAIN_AFTER),
            }),
            Self::Relaunching { due, .. } => Some(*due),
        }
    }

    /// Name of the state, for logs and status pages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Localizing { .. } => "localizing",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Relaunching { .. } => "relaunching",
        }
    }
}

/// Reason for which the worker in the slot must stop, if it must.
fn reason_to_stop(held: &DesiredWorker, target: &Target) -> Option<SlotReason> {
    match target {
        Target::Unknown => None,
        Target::Nothing => Some(SlotReason::Unassigned),
        Target::Worker(desired) if desired.is_same_worker(held) => None,
        Target::Worker(_) => Some(SlotReason::Reassigned),
    }
}

fn localizing(
    held: DesiredWorker,
    n_failures: u32,
    seen: &Observed,
    actions: &mut Vec<SlotAction>,
) -> SlotState {
    if reason_to_stop(&held, &seen.target).is_some() {
        return SlotState::Empty;
    }
    // The rest of the record (host, blob) may differ for the same worker.
    let desired = match &seen.target {
        Target::Worker(desired) => desired.clone(),
        Target::Unknown | Target::Nothing => held,
    };
    let occupied = seen.launched.as_ref().is_some_and(|launched| !launched.is_over());
    if seen.blob == Blob::Fetching || occupied {
        return SlotState::Localizing { desired, n_failures };
    }
    let reason = match n_failures {
        0 => SlotReason::Assigned,
        n_failures => SlotReason::RelaunchDue { n_failures },
    };
    let worker = seen.next_worker_id.clone();
    actions.push(SlotAction::Launch { worker: worker.clone(), desired: desired.clone(), reason });
    SlotState::Starting { worker, desired, since: seen.now, n_failures }
}

/// A starting or running launch that the slot should keep.
struct Live {
    worker: WorkerId,
    desired: DesiredWorker,
    since: Monotonic,
    n_failures: u32,
}

impl Live {
    fn starting(self, seen: &Observed, actions: &mut Vec<SlotAction>) -> SlotState {
        if let Some(reason) = reason_to_stop(&self.desired, &seen.target) {
            return self.stop(reason, StopCounts::No);
        }
        match self.progress(seen) {
            Some(Progress::Failed(cause)) => self.failed(SlotReason::LaunchFailed { cause }, seen, actions),
            Some(Progress::Exited(report)) => self.failed(SlotReason::Exited { report }, seen, actions),
            Some(Progress::Alive { heartbeat: Some(_) }) => SlotState::Running {
                worker: self.worker,
                desired: self.desired,
                since: seen.now,
                n_failures: self.n_failures,
            },
            Some(Progress::Alive { heartbeat: None })
                if seen.heartbeats_read_at.since(self.since) >= seen.timeouts.start =>
            {
                let reason = SlotReason::StartTimedOut { after: seen.heartbeats_read_at.since(self.since) };
                self.report(reason.clone(), actions);
                self.stop(reason, StopCounts::Yes)
            }
            Some(Progress::Alive { heartbeat: None } | Progress::Launching) | None => self.into_starting(),
        }
    }

    fn running(mut self, seen: &Observed, actions: &mut Vec<SlotAction>) -> SlotState {
        if let Some(reason) = reason_to_stop(&self.desired, &seen.target) {
            return self.stop(reason, StopCounts::No);
        }
        let healthy = seen.now.since(self.since) >= HEALTHY_AFTER;
        if healthy {
            self.n_failures = 0;
        }
        match self.progress(seen) {
            Some(Progress::Failed(cause)) => self.failed(SlotReason::LaunchFailed { cause }, seen, actions),
            Some(Progress::Exited(report)) => self.crashed(report, seen, actions),
            Some(Progress::Alive { heartbeat }) => {
                let silent = seen.heartbeats_read_at.since(heartbeat.unwrap_or(self.since).max(self.since));
                if silent < seen.timeouts.silence {
                    return self.into_running();
                }
                let reason = SlotReason::HeartbeatTimedOut { silent };
                self.report(reason.clone(), actions);
                self.stop(reason, StopCounts::Yes)
            }
            Some(Progress::Launching) | None => self.into_running(),
        }
    }

    /// Relaunches a worker that had a heartbeat: at once after the first crash in a row, with
    /// backoff like any other launch after later crashes.
    fn crashed(self, report: ExitReport, seen: &Observed, actions: &mut Vec<SlotAction>) -> SlotState {
        let reason = SlotReason::Exited { report };
        let pause = match (report, self.n_failures) {
            // The exit status of an adopted worker is not known: it may have exited because it
            // saw before this supervisor that it is no longer assigned.
            (ExitReport::Code(0) | ExitReport::Unknown, 0) => CLEAN_EXIT_PAUSE,
            (_, 0) => Duration::ZERO,
            (_, n_before) => relaunch_delay(n_before),
        };
        if report != ExitReport::Code(0) {
            self.report(reason, actions);
        }
        SlotState::Relaunching {
            desired: self.desired,
            due: seen.now.plus(pause),
            n_failures: self.n_failures.saturating_add(1),
        }
    }

    /// Relaunches, with backoff, a worker whose last launch failed without a heartbeat.
    fn failed(self, reason: SlotReason, seen: &Observed, actions: &mut Vec<SlotAction>) -> SlotState {
        self.report(reason, actions);
        let n_failures = self.n_failures.saturating_add(1);
        SlotState::Relaunching {
            desired: self.desired,
            due: seen.now.plus(relaunch_delay(n_failures)),
            n_failures,
        }
    }

    fn stop(self, reason: SlotReason, counts: StopCounts) -> SlotState {
        let n_failures = match counts {
            StopCounts::Yes => self.n_failures.saturating_add(1),
            StopCounts::No => self.n_failures,
        };
        SlotState::Stopping {
            worker: self.worker,
            desired: self.desired,
            reason,
            signalled: None,
            n_failures,
        }
    }

    fn report(&self, reason: SlotReason, actions: &mut Vec<SlotAction>) {
        let (worker, desired) = (self.worker.clone(), self.desired.clone());
        actions.push(SlotAction::Report { worker, desired, reason });
    }

    fn progress(&self, seen: &Observed) -> Option<Progress> {
        progress_of(&self.worker, seen)
    }

    fn into_starting(self) -> SlotState {
        let Self { worker, desired, since, n_failures } = self;
        SlotState::Starting { worker, desired, since, n_failures }
    }

    fn into_running(self) -> SlotState {
        let Self { worker, desired, since, n_failures } = self;
        SlotState::Running { worker, desired, since, n_failures }
    }
}

fn progress_of(worker: &WorkerId, seen: &Observed) -> Option<Progress> {
    seen.launched.as_ref().filter(|launched| launched.worker == *worker).map(|l| l.progress.clone())
}

/// 1, 2, 4, … seconds.
fn relaunch_delay(n_failures: u32) -> Duration {
    let secs = 1u64.checked_shl(n_failures.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(secs).min(RELAUNCH_DELAY_MAX)
}
