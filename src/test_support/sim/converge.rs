//! When faults have ended, the cluster has to come to rest as it should be, and stay so.

use std::time::Duration;

use crate::{
    cluster::layout,
    model::{assignment::Assignment, status::TopologyStatus},
    test_support::sim::{
        client::{Promise, Said},
        cluster::Cluster,
        facts::Facts,
        invariants::{is_gone, is_whole},
    },
    tree::memory::listen::Snapshot,
};

/// How long it may take. A lost event may cost a full period of the observers' (300 s);
/// besides, a kill may wait for a deadline that was set by a clock 80 s ahead, and a worker
/// for the longest pause between launches (60 s).
pub const CONVERGENCE_MAX: Duration = Duration::from_secs(600);

/// Between two looks.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// How long it must stay so: every periodic pass but the observers' comes by.
const REST: Duration = Duration::from_secs(70);

/// Waits until all is as it should be and stays so. Answers how long it took.
///
/// It may seem so and not last: what a lost event hid comes out with the next periodic pass.
/// Then the rest begins anew, within the same time.
pub(super) async fn converge(cluster: &Cluster) -> Duration {
    let began = cluster.ground.now();
    let (mut took, mut resting) = (Duration::ZERO, false);
    loop {
        let passed = cluster.ground.now().saturating_sub(began);
        match is_converged(cluster) {
            Ok(()) if resting && passed.saturating_sub(took) >= REST => return took,
            Ok(()) if resting => {}
            Ok(()) => {
                cluster.ground.journal().remark("all is as it should be");
                (took, resting) = (passed, true);
            }
            Err(reason) if passed >= CONVERGENCE_MAX => {
                let reason = format!("after {passed:?} without faults, {reason}");
                cluster.ground.journal().fail("convergence", reason);
                return passed;
            }
            Err(reason) => {
                if resting {
                    cluster.ground.journal().remark(format_args!("it is not, after all: {reason}"));
                }
                resting = false;
            }
        }
        if !cluster.pass(LOOK_PERIOD).await {
            return took;
        }
    }
}

/// What is not as it should be.
fn is_converged(cluster: &Cluster) -> Result<(), String> {
    let promises = cluster.clients.promises();
    if let Some((name, _)) = promises.iter().find(|(_, promise)| promise.n_open > 0) {
        return Err(format!("a request about {name} is not answered"));
    }
    let drains = cluster.clients.drains();
    if let Some((host, _)) = drains.iter().find(|(_, drain)| drain.is_open) {
        return Err(format!("a request about {host} is not answered"));
    }
    cluster.ground.server.look(|tree| {
        let journal = cluster.ground.journal();
        let facts = journal.facts();
        everyone_is_there(cluster, tree)?;
        for (name, promise) in &promises {
            let storm = facts.storms.iter().find(|(_, storm)| storm.name == *name);
            keeps(name.as_str(), promise, storm.map(|(_, storm)| storm.status))?;
        }
        facts.storms.keys().try_for_each(|id| is_whole(id, facts, tree))?;
        is_gone(facts, tree)?;
        for (host, _) in drains.iter().filter(|(_, drain)| drain.drained == Said::Yes) {
            is_empty(host, facts)?;
        }
        is_replicated(cluster, facts, tree)
    })
}

fn everyone_is_there(cluster: &Cluster, tree: Snapshot<'_>) -> Result<(), String> {
    let leader = tree.get(&layout::leader()).ok_or("nobody leads")?;
    let sessions = cluster.replicas.iter().filter_map(|replica| replica.connection()?.session());
    if !sessions.map(Some).any(|session| session == leader.stat.owner) {
        return Err("/leader is of no nimbus that runs".to_owned());
    }
    for (root, n) in
        [(layout::nimbuses(), cluster.replicas.len()), (layout::supervisors(), cluster.hosts.len())]
    {
        let registered = tree.children(&root).unwrap_or_default();
        if registered.len() != n {
            return Err(format!("{root} has {registered:?} and should have {n}"));
        }
    }
    Ok(())
}

/// Whether what users were promised of a topology is so.
fn keeps(name: &str, promise: &Promise, status: Option<TopologyStatus>) -> Result<(), String> {
    match (promise.submitted, promise.killed, status) {
        (Said::No, _, Some(_)) => Err(format!("{name} is there, and its submit was refused")),
        (_, Said::Yes, Some(_)) => Err(format!("{name} was killed and is there")),
        (Said::Yes, Said::No, None) => Err(format!("{name} was submitted and is not there")),
        (_, _, Some(status)) if promise.status.is_some_and(|wanted| wanted != status) => {
            Err(format!("{name} is {status}"))
        }
        (_, _, _) => Ok(()),
    }
}

/// Nothing is placed on a drained host.
fn is_empty(host: &str, facts: &Facts) -> Result<(), String> {
    let runs = |assignment: &Assignment| assignment.workers.values().any(|worker| worker.host == host);
    match facts.assignments.iter().find(|(_, assignment)| runs(assignment)) {
        Some((id, _)) => Err(format!("{host} is drained and has a worker of {id}")),
        None => Ok(()),
    }
}

/// Every nimbus has the blob of every topology.
fn is_replicated(cluster: &Cluster, facts: &Facts, tree: Snapshot<'_>) -> Result<(), String> {
    for (id, storm) in &facts.storms {
        let holders = tree.children(&layout::blob(&storm.blob)).unwrap_or_default();
        if holders.len() != cluster.replicas.len() {
            return Err(format!("the blob of {id} is on {holders:?} only"));
        }
    }
    Ok(())
}
