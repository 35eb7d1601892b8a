//! How a worker is put together, follows its records, and is taken apart.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Error, Options,
    beat::{self, StatusBoard},
    counters::Registry,
    errors::Reporter,
    follow::{self, Readiness, Records},
    metrics::{Measuring, Metrics, TaskMetrics, control},
    multilang::{self, child::Launch},
    settings::{ErrorThrottle, MetricSettings, TaskSettings},
    task::{self, Activity, Bolt, Emitter, Part, Seat, Spout, Wiring},
    transport::{Counters, Identity, Inboxes, Listener, Measures, Peers},
};
use stormkeeper_coordination::cluster::{layout::Ephemeral, presence::Presence, store::Store};
use stormkeeper_model::{
    ComponentId, TaskId,
    assignment::Assignment,
    clock::Clock,
    metric_control::MetricControl,
    status::TopologyStatus,
    task_set::TaskSet,
    topology::{ComponentKind, Run, Topology},
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};
use stormkeeper_stream::Tuple;

/// How long the port may be in use at the start: the slot's former worker may just be
/// leaving it.
const BIND_PATIENCE: Duration = Duration::from_secs(5);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// How long spouts wait for all tasks of this worker to be up. A component that cannot run
/// must not keep the others from it for ever; its tuples wait in queues.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long tasks may take to stop. Each needs less: see the graces in `task`.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long the tree may take for the last errors and for the beats to go.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// What a worker is made from.
#[derive(Debug)]
pub(super) struct Plan {
    topology: Arc<Topology>,
    records: Records,
    listener: Listener,
    settings: MetricSettings,
    // None when nothing is measured.
    metrics: Option<Metrics>,
}

/// Reads the topology and its records and opens the port; `None` when this worker is not
/// assigned.
pub(super) async fn prepare(options: &Options, store: &Store, clock: &Clock) -> Result<Option<Plan>, Error> {
    let path = options.code.join("topology.json");
    let topology = tokio::fs::read(&path).await.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    let topology = Arc::new(topology.map_err(|source| Error::Code { path, source })?);
    install_adapter(options).await?;
    let Some(records) = follow::read_first(store, options).await else { return Ok(None) };
    let listener = bind(options).await?;
    let settings = MetricSettings::of(&topology, options);
    let metrics = begin_to_measure(options, &settings, &records, clock).await?;
    Ok(Some(Plan { topology, records, listener, settings, metrics }))
}

async fn begin_to_measure(
    options: &Options,
    settings: &MetricSettings,
    records: &Records,
    clock: &Clock,
) -> Result<Option<Metrics>, Error> {
    if !settings.control.on || options.metrics.is_none() {
        return Ok(None);
    }
    let control = control::with_changes(&settings.control, records.metrics.as_ref());
    let (for_metrics, clock) = (options.clone(), clock.clone());
    let metrics = blocking::run(move || Metrics::start(&for_metrics, control, &clock)).await;
    metrics.map(Some).map_err(|source| Error::Dir { path: options.dir.join("metrics"), source })
}

fn python_dir(options: &Options) -> PathBuf {
    options.dir.join("python")
}

async fn install_adapter(options: &Options) -> Result<(), Error> {
    let path = python_dir(options).join("stormkeeper.py");
    let written = async {
        tokio::fs::create_dir_all(python_dir(options)).await?;
        tokio::fs::write(&path, multilang::PYTHON_ADAPTER).await
    };
    written.await.map_err(|source| Error::Dir { path, source })
}

async fn bind(options: &Options) -> Result<Listener, Error> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port().0));
    let patience = async {
        loop {
            match Listener::bind(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(BIND_PAUSE).await
                }
                bound => return bound,
            }
        }
    };
    let bound = tokio::time::timeout(BIND_PATIENCE, patience).await;
    bound
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::AddrInUse.into()))
        .map_err(|source| Error::Bind { port: options.port(), source })
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    options: Options,
    store: Store,
    topology: Arc<Topology>,
    local: TaskSet,
    board: StatusBoard,
    presence: Presence,
    errors: Reporter,
    peers: Peers,
    wiring: watch::Sender<Arc<Wiring>>,
    measuring: Option<Measuring>,
    activity: watch::Sender<Activity>,
    // The task loops and their children; they go first.
    runners: Tasks,
    beats: Tasks,
    // Everything else.
    tasks: Tasks,
}

