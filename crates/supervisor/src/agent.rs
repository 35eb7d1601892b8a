//! The loop of a supervisor: wait for an event, step every slot, apply the actions of the steps.
//!
//! Nothing slow happens in the loop. Reading the tree, fetching blobs, launching, watching
//! processes and reading files are separate tasks that report back as events, so a slow fetch or
//! a hanging disk of one slot does not stop another slot.

mod slots;
mod stop;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Error, OnStop, Options,
    assignments::AssignmentsState,
    failure_log::FailureLog,
    failures::FailureReporter,
    launch::{self, Launcher},
    localize::{Localizer, Outcome},
    ports::{self, TakenPorts},
    problems::{self, StartProblems},
    process::{ExitReport, ProcessId},
    registration::Registration,
    slot::{Progress, WorkerTimeouts},
    slot_runtime::SlotRuntime,
    starts::StartLog,
    status::Status,
    worker_files::{HOUSEKEEPING_PERIOD, WorkerFiles},
};
use stormkeeper_coordination::cluster::{
    checked_tree::TreeRefusal, presence::Presence, store::Store, tree_id::ForeignTree,
};
use stormkeeper_model::{
    BlobKey, Port, SupervisorId, WorkerId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{fs::LockedDir, tasks::Tasks, watch};

/// Time on top of the shutdown grace when workers are stopped with their supervisor.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// An event of the agent's loop.
#[derive(Debug)]
pub(super) enum Event {
    /// The supervisor assignments changed.
    AssignmentsChanged,
    /// An attempt to localize a blob has ended.
    Localized(Outcome),
    /// A launch has a process, or has failed.
    Launched { port: Port, worker: WorkerId, started: Result<ProcessId, launch::Error> },
    /// A worker's process has ended.
    Exited {
        port: Port,
        worker: WorkerId,
        report: ExitReport,
        /// True if the worker has written a heartbeat, also if it was not read while it lived, or if it is a
        /// program of the topology: its end is no fault of this host.
        is_of_topology: bool,
    },
    /// The heartbeat files were read.
    HeartbeatsRead(Vec<WorkerFiles>),
    /// Blobs that were listed are not on the disk any more.
    BlobsGone(Vec<BlobKey>),
    /// Ports of slots without a process were checked.
    PortsChecked(ports::Checked),
    /// A deadline may have passed.
    TimePassed,
    /// The supervisor must stop.
    StopAsked,
    /// A task that must not end has ended.
    Broken,
}

/// The inputs of the loop.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) assignments: watch::Receiver<AssignmentsState>,
    /// Makes the reader read the supervisor assignments again.
    pub(super) recheck: Arc<Notify>,
    pub(super) localized: mpsc::Receiver<Outcome>,
    pub(super) events: mpsc::Receiver<Event>,
    /// Writes to the local directory that fail.
    pub(super) failed_writes: watch::Receiver<Vec<String>>,
}

/// The agent of one host.
#[derive(Debug)]
pub struct Agent {
    pub(super) identity: Arc<LockedDir<SupervisorId>>,
    pub(super) store: Store,
    pub(super) refusal: TreeRefusal,
    /// The tree that this supervisor has met and must not use, while it meets one.
    pub(super) foreign: watch::Receiver<Option<ForeignTree>>,
    pub(super) options: Options,
    pub(super) ports: BTreeSet<Port>,
    pub(super) clock: Clock,
    pub(super) slots: BTreeMap<Port, SlotRuntime>,
    pub(super) localizer: Localizer,
    /// The packages that are used and unpacked here.
    pub(super) packages: watch::Sender<BTreeSet<BlobKey>>,
    pub(super) launcher: Launcher,
    pub(super) reporter: FailureReporter,
    pub(super) failures: FailureLog,
    pub(super) starts: StartLog,
    pub(super) start_problems: StartProblems,
    pub(super) registration: Registration,
    pub(super) presence: Presence,
    pub(super) sources: Sources,
    pub(super) status: watch::Sender<Status>,
    pub(super) tasks: Tasks,
    pub(super) timers: Timers,
    pub(super) taken_ports: TakenPorts,
    pub(super) to_check: tokio::sync::watch::Sender<ports::ToCheck>,
}

