//! The life of one slot as a pure state machine.
//!
//! ```text
//!            assigned             blob there            first heartbeat
//!   empty ─────────────▶ localizing ────────▶ starting ────────────────▶ running
//!     ▲                      ▲                   │  │                      │  │
//!     │ nothing assigned     │ new worker wanted │  └───── exit ─┐  exit ──┘  │
//!     │                      │                   ▼               ▼            │
//!     └──────────────────────┴──── gone ──── stopping ──────▶ relaunching     │
//!                                                ▲  (silent)     │ due ─▶ starting
//!                                                └───────────────│────────────┘
//!                                  reassigned, unassigned, silent
//! ```
//!
//! [`SlotState::step`] looks at an [`Observed`] and answers the next state with the
//! [`Action`]s to take. It never waits, reads no clock and does no I/O. What it keeps true:
//!
//! - There is at most one process in a slot: a launch is asked for only when the process of
//!   the launch before is known to be gone.
//! - Not knowing what is wanted ([`Wanted::Unknown`]) never stops a process, and one that
//!   crashes meanwhile is launched again.
//! - Stepping twice with the same observation changes nothing the second time.

mod reason;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use reason::Reason;

use crate::{
    clock::Monotonic,
    model::{BlobKey, TopologyId, WorkerId, assignment::AssignedWorker},
    supervisor::process::{ExitReport, StopSignal},
};

/// A worker that ran for this long with its heartbeat seen is healthy: its next crash is the
/// first of a row.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The longest pause before a crashing worker is launched again: long enough to cost nothing,
/// short enough that a repaired topology is back while its author still looks.
pub const RELAUNCH_DELAY_MAX: Duration = Duration::from_secs(60);

/// How soon a worker that left by itself, with status 0, is launched again. It usually saw
/// before its supervisor that the slot is no longer its own.
pub const CLEAN_EXIT_PAUSE: Duration = Duration::from_millis(500);

/// How often SIGKILL is sent again to a process that does not go.
pub const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The worker that a slot is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Its topology.
    pub topology: TopologyId,
    /// Its tasks and the time of its placement.
    #[serde(flatten)]
    pub worker: AssignedWorker,
    /// What it runs.
    pub blob: BlobKey,
}

impl Desired {
    /// Whether a process launched for `self` is what `other` asks for.
    pub fn is_same_worker(&self, other: &Self) -> bool {
        self.topology == other.topology
            && self.worker.tasks == other.worker.tasks
            && self.worker.start == other.worker.start
    }
}

/// What the cluster wants of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nobody knows: the orders could not be read. Whatever is there stays.
    Unknown,
    /// The slot is to be empty.
    Nothing,
    /// This worker.
    Worker(Desired),
}

/// How far the blob of the wanted worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blob {
    /// Unpacked on disk.
    Present,
    /// Not here yet, or a try failed; it is being fetched for as long as it is wanted.
    Fetching,
}

/// How far the last launch in a slot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Launching,
    /// No process was started.
    Failed(Arc<str>),
    /// There is a process.
    Alive {
        /// When its heartbeat was last seen to change, by our clock.
        beat: Option<Monotonic>,
    },
    /// The process is gone.
    Exited(ExitReport),
}

/// The last launch in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Which one.
    pub worker: WorkerId,
    /// How far it is.
    pub progress: Progress,
}

/// The patience of a supervisor with its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From launch to the first heartbeat.
    pub start: Duration,
    /// Between two heartbeats.
    pub silence: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// What a step looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The time of the observation.
    pub now: Monotonic,
    /// When the heartbeats were last looked at. Silence is judged by this: a supervisor that
    /// was held up itself has not seen the heartbeats of that time.
    pub looked: Monotonic,
    /// What the slot is to run.
    pub wanted: Wanted,
    /// The blob of the wanted worker or, while that is unknown, of the one that is held.
    pub blob: Blob,
    /// The last launch, also when its process is gone.
    pub launched: Option<Launched>,
    /// An id that no launch had yet, for the next one.
    pub fresh: WorkerId,
    /// How long to wait for what.
    pub patience: Patience,
}

