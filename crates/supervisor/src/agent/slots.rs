//! Steps of all slots: what each one should run, and the actions that follow.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::{Agent, Phase};
use crate::{
    failures::{FailedThing, Failure},
    slot::{Blob, Launched, Observed, Progress, SlotAction, SlotState, Target},
    slot_runtime::new_worker_id,
    worker_dir,
    worker_files::HEARTBEAT_READ_PERIOD_STARTING,
};
use stormkeeper_model::{BlobKey, Port, clock::Monotonic};
use stormkeeper_topology_package::worker_report::WorkerReport;

impl Agent {
    /// Steps every slot and applies the actions. Returns the time of the step.
    pub(super) fn advance(&mut self, phase: Phase) -> Monotonic {
        let now = self.clock.monotonic();
        let targets = self.targets(phase);
        let mut wanted = self.blobs(&targets);
        if self.foreign.borrow().is_some() {
            // The own tree may need any of them.
            wanted.extend(self.localizer.present());
        }
        self.localizer.want(&wanted);
        self.publish_packages(&wanted);
        let timeouts = self.timeouts();
        let mut actions = Vec::new();
        for (port, target) in targets {
            let slot = self.slots.get_mut(&port).expect("every target has a slot");
            let held = match &target {
                Target::Worker(desired) => Some(desired),
                Target::Unknown => slot.state.desired(),
                Target::Nothing => None,
            };
            let blob = held.map_or(Blob::Fetching, |desired| self.localizer.state(&desired.blob));
            let seen = Observed {
                now,
                heartbeats_read_at: self.timers.heartbeats_read_at,
                target,
                blob,
                launched: slot.launched.clone(),
                next_worker_id: slot.next_worker_id.clone(),
                timeouts,
            };
            let state = std::mem::replace(&mut slot.state, SlotState::Empty);
            let was_running = matches!(state, SlotState::Running { .. });
            let (state, asked) = state.step(&seen);
            slot.state = state;
            actions.extend(asked.into_iter().map(|action| (port, was_running, action)));
        }
        for (port, was_running, action) in actions {
            self.record_failure(port, was_running, &action, now);
            self.act(port, action);
        }
        self.report_failures(now);
        let ports = &self.ports;
        self.slots.retain(|port, slot| ports.contains(port) || slot.state != SlotState::Empty);
        self.read_files(now);
        self.publish();
        now
    }

    fn targets(&self, phase: Phase) -> BTreeMap<Port, Target> {
        let assignments = self.sources.assignments.borrow();
        let targets = self.slots.iter().map(|(port, slot)| {
            let held = slot.state.desired().or(slot.state.worker().map(|(_, desired)| desired));
            let target = match phase {
                Phase::Stopping { .. } => Target::Nothing,
                Phase::Serving => match assignments.target(*port, held) {
                    // A port of an earlier configuration: its worker runs on while it is assigned,
                    // and no other is launched there.
                    Target::Worker(desired) if !self.ports.contains(port) => {
                        let runs = slot.state.worker().is_some_and(|(_, held)| desired.is_same_worker(held));
                        if runs { Target::Worker(desired) } else { Target::Nothing }
                    }
                    target => target,
                },
            };
            (*port, target)
        });
        targets.collect()
    }

    /// Publishes the packages that are used and unpacked here.
    fn publish_packages(&self, wanted: &BTreeSet<BlobKey>) {
        let used: BTreeSet<BlobKey> = self.localizer.present().filter(|key| wanted.contains(key)).collect();
        self.packages.send_if_modified(|packages| {
            let has_changed = *packages != used;
            *packages = used;
            has_changed
        });
    }

    /// The blobs that any slot runs or should run.
    fn blobs(&self, targets: &BTreeMap<Port, Target>) -> BTreeSet<BlobKey> {
        let assigned = targets.values().filter_map(|target| match target {
            Target::Worker(desired) => Some(desired),
            Target::Unknown | Target::Nothing => None,
        });
        let held = self.slots.values().filter_map(|slot| slot.state.desired());
        let running = self.slots.values().filter_map(|slot| slot.occupied_by().map(|(_, desired)| desired));
        assigned.chain(held).chain(running).map(|desired| desired.blob.clone()).collect()
    }

    fn act(&mut self, port: Port, action: SlotAction) {
        let slot = self.slots.get_mut(&port).expect("actions belong to slots");
        match action {
            SlotAction::Launch { worker, desired, reason } => {
                info!(%port, %worker, topology = %desired.topology, tasks = %desired.worker.tasks, %reason, "launching a worker");
                slot.launched = Some(Launched { worker: worker.clone(), progress: Progress::Launching });
                slot.desired = Some(desired.clone());
                (slot.process, slot.heartbeat, slot.reason) = (None, None, Some(reason));
                slot.is_of_topology = false;
                slot.report = WorkerReport::default();
                slot.next_worker_id = new_worker_id(port, &self.clock);
                // The first heartbeat is looked for soon.
                self.timers.heartbeats_due = self
                    .timers
                    .heartbeats_due
                    .map(|due| due.min(self.clock.monotonic().plus(HEARTBEAT_READ_PERIOD_STARTING)));
                let code = self.localizer.dir_of(&desired.blob);
                self.launcher.launch(&self.tasks, (port, worker), desired, code);
            }
            SlotAction::Signal { worker, signal, reason } => {
                info!(%port, %worker, %signal, %reason, "stopping a worker");
                slot.reason = Some(reason);
                let process = slot.process.expect("a live launch has a process");
                if let Err(error) = self.launcher.processes.signal(process, signal) {
                    warn!(%port, %worker, %error, "cannot send a signal to a worker");
                }
            }
            SlotAction::Report { worker, desired, reason } => {
                warn!(%port, %worker, topology = %desired.topology, %reason, "a worker failed");
                slot.reason = Some(reason.clone());
                let dir = worker_dir::path(&self.launcher.local_dir, &worker);
                let what = FailedThing::Worker { worker, reason, dir };
                self.reporter.report(Failure { port, desired, what });
            }
        }
    }
}
