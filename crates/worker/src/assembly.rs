//! Construction of a worker, its reaction to changed records, and its shutdown.

mod tasks;

use std::{collections::BTreeMap, fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Error, MetricReports, Options,
    counters::CounterRegistry,
    drain::{Drain, Load, Wish},
    errors::ErrorReporter,
    follow::{self, Readiness, Records},
    heartbeat::{self, StatusBoard},
    live::{self, LiveTask, Sampler},
    log_levels::LogScopes,
    metrics::{Metrics, TcpMasterLink, WorkerMetrics, control},
    multilang,
    queue::Inbox,
    report::{self, Problems},
    restarts::RestartBoard,
    samples::Samples,
    settings::{self, ErrorThrottle, MetricSettings},
    task::{self, Activity, Wiring},
    task_table::TaskTableWatch,
    tracking::Tracker,
    transport::{
        Counters, FrameBudget, Identity, Inboxes, Intake, Listener, Membership, OwnHost, PeerKeys, Peers,
        TransportMetrics,
    },
};
use stormkeeper_coordination::cluster::{layout::Ephemeral, presence::Presence, store::Store};
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_model::{
    Slot, TaskId, Timestamp,
    assignment::Assignment,
    clock::Clock,
    metric_control::MetricControl,
    status::TopologyStatus,
    task_set::TaskSet,
    topology::{Ackers, ComponentKind, TaskTable, Topology},
};
use stormkeeper_runtime::{
    blocking,
    oom::{self, OomWatch},
    tasks::{OnExit, Tasks},
};
use stormkeeper_topology_package::worker_report::REPORT_FILE;

/// Time for which the port may be in use at the start: the slot's previous worker may be
/// shutting down.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Time for which spouts wait until all tasks of this worker are up. A component that cannot
/// run must not delay the others for ever; its tuples wait in queues.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for all tasks to stop. Each task needs less: see the graces in `task`.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for writing the last errors to the tree and for removing the heartbeats.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Parts from which a worker is started.
#[derive(Debug)]
pub(super) struct PreparedWorker {
    topology: Arc<Topology>,
    records: Records,
    listener: Listener,
    report: File,
    settings: MetricSettings,
    // `None` if metrics are disabled.
    metrics: Option<Metrics>,
}

/// Reads the topology and its records, and opens the port. Returns `None` if this worker is not
/// assigned.
pub(super) async fn prepare(
    options: &Options,
    store: &Store,
    clock: &Clock,
) -> Result<Option<PreparedWorker>, Error> {
    let path = options.spec.code.join("topology.json");
    let topology = tokio::fs::read(&path).await.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    let topology = Arc::new(topology.map_err(|source| Error::Code { path, source })?);
    install_adapter(options).await?;
    let Some(records) = follow::read_first(store, options).await else { return Ok(None) };
    let listener = bind(options).await?;
    let dir = options.spec.dir.clone();
    let report = blocking::run(move || report::open(&dir))
        .await
        .map_err(|source| Error::Dir { path: options.spec.dir.join(REPORT_FILE), source })?;
    let settings = MetricSettings::of(&topology, options);
    let metrics = start_metrics(options, &settings, &records, clock).await?;
    Ok(Some(PreparedWorker { topology, records, listener, report, settings, metrics }))
}

async fn start_metrics(
    options: &Options,
    settings: &MetricSettings,
    records: &Records,
    clock: &Clock,
) -> Result<Option<Metrics>, Error> {
    if !settings.control.on || options.metrics == MetricReports::Off {
        return Ok(None);
    }
    let control = control::with_changes(&settings.control, records.metrics.as_ref());
    let (for_metrics, clock) = (options.clone(), clock.clone());
    let metrics = blocking::run(move || Metrics::start(&for_metrics, control, &clock)).await;
    metrics.map(Some).map_err(|source| Error::Dir { path: options.spec.dir.join("metrics"), source })
}

fn python_dir(options: &Options) -> PathBuf {
    options.spec.dir.join("python")
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
    let listener = async {
        loop {
            match Listener::bind(options.listen_on, options.port().0) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(BIND_PAUSE).await
                }
                bound => return bound,
            }
        }
    };
    let bound = tokio::time::timeout(BIND_TIMEOUT, listener).await;
    bound
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::AddrInUse.into()))
        .map_err(|source| Error::Bind { port: options.port(), source })
}

fn start_errors(
    store: &Store,
    topology: &Topology,
    options: &Options,
    clock: &Clock,
    tasks: &Tasks,
) -> ErrorReporter {
    let throttle = ErrorThrottle::of(topology, options);
    ErrorReporter::start(store.clone(), options, throttle, clock.clone(), tasks)
}