/// Something to do for a slot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Launch {
        /// The id of this launch.
        worker: WorkerId,
        /// What it is to run.
        desired: Desired,
        /// Why.
        reason: Reason,
    },
    /// Signal the process group of a launch.
    Signal {
        /// Which launch.
        worker: WorkerId,
        /// The signal.
        signal: StopSignal,
        /// Why.
        reason: Reason,
    },
    /// Tell the author and the operator that a launch failed them.
    Report {
        /// Which launch.
        worker: WorkerId,
        /// What it was to run.
        desired: Desired,
        /// How it failed.
        reason: Reason,
    },
}

/// The condition of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing runs and nothing is to run.
    Empty,
    /// Waits for the blob.
    Localizing {
        /// What will be launched.
        desired: Desired,
        /// Launches in a row that failed before.
        n_failures: u32,
    },
    /// Launched, no heartbeat seen yet.
    Starting {
        /// The launch.
        worker: WorkerId,
        /// What it runs.
        desired: Desired,
        /// When the launch was asked for.
        since: Monotonic,
        /// Launches in a row that failed before.
        n_failures: u32,
    },
    /// Its heartbeat was seen.
    Running {
        /// The launch.
        worker: WorkerId,
        /// What it runs.
        desired: Desired,
        /// When its first heartbeat was seen, or when it was adopted.
        since: Monotonic,
        /// Launches in a row that failed before.
        n_failures: u32,
    },
    /// Its process is to go.
    Stopping {
        /// The launch.
        worker: WorkerId,
        /// What it runs.
        desired: Desired,
        /// Why it is stopped.
        reason: Reason,
        /// The last signal and when it was sent; none before there is a process.
        signalled: Option<(StopSignal, Monotonic)>,
        /// Launches in a row that failed, this one included if it did.
        n_failures: u32,
    },
    /// Its process is gone and is launched again after a pause.
    Relaunching {
        /// What will be launched.
        desired: Desired,
        /// When.
        due: Monotonic,
        /// Launches in a row that failed.
        n_failures: u32,
    },
}

impl SlotState {
    /// The state of a slot whose process was found alive by a supervisor that just started.
    pub fn adopted(worker: WorkerId, desired: Desired, now: Monotonic) -> Self {
        Self::Running { worker, desired, since: now, n_failures: 0 }
    }

