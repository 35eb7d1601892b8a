//! Convergence of the metric stores, after the cluster has converged.

use std::time::Duration;

use crate::{
    cluster::Cluster,
    invariants::{Difference, check_counters, check_exports, check_stores_converge},
    journal::Digest,
    metric_log::{self, StoreDisk},
    replica::Replica,
};
use stormkeeper_metrics_service::ReplicaState;

/// Limit for the convergence: a lost event of `/leader` may cost a full period of the observers
/// (300 s); besides, a takeover may wait for its grace, and a follower for the pauses between two
/// fetches and between two checkpoints.
const CONVERGENCE_MAX: Duration = Duration::from_secs(400);

/// Limit for the arrival of all counts: the orphaned reports of many dead workers are sent a few
/// workers at a time, each until the leader has confirmed them.
const COUNTERS_MAX: Duration = Duration::from_secs(600);

/// Period of comparing all counters.
const COUNTERS_PERIOD: Duration = Duration::from_secs(5);

/// Period of checking the state.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Waits until the leader ingests metrics and all metric stores have the same content. Stores with
/// the same log end and another content never converge, which is reported at once.
pub(super) async fn converge(cluster: &Cluster) {
    let began = cluster.env.now();
    loop {
        match check(cluster).await {
            Ok(()) => break,
            Err(reason) if cluster.env.now().saturating_sub(began) >= CONVERGENCE_MAX => {
                cluster.env.journal().fail("stores", reason);
                return;
            }
            Err(_) => {}
        }
        if !cluster.pass(CHECK_PERIOD).await {
            return;
        }
    }
    let stores: Vec<_> = cluster.replicas.iter().map(|of| (of.name.clone(), of.disk.records())).collect();
    if let Err(reason) = check_stores_converge(&stores) {
        cluster.env.journal().fail("stores", reason);
    }
}

/// Waits until the metric stores have all that the workers counted. What is missing may still be on
/// its way; what is too much never becomes right.
pub(super) async fn await_counters(cluster: &Cluster) {
    let began = cluster.env.now();
    loop {
        let checked = {
            let journal = cluster.env.journal();
            let counters = &journal.model().counters;
            let mut stores = cluster.replicas.iter();
            let stored = stores.try_for_each(|of| check_counters(counters, &of.name, &of.disk.counters()));
            check_exports(counters).and(stored)
        };
        match checked {
            Ok(()) => return,
            Err(Difference::Missing(_)) if cluster.env.now().saturating_sub(began) < COUNTERS_MAX => {}
            Err(Difference::Missing(reason) | Difference::TooMany(reason)) => {
                cluster.env.journal().fail("counters", reason);
                return;
            }
        }
        if !cluster.pass(COUNTERS_PERIOD).await {
            return;
        }
    }
}

/// Checks that the leader ingests and that all logs have the same end.
async fn check(cluster: &Cluster) -> Result<(), String> {
    let leader = cluster.replicas.iter().find(|replica| replica.leads()).ok_or("no nimbus leads")?;
    let status = leader.handle().ok_or("the leader has ended")?.metrics_status().await;
    if status.state != ReplicaState::Leading {
        let problem = status.problem.unwrap_or_default();
        return Err(format!("the leader {} does not ingest metrics: {problem}", leader.name));
    }
    let end = |disk: &StoreDisk| metric_log::end(&disk.log());
    let expected = end(&leader.disk);
    for other in &cluster.replicas {
        let found = end(&other.disk);
        if found != expected {
            let problem = other.handle().and_then(|nimbus| nimbus.metrics_problem()).unwrap_or_default();
            return Err(format!(
                "the metric log of {} ends at {found}, that of the leader {} at {expected}: {problem}",
                other.name, leader.name
            ));
        }
    }
    Ok(())
}

/// Records the content of all metric stores in the journal, and so in its digest.
pub(super) fn record(cluster: &Cluster) {
    for Replica { name, disk, .. } in &cluster.replicas {
        let (records, mut digest) = (disk.records(), Digest::default());
        for ((table, key), value) in &records {
            [table.as_bytes(), key, value].into_iter().for_each(|bytes| {
                digest.add(&(bytes.len() as u64).to_be_bytes());
                digest.add(bytes);
            });
        }
        let (end, n) = (metric_log::end(&disk.log()), records.len());
        let line = format!("the metric store of {name} ends at {end} and has {n} records, {digest}");
        cluster.env.journal().log(line);
    }
}
