//! The loop of a supervisor: an event, then a step of every slot, then what it asked for.
//!
//! Nothing slow happens in the loop. Reading the tree, fetching blobs, launching, watching
//! processes and looking at files are tasks of their own that come back as events, so a slow
//! fetch or a hanging disk of one slot stops no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::{Clock, Monotonic},
    cluster::{layout::Ephemeral, presence::Presence},
    daemon::{
        blocking,
        tasks::{Ending, Tasks},
        watch,
    },
    model::{BlobKey, Port, WorkerId},
    supervisor::{
        Error, OnStop, Options,
        failures::{Failure, Reporter},
        identity::Identity,
        launch::{self, Launcher},
        localize::Localizer,
        orders::Ordered,
        own_slot::{OwnSlot, fresh_worker},
        process::{ExitReport, ProcessId},
        slot::{Action, Blob, Launched, Observed, Patience, Progress, SlotState, Wanted},
        status::Status,
        worker_dir::{self, Beat},
    },
};

/// How often heartbeat files are looked at while a worker starts: it is shown as running soon
/// after it is.
const LOOK_PERIOD_STARTING: Duration = Duration::from_millis(100);

/// Bounds of how often they are looked at otherwise, a tenth of the patience with silence.
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(100);
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(3);

/// How often logs are rotated, old directories removed and unused blobs counted out.
const HOUSE_PERIOD: Duration = Duration::from_secs(10);

/// How much longer than the grace workers get to go when they are stopped with their
/// supervisor.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How long the tree may take to hear that this supervisor leaves.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(1);

/// How long launches under way may take to be written down at a stop.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

/// What can happen to an agent.
#[derive(Debug)]
pub(super) enum Event {
    /// Other orders were read.
    OrdersChanged,
    /// A blob is here.
    Arrived(BlobKey),
    /// A launch has a process, or has failed.
    Launched { port: Port, worker: WorkerId, started: Result<ProcessId, launch::Error> },
    /// A worker's process is gone.
    Exited { port: Port, worker: WorkerId, report: ExitReport },
    /// The heartbeat files were looked at.
    Looked(Vec<(Port, WorkerId, Option<Beat>)>),
    /// Something may be due.
    TimePassed,
    /// The supervisor is to stop.
    StopAsked,
    /// A task that must not end has ended.
    Broken,
}

/// What the loop listens to.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) orders: watch::Receiver<Ordered>,
    /// Has the orders read again.
    pub(super) doubt: Arc<Notify>,
    pub(super) arrived: mpsc::Receiver<BlobKey>,
    pub(super) events: mpsc::Receiver<Event>,
}

/// The agent of one machine.
#[derive(Debug)]
pub struct Agent {
    pub(super) identity: Identity,
    pub(super) options: Options,
    pub(super) ports: BTreeSet<Port>,
    pub(super) clock: Clock,
    pub(super) slots: BTreeMap<Port, OwnSlot>,
    pub(super) localizer: Localizer,
    pub(super) launcher: Launcher,
    pub(super) reporter: Reporter,
    pub(super) presence: Presence,
    pub(super) sources: Sources,
    pub(super) status: watch::Sender<Status>,
    pub(super) tasks: Tasks,
    pub(super) timers: Timers,
}

/// When the agent looks at files again.
#[derive(Debug)]
pub(super) struct Timers {
    /// The heartbeats; none while a look is under way.
    pub(super) look_due: Option<Monotonic>,
    /// When a look at the heartbeats last came back.
    pub(super) looked: Monotonic,
    /// Logs, directories and blobs.
    pub(super) house_due: Monotonic,
}

/// How far the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Workers are being stopped, until then.
    Stopping {
        deadline: Monotonic,
    },
}