    /// The next state and what to do to get there.
    pub fn step(self, seen: &Observed) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let mut state = self;
        // No state can be entered twice without the observation changing, so this ends.
        loop {
            let before = state.clone();
            state = state.advance(seen, &mut actions);
            if state == before {
                return (state, actions);
            }
        }
    }

    fn advance(self, seen: &Observed, actions: &mut Vec<Action>) -> Self {
        match self {
            Self::Empty => match &seen.wanted {
                Wanted::Worker(desired) => Self::Localizing { desired: desired.clone(), n_failures: 0 },
                Wanted::Unknown | Wanted::Nothing => Self::Empty,
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
            Self::Relaunching { desired, due, n_failures } => match changed(&desired, &seen.wanted) {
                Some(_) => Self::Empty,
                None if seen.now >= due => Self::Localizing { desired, n_failures },
                None => Self::Relaunching { desired, due, n_failures },
            },
        }
    }

    /// What the slot holds or is about to hold; what is being stopped is not held.
    pub fn desired(&self) -> Option<&Desired> {
        match self {
            Self::Empty | Self::Stopping { .. } => None,
            Self::Localizing { desired, .. }
            | Self::Starting { desired, .. }
            | Self::Running { desired, .. }
            | Self::Relaunching { desired, .. } => Some(desired),
        }
    }

    /// The launch whose process is or may be there.
    pub fn worker(&self) -> Option<(&WorkerId, &Desired)> {
        match self {
            Self::Empty | Self::Localizing { .. } | Self::Relaunching { .. } => None,
            Self::Starting { worker, desired, .. }
            | Self::Running { worker, desired, .. }
            | Self::Stopping { worker, desired, .. } => Some((worker, desired)),
        }
    }

    /// When a step may do something although nothing else happened.
    pub fn deadline(&self, launched: Option<&Launched>, patience: &Patience) -> Option<Monotonic> {
        match self {
            Self::Empty | Self::Localizing { .. } => None,
            Self::Starting { since, .. } => Some(since.plus(patience.start)),
            Self::Running { worker, since, .. } => {
                let beat = launched.filter(|l| l.worker == *worker).and_then(Launched::beat);
                Some((*since).max(beat.unwrap_or(*since)).plus(patience.silence))
            }
            Self::Stopping { signalled, .. } => signalled.map(|(signal, at)| match signal {
                StopSignal::Terminate => at.plus(patience.grace),
                StopSignal::Kill => at.plus(KILL_AGAIN_AFTER),
            }),
            Self::Relaunching { due, .. } => Some(*due),
        }
    }

    /// One word for logs and status pages.
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

impl Launched {
    fn beat(&self) -> Option<Monotonic> {
        match self.progress {
            Progress::Alive { beat } => beat,
            Progress::Launching | Progress::Failed(_) | Progress::Exited(_) => None,
        }
    }

    fn is_over(&self) -> bool {
        match self.progress {
            Progress::Launching | Progress::Alive { .. } => false,
            Progress::Failed(_) | Progress::Exited(_) => true,
        }
    }
}

/// Why what is held must go, if it must.
fn changed(held: &Desired, wanted: &Wanted) -> Option<Reason> {
    match wanted {
        Wanted::Unknown => None,
        Wanted::Nothing => Some(Reason::Unassigned),
        Wanted::Worker(desired) if desired.is_same_worker(held) => None,
        Wanted::Worker(_) => Some(Reason::Reassigned),
    }
}

fn localizing(held: Desired, n_failures: u32, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
    if changed(&held, &seen.wanted).is_some() {
        return SlotState::Empty;
    }
    // The rest of the record (host, blob) may differ though it is the same worker.
    let desired = match &seen.wanted {
        Wanted::Worker(desired) => desired.clone(),
        Wanted::Unknown | Wanted::Nothing => held,
    };
    let occupied = seen.launched.as_ref().is_some_and(|launched| !launched.is_over());
    if seen.blob == Blob::Fetching || occupied {
        return SlotState::Localizing { desired, n_failures };
    }
    let reason = match n_failures {
        0 => Reason::Assigned,
        n_failures => Reason::RelaunchDue { n_failures },
    };
    let worker = seen.fresh.clone();
    actions.push(Action::Launch { worker: worker.clone(), desired: desired.clone(), reason });
    SlotState::Starting { worker, desired, since: seen.now, n_failures }
}

/// A launch that is wanted: starting or running.
struct Live {
    worker: WorkerId,
    desired: Desired,
    since: Monotonic,
    n_failures: u32,
}

impl Live {
    fn starting(self, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
        if let Some(reason) = changed(&self.desired, &seen.wanted) {
            return self.stop(reason, StopCounts::No);
        }
        match self.progress(seen) {
            Some(Progress::Failed(cause)) => self.failed(Reason::LaunchFailed { cause }, seen, actions),
            Some(Progress::Exited(report)) => self.failed(Reason::Exited { report }, seen, actions),
            Some(Progress::Alive { beat: Some(_) }) => SlotState::Running {
                worker: self.worker,
                desired: self.desired,
                since: seen.now,
                n_failures: self.n_failures,
            },
            Some(Progress::Alive { beat: None }) if seen.looked.since(self.since) >= seen.patience.start => {
                let reason = Reason::StartTimedOut { after: seen.looked.since(self.since) };
                self.report(reason.clone(), actions);
                self.stop(reason, StopCounts::Yes)
            }
            Some(Progress::Alive { beat: None } | Progress::Launching) | None => self.into_starting(),
        }
    }

    fn running(mut self, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
        if let Some(reason) = changed(&self.desired, &seen.wanted) {
            return self.stop(reason, StopCounts::No);
        }
        let healthy = seen.now.since(self.since) >= HEALTHY_AFTER;
        if healthy {
            self.n_failures = 0;
        }
        match self.progress(seen) {
            Some(Progress::Failed(cause)) => self.failed(Reason::LaunchFailed { cause }, seen, actions),
            Some(Progress::Exited(report)) => self.crashed(report, seen, actions),
            Some(Progress::Alive { beat }) => {
                let silent = seen.looked.since(beat.unwrap_or(self.since).max(self.since));
                if silent < seen.patience.silence {
                    return self.into_running();
                }
                let reason = Reason::HeartbeatTimedOut { silent };
                self.report(reason.clone(), actions);
                self.stop(reason, StopCounts::Yes)
            }
            Some(Progress::Launching) | None => self.into_running(),
        }
    }

    /// A worker that had a heartbeat is back at once the first time in a row, and backs off
    /// like any other from then on.
    fn crashed(self, report: ExitReport, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
        let reason = Reason::Exited { report };
        let pause = match (report, self.n_failures) {
            // An adopted worker's status is not known: it may have left because it saw before
            // us that it is assigned no more.
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

    /// A launch that never got as far as a heartbeat.
    fn failed(self, reason: Reason, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
        self.report(reason, actions);
        let n_failures = self.n_failures.saturating_add(1);
        SlotState::Relaunching {
            desired: self.desired,
            due: seen.now.plus(relaunch_delay(n_failures)),
            n_failures,
        }
    }

    fn stop(self, reason: Reason, counts: StopCounts) -> SlotState {
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

    fn report(&self, reason: Reason, actions: &mut Vec<Action>) {
        let (worker, desired) = (self.worker.clone(), self.desired.clone());
        actions.push(Action::Report { worker, desired, reason });
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

/// Whether a stop is a failure of the worker, to be followed by a pause.
enum StopCounts {
    Yes,
    No,
}

/// A launch that is to go.
struct Leaving {
    worker: WorkerId,
    desired: Desired,
    reason: Reason,
    signalled: Option<(StopSignal, Monotonic)>,
    n_failures: u32,
}

fn stopping(mut leaving: Leaving, seen: &Observed, actions: &mut Vec<Action>) -> SlotState {
    match progress_of(&leaving.worker, seen) {
        Some(Progress::Failed(_) | Progress::Exited(_)) => return gone(leaving, seen),
        Some(Progress::Alive { .. }) => {
            let next = match leaving.signalled {
                None => Some(StopSignal::Terminate),
                Some((StopSignal::Terminate, at)) if seen.now.since(at) >= seen.patience.grace => {
                    leaving.reason = Reason::GraceOver { cause: Box::new(leaving.reason) };
                    Some(StopSignal::Kill)
                }
                Some((StopSignal::Kill, at)) if seen.now.since(at) >= KILL_AGAIN_AFTER => {
                    Some(StopSignal::Kill)
                }
                Some(_) => None,
            };
            if let Some(signal) = next {
                leaving.signalled = Some((signal, seen.now));
                let (worker, reason) = (leaving.worker.clone(), leaving.reason.clone());
                actions.push(Action::Signal { worker, signal, reason });
            }
        }
        // The launch is still under way: its process is stopped as soon as there is one.
        Some(Progress::Launching) | None => {}
    }
    let Leaving { worker, desired, reason, signalled, n_failures } = leaving;
    SlotState::Stopping { worker, desired, reason, signalled, n_failures }
}

/// Where a slot goes when the process that was stopped is gone.
fn gone(left: Leaving, seen: &Observed) -> SlotState {
    let was_at_fault = left.reason.is_workers_fault();
    match changed(&left.desired, &seen.wanted) {
        None if was_at_fault => SlotState::Relaunching {
            desired: left.desired,
            due: seen.now.plus(relaunch_delay(left.n_failures)),
            n_failures: left.n_failures,
        },
        // It was stopped as unwanted: it comes back only when it is surely wanted again.
        None | Some(_) => SlotState::Empty,
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
