//! Metrics service of a nimbus: the leader ingests metrics and exports them, followers replicate
//! the metric log.
//!
//! ```text
//!  masters, supervisors ─ HTTP ─▶ intake ─▶ metric store ◀─ close, flush, tell, upload (leader)
//!                                                ▲
//!                        other nimbuses ─ HTTP ──┴─ follow, agree (follower), succeed (takeover)
//! ```
//!
//! - The metrics service must not delay the rest of nimbus: its tasks are a set of their own, a
//!   task that panics is restarted, and a metric store that cannot be opened is opened again while
//!   nimbus runs without metrics.
//! - The leader publishes the high watermark in ZooKeeper before the leader reports a position as
//!   committed (`mark`). A new leader first fetches the entries that its log is missing
//!   (`succeed`), and waits for replicas that have missing committed entries (`takeover`).
//!   Committed entries therefore survive a change of the leader.
//! - While a nimbus leads, only its own entries enter its log; while a nimbus follows, only entries
//!   of its leader do. A task that applies entries of another nimbus holds `Shared::apply_lock`.
//!
//! Start reading at `lead`, which starts the tasks of a leader; `safe` defines the terms of the
//! replication.

mod error;
mod export;
mod history;
mod ingest;
mod leader;
mod open;
mod options;
mod process;
pub mod query;
mod replication;
mod self_metrics;
mod status;
mod topology_source;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    export::exporters::MetricExporter,
    query::{LeaderLocator, MetricQueryClient},
};
use replication::commit::ReplicaProgress;
use status::Counters;
use stormkeeper_api_types::replica_client::{ReplicaClient, ReplicaError};
use stormkeeper_coordination::cluster::{
    metric_log::MetricLogState, observer::Observation, record::Leader, store::Store, view::ClusterView,
};
use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestError};
use stormkeeper_metric_store::MetricStore;
use stormkeeper_model::{LogPosition, NimbusId, Term, clock::Clock};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

pub use error::RequestError;
pub use export::exporters;

pub use options::{Intervals, MetricOptions};
pub use replication::checkpoint::Checkpoint;
pub use status::{CounterValues, ExporterActivity, ExporterState, Lag, MetricsStatus, ReplicaState};
pub use topology_source::TopologySource;

/// Timeout for the end of the tasks: exporters clean up, RocksDB closes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a task that panicked is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(30);

