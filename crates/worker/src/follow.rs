//! Records of this worker in the tree, and the loop that follows them.
//!
//! Only records of a leader change the worker. If the tree is unavailable, or a record is unreadable
//! or was deleted by hand, the worker continues as it is: only an assignment without it, or one that
//! was deleted together with the entry of its supervisor, as the leader does it, ends the worker.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{Options, transport::Membership};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::TopologyRecord,
        store::{self, Store},
    },
    tree::{self, Scope, TreePath},
};
use stormkeeper_model::{
    Timestamp,
    assignment::Assignment,
    backoff::{Backoff, Delays},
    log_control::LogControl,
    metric_control::MetricControl,
    status::{PendingChange, TopologyStatus},
    topology::{Ackers, TaskTable},
    tuple_samples::TupleSamples,
};
use stormkeeper_runtime::outage::Outage;

/// Period at which all records are read again, so that a lost watch only costs time.
const REVIEW_PERIOD: Duration = Duration::from_secs(30);

/// Time for which a new worker doubts that it has no assignment: the ZooKeeper server that it
/// reads from may lag behind the server that its supervisor read from.
const LAG_MAX: Duration = Duration::from_secs(3);

/// Time for which a worker runs on without a record that was deleted by hand: long enough to put the
/// record back or to let a leader place the topology again. A worker whose supervisor has gone for
/// good, and whose topology was killed, ends then.
const MISSING_MAX: Duration = Duration::from_secs(600);

const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(5));

/// Records of the topology of an assigned worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// Status of the topology.
    pub status: TopologyStatus,
    /// Deadline of a kill or rebalance that waits for the workers to drain.
    pub pending: Option<Timestamp>,
    /// Deadline until which this worker drains, as an update replaces it next.
    pub update: Option<Timestamp>,
    /// Tasks of each component.
    pub table: TaskTable,
    /// Worker that each task runs in.
    pub assignment: Assignment,
    /// Ackers of its tuple trees; `None` if they are not tracked.
    pub ackers: Option<Ackers>,
    /// Time after which a tuple tree fails.
    pub message_timeout: Duration,
    /// Metric settings that an operator changed while the topology runs.
    pub metrics: Option<MetricControl>,
    /// Log levels of components that an operator set while the topology runs.
    pub log_levels: LogControl,
    /// Samples of tuples that an operator asked for while the topology runs.
    pub tuple_samples: TupleSamples,
}

/// What the tree says about this worker.
enum Reading {
    Assigned(Box<Records>),
    Unassigned,
    /// A record is missing that the leader deletes only after the assignment.
    Missing(TreePath),
}