/// Due times of reading files.
#[derive(Debug)]
pub(super) struct Timers {
    /// Next reading of the heartbeats; none while a reading is under way.
    pub(super) heartbeats_due: Option<Monotonic>,
    /// Time at which the last reading of the heartbeats returned.
    pub(super) heartbeats_read_at: Monotonic,
    /// Next housekeeping of logs, directories and blobs.
    pub(super) housekeeping_due: Monotonic,
}

/// Phase of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Workers are being stopped, until `deadline`.
    Stopping {
        deadline: Monotonic,
    },
}

impl Agent {
    /// The status of the supervisor, as a value that can be watched.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Serves until `stop`. Workers then keep running, to be adopted by the next supervisor,
    /// unless [`OnStop::StopWorkers`] is set.
    ///
    /// # Errors
    /// [`Error::Layout`] when the tree has another layout, and [`Error::Broken`] when a part of the
    /// agent failed; workers are left running.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut phase = Phase::Serving;
        let ended = loop {
            let now = self.advance(phase);
            if let Phase::Stopping { deadline } = phase
                && (now >= deadline || self.slots.values().all(|slot| slot.occupied_by().is_none()))
            {
                break Ok(());
            }
            match self.next_event(&stop, phase, now).await {
                Event::Broken => break Err(self.refusal.get().map_or(Error::Broken, Error::Layout)),
                Event::StopAsked => {
                    // Before anything of this host disappears.
                    self.announce_stop().await;
                    match self.launcher.defaults.on_stop {
                        OnStop::LeaveWorkers => break Ok(()),
                        OnStop::StopWorkers => {
                            let limit = self.options.worker_shutdown_grace + STOP_MARGIN;
                            phase = Phase::Stopping { deadline: now.plus(limit) };
                        }
                    }
                }
                event => self.update(event),
            }
        };
        self.leave(ended.is_ok()).await;
        ended
    }

    async fn next_event(&mut self, stop: &CancellationToken, phase: Phase, now: Monotonic) -> Event {
        let wake = self.wake_at(phase, now);
        let broken = self.tasks.cancelled();
        tokio::select! {
            // Each event is followed by a step of every slot, which also checks the time and the
            // assignments, so no later branch is starved.
            biased;
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled(), if phase == Phase::Serving => Event::StopAsked,
            // Cancel-safe: as above.
            () = broken.cancelled() => Event::Broken,
            // Cancel-safe: the value stays marked as unseen.
            changed = self.sources.assignments.changed() => match changed {
                Ok(()) => Event::AssignmentsChanged,
                Err(_reader_is_gone) => Event::Broken,
            },
            // Cancel-safe: an item is received only if it is returned.
            Some(outcome) = self.sources.localized.recv() => Event::Localized(outcome),
            // Cancel-safe: as above.
            Some(event) = self.sources.events.recv() => event,
            // Cancel-safe: the value stays marked as unseen. Each step publishes it.
            Ok(()) = self.sources.failed_writes.changed() => Event::TimePassed,
            // Cancel-safe: a sleep has no state.
            () = tokio::time::sleep(wake.since(now)) => Event::TimePassed,
        }
    }

    /// The earliest time at which a step is due without another event.
    fn wake_at(&self, phase: Phase, now: Monotonic) -> Monotonic {
        let timeouts = self.timeouts();
        let slots = self.slots.values();
        let deadlines = slots.filter_map(|slot| slot.state.deadline(slot.launched.as_ref(), &timeouts));
        let stop = match phase {
            Phase::Serving => None,
            Phase::Stopping { deadline } => Some(deadline),
        };
        let is_any_alive = self.slots.values().any(SlotRuntime::is_alive);
        let files = self.timers.heartbeats_due.map(|heartbeats_due| {
            let housekeeping_due = self.timers.housekeeping_due;
            if is_any_alive { heartbeats_due.min(housekeeping_due) } else { housekeeping_due }
        });
        deadlines
            // Deadlines up to `now` were handled by the step at `now`.
            .filter(|deadline| *deadline > now)
            .chain(stop)
            .chain(files)
            .fold(now.plus(HOUSEKEEPING_PERIOD), Monotonic::min)
    }

    fn update(&mut self, event: Event) {
        match event {
            Event::Localized(outcome) => self.on_localized(outcome),
            Event::Launched { port, worker, started } => {
                match &started {
                    Err(launch::Error::CodeIsGone) => self.lose_code(port),
                    Err(launch::Error::PortTaken(obstacle)) => self.taken_ports.add(port, obstacle),
                    Ok(_) | Err(_) => {}
                }
                let Some(slot) = self.slots.get_mut(&port) else { return };
                let Some(launched) = slot.launch(&worker) else { return };
                let process = started.as_ref().ok().copied();
                let is_of_topology = started.as_ref().is_err_and(launch::Error::is_of_topology);
                launched.progress = match started {
                    Ok(_) => Progress::Alive { heartbeat: None },
                    Err(error) => Progress::Failed(error.to_string().into()),
                };
                slot.process = process;
                slot.is_of_topology = is_of_topology;
            }
            Event::Exited { port, worker, report, is_of_topology } => {
                info!(%port, %worker, exit = %report, "a worker's process has ended");
                // The worker may have seen before this supervisor that it is no longer assigned.
                // The pause after a clean exit leaves time to read the assignments again.
                self.sources.recheck.notify_one();
                let is_of_topology = is_of_topology || self.may_have_been_killed_by_its_user(report);
                let Some(slot) = self.slots.get_mut(&port) else { return };
                if let Some(launched) = slot.launch(&worker) {
                    launched.progress = Progress::Exited(report);
                    slot.is_of_topology = is_of_topology;
                }
            }
            Event::HeartbeatsRead(files) => self.on_heartbeats_read(files),
            Event::BlobsGone(keys) => keys.iter().for_each(|key| self.localizer.lost(key)),
            Event::PortsChecked(checked) => self.on_ports_checked(checked),
            Event::AssignmentsChanged | Event::TimePassed | Event::StopAsked | Event::Broken => {}
        }
    }

    fn lose_code(&mut self, port: Port) {
        if let Some(desired) = self.slots.get(&port).and_then(|slot| slot.desired.as_ref()) {
            self.localizer.lost(&desired.blob);
        }
    }

    fn on_ports_checked(&mut self, checked: ports::Checked) {
        let now = self.clock.monotonic();
        let slots = &self.slots;
        let is_occupied = |port| slots.get(&port).is_some_and(|slot| slot.occupied_by().is_some());
        for port in self.taken_ports.update(checked, is_occupied) {
            if let Some(slot) = self.slots.get_mut(&port) {
                slot.state.relaunch_now(now);
            }
        }
    }

    fn timeouts(&self) -> WorkerTimeouts {
        WorkerTimeouts {
            start: self.options.worker_start_timeout,
            silence: self.options.worker_timeout,
            grace: self.options.worker_shutdown_grace,
        }
    }

    /// Publishes the status if it changed.
    pub(super) fn publish(&self) {
        let assignments = self.sources.assignments.borrow();
        let status = Status {
            supervisor: self.identity.id.clone(),
            has_assignments: *assignments != AssignmentsState::Unknown,
            slots: self.slots.iter().map(|(port, slot)| (*port, slot.status())).collect(),
            problems: assignments.problems(&self.ports),
        };
        self.to_check.send_if_modified(|published| {
            let unoccupied = |slot: &SlotRuntime| slot.occupied_by().is_none();
            let idle = self.slots.iter().filter(|(_, slot)| unoccupied(slot)).map(|(port, _)| *port);
            published.set(idle.collect(), self.taken_ports.any())
        });
        let failed_writes = self.sources.failed_writes.borrow();
        let at_start = (&self.start_problems, self.clock.monotonic());
        let host = &self.options.host;
        let twin = problems::twin(&self.presence, &self.identity.id, host);
        let problems = problems::of((&failed_writes, twin), at_start, &self.taken_ports, &self.slots, host);
        self.registration.set_problems(problems);
        self.status.send_if_modified(|published| {
            for problem in status.problems.iter().filter(|problem| !published.problems.contains(problem)) {
                warn!("{problem}");
            }
            let has_changed = *published != status;
            *published = status;
            has_changed
        });
    }
}