/// Failure to set up the metrics service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plugin cannot be created.
    #[error(transparent)]
    Plugin(#[from] exporters::Error),
    /// The HTTP client for other nimbuses cannot be created.
    #[error("cannot create the HTTP client that fetches metrics from other nimbuses")]
    Sync(#[from] ReplicaError),
    /// The HTTP client that sends this nimbus' self metrics to the leader cannot be created.
    #[error("cannot create the HTTP client that sends self metrics to the leader")]
    Client(#[from] IngestError),
}

/// Metrics service of one nimbus. Clones share the same state.
#[derive(Debug, Clone)]
pub struct MetricsService {
    shared: Arc<Shared>,
}

/// Identity of the nimbus, and its access to the cluster.
pub struct Setup {
    /// This nimbus.
    pub me: NimbusId,
    /// Host name that self metrics carry.
    pub host: String,
    /// Address of this nimbus' API, for other daemons.
    pub api: String,
    /// Directory of this nimbus; the metric store lies below it.
    pub local_dir: PathBuf,
    /// Wall and monotonic time.
    pub clock: Clock,
    /// The cluster as this nimbus sees it.
    pub observations: watch::Receiver<Observation>,
    /// Reads of the cluster state.
    pub store: Store,
}

struct Shared {
    setup: Setup,
    options: Arc<MetricOptions>,
    archive_state: watch::Sender<ArchiveState>,
    /// Reason why the metric store cannot be opened; `None` while it is open, and before the first
    /// attempt.
    open_failure: watch::Sender<Option<String>>,
    replica_state: watch::Sender<(ReplicaState, Option<Term>)>,
    /// Held while log entries of another nimbus are applied to the metric store.
    apply_lock: tokio::sync::Mutex<()>,
    /// Held while the tasks of one leadership run.
    leadership_lock: tokio::sync::Mutex<()>,
    replica_client: ReplicaClient,
    exporters: Vec<Arc<dyn MetricExporter>>,
    query_client: Arc<dyn MetricQueryClient>,
    limiter: ingest::IngestLimiter,
    checkpoint_permits: Arc<Semaphore>,
    counts: Counters,
    instruments: self_metrics::NimbusInstruments,
    ingest_client: IngestClient,
    /// Wakes the leader when the high watermark may advance.
    commit_wakeup: Notify,
    // Each of the four guards a few values, held for a few instructions.
    replica_progress: Mutex<ReplicaProgress>,
    log_state: Mutex<MetricLogState>,
    fetch_status: Mutex<FetchStatus>,
    exporter_states: Mutex<BTreeMap<String, ExporterState>>,
    tasks: Tasks,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measure").field("nimbus", &self.setup.me).finish_non_exhaustive()
    }
}

/// Availability of the metric store.
#[derive(Debug, Clone)]
enum ArchiveState {
    /// The store is not open, for this reason.
    Unavailable(String),
    Open(MetricStore),
}

/// State of the replication, for the status.
#[derive(Debug, Default)]
struct FetchStatus {
    leader: Option<LogPosition>,
    caught_up_at: Option<stormkeeper_model::Timestamp>,
    problem: Option<String>,
}

impl MetricsService {
    /// Client that metas and history of other nimbuses are read with.
    #[cfg(any(test, feature = "test-support"))]
    pub fn query_client(&self) -> Arc<dyn MetricQueryClient> {
        Arc::clone(&self.shared.query_client)
    }

    /// Starts the tasks that every nimbus runs for metrics; the tasks end with `owner`.
    pub fn start(setup: Setup, options: &MetricOptions, owner: &Tasks) -> Result<Self, Error> {
        let leader = Arc::new(LeaderFromView(setup.observations.clone()));
        let replica_client = ReplicaClient::new()?;
        let mut exporters = exporters::exporters(&options.exporters)?;
        exporters.extend(options.more_exporters.iter().cloned());
        let shared = Shared {
            query_client: exporters::query_client(&options.exporters, leader)?,
            options: Arc::new(options.clone()),
            archive_state: watch::Sender::new(ArchiveState::Unavailable(
                "the metric store is being opened".to_owned(),
            )),
            open_failure: watch::Sender::new(None),
            replica_state: watch::Sender::new((ReplicaState::Following, None)),
            apply_lock: tokio::sync::Mutex::new(()),
            leadership_lock: tokio::sync::Mutex::new(()),
            replica_client,
            exporters,
            limiter: ingest::IngestLimiter::new(),
            checkpoint_permits: Arc::new(Semaphore::new(replication::checkpoint::SENDS_MAX)),
            counts: Counters::default(),
            instruments: self_metrics::NimbusInstruments::new(
                &setup.host,
                &setup.api,
                setup.clock.monotonic(),
            ),
            ingest_client: IngestClient::new(setup.store.clone())?,
            commit_wakeup: Notify::new(),
            replica_progress: Mutex::default(),
            log_state: Mutex::default(),
            fetch_status: Mutex::default(),
            exporter_states: Mutex::default(),
            tasks: owner.child(),
            setup,
        };
        let measure = Self { shared: Arc::new(shared) };
        let tasks = &measure.shared.tasks;
        let cancelled = tasks.cancelled();
        let opening = measure.clone();
        tasks.start_graceful("metric-store", OnExit::Ignore, open::keep_open(opening, cancelled));
        let service = measure.clone();
        tasks.start(
            "metric-follower",
            OnExit::Ignore,
            restart_on_panic("following", move || replication::follower::follow(service.clone())),
        );
        let service = measure.clone();
        tasks.start(
            "metric-meta-check",
            OnExit::Ignore,
            restart_on_panic("check of the metas", move || {
                replication::meta_check::check_metas(service.clone())
            }),
        );
        let service = measure.clone();
        tasks.start(
            "metric-self-report",
            OnExit::Ignore,
            restart_on_panic("report of the self metrics", move || self_metrics::report(service.clone())),
        );
        Ok(measure)
    }

    /// Stops all tasks, and closes the metric store.
    pub async fn stop(&self) {
        if !self.shared.tasks.stop(STOP_PATIENCE).await {
            error!(
                timeout = ?STOP_PATIENCE,
                "the metrics tasks did not end in time; acknowledged metrics are on disk"
            );
        }
    }

    /// Returns the tasks of the metrics service.
    pub fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// Returns the metric store, if it is open.
    pub fn archive(&self) -> Result<MetricStore, RequestError> {
        match &*self.shared.archive_state.borrow() {
            ArchiveState::Open(archive) => Ok(archive.clone()),
            ArchiveState::Unavailable(reason) => Err(RequestError::Unavailable { reason: reason.clone() }),
        }
    }

    /// Watches the reason why the metric store cannot be opened.
    pub fn closed(&self) -> watch::Receiver<Option<String>> {
        self.shared.open_failure.subscribe()
    }

    /// Waits until the metric store is open.
    async fn wait_until_open(&self) -> MetricStore {
        let mut archive_state = self.shared.archive_state.subscribe();
        loop {
            if let ArchiveState::Open(archive) = &*archive_state.borrow_and_update() {
                return archive.clone();
            }
            if archive_state.changed().await.is_err() {
                // The sender lives as long as this service.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the latest cluster view, and whether the view is up to date.
    fn view(&self) -> (Arc<ClusterView>, bool) {
        let observation = self.shared.setup.observations.borrow();
        (Arc::clone(&observation.view), observation.fresh)
    }

    fn replica_progress(&self) -> MutexGuard<'_, ReplicaProgress> {
        self.shared.replica_progress.lock().expect("no one panics while holding the replica progress")
    }

    /// The metric log state, as this nimbus read or published it while leading.
    fn log_state(&self) -> MutexGuard<'_, MetricLogState> {
        self.shared.log_state.lock().expect("no one panics while holding the log state")
    }

    fn fetch_status(&self) -> MutexGuard<'_, FetchStatus> {
        self.shared.fetch_status.lock().expect("no one panics while holding the fetch status")
    }

    /// Returns the leader, if it is another nimbus.
    fn leader(&self) -> Option<Leader> {
        let (view, _) = self.view();
        view.leader.clone().filter(|leader| leader.nimbus != self.shared.setup.me)
    }

    /// Returns the published high watermark: the log up to this position survives the loss of this
    /// leader with its disk, for ever.
    fn high_watermark(&self) -> LogPosition {
        self.log_state().high_watermark
    }

    /// Returns the log end of each other live nimbus, as reported to this leader.
    fn follower_log_ends(&self) -> BTreeMap<NimbusId, LogPosition> {
        let (view, _) = self.view();
        let live = view.nimbuses.keys().filter(|id| **id != self.shared.setup.me);
        self.replica_progress().log_ends_of(live)
    }

    /// Returns the last problem of following or of the takeover.
    pub fn problem(&self) -> Option<String> {
        // A leader that ingests follows no other nimbus.
        let follows = self.shared.replica_state.borrow().0 != ReplicaState::Leading;
        self.fetch_status().problem.clone().filter(|_| follows)
    }

    /// Returns the status of the metrics service.
    pub async fn status(&self) -> MetricsStatus {
        let (state, _) = *self.shared.replica_state.borrow();
        let mut status =
            MetricsStatus { state, counts: self.shared.counts.now(), ..MetricsStatus::default() };
        {
            let fetch_status = self.fetch_status();
            status.leader = fetch_status.leader;
            status.caught_up_at = fetch_status.caught_up_at;
        }
        status.problem = self.problem();
        let archive = match self.archive() {
            Ok(archive) => archive,
            Err(refusal) => {
                status.closed = Some(refusal.to_string());
                return status;
            }
        };
        status.position = archive.position();
        status.archive = archive.status().await.ok();
        status.queue = archive.queue_status().await.ok();
        if state == ReplicaState::Leading {
            status.leader = Some(status.position);
            (status.high_watermark, status.followers) = (self.high_watermark(), self.follower_log_ends());
            status.exporters =
                self.shared.exporter_states.lock().expect("no one panics while holding states").clone();
        }
        status
    }
}

/// Names the leader of the latest view to the query client.
#[derive(Debug)]
struct LeaderFromView(watch::Receiver<Observation>);

impl LeaderLocator for LeaderFromView {
    fn leader(&self) -> Option<String> {
        self.0.borrow().view.leader.as_ref().map(|leader| leader.api.clone())
    }
}

/// Runs a task, and restarts it after a pause if it panics: a fault in one task must not end the
/// others.
async fn restart_on_panic<F: Future<Output = ()>>(what: &'static str, mut part: impl FnMut() -> F) {
    while AssertUnwindSafe(part()).catch_unwind().await.is_err() {
        error!(task = what, pause = ?RESTART_PAUSE, "a metrics task panicked; restarting it after the pause");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Ends the tasks of a leadership when it is dropped.
#[derive(Debug)]
pub struct Leading(CancellationToken);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