impl Agent {
    /// What it says about itself, as a value that can be watched.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Serves until `stop`. Workers are left running then, to be adopted by the next
    /// supervisor, unless [`OnStop::StopWorkers`] was asked for.
    ///
    /// # Errors
    /// [`Error::Broken`] when a part of the agent failed; workers are left running.
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
                Event::Broken => break Err(Error::Broken),
                Event::StopAsked => match self.launcher.defaults.on_stop {
                    OnStop::LeaveWorkers => break Ok(()),
                    OnStop::StopWorkers => {
                        let patience = self.options.worker_shutdown_grace + STOP_MARGIN;
                        phase = Phase::Stopping { deadline: now.plus(patience) };
                    }
                },
                event => self.update(event),
            }
        };
        self.leave().await;
        ended
    }

    async fn leave(self) {
        self.presence.withdraw(&Ephemeral::Supervisor(self.identity.id.clone()));
        // Without a connection the session's end says the same, later.
        let _heard = tokio::time::timeout(WITHDRAW_PATIENCE, self.presence.settled()).await;
        if !self.tasks.stop(TASKS_PATIENCE).await {
            warn!("stopped while a launch was under way; the next start looks for it");
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken, phase: Phase, now: Monotonic) -> Event {
        let wake = self.wake_at(phase, now);
        let broken = self.tasks.cancelled();
        tokio::select! {
            // Each event is followed by a step of every slot, which sees the time and the orders
            // as well, so none of those further down is starved.
            biased;
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled(), if phase == Phase::Serving => Event::StopAsked,
            // Cancel-safe: as above.
            () = broken.cancelled() => Event::Broken,
            // Cancel-safe: the value stays marked as unseen.
            changed = self.sources.orders.changed() => match changed {
                Ok(()) => Event::OrdersChanged,
                Err(_reader_is_gone) => Event::Broken,
            },
            // Cancel-safe: nothing is taken unless it is returned.
            Some(key) = self.sources.arrived.recv() => Event::Arrived(key),
            // Cancel-safe: as above.
            Some(event) = self.sources.events.recv() => event,
            // Cancel-safe: a pause has no state.
            () = tokio::time::sleep(wake.since(now)) => Event::TimePassed,
        }
    }

    /// The earliest moment at which time alone asks for something.
    fn wake_at(&self, phase: Phase, now: Monotonic) -> Monotonic {
        let patience = self.patience();
        let slots = self.slots.values();
        let deadlines = slots.filter_map(|slot| slot.state.deadline(slot.launched.as_ref(), &patience));
        let stop = match phase {
            Phase::Serving => None,
            Phase::Stopping { deadline } => Some(deadline),
        };
        let is_any_alive = self.slots.values().any(OwnSlot::is_alive);
        let files = self.timers.look_due.map(|look_due| {
            let house_due = self.timers.house_due;
            if is_any_alive { look_due.min(house_due) } else { house_due }
        });
        deadlines
            // What was due by now has been seen by the step at `now`.
            .filter(|deadline| *deadline > now)
            .chain(stop)
            .chain(files)
            .fold(now.plus(HOUSE_PERIOD), Monotonic::min)
    }

    fn update(&mut self, event: Event) {
        match event {
            Event::Arrived(key) => self.localizer.arrived(key),
            Event::Launched { port, worker, started } => {
                if matches!(started, Err(launch::Error::CodeIsGone)) {
                    self.lose_code(port);
                }
                let Some(slot) = self.slots.get_mut(&port) else { return };
                let Some(launched) = slot.launch(&worker) else { return };
                let process = started.as_ref().ok().copied();
                launched.progress = match started {
                    Ok(_) => Progress::Alive { beat: None },
                    Err(error) => Progress::Failed(error.to_string().into()),
                };
                slot.process = process;
            }
            Event::Exited { port, worker, report } => {
                info!(%port, %worker, how = %report, "a worker's process is gone");
                // It may have left because it heard what this supervisor did not: that it is
                // assigned no more. The pause after a clean exit leaves time to read that.
                self.sources.doubt.notify_one();
                let slot = self.slots.get_mut(&port);
                if let Some(launched) = slot.and_then(|slot| slot.launch(&worker)) {
                    launched.progress = Progress::Exited(report);
                }
            }
            Event::Looked(beats) => self.looked(beats),
            Event::OrdersChanged | Event::TimePassed | Event::StopAsked | Event::Broken => {}
        }
    }

    fn lose_code(&mut self, port: Port) {
        if let Some(desired) = self.slots.get(&port).and_then(|slot| slot.desired.as_ref()) {
            self.localizer.lost(&desired.blob);
        }
    }

    fn looked(&mut self, beats: Vec<(Port, WorkerId, Option<Beat>)>) {
        let now = self.clock.monotonic();
        // Whatever held this process up may have held up the workers as well: they get the
        // time for another heartbeat.
        let was_held_up = now.since(self.timers.looked) > self.options.worker_timeout / 2;
        self.timers.looked = now;
        for (port, worker, beat) in beats {
            let Some(slot) = self.slots.get_mut(&port) else { continue };
            if beat.is_none() || (beat == slot.beat && !was_held_up) {
                continue;
            }
            if let Some(Launched { progress: Progress::Alive { beat: seen }, .. }) = slot.launch(&worker) {
                *seen = Some(now);
                slot.beat = beat;
            }
        }
        let is_starting = self.slots.values().any(|slot| matches!(slot.state, SlotState::Starting { .. }));
        let period = match is_starting {
            true => LOOK_PERIOD_STARTING,
            false => (self.options.worker_timeout / 10).clamp(LOOK_PERIOD_MIN, LOOK_PERIOD_MAX),
        };
        self.timers.look_due = Some(now.plus(period));
    }

    fn patience(&self) -> Patience {
        Patience {
            start: self.options.worker_start_timeout,
            silence: self.options.worker_timeout,
            grace: self.options.worker_shutdown_grace,
        }
    }

    /// Steps every slot and does what that asks for. Answers the time it was done at.
    fn advance(&mut self, phase: Phase) -> Monotonic {
        let now = self.clock.monotonic();
        let wanted = self.wanted(phase);
        self.localizer.want(&self.blobs(&wanted));
        let patience = self.patience();
        let mut actions = Vec::new();
        for (port, wanted) in wanted {
            let slot = self.slots.get_mut(&port).expect("every wanted port has a slot");
            let held = match &wanted {
                Wanted::Worker(desired) => Some(desired),
                Wanted::Unknown => slot.state.desired(),
                Wanted::Nothing => None,
            };
            let blob = held.map_or(Blob::Fetching, |desired| self.localizer.state(&desired.blob));
            let seen = Observed {
                now,
                looked: self.timers.looked,
                wanted,
                blob,
                launched: slot.launched.clone(),
                fresh: slot.fresh.clone(),
                patience,
            };
            let state = std::mem::replace(&mut slot.state, SlotState::Empty);
            let (state, asked) = state.step(&seen);
            slot.state = state;
            actions.extend(asked.into_iter().map(|action| (port, action)));
        }
        for (port, action) in actions {
            self.act(port, action);
        }
        let ports = &self.ports;
        self.slots.retain(|port, slot| ports.contains(port) || slot.state != SlotState::Empty);
        self.look_after_files(now);
        self.publish();
        now
    }

    fn wanted(&self, phase: Phase) -> BTreeMap<Port, Wanted> {
        let orders = self.sources.orders.borrow();
        let wanted = self.slots.iter().map(|(port, slot)| {
            let held = slot.state.desired().or(slot.state.worker().map(|(_, desired)| desired));
            let wanted = match phase {
                Phase::Stopping { .. } => Wanted::Nothing,
                // A port of an earlier configuration.
                Phase::Serving if !self.ports.contains(port) => Wanted::Nothing,
                Phase::Serving => orders.wanted(*port, held),
            };
            (*port, wanted)
        });
        wanted.collect()
    }

    /// What is run or to be run by any slot.
    fn blobs(&self, wanted: &BTreeMap<Port, Wanted>) -> BTreeSet<BlobKey> {
        let ordered = wanted.values().filter_map(|wanted| match wanted {
            Wanted::Worker(desired) => Some(desired),
            Wanted::Unknown | Wanted::Nothing => None,
        });
        let held = self.slots.values().filter_map(|slot| slot.state.desired());
        let running = self.slots.values().filter_map(|slot| slot.occupied_by().map(|(_, desired)| desired));
        ordered.chain(held).chain(running).map(|desired| desired.blob.clone()).collect()
    }

    fn act(&mut self, port: Port, action: Action) {
        let slot = self.slots.get_mut(&port).expect("actions are of slots");
        match action {
            Action::Launch { worker, desired, reason } => {
                info!(%port, %worker, topology = %desired.topology, tasks = %desired.worker.tasks, %reason, "launching");
                slot.launched = Some(Launched { worker: worker.clone(), progress: Progress::Launching });
                slot.desired = Some(desired.clone());
                (slot.process, slot.beat, slot.reason) = (None, None, Some(reason));
                slot.fresh = fresh_worker(port, &self.clock);
                // Soon looked at for its first heartbeat.
                self.timers.look_due = self
                    .timers
                    .look_due
                    .map(|due| due.min(self.clock.monotonic().plus(LOOK_PERIOD_STARTING)));
                let code = self.localizer.dir_of(&desired.blob);
                self.launcher.launch(&self.tasks, (port, worker), desired, code);
            }
            Action::Signal { worker, signal, reason } => {
                info!(%port, %worker, %signal, %reason, "stopping");
                slot.reason = Some(reason);
                let process = slot.process.expect("what is alive has a process");
                if let Err(error) = self.launcher.processes.signal(process, signal) {
                    warn!(%port, %worker, %error, "a signal could not be sent");
                }
            }
            Action::Report { worker, desired, reason } => {
                warn!(%port, %worker, topology = %desired.topology, %reason, "a worker failed");
                slot.reason = Some(reason.clone());
                let dir = worker_dir::path(&self.launcher.local_dir, &worker);
                self.reporter.report(Failure { port, worker, desired, reason, dir });
            }
        }
    }

    /// Looks at heartbeats, logs and directories when that is due, in a task of its own.
    fn look_after_files(&mut self, now: Monotonic) {
        // A look is under way: its end looks here again.
        let Some(look_due) = self.timers.look_due else { return };
        let house = now >= self.timers.house_due;
        let look = now >= look_due && self.slots.values().any(OwnSlot::is_alive);
        if !house && !look {
            return;
        }
        if house {
            self.timers.house_due = now.plus(HOUSE_PERIOD);
        }
        self.timers.look_due = None;
        let occupied = self
            .slots
            .iter()
            .filter_map(|(port, slot)| slot.occupied_by().map(|(worker, _)| (*port, worker.clone())));
        let live: Vec<(Port, WorkerId)> = occupied.collect();
        let (local_dir, events) = (self.launcher.local_dir.clone(), self.launcher.events.clone());
        let read = move || {
            if house {
                worker_dir::keep_house(&local_dir, &live.iter().map(|(_, worker)| worker.clone()).collect());
            }
            let beats = live.into_iter().map(|(port, worker)| {
                let beat = worker_dir::beat(&worker_dir::path(&local_dir, &worker));
                (port, worker, beat)
            });
            beats.collect()
        };
        self.tasks.start("look after files", Ending::Normal, async move {
            let beats = blocking::run(read).await;
            // Fails only when the agent is gone.
            let _agent_is_gone = events.send(Event::Looked(beats)).await;
        });
    }

    /// Publishes the status, if it is another one.
    pub(super) fn publish(&self) {
        let orders = self.sources.orders.borrow();
        let status = Status {
            supervisor: self.identity.id.clone(),
            has_orders: *orders != Ordered::Unknown,
            slots: self.slots.iter().map(|(port, slot)| (*port, slot.status())).collect(),
            problems: orders.problems(&self.ports),
        };
        self.status.send_if_modified(|published| {
            let is_news = *published != status;
            *published = status;
            is_news
        });
    }
}
