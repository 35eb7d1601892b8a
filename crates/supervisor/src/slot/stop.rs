//! The end of a launch that is being stopped.

use super::{
    DesiredWorker, KILL_AGAIN_AFTER, Observed, Progress, SlotAction, SlotReason, SlotState, progress_of,
    reason_to_stop, relaunch_delay,
};
use crate::process::StopSignal;
use stormkeeper_model::{WorkerId, clock::Monotonic};

/// Treatment of a stop: `Yes` counts it as a failure of the worker, which causes a pause.
pub(super) enum StopCounts {
    Yes,
    No,
}

/// A launch that is being stopped.
pub(super) struct Leaving {
    pub(super) worker: WorkerId,
    pub(super) desired: DesiredWorker,
    pub(super) reason: SlotReason,
    pub(super) signalled: Option<(StopSignal, Monotonic)>,
    pub(super) n_failures: u32,
}

pub(super) fn stopping(mut leaving: Leaving, seen: &Observed, actions: &mut Vec<SlotAction>) -> SlotState {
    match progress_of(&leaving.worker, seen) {
        Some(Progress::Failed(_) | Progress::Exited(_)) => return gone(leaving, seen),
        Some(Progress::Alive { .. }) => {
            let next = match leaving.signalled {
                None => Some(StopSignal::Terminate),
                Some((StopSignal::Terminate, at)) if seen.now.since(at) >= seen.timeouts.grace => {
                    leaving.reason = SlotReason::GraceOver { cause: Box::new(leaving.reason) };
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
                actions.push(SlotAction::Signal { worker, signal, reason });
            }
        }
        // The launch is under way: its process is stopped as soon as it exists.
        Some(Progress::Launching) | None => {}
    }
    let Leaving { worker, desired, reason, signalled, n_failures } = leaving;
    SlotState::Stopping { worker, desired, reason, signalled, n_failures }
}

/// The state after a stopped process has ended.
pub(super) fn gone(left: Leaving, seen: &Observed) -> SlotState {
    let was_at_fault = left.reason.is_workers_fault();
    match reason_to_stop(&left.desired, &seen.target) {
        None if was_at_fault => SlotState::Relaunching {
            desired: left.desired,
            due: seen.now.plus(relaunch_delay(left.n_failures)),
            n_failures: left.n_failures,
        },
        // The worker was stopped as unassigned: it returns only when it is known to be assigned.
        None | Some(_) => SlotState::Empty,
    }
}
