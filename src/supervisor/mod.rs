//! The agent of one machine: makes the slots run what the leader ordered.
//!
//! ```text
//!   /orders/{id} ──watch──▶ orders ──┐                     ┌──▶ launch ──▶ process
//!   blobs/ ◀── localize ◀────────────┤  agent: event,      │      │ ledger
//!   workers/*/heartbeat ── look ─────┼─▶ step every slot ──┤      ▼
//!   process exits ──────── watch ────┘      (slot)         └──▶ signals, failures
//! ```
//!
//! Invariants:
//!
//! - There is at most one worker process in a slot, also across restarts of the supervisor.
//! - Workers outlive their supervisor: they run in process groups of their own, and a
//!   supervisor that starts adopts those that its ledger knows and its orders still want.
//! - What cannot be read, and a tree that cannot be reached, stop nothing.
//! - Nothing that one slot waits for holds up another.
//!
//! Start with [`slot::SlotState::step`], which decides, and [`agent::Agent`], which acts.

pub mod agent;
mod durable;
mod failures;
pub mod identity;
mod launch;
pub mod ledger;
mod localize;
pub mod logs;
mod metrics;
pub mod options;
mod orders;
mod own_slot;
pub mod process;
pub mod slot;
mod start;
pub mod status;
mod unpack;
mod worker_dir;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use agent::Agent;
pub use options::Options;
pub use status::Status;

use crate::{
    clock::Clock,
    cluster::store::Store,
    daemon::tasks::Tasks,
    model::topology::Settings,
    rpc::{
        blobs::{BlobClient, FetchError},
        metrics_client::{MetricsClient, MetricsError},
    },
    supervisor::process::Processes,
    tree::Tree,
};

/// What becomes of the workers when their supervisor is asked to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnStop {
    /// They run on, and the next supervisor in the same directory adopts them.
    #[default]
    LeaveWorkers,
    /// They are stopped first.
    StopWorkers,
}

/// What every worker of this machine is launched with.
#[derive(Debug, Clone)]
pub struct LaunchDefaults {
    /// The configuration file, for the worker process to read as well.
    pub config_file: Option<PathBuf>,
    /// The `key=value` settings of the command line.
    pub overrides: Vec<String>,
    /// How often a worker writes its heartbeat file.
    pub heartbeat_period: Duration,
    /// How often a worker refreshes the beats of its tasks at most.
    pub task_beat_period: Duration,
    /// How long a component may be silent, unless its topology says.
    pub subprocess_timeout: Duration,
    /// How often a worker reports its metrics, and this supervisor its own.
    pub metric_report_period: Duration,
    /// `topology.*` settings for what a topology leaves open.
    pub settings: Settings,
    /// What becomes of the workers at a stop.
    pub on_stop: OnStop,
}

/// Why a supervisor cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The local directory cannot be its own.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The local directory cannot be used.
    #[error("cannot use the local directory {}", dir.display())]
    LocalDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metrics could never be brought to the leader.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Blobs could never be fetched.
    #[error(transparent)]
    Blobs(#[from] FetchError),
    /// A part of the agent ended that must not.
    #[error("a part of the supervisor failed; the log says which")]
    Broken,
}

/// Serves the slots of this machine until `stop`. A tree that cannot be reached, at the start
/// or later, only means that nothing new is launched.
///
/// # Errors
/// When the local directory cannot be used or is another supervisor's, and when a part of the
/// agent fails.
pub async fn run(
    options: Options,
    tree: Arc<dyn Tree>,
    processes: Arc<dyn Processes>,
    launch: LaunchDefaults,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let blobs = Arc::new(BlobClient::new()?);
    let client = MetricsClient::new(Store::new(Arc::clone(&tree)))?;
    let agent = Agent::start(options, tree, processes, blobs, launch, clock.clone()).await?;
    let tasks = Tasks::default();
    metrics::start(&agent, client, &clock, &tasks);
    agent.run(stop).await
}
