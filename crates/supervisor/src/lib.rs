//! The agent of one host: runs the workers that the leader assigned to its slots.
//!
//! ```text
//!   supervisor assignments ─ watch ──┐                     ┌──▶ launch ──▶ process
//!   blobs/ ◀── localize ◀────────────┤  agent: event,      │      │ ledger
//!   workers/*/heartbeat ── read ─────┼─▶ step every slot ──┤      ▼
//!   process exits ──────── watch ────┘      (slot)         └──▶ signals, failures
//! ```
//!
//! Invariants:
//!
//! - There is at most one worker process in a slot, also across restarts of the supervisor.
//! - Workers outlive their supervisor: they run in process groups of their own, and a starting
//!   supervisor adopts the workers of its ledger that are still assigned to it.
//! - Unreadable records, an unreachable tree and another tree never stop a worker.
//! - A wait of one slot never delays another slot.
//!
//! Start with [`slot::SlotState::step`], which decides, and [`agent::Agent`], which acts.

mod agent;
mod agent_api;
mod agent_failures;
mod assignments;
mod clock;
mod credentials;
mod dead_launches;
mod failure_log;
mod failures;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod launch;
mod launch_facts;
mod ledger;
mod ledger_recovery;
mod live;
mod localize;
mod locks;
mod logs;
mod metrics;
mod offer;
mod options;
mod ports;
mod problems;
pub mod process;
mod registration;
pub mod run_as;
pub mod slot;
mod slot_runtime;
mod start;
mod starts;
mod status;
mod unpack;
mod user_files;
mod worker_dir;
mod worker_files;
mod worker_keys;
mod worker_logs;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use agent::Agent;
pub use agent_api::AgentOptions;
pub use options::Options;
pub use start::data_dir;
pub use status::Status;
pub use worker_keys::IdentityFiles;

use crate::process::Processes;
use crate::run_as::{RunAs, RunAsError};
use stormkeeper_access::{credentials::Credentials, file::WatchedFile, locks::Locks, tls::client::ClientTls};
use stormkeeper_api_types::{
    blobs::{BlobClient, FetchBlob, FetchError},
    http,
    leader_clock::{NimbusTime, NimbusTimeClient},
    proof_check::{ProofClient, ShowProof},
};
use stormkeeper_coordination::{
    cluster::{layout_version::Refused, store::Store, users::Users},
    tree::Tree,
};
use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestError, IngestTransport, OwnLeaderOnly};
use stormkeeper_model::{clock::Clock, topology::Settings};
use stormkeeper_runtime::{fs::locked_dir, tasks::Tasks};
use stormkeeper_topology_package::launch::Connections;

/// Treatment of the workers when their supervisor stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnStop {
    /// Workers keep running, and the next supervisor in the same directory adopts them.
    #[default]
    LeaveWorkers,
    /// Workers are stopped before the supervisor ends.
    StopWorkers,
}

/// Launch settings that all workers of this host share.
#[derive(Debug, Clone)]
pub struct LaunchDefaults {
    /// The configuration file, for the worker process to read as well.
    pub config_file: Option<PathBuf>,
    /// The `key=value` settings of the command line.
    pub overrides: Vec<String>,
    /// Period of writing a worker's heartbeat file.
    pub heartbeat_period: Duration,
    /// Shortest time between two refreshes of the heartbeats of a worker's tasks.
    pub task_heartbeat_period: Duration,
    /// Limit for the silence of a component, unless its topology sets one.
    pub subprocess_timeout: Duration,
    /// Period of the metric reports of workers and of this supervisor.
    pub metric_report_period: Duration,
    /// `topology.*` settings that apply where a topology sets none.
    pub settings: Settings,
    /// Treatment of the workers when the supervisor stops.
    pub on_stop: OnStop,
    /// Names of the supervisor's environment variables that workers do not get, for their logs.
    pub withheld_variables: Vec<String>,
    /// Time after which a worker that nobody owns any more ends.
    pub abandoned_after: Duration,
    /// The cluster secret, of which workers get the keys of their topologies.
    pub locks: Locks,
    /// Users of the tree, of which workers get those of their topologies; `None` for a tree without.
    pub zookeeper_users: Option<WatchedFile<Users>>,
    /// Files that workers present to ZooKeeper, of which those of other users get a copy.
    pub zookeeper_identity: Option<IdentityFiles>,
    /// Content of the file of credentials of every worker, as JSON, where no cluster secret opens others:
    /// in local mode. `None` writes no file there.
    pub fixed_credentials: Option<String>,
    /// Connections of workers; `None` in local mode, whose workers share those of this process.
    pub connections: Option<Connections>,
    /// Workers run as the owners of their topologies; `None` runs them as the user of the supervisor.
    pub run_as: Option<RunAs>,
}