/// Problems of the whole worker, which are reported as errors of its first task.
fn problems(errors: &ErrorReporter, local: &TaskSet, table: &TaskTable) -> Problems {
    let first = local.iter().find_map(|task| Some((table.component_of(task)?.clone(), task)));
    first.map_or_else(Problems::default, |(component, task)| {
        Problems::with_errors(errors.clone(), component, task)
    })
}

/// Starts the report of this worker on its problems and on the state of its tasks.
fn start_report(
    file: std::fs::File,
    errors: &ErrorReporter,
    (local, table): (&TaskSet, &TaskTable),
    tasks: &Tasks,
) -> (Problems, StatusBoard) {
    let (problems, board) = (problems(errors, local, table), StatusBoard::new(local.iter()));
    report::start(file, problems.clone(), board.clone(), tasks);
    (problems, board)
}

/// Starts to track tuple trees, if the topology has ackers.
fn start_tracking(
    ackers: Option<Ackers>,
    message_timeout: Duration,
    (topology, options): (&Topology, &Options),
    local: &TaskSet,
    tasks: &Tasks,
) -> Option<task::Tracking> {
    let timeout = settings::has_message_timeouts(topology, options).then_some(message_timeout);
    let start = |ackers| Tracker::start(ackers, options.spec.slot.clone(), local, timeout, tasks);
    ackers.map(|ackers| task::Tracking { tracker: start(ackers), timeout })
}

fn transport_counters(metrics: Option<&Metrics>) -> Arc<Counters> {
    let metrics = metrics.map(TransportMetrics::new);
    Arc::new(metrics.map_or_else(Counters::default, Counters::with_metrics))
}

fn start_samples(options: &Options, wiring: &Wiring, clock: &Clock, tasks: &Tasks) -> Samples {
    let Wiring { table, local, .. } = wiring;
    Samples::start(options.spec.dir.join("logs"), (local, table), clock.clone(), tasks)
}

/// What the worker must finish before it may end.
fn load(wiring: &Wiring, board: &StatusBoard, counters: &CounterRegistry, transport: Arc<Counters>) -> Load {
    let Wiring { topology, table, local } = wiring;
    let is_spout = |task: &TaskId| {
        let component = table.component_of(*task).and_then(|id| topology.components.get(id));
        component.is_some_and(|component| component.kind == ComponentKind::Spout)
    };
    let (spouts, bolts): (Vec<TaskId>, Vec<TaskId>) = local.iter().partition(is_spout);
    let (spouts, bolts) = (spouts.into_iter().collect(), bolts.into_iter().collect());
    Load { board: board.clone(), counters: counters.clone(), transport, spouts, bolts }
}

/// Returns the tasks whose numbers are sampled, with the queues of bolts.
fn live_tasks(topology: &Topology, table: &TaskTable, local: &TaskSet, inboxes: &Inboxes) -> Vec<LiveTask> {
    let of_task = |task: TaskId| {
        let component = table.component_of(task)?.clone();
        let kind = topology.components.get(&component).map(|component| component.kind);
        let queue = (kind == Some(ComponentKind::Bolt)).then(|| inboxes.gauge_of(task)).flatten();
        Some(LiveTask { task, component, queue })
    };
    local.iter().filter_map(of_task).collect()
}

/// Watches the cgroup of this process, in which its components run too.
fn watch_memory(tasks: &Tasks) -> Arc<OomWatch> {
    let oom = Arc::new(OomWatch::of_this_process());
    let watched = Arc::clone(&oom);
    tasks.start("watch out-of-memory kills", OnExit::Ignore, async move {
        loop {
            tokio::time::sleep(oom::SAMPLE_PERIOD).await;
            watched.sample();
        }
    });
    oom
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
    errors: ErrorReporter,
    restarts: RestartBoard,
    oom: Arc<OomWatch>,
    peers: Peers,
    members: Membership,
    wiring: Arc<Wiring>,
    log_scopes: LogScopes,
    samples: Samples,
    table: TaskTableWatch,
    worker_metrics: Option<WorkerMetrics>,
    tracking: Option<task::Tracking>,
    activity: watch::Sender<Activity>,
    drain: Drain,
    // Deadline of the step of an update that replaces this worker.
    leaves: Option<Timestamp>,
    // The task loops and their children; they stop first.
    runners: Tasks,
    heartbeats: Tasks,
    // All other background tasks.
    tasks: Tasks,
}

/// Returns the tasks that an assignment gives to the worker in `slot`.
fn tasks_of(slot: &Slot, assignment: &Assignment) -> TaskSet {
    assignment.workers.get(slot).map(|worker| worker.tasks.clone()).unwrap_or_default()
}

