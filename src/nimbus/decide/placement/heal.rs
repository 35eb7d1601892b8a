//! Tasks without a place: of new topologies, and of workers that are given up.

use std::time::Duration;

use super::{Case, kept, placing, problem, replacing, solve_checked};
use crate::{
    model::{
        Slot, Timestamp,
        assignment::{AssignedWorker, Assignment},
        task_set::TaskSet,
    },
    nimbus::{
        decide::draft::Draft,
        liveness::{Loss, Verdict},
        plan::{Reason, Trouble},
    },
    schedule::{Keep, Placement, Problem, Standing},
};

/// Finds the workers that are given up, as many as may be moved now.
pub(super) fn give_up_workers(draft: &mut Draft<'_>, cases: &mut [Case<'_>]) {
    let now = draft.now;
    let mut left = now.moves_left;
    for case in cases {
        let mut n_waiting = 0;
        for (slot, worker) in case.before.iter().flat_map(|before| &before.value.workers) {
            let loss = match draft.liveness.worker(case.id, slot, worker, now.monotonic, draft.policy) {
                Verdict::Alive => continue,
                Verdict::Unknown { until } => {
                    draft.wake_at(until);
                    continue;
                }
                Verdict::Lost(loss) => loss,
            };
            let n_tasks = worker.tasks.len();
            // A worker with more tasks than one round may move goes alone, or it never went.
            let goes_alone = left == draft.policy.max_moves_per_round && left > 0;
            if n_tasks > left && !goes_alone {
                n_waiting += n_tasks;
                continue;
            }
            left = left.saturating_sub(n_tasks);
            case.lost.insert(slot.clone(), loss);
        }
        if n_waiting > 0 {
            draft.find(Some(case.id), Trouble::MovesCapped { n_tasks: n_waiting });
        }
    }
}

/// Gives every task a place that has none or whose worker is given up.
pub(super) fn heal(draft: &mut Draft<'_>, cases: &[Case<'_>]) {
    if cases.iter().all(is_at_rest) {
        return;
    }
    let topologies = cases.iter().map(kept).collect();
    // The slot of a lost worker is nobody's until its topology has left it.
    let problem = problem(draft, cases, topologies, |case, slot| !case.lost.contains_key(slot));
    let Some(solution) = solve_checked(draft, &problem, cases) else { return };
    for (case, topology) in cases.iter().zip(&problem.topologies) {
        let Some(placement) = solution.placements.get(case.id) else { continue };
        if !is_at_rest(case) {
            write(draft, case, placement, &problem, &topology.keep);
        }
    }
}

/// Whether every task has a place that is not given up, and there is nothing else in the
/// assignment.
fn is_at_rest(case: &Case<'_>) -> bool {
    let Some(before) = case.before else { return case.tasks.value.n_tasks() == 0 };
    case.lost.is_empty()
        && before.value.workers.values().all(|worker| !worker.tasks.is_empty())
        && before.value.tasks() == case.tasks.value.tasks()
}

/// Writes the placement found for one topology, if it is another than before.
fn write(draft: &mut Draft<'_>, case: &Case<'_>, placement: &Placement, problem: &Problem, keep: &Keep) {
    let before = case.before.map(|before| &before.value);
    let mut assignment = placement.assignment(&problem.supervisors, before, keep, draft.now.wall);
    if let Some(unplaced) = &placement.unplaced {
        let stay = stay(draft, case, &unplaced.tasks, problem);
        assignment.workers.extend(stay.workers);
        draft.find(Some(case.id), Trouble::NoSlot { n_tasks: unplaced.tasks.len(), reason: unplaced.reason });
    }
    let is_same = before.map_or(assignment.workers.is_empty(), |before| *before == assignment);
    if is_same {
        return;
    }
    let Some((version, orders)) = replacing(draft, case, &assignment) else { return };
    let (reason, n_moved) = reason(case, &assignment);
    draft.act(placing(case, version, assignment, orders), reason, n_moved);
}

/// Where there is nowhere to go, lost workers keep their slots: their tasks are not put upon
/// a healthy worker, which would have to start again. One whose supervisor is there starts
/// again; one whose supervisor is away may come back with it.
fn stay(draft: &Draft<'_>, case: &Case<'_>, unplaced: &TaskSet, problem: &Problem) -> Assignment {
    let mut stay = Assignment::default();
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
        stay.workers.insert(slot.clone(), worker);
    }
    stay
}

/// A start that tells a placement from the one before, also when the clock stood still or
/// was turned back.
pub(super) fn restarted(before: Timestamp, now: Timestamp) -> Timestamp {
    now.max(before.plus(Duration::from_millis(1)))
}

/// Why an assignment is written, and how many tasks leave a lost place by it.
fn reason(case: &Case<'_>, assignment: &Assignment) -> (Reason, usize) {
    let before = case.before.map(|before| &before.value);
    let left: Vec<(&Slot, Loss, usize)> = (case.lost.iter())
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
        Some(_) | None => (Reason::Misfit, 0),
    }
}
