//! Placement of tasks without a slot: tasks of new topologies, and of lost workers.

use std::time::Duration;

use super::{PlacementCase, kept, place_effect, problem, replaced_version, solve_checked};
use crate::{
    decide::draft::Draft,
    liveness::{LossReason, WorkerHealth},
    plan::{ClusterProblem, Reason},
};
use stormkeeper_model::{
    Slot, Timestamp,
    assignment::{AssignedWorker, Assignment},
    task_set::TaskSet,
};
use stormkeeper_scheduler::{Keep, Placement, Problem, Standing};

/// Finds the lost workers, up to the number of tasks that may be moved now.
pub(super) fn find_lost_workers(draft: &mut Draft<'_>, cases: &mut [PlacementCase<'_>]) {
    let now = draft.now;
    let mut left = now.moves_left;
    for case in cases {
        let mut n_waiting = 0;
        for (slot, worker) in case.before.iter().flat_map(|before| &before.value.workers) {
            let loss = match draft.liveness.worker(case.id, slot, worker, now.monotonic, draft.policy) {
                WorkerHealth::Alive => continue,
                WorkerHealth::Unknown { until } => {
                    draft.wake_at(until);
                    continue;
                }
                WorkerHealth::Lost(loss) => loss,
            };
            let n_tasks = worker.tasks.len();
            // A worker with more tasks than one round may move goes alone, or it would never go.
            let goes_alone = left == draft.policy.max_moves_per_round && left > 0;
            if n_tasks > left && !goes_alone {
                n_waiting += n_tasks;
                continue;
            }
            left = left.saturating_sub(n_tasks);
            case.lost.insert(slot.clone(), loss);
        }
        if n_waiting > 0 {
            draft.add_finding(Some(case.id), ClusterProblem::MovesCapped { n_tasks: n_waiting });
        }
    }
}

/// Places every task that has no slot or whose worker is lost.
pub(super) fn place_missing(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    if cases.iter().all(is_fully_placed) {
        return;
    }
    let topologies = cases.iter().map(kept).collect();
    // The slot of a lost worker is free for nobody until its topology has left it.
    let problem = problem(draft, cases, topologies, |case, slot| !case.lost.contains_key(slot));
    let Some(solution) = solve_checked(draft, &problem, cases) else { return };
    for (case, topology) in cases.iter().zip(&problem.topologies) {
        let Some(placement) = solution.placements.get(case.id) else { continue };
        if !is_fully_placed(case) {
            write(draft, case, placement, &problem, &topology.keep);
        }
    }
}

/// Returns whether every task is in a worker that is not lost, and the assignment contains
/// nothing else.
pub(super) fn is_fully_placed(case: &PlacementCase<'_>) -> bool {
    let Some(before) = case.before else { return case.tasks.value.components.n_tasks() == 0 };
    case.lost.is_empty()
        && before.value.workers.values().all(|worker| !worker.tasks.is_empty())
        && before.value.tasks() == case.tasks.value.components.tasks()
}

/// Plans the write of a topology's placement, if it differs from the present one.
fn write(
    draft: &mut Draft<'_>,
    case: &PlacementCase<'_>,
    placement: &Placement,
    problem: &Problem,
    keep: &Keep,
) {
    let before = case.before.map(|before| &before.value);
    let mut assignment = placement.assignment(&problem.supervisors, before, keep, draft.now.wall);
    if let Some(unplaced) = &placement.unplaced {
        let lost_in_place = keep_lost_workers(draft, case, &unplaced.tasks, problem);
        assignment.workers.extend(lost_in_place.workers);
        draft.add_finding(
            Some(case.id),
            ClusterProblem::NoSlot { n_tasks: unplaced.tasks.len(), reason: unplaced.reason.clone() },
        );
    }
    let is_same = before.map_or(assignment.workers.is_empty(), |before| *before == assignment);
    if is_same {
        return;
    }
    let Some((version, supervisor_assignments)) = replaced_version(draft, case, &assignment) else { return };
    let (reason, n_moved) = reason(case, &assignment);
    draft.act(place_effect(case, version, assignment, supervisor_assignments), reason, n_moved);
}

/// Lost workers that keep their slots because there is no other: their tasks are not added to a
/// healthy worker, which would have to restart. If the supervisor is present the worker restarts;
/// if it is away the worker may come back with it.
fn keep_lost_workers(
    draft: &Draft<'_>,
    case: &PlacementCase<'_>,
    unplaced: &TaskSet,
    problem: &Problem,
) -> Assignment {
    let mut assignment = Assignment::default();
    for slot in case.lost.keys() {
        let Some(worker) = case.before.and_then(|before| before.value.workers.get(slot)) else { continue };
        let tasks: TaskSet = worker.tasks.iter().filter(|task| unplaced.contains(*task)).collect();
        if tasks.is_empty() {
            continue;
        }
        let is_same = tasks == worker.tasks;
        let mut worker = AssignedWorker { tasks, ..worker.clone() };
        let supervisor = problem.supervisors.get(&slot.supervisor);
        let offered = supervisor.filter(|supervisor| supervisor.ports.contains(&slot.port));
        if !is_same || offered.is_some_and(|supervisor| supervisor.standing != Standing::Away) {
            worker.start = restarted(worker.start, draft.now.wall);
        }
        assignment.workers.insert(slot.clone(), worker);
    }
    assignment
}

/// A start that distinguishes a placement from the one before, even if the clock stood still or
/// was set back.
pub(in crate::decide) fn restarted(before: Timestamp, now: Timestamp) -> Timestamp {
    now.max(before.plus(Duration::from_millis(1)))
}

/// Reason for writing an assignment, and number of tasks that it moves away from lost workers.
fn reason(case: &PlacementCase<'_>, assignment: &Assignment) -> (Reason, usize) {
    let before = case.before.map(|before| &before.value);
    let left: Vec<(&Slot, LossReason, usize)> = (case.lost.iter())
        .filter_map(|(slot, loss)| {
            let old = before?.workers.get(slot)?;
            (assignment.workers.get(slot) != Some(old)).then_some((slot, *loss, old.tasks.len()))
        })
        .collect();
    if let Some((slot, loss, _)) = left.first() {
        let reason = Reason::WorkerLost { slot: (*slot).clone(), loss: *loss, n_workers: left.len() };
        return (reason, left.iter().map(|(_, _, n_tasks)| n_tasks).sum());
    }
    let n_before = before.map_or(0, |before| before.tasks().len());
    match assignment.tasks().len().checked_sub(n_before) {
        Some(n_tasks) if n_tasks > 0 => (Reason::Unplaced { n_tasks }, 0),
        Some(_) | None => (Reason::StaleTasks, 0),
    }
}