impl Worker {
    /// Starts everything. Spouts are not asked for tuples before [`Worker::follow`] says so.
    pub(super) fn start(
        plan: Plan,
        options: Options,
        (store, presence): (Store, Presence),
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let Plan {
            topology,
            records: Records { table, assignment, metrics: changes, .. },
            listener,
            settings,
            metrics,
        } = plan;
        let local =
            assignment.workers.get(&options.slot).map(|worker| worker.tasks.clone()).unwrap_or_default();
        let me = Identity { topology: options.topology.clone(), slot: options.slot.clone() };
        let (inboxes, receivers) = Inboxes::new(local.iter());
        let transport_counters = Arc::new(match &metrics {
            Some(metrics) => Counters::measuring(Measures::new(metrics)),
            None => Counters::default(),
        });
        let measuring =
            metrics.map(|metrics| Measuring::start(metrics, settings, &options, &me, &store, &tasks));
        let measuring = measuring.transpose()?;
        if let Some(measuring) = &measuring {
            measuring.watch_inboxes(&inboxes, &table, &local);
        }
        let mut peers = Peers::new(me.clone(), inboxes.clone(), Arc::clone(&transport_counters), &tasks);
        peers.update(&assignment, &table);
        let listener = match &measuring {
            Some(measuring) => listener.with_master(measuring.master()),
            None => listener,
        };
        let listening = listener.run(me, inboxes, transport_counters);
        tasks.start("tuples from peers", OnExit::StopOwner, listening);

        let throttle = ErrorThrottle::of(&topology, &options);
        let wiring = Wiring { topology: Arc::clone(&topology), table, local: local.clone() };
        let mut worker = Self {
            measuring,
            board: StatusBoard::new(local.iter()),
            presence,
            errors: Reporter::start(store.clone(), &options, throttle, clock.clone(), &tasks),
            peers,
            wiring: watch::Sender::new(Arc::new(wiring)),
            activity: watch::Sender::new(Activity::Inactive),
            runners: tasks.child(),
            beats: tasks.child(),
            options,
            store,
            topology,
            local,
            tasks,
        };
        worker.measure(&assignment, changes.as_ref());
        let counters = Registry::default();
        beat::start(
            worker.board.clone(),
            worker.presence.clone(),
            counters.clone(),
            &worker.options,
            clock.clone(),
            &worker.beats,
        );
        for (task, inbox) in receivers {
            worker.start_task(task, inbox, &counters, &clock)?;
        }
        info!(topology = %worker.options.topology, slot = %worker.options.slot, tasks = %worker.local, "worker started");
        Ok(worker)
    }

    fn start_task(
        &self,
        task: TaskId,
        inbox: mpsc::Receiver<Tuple>,
        counters: &Registry,
        clock: &Clock,
    ) -> Result<(), Error> {
        let wiring = self.wiring.subscribe();
        let id = wiring.borrow().table.component_of(task).cloned();
        let found = id.and_then(|id| Some((self.topology.components.get(&id)?, id)));
        let (component, id) = found.ok_or(Error::UnknownTask { task })?;
        let counters = counters.of(task);
        let outbox = self.peers.outbox();
        let emitter =
            Emitter::new(id.clone(), task, wiring.clone(), outbox, Arc::clone(&counters), clock.clone())
                .map_err(Error::Wiring)?;
        let metrics = match &self.measuring {
            Some(measuring) => TaskMetrics::new(measuring.metrics(), id.clone(), task),
            None => TaskMetrics::default(),
        };
        let settings = TaskSettings::of(&self.topology, &id, &self.options);
        let Run::Command(command) = &component.run;
        let seat = Seat {
            task,
            launch: self.launch(id, task, command.clone(), &settings),
            topology: self.options.topology.clone(),
            defaults: self.options.defaults.clone(),
            wiring,
            settings,
            emitter,
            counters,
            errors: self.errors.clone(),
            board: self.board.clone(),
            clock: clock.clone(),
            tasks: self.runners.child(),
            metrics,
        };
        let part = match component.kind {
            ComponentKind::Spout => Part::Spout(Spout::new(self.activity.subscribe())),
            ComponentKind::Bolt => Part::Bolt(Bolt::new(inbox)),
        };
        self.runners.start_graceful("task", OnExit::Ignore, task::run(seat, part));
        Ok(())
    }

