//! Drained hosts: each topology leaves them as in a rebalance, so that no tuple in flight is
//! lost.
//!
//! Its spouts stop for a while, and workers on other hosts stay. A topology begins to leave only
//! when there are free slots for the workers that must move; until then it keeps running.

use std::{collections::BTreeSet, time::Duration};

use super::{PlacementCase, problem, solve_checked};
use crate::{
    decide::draft::Draft,
    plan::{ClusterProblem, Effect, Reason},
};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::status::{LifecycleEvent, PendingChange, Transition};
use stormkeeper_scheduler as scheduler;
use stormkeeper_scheduler::Keep;

/// Stops the spouts of the topologies on drained hosts for which there are free slots elsewhere.
pub(super) fn begin_moves(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    let view = draft.view;
    if view.drains.is_empty() {
        return;
    }
    let begins = |case: &PlacementCase<'_>| {
        matches!(case.topology_record.value.status.on(LifecycleEvent::Rebalance), Ok(Transition::Becomes(_)))
            && case.topology_record.value.update.is_none()
            && !hosts(view, case).is_empty()
    };
    if !cases.iter().any(begins) {
        return;
    }
    // Tasks that already wait to leave count as moved, so that their new slots stay reserved.
    let topologies = cases.iter().map(|case| scheduler::TopologyDemand {
        id: case.id.clone(),
        workers: case.workers(),
        tasks: case.tasks.value.components.clone(),
        requests: case.tasks.value.requests.clone(),
        keep: Keep::Healthy(case.kept_elsewhere(view)),
    });
    let topologies = topologies.collect();
    let problem = problem(draft, cases, topologies, |case, slot| !case.lost.contains_key(slot));
    let Some(solution) = solve_checked(draft, &problem, cases) else { return };
    for case in cases.iter().filter(|case| begins(case)) {
        let hosts = hosts(view, case);
        match solution.placements.get(case.id).and_then(|placement| placement.unplaced.as_ref()) {
            Some(unplaced) => {
                draft.add_finding(
                    Some(case.id),
                    ClusterProblem::DrainWaits { hosts, reason: unplaced.reason.clone() },
                );
            }
            None => begin(draft, case, hosts),
        }
    }
}

fn begin(draft: &mut Draft<'_>, case: &PlacementCase<'_>, hosts: Vec<String>) {
    let mut topology_record = case.topology_record.clone();
    let Ok(Transition::Becomes(status)) = topology_record.value.status.on(LifecycleEvent::Rebalance) else {
        return;
    };
    let asked = hosts.iter().filter_map(|host| {
        let drain = draft.view.drains.get(&host.parse().ok()?)?;
        Some(drain.value.wait_secs.unwrap_or(topology_record.value.message_timeout_secs))
    });
    let wait = Duration::from_secs(asked.max().unwrap_or(topology_record.value.message_timeout_secs));
    topology_record.value.pending = Some(PendingChange::Rebalance {
        deadline: draft.now.wall.plus(wait),
        resume: topology_record.value.status,
        workers: None,
        parallelism: std::collections::BTreeMap::new(),
        only_drained: true,
        restart: false,
        grow_back: false,
    });
    topology_record.value.status = status;
    let effect = Effect::BeginMove { id: case.id.clone(), topology_record: Box::new(topology_record) };
    draft.act(effect, Reason::HostsDrained { hosts }, 0);
}

/// The drained hosts that run workers of a topology.
pub(super) fn hosts(view: &ClusterView, case: &PlacementCase<'_>) -> Vec<String> {
    let workers = case.before.iter().flat_map(|before| before.value.workers.values());
    let hosts: BTreeSet<&str> = workers.map(|worker| worker.host.as_str()).collect();
    hosts.into_iter().filter(|host| view.is_drained(host)).map(str::to_owned).collect()
}
