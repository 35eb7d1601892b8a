//! Metrics service of a nimbus: owner of the five parts, which starts their tasks.

use std::{fmt, future::Future, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tracing::error;

use crate::{
    Checkpoint, Lag, MetricOptions, MetricsClients, RequestError,
    cluster::ClusterAccess,
    export::Export,
    history::History,
    ingest::{BodyPermit, Ingest},
    replication::{Replication, follower, meta_check},
    self_metrics::{self, NimbusInstruments, SelfMetrics, Stopwatch},
    store_access::StoreAccess,
};
use stormkeeper_coordination::cluster::{observer::Observation, store::Store};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::{
    MetricId,
    protocol::{IngestResponse, LogPage, LogQuery, MetaPage, MetaQuery, RegisterResponse},
};
use stormkeeper_model::{LogPosition, NimbusId, TopologyId, clock::Clock};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Timeout for the end of the tasks: exporters clean up, RocksDB closes.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a task that panicked is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(30);

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

/// Metrics service of one nimbus. Clones share the same state.
#[derive(Clone)]
pub struct MetricsService {
    pub(crate) store: StoreAccess,
    pub(crate) replication: Arc<Replication>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) history: Arc<History>,
    pub(crate) export: Arc<Export>,
    pub(crate) self_metrics: Arc<SelfMetrics>,
    /// Held while the tasks of one leadership run.
    pub(crate) leadership_lock: Arc<tokio::sync::Mutex<()>>,
    pub(crate) tasks: Arc<Tasks>,
}

impl fmt::Debug for MetricsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsService").field("replication", &self.replication).finish_non_exhaustive()
    }
}

impl MetricsService {
    /// Starts the tasks that every nimbus runs for metrics; the tasks end with `owner`.
    pub fn start(setup: Setup, options: &MetricOptions, clients: MetricsClients, owner: &Tasks) -> Self {
        let Setup { me, host, api, local_dir, clock, observations, store: records } = setup;
        let MetricsClients { replicas, ingest: transport, query, exporters } = clients;
        let instruments = NimbusInstruments::new(&host, &api, clock.monotonic());
        let export = Arc::new(Export::new(clock.clone(), options, exporters, instruments.of_export()));
        let cluster = ClusterAccess::new(me, clock.clone(), records, observations);
        let store = StoreAccess::new();
        let replication = Arc::new(Replication::new(
            cluster.clone(),
            store.clone(),
            (replicas, query),
            local_dir.clone(),
            options,
        ));
        let ingest =
            Arc::new(Ingest::new(cluster.clone(), Arc::clone(&replication), instruments.of_ingest()));
        let service = Self {
            history: Arc::new(History::new(cluster.clone(), options)),
            self_metrics: Arc::new(SelfMetrics {
                cluster,
                store: store.clone(),
                replication: Arc::clone(&replication),
                ingest: Arc::clone(&ingest),
                transport,
                instruments,
                usage: options.usage,
                clock_check: options.intervals.clock_check,
            }),
            store,
            replication,
            ingest,
            export,
            leadership_lock: Arc::default(),
            tasks: Arc::new(owner.child()),
        };
        service.start_tasks(local_dir, store_options(options, clock, service.export.names()), options);
        service
    }

    fn start_tasks(&self, local_dir: PathBuf, store_options: metric_store::Options, options: &MetricOptions) {
        let (tasks, store) = (&self.tasks, self.store.clone());
        let (cancelled, of_store, pause) = (tasks.cancelled(), tasks.child(), options.intervals.reopen);
        tasks.start_graceful("metric-store", OnExit::Ignore, async move {
            store.keep_open(&local_dir, store_options, pause, of_store, cancelled).await;
        });
        let replication = Arc::clone(&self.replication);
        let following = move || follower::follow(Arc::clone(&replication));
        tasks.start("metric-follower", OnExit::Ignore, restart_on_panic("following", following));
        let replication = Arc::clone(&self.replication);
        let checking = move || meta_check::check_metas(Arc::clone(&replication));
        tasks.start("metric-meta-check", OnExit::Ignore, restart_on_panic("check of the metas", checking));
        let own = Arc::clone(&self.self_metrics);
        let reporting = move || self_metrics::report(Arc::clone(&own));
        let reporting = restart_on_panic("report of the self metrics", reporting);
        tasks.start("metric-self-report", OnExit::Ignore, reporting);
    }

