//! Records of this worker in the tree, and the loop that follows them.
//!
//! Only a successful read changes the worker. If the tree is unavailable or a record is
//! unreadable, the worker continues as it is.

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
    assignment::Assignment,
    backoff::{Backoff, Delays},
    metric_control::MetricControl,
    status::TopologyStatus,
    topology::TaskTable,
};

/// Period at which all records are read again, so that a lost watch only costs time.
const REVIEW_PERIOD: Duration = Duration::from_secs(30);

/// Time for which a new worker doubts that it has no assignment: the ZooKeeper server that it
/// reads from may lag behind the server that its supervisor read from.
const LAG_MAX: Duration = Duration::from_secs(3);

const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(5));

/// Records of the topology of an assigned worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// Status of the topology.
    pub status: TopologyStatus,
    /// Tasks of each component.
    pub table: TaskTable,
    /// Worker that each task runs in.
    pub assignment: Assignment,
    /// Metric settings that an operator changed while the topology runs.
    pub metrics: Option<MetricControl>,
}

/// Reads the records; `None` if the tree shows that this worker is not assigned.
async fn read(store: &Store, options: &Options) -> Result<Option<Records>, store::Error> {
    let id = &options.spec.topology;
    let Some(topology_record) = store.topology_record(id).await? else { return Ok(None) };
    let Some(assignment) = store.assignment(id).await? else { return Ok(None) };
    let assignment = assignment.value;
    if assignment.workers.get(&options.spec.slot).is_none_or(|worker| worker.start != options.spec.start) {
        return Ok(None);
    }
    // The table is read last: it is written before or with the assignment that uses it.
    let Some(table) = store.tasks(id).await? else { return Ok(None) };
    let (status, metrics) = (topology_record.value.status, topology_record.value.metrics);
    Ok(Some(Records { status, table: table.value, assignment, metrics }))
}

fn backoff() -> Backoff {
    RETRY.backoff()
}

/// Reads the records of a new worker, and waits while the tree is unavailable. Returns `None` if
/// the worker is not assigned.
pub async fn read_first(store: &Store, options: &Options) -> Option<Records> {
    let (mut failure_backoff, mut absence_backoff) = (backoff(), backoff());
    let mut waited = Duration::ZERO;
    loop {
        let delay = match read(store, options).await {
            Ok(Some(records)) => return Some(records),
            Ok(None) if waited >= LAG_MAX => return None,
            Ok(None) => {
                let delay = absence_backoff.next_delay();
                waited += delay;
                delay
            }
            Err(error) => {
                warn!(%error, topology = %options.spec.topology, "cannot read the assignment; retrying");
                failure_backoff.next_delay()
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Passes the records to `apply` whenever they may have changed, and once when `ready` is
/// done. Returns when the tree shows that this worker is no longer assigned.
pub async fn follow(
    store: &Store,
    options: &Options,
    ready: impl Future<Output = ()>,
    mut apply: impl FnMut(&Records, Readiness),
) {
    let mut topology_record = store.tree().watch(&layout::storm(&options.spec.topology), Scope::Node);
    let mut assignment = store.tree().watch(&layout::assignment(&options.spec.topology), Scope::Node);
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
            // The only arm that does more than wake the loop comes first.
            biased;
            // Cancel-safe: all arms only wait; the records are read again below.
            () = &mut ready, if readiness == Readiness::NotYet => readiness = Readiness::Ready,
            _ = topology_record.changed() => {}
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
                info!(topology = %options.spec.topology, slot = %options.spec.slot, "this worker is no longer assigned");
                return;
            }
            Err(error) => {
                // Logged once per outage of the tree; later retries of the same outage are silent.
                if retry.is_none() {
                    warn!(%error, topology = %options.spec.topology, "cannot read the assignment; continuing with the last one");
                }
                Some(backoff.next_delay())
            }
        };
    }
}

/// Readiness of this worker's spouts to emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Some tasks of this worker are still starting.
    NotYet,
    /// All tasks are up, or the wait for them timed out.
    Ready,
}