impl Worker {
    /// Starts all parts. Spouts emit nothing before [`Worker::follow`] activates them.
    pub(super) fn start(
        prepared: PreparedWorker,
        options: Options,
        (store, presence): (Store, Presence),
        ingest: Option<Arc<dyn IngestTransport>>,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let PreparedWorker {
            topology,
            records: Records { table, assignment, ackers, message_timeout, metrics: changes, log_levels, .. },
            listener,
            report,
            settings,
            metrics,
        } = prepared;
        let local = tasks_of(&options.spec.slot, &assignment);
        let me = Identity { topology: options.spec.topology.clone(), slot: options.spec.slot.clone() };
        let keys = PeerKeys::new(options.keys.clone(), options.tls.clone());
        let (inboxes, receivers) = Inboxes::new(local.iter());
        let (intake, counters): (Intake, CounterRegistry) = Default::default();
        let live = live_tasks(&topology, &table, &local, &inboxes);
        let transport_counters = transport_counters(metrics.as_ref());
        let start_metrics = |(metrics, ingest)| {
            let connections = (ingest, Arc::new(TcpMasterLink { keys: keys.clone() }) as _);
            let started = WorkerMetrics::start(metrics, settings, &options, &me, connections, &tasks)?;
            started.watch_inboxes(&inboxes, &table, &local);
            Ok::<_, Error>(started)
        };
        let worker_metrics = metrics.zip(ingest).map(start_metrics).transpose()?;
        let errors = start_errors(&store, &topology, &options, &clock, &tasks);
        let (problems, board) = start_report(report, &errors, (&local, &table), &tasks);
        let own_host = OwnHost { name: options.spec.host.clone(), addresses: listener.local_addresses() };
        let tracking = start_tracking(ackers, message_timeout, (&topology, &options), &local, &tasks);
        let tracker = tracking.as_ref().map(|tracking| tracking.tracker.clone());
        let mut peers = Peers::new(me.clone(), inboxes.clone(), Arc::clone(&transport_counters), &tasks)
            .reporting_to(problems.clone(), own_host)
            .with_keys(keys.clone())
            .with_tracker(tracker.clone())
            .compressing(settings::is_compressing(&topology, &options));
        peers.update(&assignment, &table);
        let members = Membership::of(&assignment);
        let listener = listener.with_budget(FrameBudget::new(options.unfinished_bytes));
        let listener =
            listener.with_keys(keys).with_tracker(tracker).reporting_to(problems).open_to(members.clone());
        let listener = listener.with_master(worker_metrics.as_ref().map(WorkerMetrics::master));
        let listening =
            listener.with_intake(intake.clone()).run(me.clone(), inboxes, Arc::clone(&transport_counters));
        tasks.start("tuples from peers", OnExit::StopOwner, listening);
        let wiring = Arc::new(Wiring { topology: Arc::clone(&topology), table, local: local.clone() });
        let mut worker = Self {
            drain: Drain::start(load(&wiring, &board, &counters, transport_counters), intake, &tasks),
            leaves: None,
            log_scopes: LogScopes::new(&local, &wiring.table, &log_levels),
            samples: start_samples(&options, &wiring, &clock, &tasks),
            worker_metrics,
            board,
            presence,
            errors,
            restarts: RestartBoard::start(&options, clock.clone(), &tasks),
            oom: watch_memory(&tasks),
            peers,
            members,
            table: TaskTableWatch::new(me.topology, Arc::clone(&wiring)),
            wiring,
            tracking,
            activity: watch::Sender::new(Activity::Inactive),
            runners: tasks.child(),
            heartbeats: tasks.child(),
            options,
            store,
            topology,
            local,
            tasks,
        };
        worker.update_metrics(&assignment, changes.as_ref());
        worker.start_tasks((receivers, live), &counters, &clock)?;
        Ok(worker)
    }

    fn start_tasks(
        &self,
        (inboxes, live): (BTreeMap<TaskId, Inbox>, Vec<LiveTask>),
        counters: &CounterRegistry,
        clock: &Clock,
    ) -> Result<(), Error> {
        self.start_live(live, counters, clock);
        self.start_heartbeats(counters, clock);
        inboxes.into_iter().try_for_each(|(task, inbox)| self.start_task(task, inbox, counters, clock))?;
        self.log_start();
        Ok(())
    }

    fn start_live(&self, tasks: Vec<LiveTask>, counters: &CounterRegistry, clock: &Clock) {
        let metrics = self.worker_metrics.as_ref().map(|worker_metrics| worker_metrics.metrics().clone());
        let (counters, began, clock) = (counters.clone(), clock.monotonic(), clock.clone());
        let sampler = Sampler { tasks, counters, metrics, clock, began };
        live::start(self.options.spec.dir.clone(), sampler, &self.tasks);
    }

