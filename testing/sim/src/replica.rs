//! A nimbus replica: a real nimbus on its own machine, which can be switched off.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection,
    environment::Environment,
    exporter::CountingExporter,
    journal::Party,
    metric_log::StoreDisk,
    network::{NetworkIngest, NetworkQuery, NetworkReplicas},
};
use stormkeeper_access::{
    file::WatchedFile,
    quota::{Quota, Quotas},
};
use stormkeeper_coordination::cluster::{store::Store, users::HeldUsers};
use stormkeeper_metric_store::Medium;
use stormkeeper_metrics_service::{MetricOptions, MetricsClients};
use stormkeeper_model::clock::Clock;
use stormkeeper_nimbus as nimbus;
use stormkeeper_nimbus::{Handle, Nimbus, Options, daemon::NimbusClients};
use stormkeeper_runtime::proc::Usage;

/// Limit for a clean stop, after which the replica is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Takeover grace: short, so that runs have unclean takeovers.
const TAKEOVER_GRACE: Duration = Duration::from_secs(30);

/// One replica, running or not.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) clock: Clock,
    env: Arc<Environment>,
    dir: PathBuf,
    /// The disk of its metric store.
    pub(super) disk: StoreDisk,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    nimbus: Nimbus,
    stop: CancellationToken,
    connection: Arc<Connection>,
}

impl Replica {
    pub(super) fn new(env: &Arc<Environment>, n: usize, clock: Clock) -> Self {
        let name = format!("nimbus-{n}");
        let dir = env.scratch.join(&name);
        let disk = StoreDisk::new(&dir);
        env.attach_disk(&name, &disk);
        Self { name, clock, env: Arc::clone(env), dir, disk, running: None }
    }

    /// The API address.
    pub(super) fn api(&self) -> String {
        format!("{}:8080", self.name)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.running.as_ref().map(|running| &running.connection)
    }

    /// True if the nimbus accepts writes, to its own knowledge.
    pub(super) fn leads(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.nimbus.handle().takes_writes())
    }

    /// # Panics
    /// If the nimbus does not start, which no fault prevents.
    pub(super) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.env.journal().log(format_args!("{} starts", self.name));
        let connection = Connection::open(&self.env, Party::Nimbus(self.name.clone()));
        let stop = CancellationToken::new();
        let nimbus = nimbus::daemon::start_at(
            self.options(),
            (self.api(), self.clients(&connection)),
            connection.tree(),
            self.clock.clone(),
            stop.clone(),
        )
        .expect("a nimbus starts");
        self.env.network.join(nimbus.handle().clone());
        self.running = Some(Running { nimbus, stop, connection });
    }

    /// Handle of the nimbus, if it runs.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.running.as_ref().map(|running| running.nimbus.handle())
    }

    /// Kills the nimbus like kill -9.
    pub(super) fn kill(&mut self) {
        let Some(Running { nimbus, connection, .. }) = self.running.take() else { return };
        self.env.journal().log(format_args!("{} is killed", self.name));
        self.env.network.leave(&self.api());
        connection.kill(&self.env.tasks);
        drop(nimbus);
        // Stricter than the end of a process: what was not synced is lost.
        self.disk.crash();
    }

    /// Kills the nimbus, and loses the disk of its metric store.
    pub(super) fn lose_disk(&mut self) {
        self.kill();
        self.env.journal().log(format_args!("{} loses the disk of its metric store", self.name));
        self.disk.lose();
    }

    /// Moves quarantined databases away, as an operator does: with too many of them, a nimbus does
    /// not follow the leader.
    pub(super) fn clear_quarantine(&self) {
        let n = self.disk.clear_quarantine();
        if n > 0 {
            self.env.journal().log(format_args!("the operator moves {n} databases of {} away", self.name));
        }
    }

    /// Stops the nimbus like SIGTERM, and kills it after a time limit.
    pub(super) async fn stop(&mut self) {
        let Some(Running { nimbus, stop, connection }) = self.running.take() else { return };
        self.env.journal().log(format_args!("{} is stopped", self.name));
        self.env.network.leave(&self.api());
        stop.cancel();
        match tokio::time::timeout(STOP_TIMEOUT, nimbus.stopped()).await {
            Ok(_) => connection.tree().close().await,
            Err(_) => connection.kill(&self.env.tasks),
        }
    }

    /// True if the nimbus has ended without a stop request.
    pub(super) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.nimbus.tasks().cancelled().is_cancelled())
    }

    fn clients(&self, connection: &Connection) -> NimbusClients {
        let (network, store) = (&self.env.network, Store::new(connection.tree()));
        let metrics = MetricsClients {
            replicas: Arc::new(NetworkReplicas::new(network, self.api(), &self.disk.disk)),
            ingest: Arc::new(NetworkIngest::new(network, self.api(), store.clone())),
            query: Arc::new(NetworkQuery::new(network, self.api(), store)),
            exporters: vec![Arc::new(CountingExporter::new(&self.name, self.env.shared_journal()))],
        };
        NimbusClients { blobs: Arc::clone(network) as _, metrics: Some(metrics), time: None, proof: None }
    }

    fn options(&self) -> Options {
        Options {
            locks: stormkeeper_access::locks::Locks::open(),
            quotas: self.env.journal().model().quota.map(quotas),
            local_dir: self.dir.clone(),
            host: self.name.clone(),
            api: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            api_names: Vec::new(),
            seeds: Vec::new(),
            monitor_period: Duration::from_secs(10),
            task_timeout: Duration::from_secs(30),
            task_launch: Duration::from_secs(60),
            supervisor_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(10),
            lost_hosts_share_max: nimbus::options::Share::HALF,
            settle: Duration::from_secs(15),
            max_moves_per_round: 100,
            candidate_grace: Duration::from_secs(10),
            max_blob_bytes: 1 << 20,
            upload_limits: nimbus::options::UploadLimits {
                unused_bytes_max: 1 << 30,
                free_bytes_min: Some(0),
            },
            blob_retention: Duration::from_secs(120),
            replication: Default::default(),
            tracking: nimbus::options::TrackingDefaults {
                message_timeout: Duration::from_secs(10),
                ..nimbus::options::TrackingDefaults::default()
            },
            prometheus_series_max: 20_000,
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: stormkeeper_access::locks::ZooKeeperProblems::default(),
            metrics: Some(MetricOptions {
                medium: Medium::Memory(self.disk.disk.clone()),
                usage,
                takeover_grace: TAKEOVER_GRACE,
                ..MetricOptions::of_test()
            }),
            storm_api: Default::default(),
        }
    }
}

/// Resource usage of every process: none, as real numbers differ from run to run.
fn usage() -> Option<Usage> {
    Some(Usage::default())
}

impl Drop for Replica {
    /// The network and the nimbus refer to each other.
    fn drop(&mut self) {
        self.env.network.leave(&self.api());
    }
}

/// Returns what a file of quotas says in which every owner has this quota.
fn quotas(quota: Quota) -> WatchedFile<Quotas> {
    let limit = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let text = format!("* topologies={} tasks={}", limit(quota.topologies), limit(quota.tasks));
    let read = move || Quotas::parse(Path::new("quotas"), &text);
    WatchedFile::open_all(Vec::new(), read).expect("numbers are limits")
}
