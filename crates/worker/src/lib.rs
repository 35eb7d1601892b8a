//! A worker process: runs the tasks that one topology has in one slot.
//!
//! ```text
//!  other workers ══ TCP ══▶ transport ─▶ inboxes ─▶ task loops ─▶ outbox ─▶ transport ══▶
//!                                                    │      ▲
//!                                                 children of shell components (multilang)
//!  tree ─ topology, assignment, tasks ─▶ follow     heartbeats, errors ─▶ tree
//! ```
//!
//! - A worker runs the tasks that the assignment places in its slot. The worker stops by itself
//!   when it reads that the assignment has removed them, and never because the tree is unavailable
//!   or another tree.
//! - Tasks do not know one another: they share the queues of [`transport`] and nothing else.
//!   A failure of one task is reported, and the other tasks continue.
//! - A component is a child process that speaks multilang (module `task`), or has its code in the worker
//!   program and a thread of its own ([`component`]).
//! - Liveness is an ephemeral znode per task, a heartbeat file for the supervisor, and the
//!   heartbeats of the child processes; see `heartbeat` and `task`.
//!
//! Start with [`run`], then `assembly` (order of construction), then `task`.

mod abandoned;
mod assembly;
pub mod component;
pub mod counters;
mod drain;
mod errors;
pub mod follow;
pub mod heartbeat;
pub mod heartbeat_file;
pub mod limits;
mod live;
pub mod log;
mod log_levels;
mod metrics;
pub mod multilang;
mod options;
mod owner;
mod queue;
mod report;
mod restarts;
mod samples;
mod settings;
mod task;
mod task_table;
mod tracking;
pub mod transport;

use std::{io, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use metrics::{MasterAddress, MasterEnd, MasterLink};
#[cfg(feature = "test-support")]
pub use metrics::{bench_support, fake_worker};
pub use options::{MetricReports, Options};
pub use queue::Inbox;
pub use stormkeeper_metric_shipping::ingest_client::IngestTransport;
#[cfg(feature = "test-support")]
pub use tracking::bench_support as tracking_bench;

use stormkeeper_coordination::{
    cluster::{
        checked_tree::{CheckedTree, OnEmpty},
        layout_version::Refused,
        presence::Presence,
        store::Store,
        tree_id::TreeMemory,
    },
    tree::Tree,
};
use stormkeeper_metric_shipping::ingest_client::OwnLeaderOnly;
use stormkeeper_model::{ComponentId, Port, TaskId, clock::Clock};
use stormkeeper_runtime::{blocking, error_chain, tasks::Tasks};
use stormkeeper_stream::grouping;
use stormkeeper_topology_package::worker_report::EXIT_REASON_FILE;

/// Reason for which a worker ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The worker was asked to stop.
    Stopped,
    /// The assignment no longer places these tasks in the worker's slot.
    Unassigned,
    /// Nobody has owned the worker for a long time: see `abandoned`.
    Abandoned,
}

