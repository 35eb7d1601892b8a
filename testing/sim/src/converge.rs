//! Convergence: after all faults have ended, the cluster must reach the expected state and keep it.

use std::time::Duration;

use crate::{
    client::{Promise, RequestState},
    cluster::Cluster,
    invariants::{check_converged, check_no_residue},
    model::ClusterModel,
};
use stormkeeper_coordination::{cluster::layout, tree::memory::listener::TreeSnapshot};
use stormkeeper_model::{assignment::Assignment, status::TopologyStatus};

/// Limit for the convergence. A lost event may cost a full period of the observers (300 s);
/// besides, a kill may wait for a deadline that was set by a clock 80 s ahead, and a worker for
/// the longest pause between launches (60 s).
pub const CONVERGENCE_MAX: Duration = Duration::from_secs(600);

/// Period of checking the state.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Time for which the state must stay: all periodic passes but the observers' run in it.
const STABLE_FOR: Duration = Duration::from_secs(70);

/// Waits until the cluster has converged and stays so. Returns the time to convergence.
///
/// Convergence may be temporary: the effect of a lost event appears with the next periodic pass.
/// Then the stable time begins again, within the same limit.
pub(super) async fn converge(cluster: &Cluster) -> Duration {
    let began = cluster.env.now();
    let (mut took, mut stable) = (Duration::ZERO, false);
    loop {
        let passed = cluster.env.now().saturating_sub(began);
        match check_cluster(cluster) {
            Ok(()) if stable && passed.saturating_sub(took) >= STABLE_FOR => return took,
            Ok(()) if stable => {}
            Ok(()) => {
                cluster.env.journal().log("the cluster has converged");
                (took, stable) = (passed, true);
            }
            Err(reason) if passed >= CONVERGENCE_MAX => {
                let reason = format!("after {passed:?} without faults, {reason}");
                cluster.env.journal().fail("convergence", reason);
                return passed;
            }
            Err(reason) => {
                if stable {
                    cluster.env.journal().log(format_args!("the cluster has diverged again: {reason}"));
                }
                stable = false;
            }
        }
        if !cluster.pass(CHECK_PERIOD).await {
            return took;
        }
    }
}

/// Checks that the cluster is in the expected state; returns the first difference otherwise.
fn check_cluster(cluster: &Cluster) -> Result<(), String> {
    let promises = cluster.clients.promises();
    if let Some((name, _)) = promises.iter().find(|(_, promise)| promise.n_open > 0) {
        return Err(format!("a request about {name} has no response"));
    }
    let drains = cluster.clients.drains();
    if let Some((host, _)) = drains.iter().find(|(_, drain)| drain.is_open) {
        return Err(format!("a request about {host} has no response"));
    }
    cluster.env.server.look(|tree| {
        let journal = cluster.env.journal();
        let model = journal.model();
        check_registrations(cluster, tree)?;
        for (name, promise) in &promises {
            let topology_record =
                model.topologies.iter().find(|(_, topology_record)| topology_record.name == *name);
            check_promise(
                name.as_str(),
                promise,
                topology_record.map(|(_, topology_record)| topology_record.status),
            )?;
        }
        model.topologies.keys().try_for_each(|id| check_converged(id, model, tree))?;
        check_no_residue(model, tree)?;
        for (host, _) in drains.iter().filter(|(_, drain)| drain.drained == RequestState::Done) {
            check_drained(host, model)?;
        }
        check_replicated(cluster, model, tree)
    })
}

fn check_registrations(cluster: &Cluster, tree: TreeSnapshot<'_>) -> Result<(), String> {
    let leader = tree.get(&layout::leader()).ok_or("there is no leader")?;
    let sessions = cluster.replicas.iter().filter_map(|replica| replica.connection()?.session());
    if !sessions.map(Some).any(|session| session == leader.stat.owner) {
        return Err("/leader belongs to no running nimbus".to_owned());
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

/// Checks that the state of a topology is the one that users were promised.
fn check_promise(name: &str, promise: &Promise, status: Option<TopologyStatus>) -> Result<(), String> {
    match (promise.submitted, promise.killed, status) {
        (RequestState::NotDone, _, Some(_)) => Err(format!("{name} exists, but its submit was rejected")),
        (_, RequestState::Done, Some(_)) => Err(format!("{name} exists, but it was killed")),
        (RequestState::Done, RequestState::NotDone, None) => {
            Err(format!("{name} does not exist, but it was submitted"))
        }
        (_, _, Some(status)) if promise.status.is_some_and(|wanted| wanted != status) => {
            Err(format!("{name} is {status}"))
        }
        (_, _, _) => Ok(()),
    }
}

/// Checks that no worker is placed on a drained host.
fn check_drained(host: &str, model: &ClusterModel) -> Result<(), String> {
    let runs = |assignment: &Assignment| assignment.workers.values().any(|worker| worker.host == host);
    match model.assignments.iter().find(|(_, assignment)| runs(assignment)) {
        Some((id, _)) => Err(format!("{host} is drained and has a worker of {id}")),
        None => Ok(()),
    }
}

/// Checks that every nimbus has the blob of every topology.
fn check_replicated(cluster: &Cluster, model: &ClusterModel, tree: TreeSnapshot<'_>) -> Result<(), String> {
    for (id, topology_record) in &model.topologies {
        let holders = tree.children(&layout::blob(&topology_record.blob)).unwrap_or_default();
        if holders.len() != cluster.replicas.len() {
            return Err(format!("the blob of {id} is on {holders:?} only"));
        }
    }
    Ok(())
}
