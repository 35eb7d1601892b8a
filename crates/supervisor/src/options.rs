//! Settings of a supervisor.

use std::{path::PathBuf, time::Duration};

use crate::AgentOptions;
use stormkeeper_access::locks::ZooKeeperProblems;
use stormkeeper_coordination::cluster::users::HeldUsers;
use stormkeeper_model::{Port, platform::Platform, resources::Capacity};
use stormkeeper_runtime::watch;

/// Settings of a supervisor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the supervisor's id, ledger, localized blobs, workers' directories and logs.
    pub local_dir: PathBuf,
    /// The host at which its workers are reached.
    pub host: String,
    /// The ports of its slots.
    pub ports: Vec<Port>,
    /// The listener of the agent; without one, other hosts cannot read the logs of workers.
    pub agent: Option<AgentOptions>,
    /// Listeners that everybody who reaches this host may use without a proof, for people.
    pub exposed: Option<String>,
    /// Users that it has at ZooKeeper, which its record says.
    pub held_users: watch::Receiver<HeldUsers>,
    /// Reasons why its files for ZooKeeper are not in force.
    pub zookeeper_problems: ZooKeeperProblems,
    /// Processor and C library of this host, for the worker programs of topologies; without them none is run
    /// here.
    pub platform: Option<Platform>,
    /// Declared resources for tasks; what is not declared is unlimited.
    pub capacity: Capacity,
    /// Limit from the launch of a worker to its first heartbeat.
    pub worker_start_timeout: Duration,
    /// Limit for the silence of a running worker, after which it is killed and relaunched.
    pub worker_timeout: Duration,
    /// Time of a worker between SIGTERM and SIGKILL.
    pub worker_shutdown_grace: Duration,
    /// Time for which a blob that no slot uses stays on disk.
    pub unused_blob_retention: Duration,
    /// Period of reading everything again, in case an event was lost.
    pub reconcile_period: Duration,
}