    fn launch(
        &self,
        component: ComponentId,
        task: TaskId,
        command: Vec<String>,
        settings: &TaskSettings,
    ) -> Launch {
        let resources = self.options.code.join("resources");
        let mut environment: BTreeMap<String, OsString> =
            settings.environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        // What the author set for the children, else what this process was given.
        let python_path = environment.remove("PYTHONPATH").or_else(|| std::env::var_os("PYTHONPATH"));
        let mut with_adapter = python_dir(&self.options).into_os_string();
        if let Some(python_path) = python_path.filter(|path| !path.is_empty()) {
            with_adapter.push(":");
            with_adapter.push(python_path);
        }
        environment.insert("PYTHONPATH".to_owned(), with_adapter);
        Launch {
            component,
            task,
            command,
            dir: if resources.is_dir() { resources } else { self.options.code.clone() },
            environment,
            pid_dir: self.options.dir.join("pids"),
            group: self.options.components,
        }
    }

    /// Follows the topology's status and assignment; returns when this worker is no longer
    /// assigned.
    pub(super) async fn follow(&mut self) {
        let board = self.board.clone();
        let all_up = async move {
            if tokio::time::timeout(START_PATIENCE, board.all_up()).await.is_err() {
                warn!("not every task came up; the spouts begin without them");
            }
        };
        let (store, options) = (self.store.clone(), self.options.clone());
        follow::follow(&store, &options, all_up, |records, readiness| self.apply(records, readiness)).await;
    }

    /// Measures what is wanted now.
    fn measure(&mut self, assignment: &Assignment, changes: Option<&MetricControl>) {
        if let Some(measuring) = &mut self.measuring {
            measuring.follow(assignment, changes);
            self.peers.measure(measuring.connections());
        }
    }

    fn apply(&mut self, records: &Records, readiness: Readiness) {
        self.measure(&records.assignment, records.metrics.as_ref());
        self.peers.update(&records.assignment, &records.table);
        self.wiring.send_if_modified(|wiring| {
            let changed = wiring.table != records.table;
            if changed {
                let (topology, local) = (Arc::clone(&self.topology), self.local.clone());
                *wiring = Arc::new(Wiring { topology, table: records.table.clone(), local });
            }
            changed
        });
        let activity = match (records.status, readiness) {
            (TopologyStatus::Active, Readiness::Ready) => Activity::Active,
            (TopologyStatus::Active, Readiness::NotYet)
            | (TopologyStatus::Inactive | TopologyStatus::Rebalancing | TopologyStatus::Killed, _) => {
                Activity::Inactive
            }
        };
        self.activity.send_if_modified(|current| {
            let changed = *current != activity;
            if changed {
                info!(status = %records.status, ?activity, "spouts");
                *current = activity;
            }
            changed
        });
    }

    /// Resolves when a part that must not end has ended.
    pub(super) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let parts = [&self.tasks, &self.runners, &self.beats].map(Tasks::cancelled);
        async move {
            let [tasks, runners, beats] = parts;
            tokio::select! {
                // Cancel-safe: all only wait.
                () = tasks.cancelled() => {}
                () = runners.cancelled() => {}
                () = beats.cancelled() => {}
            }
        }
    }

    /// Stops spouts and bolts with their children, then withdraws the beats. Bounded by
    /// [`STOP_PATIENCE`] and a little for the tree; what still runs then is killed.
    pub(super) async fn stop(self) {
        if !self.runners.stop(STOP_PATIENCE).await {
            warn!("some tasks did not stop in time");
        }
        if let Some(measuring) = self.measuring {
            measuring.stop(FAREWELL_PATIENCE).await;
        }
        self.beats.stop(FAREWELL_PATIENCE).await;
        for task in self.local.iter() {
            self.presence.withdraw(&Ephemeral::TaskHeartbeat(self.options.topology.clone(), task));
        }
        let _gone = tokio::time::timeout(FAREWELL_PATIENCE, async {
            tokio::join!(self.presence.settled(), self.errors.drained(FAREWELL_PATIENCE))
        })
        .await;
        self.tasks.stop(FAREWELL_PATIENCE).await;
        info!(topology = %self.options.topology, slot = %self.options.slot, "worker stopped");
    }
}
