//! Settings of a nimbus, as given by its configuration.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use stormkeeper_access::{
    credentials::Credentials,
    file::WatchedFile,
    locks::{Locks, ZooKeeperProblems},
    quota::Quotas,
};
use stormkeeper_coordination::cluster::users::HeldUsers;
use stormkeeper_model::{clock::Clock, topology::Ackers};
use stormkeeper_runtime::watch;

pub use crate::{
    blobs::{copies::ReplicationSettings, room::UploadLimits},
    policy::Share,
};
pub use stormkeeper_metrics_service::{Intervals, MetricOptions};

/// Settings of a nimbus replica.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory for its id, its blobs and its metrics.
    pub local_dir: PathBuf,
    /// Host name under which other processes reach it.
    pub host: String,
    /// Listen address of its API. With port 0 the system chooses a free port.
    pub api: SocketAddr,
    /// Tokens and secrets, and whether they are required.
    pub locks: Locks,
    /// Listeners that everybody who reaches this host may use without a proof, for people.
    pub exposed: Option<String>,
    /// Users that it has at ZooKeeper, which its record says.
    pub held_users: watch::Receiver<HeldUsers>,
    /// Reasons why its files for ZooKeeper are not in force.
    pub zookeeper_problems: ZooKeeperProblems,
    /// Quotas of owners; `None` limits nobody.
    pub quotas: Option<WatchedFile<Quotas>>,
    /// Names under which requests may address the API, with or without ports, besides addresses,
    /// `localhost` and `host`.
    pub api_names: Vec<String>,
    /// Addresses of the APIs of nimbuses that should know the same tree.
    pub seeds: Vec<String>,
    /// Longest pause between two decisions, if no event causes one earlier.
    pub monitor_period: Duration,
    /// Time without a heartbeat after which a task is dead.
    pub task_timeout: Duration,
    /// Time that a task may take from its assignment to its first heartbeat.
    pub task_launch: Duration,
    /// Time that a supervisor may be absent before its tasks move, if they are absent too.
    pub supervisor_timeout: Duration,
    /// Timeout of its ZooKeeper session. A nimbus whose view is older is not ready.
    pub session_timeout: Duration,
    /// Largest share of the supervisors that may vanish together and be lost with their sessions.
    pub lost_hosts_share_max: Share,
    /// Time during which a new leader moves nothing, so that supervisors and workers can come
    /// back after an outage: the session timeout and a margin.
    pub settle: Duration,
    /// Most tasks that are moved away from lost workers in one round.
    pub max_moves_per_round: usize,
    /// Time that a nimbus with missing blobs of live topologies waits for others to lead.
    pub candidate_grace: Duration,
    /// Size of the largest blob accepted.
    pub max_blob_bytes: u64,
    /// Limits of uploads beside the size of each blob.
    pub upload_limits: UploadLimits,
    /// Time that a blob which no topology uses stays on disk.
    pub blob_retention: Duration,
    /// Number of nimbuses that must have the blob of a topology before it is accepted, and the
    /// wait for them, unless the topology sets its own.
    pub replication: ReplicationSettings,
    /// Settings of topologies that do not set them.
    pub tracking: TrackingDefaults,
    /// Metric settings; without them this nimbus keeps no metrics.
    pub metrics: Option<MetricOptions>,
    /// Settings of Storm's API.
    pub storm_api: StormApiOptions,
    /// Maximum number of series of topologies on the page for Prometheus; beyond it the lowest levels
    /// are left out.
    pub prometheus_series_max: usize,
}

/// Tracking of tuple trees of topologies that do not set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackingDefaults {
    /// Time after which a tree fails; also the wait of a kill or rebalance if the operator sets none.
    pub message_timeout: Duration,
    /// Ackers; `None` leaves trees untracked.
    pub ackers: Option<Ackers>,
    /// Whether they grow back to their number of workers.
    pub grow_back: bool,
    /// Time for which slots must have been free before.
    pub grow_back_delay: Duration,
}

impl Default for TrackingDefaults {
    fn default() -> Self {
        Self {
            message_timeout: Duration::from_secs(30),
            ackers: Some(Ackers::PerWorker),
            grow_back: false,
            grow_back_delay: Duration::from_secs(60),
        }
    }
}

/// Settings of Storm's API.
#[derive(Debug, Clone, PartialEq)]
pub struct StormApiOptions {
    /// True if it takes writes.
    pub actions: bool,
    /// True if it answers with a script that calls a function of the asking page.
    pub jsonp: bool,
    /// Origins whose pages may read it; `*` is every one.
    pub origins: Vec<String>,
    /// Configuration of the nimbus, as it is shown.
    pub configuration: BTreeMap<String, serde_json::Value>,
    /// Sources of the values that are set, for people: a file with a line, or the command line.
    pub sources: BTreeMap<String, String>,
}

impl Default for StormApiOptions {
    /// Writes, and neither scripts nor other origins.
    fn default() -> Self {
        Self {
            actions: true,
            jsonp: false,
            origins: Vec::new(),
            configuration: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Returns the credentials with which this nimbus sends requests to others.
    pub(crate) fn credentials(&self, clock: &Clock) -> Credentials {
        self.locks.credentials(&format!("nimbus on {}", self.host), clock)
    }
}

#[cfg(any(test, feature = "test-support"))]
impl Options {
    /// Options of a test nimbus: a free port on the loopback interface, no metrics.
    pub fn of_test(local_dir: PathBuf) -> Self {
        Self {
            local_dir,
            host: "127.0.0.1".to_owned(),
            api: ([127, 0, 0, 1], 0).into(),
            locks: Locks::open(),
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: ZooKeeperProblems::default(),
            quotas: None,
            api_names: Vec::new(),
            seeds: Vec::new(),
            monitor_period: Duration::from_secs(10),
            task_timeout: Duration::from_secs(30),
            task_launch: Duration::from_secs(120),
            supervisor_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(10),
            lost_hosts_share_max: Share::HALF,
            settle: Duration::from_secs(15),
            max_moves_per_round: 100,
            candidate_grace: Duration::from_secs(30),
            max_blob_bytes: 20_000,
            upload_limits: UploadLimits { unused_bytes_max: 1 << 20, free_bytes_min: Some(0) },
            blob_retention: Duration::from_secs(600),
            replication: ReplicationSettings::default(),
            tracking: TrackingDefaults::default(),
            metrics: None,
            storm_api: StormApiOptions::default(),
            prometheus_series_max: 20_000,
        }
    }
}