    /// Stops all tasks, and closes the metric store.
    pub async fn stop(&self) {
        if !self.tasks.stop(STOP_PATIENCE).await {
            error!(
                timeout = ?STOP_PATIENCE,
                "the metrics tasks did not end in time; acknowledged metrics are on disk"
            );
        }
    }

    /// Returns the tasks of the metrics service.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Returns the metric store, if it is open.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`] with the reason.
    pub fn metric_store(&self) -> Result<MetricStore, RequestError> {
        self.store.get()
    }

    /// Watches the reason why the metric store cannot be opened.
    pub fn closed(&self) -> watch::Receiver<Option<String>> {
        self.store.open_failures()
    }

    /// Starts to measure the time of a request to this nimbus (`RequestTime`).
    pub fn time_request(&self) -> Stopwatch {
        self.self_metrics.instruments.time_request(&self.self_metrics.cluster.clock)
    }

    /// Counts a request that this nimbus refused (`RefusedRequests`).
    pub fn count_refused_request(&self) {
        self.self_metrics.instruments.count_refused_request();
    }

    /// Starts to measure the time of a decision of this nimbus as the leader (`DecisionTime`).
    pub fn time_decision(&self) -> Stopwatch {
        self.self_metrics.instruments.time_decision(&self.self_metrics.cluster.clock)
    }

    /// Returns a permit for a body that is about to be read.
    pub fn body_permit(&self) -> BodyPermit<'_> {
        self.ingest.body_permit()
    }

    /// Registers metric names.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn register(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<RegisterResponse, RequestError> {
        self.ingest.register(only, body).await
    }

    /// Ingests a metric batch.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn ingest(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<IngestResponse, RequestError> {
        self.ingest.ingest(only, body).await
    }

    /// Deletes metas of a topology that no longer exists.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn delete_metas(&self, topology: &TopologyId, ids: Vec<MetricId>) -> Result<(), RequestError> {
        self.ingest.delete_metas(topology, ids).await
    }

    /// Returns log entries for another nimbus, and the local log end.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn log_after(&self, query: LogQuery) -> Result<(LogPage, LogPosition), RequestError> {
        self.replication.log_after(query).await
    }

    /// Returns metas for another nimbus.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn metas(&self, query: MetaQuery) -> Result<MetaPage, RequestError> {
        self.replication.metas(query).await
    }

    /// Makes a checkpoint of the metric store.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`].
    pub async fn checkpoint(&self) -> Result<Checkpoint, RequestError> {
        self.replication.checkpoint().await
    }

    /// Returns the position of the leader's log as this nimbus last saw it.
    pub fn lag(&self) -> Lag {
        self.replication.lag()
    }

    /// Returns the number of log entries that each replica is behind the leader: this nimbus, and
    /// while it leads its followers.
    pub fn behind(&self) -> std::collections::BTreeMap<NimbusId, u64> {
        self.replication.behind()
    }

    /// Returns the last problem of the store, of following or of the takeover.
    pub fn problem(&self) -> Option<String> {
        self.replication.problem()
    }

    /// Returns the client that metas and history of other nimbuses are read with.
    #[cfg(any(test, feature = "test-support"))]
    pub fn query_client(&self) -> Arc<dyn crate::query::MetricQueryClient> {
        self.replication.query_client()
    }
}

fn store_options(options: &MetricOptions, clock: Clock, exporters: Vec<String>) -> metric_store::Options {
    metric_store::Options {
        medium: options.medium.clone(),
        clock,
        retention: options.retention,
        names_per_topology_max: options.names_per_topology_max,
        exporters,
        lease_timeout: options.intervals.export_timeout,
        nack_pause: options.intervals.export_pause,
        pending_per_topology_max: options.pending_per_topology_max,
        pending_bytes_max: options.pending_bytes_max,
        log_bytes_max: metric_store::Options::LOG_BYTES_MAX,
        log_age_max: metric_store::Options::LOG_AGE_MAX,
        cache_bytes: metric_store::Options::CACHE_BYTES,
        id_of: MetricId::of,
    }
}

/// Runs a task, and restarts it after a pause if it panics: a fault in one task must not end the
/// others.
pub(crate) async fn restart_on_panic<F: Future<Output = ()>>(
    what: &'static str,
    mut part: impl FnMut() -> F,
) {
    while AssertUnwindSafe(part()).catch_unwind().await.is_err() {
        error!(task = what, pause = ?RESTART_PAUSE, "a metrics task panicked; restarting it after the pause");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}