/// Failure that ends a worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The unpacked topology package contains no valid topology.
    #[error("cannot read the topology in {}", path.display())]
    Code {
        /// Path of `topology.json`.
        path: PathBuf,
        /// I/O or JSON error.
        source: io::Error,
    },
    /// The worker's own directory is not writable.
    #[error("cannot write {}", path.display())]
    Dir {
        /// File or directory that could not be written.
        path: PathBuf,
        /// I/O error.
        source: io::Error,
    },
    /// The worker's port cannot be opened.
    #[error("cannot listen on port {port}")]
    Bind {
        /// Port of the slot.
        port: Port,
        /// I/O error.
        source: io::Error,
    },
    /// The assignment contains a task that the topology does not have.
    #[error("task {task} is assigned here and belongs to no component of the topology")]
    UnknownTask {
        /// Assigned task without a component.
        task: TaskId,
    },
    /// The topology has a component whose code is not in this program.
    #[error(
        "the topology has a {kind} {component} whose code is in its worker program, and this program has none of \
         that name: it is not the one that was submitted"
    )]
    UnknownComponent {
        /// Spout or bolt.
        kind: &'static str,
        /// The component.
        component: ComponentId,
    },
    /// Topology and task table contradict each other.
    #[error("the topology cannot be wired")]
    Wiring(#[source] grouping::Error),
    /// The tree has another layout.
    #[error("the tree in ZooKeeper cannot be used")]
    Layout(#[from] Refused),
    /// The task table was changed by hand.
    #[error("the task table in ZooKeeper was changed while the worker ran; it starts again with the new one")]
    TaskTable,
    /// A background task that the worker needs has ended.
    #[error("a vital background task of the worker has ended; see the worker's log for its name")]
    Broken,
}

/// Runs a worker until it is stopped or no longer assigned. If the tree is unavailable, a worker
/// that has not started waits, and a worker that has started continues.
///
/// Metrics go to the leader by `ingest`; without it the worker has no metrics, except the counts in
/// task heartbeats.
///
/// # Errors
/// [`Error`] if the worker cannot start, or if a vital part of it fails.
///
/// # Cancellation safety
/// Dropping the future kills the children and leaves the task heartbeats to the session's end.
/// Cancel `stop` instead, which takes some milliseconds, and three seconds at most.
pub async fn run(
    options: Options,
    tree: Arc<dyn Tree>,
    ingest: Option<Arc<dyn IngestTransport>>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Ended, Error> {
    let exit_reason = options.spec.dir.join(EXIT_REASON_FILE);
    let ended = run_to_end(options, tree, ingest, clock, stop).await;
    if let Err(error) = &ended {
        let reason = error_chain(error).to_string();
        let written = blocking::run(move || std::fs::write(exit_reason, reason)).await;
        if let Err(error) = written {
            warn!(%error, "cannot write the reason of the exit for the supervisor");
        }
    }
    ended
}

async fn run_to_end(
    mut options: Options,
    tree: Arc<dyn Tree>,
    ingest: Option<Arc<dyn IngestTransport>>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Ended, Error> {
    if ingest.is_none() {
        options.metrics = MetricReports::Off;
    }
    if !options.spec.withheld_variables.is_empty() {
        info!(
            variables = options.spec.withheld_variables.join(" "),
            "components do not get these environment variables of the supervisor; \
             supervisor.worker.environment.allow passes them"
        );
    }
    let tasks = Tasks::default();
    let owner = owner::Owner::of(&options.spec);
    heartbeat_file::start(&options, &owner, &tasks);
    // No part of the worker uses the tree before its layout is checked.
    // A worker is not restarted on its own: it remembers the tree of its start, while it runs.
    let memory = TreeMemory::of_process(clock.clone());
    let (tree, mut refusal) = CheckedTree::start(tree, OnEmpty::Wait, memory, &tasks);
    let tree: Arc<dyn Tree> = tree;
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    let (dir, limit) = (options.spec.dir.clone(), options.spec.abandoned_after);
    let abandoned = abandoned::abandoned(dir, owner, tree.session(), limit, clock.clone());
    let mut abandoned = std::pin::pin!(abandoned);
    let store = Store::new(tree);
    let ingest = ingest.map(|ingest| OwnLeaderOnly::new(ingest, store.clone()) as _);
    let prepared = tokio::select! {
        // Cancel-safe: nothing was started yet.
        () = stop.cancelled() => return Ok(Ended::Stopped),
        // Cancel-safe: it only waits.
        refused = refusal.refused() => return Err(refused.into()),
        // Cancel-safe: it only looks.
        () = &mut abandoned => return Ok(Ended::Abandoned),
        prepared = assembly::prepare(&options, &store, &clock) => prepared?,
    };
    let Some(prepared) = prepared else {
        info!(topology = %options.spec.topology, slot = %options.spec.slot, "this worker is not assigned");
        return Ok(Ended::Unassigned);
    };
    let mut worker = assembly::Worker::start(prepared, options, (store, presence), ingest, clock, tasks)?;
    let (broken, table_changed) = (worker.broken(), worker.table_changed());
    let ended = tokio::select! {
        // Cancel-safe: `follow` only reads and applies records; the worker stops either way.
        () = stop.cancelled() => Ok(Ended::Stopped),
        () = broken => Err(Error::Broken),
        // Cancel-safe: it only waits.
        () = table_changed => Err(Error::TaskTable),
        () = worker.follow() => Ok(Ended::Unassigned),
        // Cancel-safe: as above.
        () = abandoned => Ok(Ended::Abandoned),
    };
    worker.stop().await;
    ended
}

#[cfg(test)]
mod tests;