    fn start_heartbeats(&self, counters: &CounterRegistry, clock: &Clock) {
        let (board, presence) = (self.board.clone(), self.presence.clone());
        heartbeat::start(board, presence, counters.clone(), &self.options, clock.clone(), &self.heartbeats);
    }

    fn log_start(&self) {
        let spec = &self.options.spec;
        info!(topology = %spec.topology, slot = %spec.slot, tasks = %self.local, "worker started");
    }

    /// Follows the topology's status and assignment. Returns when this worker is no longer
    /// assigned.
    pub(super) async fn follow(&mut self) {
        let board = self.board.clone();
        let all_up = async move {
            if tokio::time::timeout(START_TIMEOUT, board.all_up()).await.is_err() {
                warn!("not all tasks of this worker came up in time; starting the spouts without them");
            }
        };
        let (store, options) = (self.store.clone(), self.options.clone());
        let members = self.members.clone();
        follow::follow_for(&store, &options, all_up, Some(&members), |records, readiness| {
            self.apply(records, readiness)
        })
        .await;
    }

    /// Applies changed metric settings to the worker and its connections.
    fn update_metrics(&mut self, assignment: &Assignment, changes: Option<&MetricControl>) {
        if let Some(worker_metrics) = &mut self.worker_metrics {
            worker_metrics.follow(assignment, changes);
            self.peers.set_metrics(worker_metrics.connections());
        }
    }

    fn apply(&mut self, records: &Records, readiness: Readiness) {
        self.table.observe(&records.table);
        self.update_metrics(&records.assignment, records.metrics.as_ref());
        self.log_scopes.follow(&records.log_levels);
        self.samples.follow(&records.tuple_samples);
        self.peers.update(&records.assignment, self.table.own());
        self.members.update(&records.assignment);
        // A worker that has begun to leave takes no more tuples, so it does not come back.
        self.leaves = self.leaves.or(records.update);
        let activity = match (records.status, readiness) {
            _ if self.leaves.is_some() => Activity::Inactive,
            (TopologyStatus::Active, Readiness::Ready) => Activity::Active,
            (TopologyStatus::Active, Readiness::NotYet)
            | (TopologyStatus::Inactive | TopologyStatus::Rebalancing | TopologyStatus::Killed, _) => {
                Activity::Inactive
            }
        };
        self.drain.wish(match (self.leaves, records.status, records.pending) {
            (Some(_), TopologyStatus::Killed, Some(deadline)) => Wish::Leave(deadline),
            (Some(deadline), ..) => Wish::Leave(deadline),
            (None, TopologyStatus::Rebalancing | TopologyStatus::Killed, Some(deadline)) => {
                Wish::Quiet(deadline)
            }
            (None, ..) => Wish::None,
        });
        self.activity.send_if_modified(|current| {
            let changed = *current != activity;
            if changed {
                info!(status = %records.status, ?activity, "spout activity changed");
                *current = activity;
            }
            changed
        });
    }

    /// Resolves when the task table was changed while the worker runs.
    pub(super) fn table_changed(&self) -> impl Future<Output = ()> + use<> {
        self.table.changed()
    }

    /// Resolves when a vital background task has ended.
    pub(super) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let parts = [&self.tasks, &self.runners, &self.heartbeats].map(Tasks::cancelled);
        async move {
            let [tasks, runners, heartbeats] = parts;
            tokio::select! {
                // Cancel-safe: all arms only wait.
                () = tasks.cancelled() => {}
                () = runners.cancelled() => {}
                () = heartbeats.cancelled() => {}
            }
        }
    }

    /// Stops the spouts, lets the bolts finish what the worker has accepted, stops all components, and then
    /// withdraws the heartbeats. Bounded by a second for the bolts, [`STOP_TIMEOUT`] and a short time for the
    /// tree; tasks that still run then are killed.
    pub(super) async fn stop(self) {
        self.activity.send_replace(Activity::Inactive);
        self.drain.finish().await;
        if !self.runners.stop(STOP_TIMEOUT).await {
            warn!("some tasks of this worker did not stop in time; killing them");
        }
        if let Some(worker_metrics) = self.worker_metrics {
            worker_metrics.stop(SHUTDOWN_TIMEOUT).await;
        }
        self.heartbeats.stop(SHUTDOWN_TIMEOUT).await;
        for task in self.local.iter() {
            self.presence.withdraw(&Ephemeral::TaskHeartbeat(self.options.spec.topology.clone(), task));
        }
        let _gone = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
            tokio::join!(self.presence.settled(), self.errors.drained(SHUTDOWN_TIMEOUT))
        })
        .await;
        self.tasks.stop(SHUTDOWN_TIMEOUT).await;
        info!(topology = %self.options.spec.topology, slot = %self.options.spec.slot, "worker stopped");
    }
}
