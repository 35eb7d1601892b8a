//! Files of workers and of the ledger, which the agent reads and puts back in separate tasks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tracing::warn;

use crate::{
    agent::{Agent, Event},
    localize,
    run_as::{self, FilesPlace},
    slot::{Launched, Progress, SlotState},
    slot_runtime::SlotRuntime,
    worker_dir::{self, Heartbeat},
    worker_keys,
};
use stormkeeper_access::file::WatchedFile;
use stormkeeper_model::{BlobKey, Port, WorkerId, clock::Monotonic};
use stormkeeper_runtime::{blocking, tasks::OnExit};
use stormkeeper_topology_package::{worker_report::WorkerReport, worker_restarts::WorkerRestarts};

/// Period of reading heartbeat files while a worker starts, short so that the worker is shown as
/// running soon after it runs.
pub(super) const HEARTBEAT_READ_PERIOD_STARTING: Duration = Duration::from_millis(100);

/// Bounds of the period of reading heartbeat files otherwise, which is a tenth of the worker
/// timeout.
const HEARTBEAT_READ_PERIOD_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_READ_PERIOD_MAX: Duration = Duration::from_secs(3);

/// Period of rotating logs, removing old directories and expiring unused blobs.
pub(super) const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(10);

/// The files of a live worker, as read.
#[derive(Debug)]
pub(super) struct WorkerFiles {
    port: Port,
    worker: WorkerId,
    heartbeat: Heartbeat,
    report: Option<WorkerReport>,
    restarts: Option<WorkerRestarts>,
}

impl Agent {
    pub(super) fn on_heartbeats_read(&mut self, files: Vec<WorkerFiles>) {
        let now = self.clock.monotonic();
        // A delay of this process may have delayed the workers as well: they get the time for
        // another heartbeat.
        let was_delayed = now.since(self.timers.heartbeats_read_at) > self.options.worker_timeout / 2;
        self.timers.heartbeats_read_at = now;
        for WorkerFiles { port, worker, heartbeat, report, restarts } in files {
            let Some(slot) = self.slots.get_mut(&port) else { continue };
            let is_current = slot.launch(&worker).is_some();
            let desired = slot.desired.as_ref().filter(|_| is_current);
            if let (Some(mut report), Some(desired)) = (report, desired) {
                // A component may have written the file: it says nothing about tasks elsewhere.
                report.idle =
                    desired.worker.tasks.iter().filter(|task| report.idle.contains(*task)).collect();
                slot.report = report;
            }
            if let (Some(restarts), Some(desired)) = (restarts, slot.desired.as_ref().filter(|_| is_current))
            {
                self.failures.set_components(port, &desired.topology, restarts);
            }
            if !heartbeat.is_there() || (slot.heartbeat.as_ref() == Some(&heartbeat) && !was_delayed) {
                continue;
            }
            if let Some(Launched { progress: Progress::Alive { heartbeat: seen }, .. }) = slot.launch(&worker)
            {
                *seen = Some(now);
                slot.note_heartbeat(port, heartbeat);
            }
        }
        let is_starting = self.slots.values().any(|slot| matches!(slot.state, SlotState::Starting { .. }));
        let period = match is_starting {
            true => HEARTBEAT_READ_PERIOD_STARTING,
            false => {
                (self.options.worker_timeout / 10).clamp(HEARTBEAT_READ_PERIOD_MIN, HEARTBEAT_READ_PERIOD_MAX)
            }
        };
        self.timers.heartbeats_due = Some(now.plus(period));
    }