/// Why a supervisor cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The local directory cannot be locked, or its supervisor id cannot be read.
    #[error(transparent)]
    Identity(#[from] locked_dir::Error),
    /// The local directory cannot be used.
    #[error("cannot use the local directory {}", dir.display())]
    LocalDir {
        /// The directory.
        dir: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// Workers cannot run as the owners of their topologies.
    #[error(transparent)]
    RunAs(#[from] RunAsError),
    /// The tree has another layout.
    #[error("the tree in ZooKeeper cannot be used")]
    Layout(#[from] Refused),
    /// The client that sends metrics to the leader cannot be created.
    #[error(transparent)]
    Metrics(#[from] IngestError),
    /// The client that fetches blobs cannot be created.
    #[error(transparent)]
    Blobs(#[from] FetchError),
    /// The client that asks the leader for its time cannot be created.
    #[error("the client that asks the leader for its time cannot be created")]
    Time(#[from] http::Error),
    /// A task of the agent ended unexpectedly.
    #[error("a task of the supervisor failed; the log names it")]
    Broken,
}

/// Connections of a supervisor to nimbuses. A supervisor makes none itself, so a simulation replaces
/// them.
#[derive(Debug, Clone)]
pub struct SupervisorClients {
    /// Fetches blobs.
    pub blobs: Arc<dyn FetchBlob>,
    /// Sends metrics to the leader.
    pub ingest: Arc<dyn IngestTransport>,
    /// Asks the leader for its time.
    pub time: Arc<dyn NimbusTime>,
    /// Asks the leader whether it believes the proofs of this supervisor.
    pub proof: Arc<dyn ShowProof>,
}

impl SupervisorClients {
    /// Creates HTTP clients, which read the leader from `tree` and send their requests with
    /// `credentials`, over `tls`.
    ///
    /// # Errors
    /// [`Error::Metrics`], [`Error::Blobs`], [`Error::Time`].
    pub fn over_http(
        tree: Arc<dyn Tree>,
        (credentials, tls): (&Credentials, &ClientTls),
    ) -> Result<Self, Error> {
        let ingest = IngestClient::over(tls, Store::new(tree))?.with_credentials(credentials.clone());
        let time = Arc::new(NimbusTimeClient::new(tls)?);
        let proof = Arc::new(ProofClient::new(credentials.clone(), tls)?);
        let blobs = BlobClient::new(tls)?.with_credentials(credentials.clone());
        Ok(Self { blobs: Arc::new(blobs), ingest: Arc::new(ingest), time, proof })
    }
}

/// Serves the slots of this host until `stop`. While the tree cannot be reached, at the start
/// or later, workers keep running and no new assignment is launched.
///
/// # Errors
/// When the local directory cannot be used or is another supervisor's, and when a part of the
/// agent fails.
pub async fn run(
    options: Options,
    tree: Arc<dyn Tree>,
    processes: Arc<dyn Processes>,
    clients: SupervisorClients,
    launch: LaunchDefaults,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let SupervisorClients { blobs, ingest, time, proof } = clients;
    let locks = launch.locks.clone();
    let agent = Agent::start(options, tree, processes, blobs, launch, clock.clone()).await?;
    agent.keep_locks_fresh(&locks);
    let tasks = Tasks::default();
    let ingest = OwnLeaderOnly::new(ingest, agent.store.clone());
    metrics::start(&agent, ingest, &clock, &tasks);
    agent.compare_clocks(time);
    agent.show_proof(proof);
    agent.start_api();
    agent.run(stop).await
}
