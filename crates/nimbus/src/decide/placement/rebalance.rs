//! A due rebalance: new task table, new placement, and the former status, in one transaction.

use super::{PlacementCase, drain, kept, place_missing::restarted, problem, replaced_version, solve_checked};
use crate::{
    decide::draft::Draft,
    plan::{ClusterProblem, Effect, Reason},
};
use stormkeeper_coordination::cluster::record::{Stored, TasksRecord};
use stormkeeper_model::{Slot, assignment::Assignment, status::PendingChange};
use stormkeeper_scheduler as scheduler;
use stormkeeper_scheduler::{Keep, Placement, Problem};

/// Executes the oldest due rebalance for which there are free slots. One at a time: two could
/// swap slots, and then neither could be written first.
pub(super) fn rebalance_next(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    for case in cases.iter().filter(|case| case.is_due) {
        let n_before = draft.plan.actions.len();
        rebalance(draft, case, cases);
        if draft.plan.actions.len() > n_before {
            return;
        }
    }
}

fn rebalance(draft: &mut Draft<'_>, case: &PlacementCase<'_>, cases: &[PlacementCase<'_>]) {
    let Some(PendingChange::Rebalance {
        deadline,
        resume,
        workers,
        parallelism,
        only_drained,
        restart,
        grow_back,
    }) = &case.topology_record.value.pending
    else {
        return;
    };
    let mut topology_record = case.topology_record.clone();
    topology_record.value.status = *resume;
    topology_record.value.pending = None;
    topology_record.value.workers = workers.unwrap_or(case.topology_record.value.workers);
    let table = case.tasks.value.components.resized(parallelism);

    let demand = |keep: Keep| scheduler::TopologyDemand {
        id: case.id.clone(),
        workers: topology_record.value.workers.max(1),
        tasks: table.clone(),
        requests: case.tasks.value.requests.clone(),
        keep,
    };
    let keep = match only_drained {
        true => Keep::Healthy(case.kept_elsewhere(draft.view)),
        false => Keep::EvenSpread,
    };
    let Some(mut placed) = solved(draft, case, cases, demand(keep)) else { return };
    if *grow_back && (placed.0.unplaced.is_some() || placed.0.workers.len() <= case.n_workers()) {
        // The slots are gone: it goes on as it was.
        let Some(as_before) = solved(draft, case, cases, demand(Keep::Healthy(case.kept()))) else { return };
        placed = as_before;
    }
    let (placement, problem, keep) = placed;
    if let Some(unplaced) = &placement.unplaced {
        // Executed now, it would stop tasks for which there is no slot.
        draft.add_finding(Some(case.id), ClusterProblem::RebalanceWaits { reason: unplaced.reason.clone() });
        return;
    }
    // Every worker must read a new task table, even one that keeps its tasks.
    let all_restart = *restart || table != case.tasks.value.components;
    let assignment = assignment(draft, case, &placement, &problem, (&keep, all_restart));
    let Some((before, supervisor_assignments)) = replaced_version(draft, case, &assignment) else { return };
    let tasks = TasksRecord { components: table, ..case.tasks.value.clone() };
    let tasks = Stored { value: tasks, version: case.tasks.version };
    let id = case.id.clone();
    let reason = match only_drained {
        true => Reason::HostsDrained { hosts: drain::hosts(draft.view, case) },
        false if *grow_back => Reason::GrowsBack { from: case.n_workers(), to: assignment.workers.len() },
        false if *deadline > draft.now.wall => Reason::Drained,
        false => Reason::RebalanceDue,
    };
    draft.act(
        Effect::Rebalance {
            id,
            topology_record: Box::new(topology_record),
            tasks,
            before,
            assignment,
            supervisor_assignments,
        },
        reason,
        0,
    );
}

/// Solves with `demand` for the topology of `case`, while all others stay. Returns its placement, the
/// problem, and what `demand` keeps.
fn solved(
    draft: &mut Draft<'_>,
    case: &PlacementCase<'_>,
    cases: &[PlacementCase<'_>],
    demand: scheduler::TopologyDemand,
) -> Option<(Placement, Problem, Keep)> {
    let keep = demand.keep.clone();
    let topologies = cases.iter().map(|other| match other.id == case.id {
        true => demand.clone(),
        false => kept(other),
    });
    let topologies = topologies.collect();
    // The topology may use all of its own slots, even those of lost workers, but none of others, and
    // none that its supervisor does not offer any more.
    let is_offered = |slot: &Slot| {
        let supervisor = draft.view.supervisors.get(&slot.supervisor);
        supervisor.is_none_or(|supervisor| supervisor.ports.contains(&slot.port))
    };
    let stays = |other: &PlacementCase<'_>, slot: &Slot| match other.id == case.id {
        true => is_offered(slot),
        false => !other.lost.contains_key(slot),
    };
    let problem = problem(draft, cases, topologies, stays);
    let mut solution = solve_checked(draft, &problem, cases)?;
    Some((solution.placements.remove(case.id)?, problem, keep))
}

fn assignment(
    draft: &Draft<'_>,
    case: &PlacementCase<'_>,
    placement: &Placement,
    problem: &Problem,
    (keep, all_restart): (&Keep, bool),
) -> Assignment {
    let (before, now) = (case.before.map(|before| &before.value), draft.now.wall);
    let mut assignment = placement.assignment(&problem.supervisors, before, keep, now);
    for (slot, worker) in &mut assignment.workers {
        let Some(old) = before.and_then(|before| before.workers.get(slot)) else { continue };
        // A lost worker must restart.
        if all_restart || case.lost.contains_key(slot) {
            worker.start = worker.start.max(restarted(old.start, now));
        }
    }
    assignment
}