/// Reads the records.
async fn read(store: &Store, options: &Options) -> Result<Reading, store::Error> {
    let (id, slot) = (&options.spec.topology, &options.spec.slot);
    // The record is read before the assignment: spouts that run again after a rebalance know the new places.
    let topology_record = store.topology_record(id).await?;
    let Some(assignment) = store.assignment(id).await? else {
        // The leader deletes an assignment and the entry of the supervisor in one transaction.
        let entries = store.supervisor_assignments(&slot.supervisor).await?;
        return Ok(match entries.is_some_and(|entries| !entries.value.topologies.contains_key(id)) {
            true => Reading::Unassigned,
            false => Reading::Missing(layout::assignment(id)),
        });
    };
    let assignment = assignment.value;
    if assignment.workers.get(slot).is_none_or(|worker| worker.start != options.spec.start) {
        return Ok(Reading::Unassigned);
    }
    let Some(topology_record) = topology_record else {
        return Ok(Reading::Missing(layout::storm(id)));
    };
    // The table is read last: it is written before or with the assignment that uses it.
    let Some(table) = store.tasks(id).await? else { return Ok(Reading::Missing(layout::tasks(id))) };
    let TopologyRecord {
        status,
        ackers,
        message_timeout_secs,
        pending,
        metrics,
        log_levels,
        tuple_samples,
        update,
        ..
    } = topology_record.value;
    let message_timeout = Duration::from_secs(message_timeout_secs.max(1));
    let table = table.value;
    let (log_levels, tuple_samples) = (log_levels.unwrap_or_default(), tuple_samples.unwrap_or_default());
    let pending = pending.as_ref().map(PendingChange::deadline);
    let update = update.and_then(|update| update.drains(slot, options.spec.start));
    Ok(Reading::Assigned(Box::new(Records {
        status,
        pending,
        update,
        table,
        assignment,
        ackers,
        message_timeout,
        metrics,
        log_levels,
        tuple_samples,
    })))
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
            Ok(Reading::Assigned(records)) => return Some(*records),
            Ok(Reading::Unassigned | Reading::Missing(_)) if waited >= LAG_MAX => return None,
            Ok(Reading::Unassigned | Reading::Missing(_)) => {
                let delay = absence_backoff.next_delay();
                waited += delay;
                delay
            }
            Err(error) => {
                let topology = &options.spec.topology;
                match error {
                    // The connection logs why there is none; at a start there is none for a moment.
                    store::Error::Tree(tree::Error::Disconnected) => {
                        debug!(%topology, "not connected to ZooKeeper yet; reading the assignment later");
                    }
                    error => warn!(%error, %topology, "cannot read the assignment; retrying"),
                }
                failure_backoff.next_delay()
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Passes the records to `apply` whenever they may have changed, and once when `ready` is
/// done. Returns when the tree shows that this worker is no longer assigned, or when a record has
/// been missing for ten minutes.
pub async fn follow(
    store: &Store,
    options: &Options,
    ready: impl Future<Output = ()>,
    apply: impl FnMut(&Records, Readiness),
) {
    follow_for(store, options, ready, None, apply).await;
}

/// As [`follow()`], and also reads the records again when an unknown worker asks `members`.
pub(crate) async fn follow_for(
    store: &Store,
    options: &Options,
    ready: impl Future<Output = ()>,
    members: Option<&Membership>,
    mut apply: impl FnMut(&Records, Readiness),
) {
    let mut topology_record = store.tree().watch(&layout::storm(&options.spec.topology), Scope::Node);
    let mut assignment = store.tree().watch(&layout::assignment(&options.spec.topology), Scope::Node);
    let mut review = tokio::time::interval(REVIEW_PERIOD);
    review.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = backoff();
    let (mut retry, mut missing_since, mut outage) = (None, None, Outage::default());
    let mut readiness = Readiness::NotYet;
    tokio::pin!(ready);
    loop {
        let due = async {
            match retry {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            match members {
                Some(members) => members.read_again().await,
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
            // An unknown worker connects: the assignment may be newer than the one that was read.
            () = asked => {}
            () = due => {}
        }
        retry = match read(store, options).await {
            Ok(Reading::Assigned(records)) => {
                apply(&records, readiness);
                backoff.reset();
                missing_since = None;
                if let Some(lasted) = outage.ends() {
                    info!(topology = %options.spec.topology, ?lasted, "read the assignment again");
                }
                None
            }
            Ok(Reading::Missing(path))
                if missing_since.is_none_or(|since: Instant| since.elapsed() < MISSING_MAX) =>
            {
                if outage.begins() {
                    warn!(%path, "a record of this worker's topology is missing; continuing with the last one");
                }
                missing_since.get_or_insert_with(Instant::now);
                Some(backoff.next_delay())
            }
            Ok(Reading::Unassigned | Reading::Missing(_)) => {
                info!(topology = %options.spec.topology, slot = %options.spec.slot, "this worker is no longer assigned");
                return;
            }
            Err(error) => {
                match error {
                    // The connection logs why there is none.
                    store::Error::Tree(tree::Error::Disconnected) => {
                        debug!("not connected to ZooKeeper; continuing with the last assignment");
                    }
                    error if outage.begins() => {
                        warn!(%error, topology = %options.spec.topology, "cannot read the assignment; continuing with the last one");
                    }
                    error => debug!(%error, "cannot read the assignment yet"),
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