    /// Reads heartbeats, logs and directories when they are due, in a separate task.
    pub(super) fn read_files(&mut self, now: Monotonic) {
        // A reading is under way; the next one is due after it has returned.
        let Some(heartbeats_due) = self.timers.heartbeats_due else { return };
        let housekeep = now >= self.timers.housekeeping_due;
        let read_heartbeats = now >= heartbeats_due && self.slots.values().any(SlotRuntime::is_alive);
        if !housekeep && !read_heartbeats {
            return;
        }
        if housekeep {
            self.timers.housekeeping_due = now.plus(HOUSEKEEPING_PERIOD);
            self.put_back();
        }
        self.timers.heartbeats_due = None;
        let occupied = self.slots.iter().filter_map(|(port, slot)| {
            let (worker, desired) = slot.occupied_by()?;
            Some((*port, worker.clone(), desired.topology.clone(), slot.process, slot.heartbeat.clone()))
        });
        let live: Vec<_> = occupied.collect();
        let (local_dir, events) = (self.launcher.local_dir.clone(), self.launcher.events.clone());
        let defaults = Arc::clone(&self.launcher.defaults);
        let (credentials, wall) = (self.launcher.credentials.clone(), self.clock.now());
        let packages: BTreeSet<BlobKey> = self.localizer.present().collect();
        let read = move || {
            if housekeep {
                for (_, worker, topology, ..) in &live {
                    let users = defaults.zookeeper_users.as_ref().map(WatchedFile::get);
                    let written = FilesPlace::of_worker(&local_dir, worker).and_then(|place| {
                        worker_keys::put(&place, topology, &defaults.locks)
                            .and_then(|()| worker_keys::put_users(&place, topology, users.as_deref()))
                            .and_then(|()| credentials.put(&place, topology, &defaults.locks))
                            .and_then(|()| {
                                let identity = defaults.zookeeper_identity.as_ref();
                                worker_keys::put_zookeeper_identity(&place, identity)
                            })
                    });
                    if let Err(error) = written {
                        warn!(%worker, %error, "cannot write the keys or credentials of a worker; trying again in 10 s");
                    }
                }
                run_as::remove_packages(&local_dir, |key| packages.contains(key));
                let live: BTreeSet<_> = live.iter().map(|(_, worker, ..)| worker.clone()).collect();
                if let Err(error) = worker_keys::remove_of_ended(&local_dir, &live, wall) {
                    warn!(%error, "cannot remove the secrets of ended workers; trying again in 10 s");
                }
                worker_dir::housekeep(&local_dir, &live);
            }
            let files = live.into_iter().map(|(port, worker, _, process, last)| {
                let dir = worker_dir::path(&local_dir, &worker);
                let heartbeat = Heartbeat::read(&dir, &worker, process, last.as_ref());
                let (report, restarts) = (worker_dir::report(&dir), worker_dir::restarts(&dir));
                WorkerFiles { port, worker, heartbeat, report, restarts }
            });
            files.collect()
        };
        self.tasks.start("read worker files", OnExit::Ignore, async move {
            let files = blocking::run(read).await;
            // Fails only when the agent is gone.
            let _agent_is_gone = events.send(Event::HeartbeatsRead(files)).await;
        });
    }

    /// Writes deleted entries of the ledger again, and looks for deleted blobs, in a separate task.
    pub(super) fn put_back(&self) {
        let running = self.slots.iter().filter(|(_, slot)| slot.is_alive());
        let entries: Vec<_> = running
            .filter_map(|(port, slot)| {
                let (worker, desired) = slot.occupied_by()?;
                Some((*port, worker.clone(), desired.clone(), slot.process?))
            })
            .collect();
        let (ledger, blobs) = (self.launcher.ledger.clone(), self.localizer.present_dirs());
        let events = self.launcher.events.clone();
        self.tasks.start("put back", OnExit::Ignore, async move {
            let gone = blocking::run(move || {
                entries.into_iter().for_each(|entry| ledger.put_back(entry));
                localize::missing(&blobs)
            });
            let gone = gone.await;
            if !gone.is_empty() {
                // Fails only when the agent is gone.
                let _agent_is_gone = events.send(Event::BlobsGone(gone)).await;
            }
        });
    }
}
