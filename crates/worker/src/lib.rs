//! Inside a worker: the tasks of one topology in one slot.
//!
//! ```text
//!  other workers ══ TCP ══▶ transport ─▶ inboxes ─▶ task loops ─▶ outbox ─▶ transport ══▶
//!                                                    │      ▲
//!                                                 children of shell components (multilang)
//!  tree ─ storm, assignment, tasks ─▶ follow        beats, errors ─▶ tree
//! ```
//!
//! - A worker runs the tasks that its slot has in the assignment, and stops by itself when
//!   it reads that they are gone. It never stops because the tree is away.
//! - Tasks do not know one another: they share the queues of [`transport`] and nothing else.
//!   What goes wrong in one is reported, and the others go on.
//! - Liveness is an ephemeral per task, a file for the supervisor, and the children's own
//!   signs of life; see `beat` and `task`.
//!
//! Start with [`run`], then `assembly` (what is made and in which order), then `task`.

mod assembly;
pub mod beat;
pub mod counters;
pub mod errors;
pub mod follow;
pub mod log;
mod metrics;
pub mod multilang;
pub mod options;
pub mod settings;
mod task;
pub mod transport;

use std::{io, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::info;

#[cfg(feature = "test-support")]
pub use metrics::flow;
pub use options::{ComponentGroup, Options};

use stormkeeper_coordination::{
    cluster::{presence::Presence, store::Store},
    tree::Tree,
};
use stormkeeper_metric_shipping::ingest_client::IngestError;
use stormkeeper_model::{Port, TaskId, clock::Clock};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_stream::grouping;

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// Its slot no longer has these tasks.
    Unassigned,
}

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The unpacked blob holds no topology.
    #[error("cannot read the topology in {}", path.display())]
    Code {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its own directory cannot be written.
    #[error("cannot write {}", path.display())]
    Dir {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its port cannot be opened.
    #[error("cannot listen on port {port}")]
    Bind {
        /// The port.
        port: Port,
        /// Why.
        source: io::Error,
    },
    /// It is assigned a task that the topology does not have.
    #[error("task {task} is assigned here and belongs to no component of the topology")]
    UnknownTask {
        /// The task.
        task: TaskId,
    },
    /// Topology and task table do not fit together.
    #[error("the topology cannot be wired")]
    Wiring(#[source] grouping::Error),
    /// Metrics could never be brought to the leader.
    #[error(transparent)]
    Metrics(#[from] IngestError),
    /// A part that the worker cannot do without has ended.
    #[error("a part of the worker has failed; the log says which")]
    Broken,
}

/// Runs a worker until it is stopped or no longer assigned. While the tree is away it waits
/// to start, and goes on when it had started.
///
/// # Errors
/// [`Error`] when it cannot start, or a vital part of it broke.
///
/// # Cancellation safety
/// Dropping the future kills the children and leaves the beats to the session; cancel
/// `stop` instead, which takes some milliseconds, and three seconds at most.
pub async fn run(
    options: Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Ended, Error> {
    let tasks = Tasks::default();
    beat::start_heartbeat_file(&options, &tasks);
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    let store = Store::new(tree);
    let plan = tokio::select! {
        // Cancel-safe: nothing was started yet.
        () = stop.cancelled() => return Ok(Ended::Stopped),
        plan = assembly::prepare(&options, &store, &clock) => plan?,
    };
    let Some(plan) = plan else {
        info!(topology = %options.topology, slot = %options.slot, "this worker is not assigned");
        return Ok(Ended::Unassigned);
    };
    let mut worker = assembly::Worker::start(plan, options, (store, presence), clock, tasks)?;
    let broken = worker.broken();
    let ended = tokio::select! {
        // Cancel-safe: following only reads and tells; the worker stops either way.
        () = stop.cancelled() => Ok(Ended::Stopped),
        () = broken => Err(Error::Broken),
        () = worker.follow() => Ok(Ended::Unassigned),
    };
    worker.stop().await;
    ended
}

#[cfg(test)]
mod tests;
