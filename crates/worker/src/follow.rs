//! What the tree says about this worker, and how it is followed.
//!
//! Only a successful read changes anything: a tree that is away, or a record that cannot be
//! read, leaves the worker as it is.

use std::{future::Future, time::Duration};

use tracing::{info, warn};

use crate::Options;
use stormkeeper_coordination::{
    cluster::{
        layout,
        store::{self, Store},
    },
    tree::Scope,
};
use stormkeeper_model::{
    assignment::Assignment, backoff::Backoff, metric_control::MetricControl, status::TopologyStatus,
    topology::TaskTable,
};

/// Everything is read again this often, so that a lost watch costs time and nothing else.
const REVIEW_PERIOD: Duration = Duration::from_secs(30);

/// How long a fresh worker may see no assignment before it believes it: the server it asks
/// may be behind the one that told its supervisor.
const LAG_PATIENCE: Duration = Duration::from_secs(3);

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the tree says about the topology of a worker that is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// Status of the topology.
    pub status: TopologyStatus,
    /// Tasks of each component.
    pub table: TaskTable,
    /// Where each task runs.
    pub assignment: Assignment,
    /// Metric settings that an operator changed while the topology runs.
    pub metrics: Option<MetricControl>,
}

/// Reads the records; `None` when the tree surely says that this worker has no place.
async fn read(store: &Store, options: &Options) -> Result<Option<Records>, store::Error> {
    let id = &options.topology;
    let Some(storm) = store.topology_record(id).await? else { return Ok(None) };
    let Some(assignment) = store.assignment(id).await? else { return Ok(None) };
    let assignment = assignment.value;
    if assignment.workers.get(&options.slot).is_none_or(|worker| worker.start != options.start) {
        return Ok(None);
    }
    // Read last: a table is written before or with the assignment that uses it.
    let Some(table) = store.tasks(id).await? else { return Ok(None) };
    let (status, metrics) = (storm.value.status, storm.value.metrics);
    Ok(Some(Records { status, table: table.value, assignment, metrics }))
}

fn backoff() -> Backoff {
    Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order")
}

/// Reads the records of a fresh worker, waiting for a tree that is away; `None` when it is
/// not assigned.
pub async fn read_first(store: &Store, options: &Options) -> Option<Records> {
    let (mut failures, mut absences) = (backoff(), backoff());
    let mut waited = Duration::ZERO;
    loop {
        let delay = match read(store, options).await {
            Ok(Some(records)) => return Some(records),
            Ok(None) if waited >= LAG_PATIENCE => return None,
            Ok(None) => {
                let delay = absences.next_delay();
                waited += delay;
                delay
            }
            Err(error) => {
                warn!(%error, topology = %options.topology, "cannot read the assignment; waiting");
                failures.next_delay()
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Tells `apply` of the records whenever they may have changed, and once when `ready` is
/// done. Returns when the tree says that this worker has no place any more.
pub async fn follow(
    store: &Store,
    options: &Options,
    ready: impl Future<Output = ()>,
    mut apply: impl FnMut(&Records, Readiness),
) {
    let mut storm = store.tree().watch(&layout::storm(&options.topology), Scope::Node);
    let mut assignment = store.tree().watch(&layout::assignment(&options.topology), Scope::Node);
    let mut review = tokio::time::interval(REVIEW_PERIOD);
    review.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = backoff();
    let mut retry = None;
    let mut readiness = Readiness::NotYet;
    tokio::pin!(ready);
    loop {
        let due = async {
            match retry {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The only one that is more than a wake-up comes first.
            biased;
            // Cancel-safe: every arm only waits; all is read again below.
            () = &mut ready, if readiness == Readiness::NotYet => readiness = Readiness::Ready,
            _ = storm.changed() => {}
            _ = assignment.changed() => {}
            _ = review.tick() => {}
            () = due => {}
        }
        retry = match read(store, options).await {
            Ok(Some(records)) => {
                apply(&records, readiness);
                backoff.reset();
                None
            }
            Ok(None) => {
                info!(topology = %options.topology, slot = %options.slot, "this worker is no longer assigned");
                return;
            }
            Err(error) => {
                // Once for each time the tree goes away; the rest is only patience.
                if retry.is_none() {
                    warn!(%error, topology = %options.topology, "cannot read the assignment; going on as before");
                }
                Some(backoff.next_delay())
            }
        };
    }
}

/// Whether this worker's spouts may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Tasks of this worker are still coming up.
    NotYet,
    /// They may.
    Ready,
}
