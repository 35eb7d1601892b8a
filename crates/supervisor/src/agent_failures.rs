//! Failures that the agent meets: counted, and reported in the record of the supervisor and as task
//! errors.

use crate::{
    agent::Agent,
    failures::{FailedThing, Failure},
    localize::Outcome,
    process::ExitReport,
    slot::{Launched, Progress, SlotAction, SlotReason, SlotState},
    slot_runtime::SlotRuntime,
};
use stormkeeper_model::{Port, clock::Monotonic};

impl Agent {
    /// Records a failed attempt as a failure of every slot that waits for the blob.
    pub(super) fn on_localized(&mut self, outcome: Outcome) {
        let (key, reason, everywhere) = match outcome {
            Outcome::Arrived(key) => return self.localizer.arrived(key),
            Outcome::Failed { key, reason, everywhere } => (key, reason, everywhere),
        };
        let now = self.clock.monotonic();
        for (port, slot) in &self.slots {
            let SlotState::Localizing { desired, .. } = &slot.state else { continue };
            if desired.blob != key {
                continue;
            }
            self.failures.code_failed(*port, desired, (&reason, everywhere), now);
            let what = FailedThing::Code { reason: reason.clone() };
            self.reporter.report(Failure { port: *port, desired: desired.clone(), what });
        }
    }

    /// Counts the failure of a worker that an action reports or repairs.
    pub(super) fn record_failure(
        &mut self,
        port: Port,
        was_running: bool,
        action: &SlotAction,
        now: Monotonic,
    ) {
        match action {
            SlotAction::Report { desired, reason, .. } => {
                let had_heartbeat = was_running || matches!(reason, SlotReason::HeartbeatTimedOut { .. });
                let is_of_topology = self.slots.get(&port).is_some_and(|slot| slot.is_of_topology);
                let reason = reason.to_string();
                match had_heartbeat {
                    // The supervisor offers the slot no more, and reports that as a problem of the slot.
                    _ if self.taken_ports.is_taken(port) => {}
                    true => self.failures.worker_ended(port, desired, &reason, now),
                    false if is_of_topology => self.failures.topology_failed(port, desired, &reason, now),
                    false => self.failures.launch_failed(port, desired, &reason, now),
                }
            }
            // An exit with status 0 is not reported: such a worker was mostly no longer assigned.
            SlotAction::Launch { desired, reason: SlotReason::RelaunchDue { .. }, .. } => {
                let launched = self.slots.get(&port).and_then(|slot| slot.launched.as_ref());
                if let Some(Launched { progress: Progress::Exited(report @ ExitReport::Code(0)), .. }) =
                    launched
                {
                    self.failures.worker_ended(port, desired, &report.to_string(), now);
                }
            }
            SlotAction::Launch { .. } | SlotAction::Signal { .. } => {}
        }
    }

    /// Returns whether the user of a worker may have ended it with a signal: other processes of that user
    /// can, also before the worker has written a heartbeat.
    pub(super) fn may_have_been_killed_by_its_user(&self, report: ExitReport) -> bool {
        self.launcher.defaults.run_as.is_some() && matches!(report, ExitReport::Signal(_))
    }

    /// Reports the failures in the record of this supervisor, if they changed.
    pub(super) fn report_failures(&mut self, now: Monotonic) {
        let slots = &self.slots;
        self.failures.retain_components(|port| slots.get(&port).is_some_and(SlotRuntime::is_alive));
        let n_starts = self.starts.n_restarts(now);
        if let Some(failures) = self.failures.report(n_starts, now) {
            self.registration.set_failures(failures.to_vec());
        }
    }
}
