//! Where tasks go: new topologies, lost workers, due rebalances.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{
        layout,
        record::{Stored, Storm},
    },
    model::{
        Slot, SupervisorId, Timestamp, TopologyId,
        assignment::Assignment,
        status::{Event, Outcome, PendingChange, TopologyStatus},
        task_set::TaskSet,
        topology::TaskTable,
    },
    nimbus::{
        decide::{
            draft::{Draft, version_after},
            orders::unreadable_assignments,
        },
        liveness::{Loss, Verdict},
        plan::{Effect, Reason, Trouble},
    },
    schedule::{self, Keep, Placement, Problem, Solution, Standing, Supervisor, check, solve},
    tree::Version,
};

/// A topology that can be placed.
struct Case<'a> {
    id: &'a TopologyId,
    before: Option<&'a Stored<Assignment>>,
    /// Its tasks from now on.
    table: TaskTable,
    workers: u32,
    rebalance: Option<Rebalance<'a>>,
    /// Workers that are given up, and why.
    lost: BTreeMap<Slot, Loss>,
}

/// A rebalance that is due.
struct Rebalance<'a> {
    tasks_before: &'a Stored<TaskTable>,
    storm: Stored<Storm>,
}

pub(super) fn place(draft: &mut Draft<'_>) {
    let mut cases = cases(draft);
    give_up_workers(draft, &mut cases);
    if cases.iter().all(Case::is_at_rest) {
        return;
    }
    let previous = previous(&cases);
    let problem = problem(draft, &cases);
    let solution = solve(&problem, &previous);
    if let Some(violation) = check::lint(&problem, &previous, &solution).first() {
        draft.find(None, Trouble::BadPlacement { violation: violation.to_string() });
        return;
    }
    for (case, topology) in cases.iter().zip(&problem.topologies) {
        let Some(placement) = solution.placements.get(case.id) else { continue };
        if !case.is_at_rest() {
            write(draft, case, placement, &problem, &topology.keep);
        }
    }
}

/// The topologies that can be placed, oldest first; the others are left alone.
fn cases<'a>(draft: &mut Draft<'a>) -> Vec<Case<'a>> {
    let view = draft.view;
    let mut storms: Vec<(&TopologyId, &Stored<Storm>)> = view.storms.iter().collect();
    storms.sort_by_key(|(id, storm)| (storm.value.launched, *id));
    let mut cases = Vec::with_capacity(storms.len());
    for (id, storm) in storms {
        match storm.value.status {
            TopologyStatus::Killed => continue,
            TopologyStatus::Active | TopologyStatus::Inactive | TopologyStatus::Rebalancing => {}
        }
        if view.is_unreadable(&layout::assignment(id)) {
            continue;
        }
        let Some(tasks) = view.tasks.get(id) else {
            if !view.is_unreadable(&layout::tasks(id)) {
                draft.find(Some(id), Trouble::Missing { path: layout::tasks(id) });
            }
            continue;
        };
        let rebalance = due_rebalance(draft, id, storm, tasks);
        let (table, workers) = match &rebalance {
            Some((table, rebalance)) => (table.clone(), rebalance.storm.value.workers),
            None => (tasks.value.clone(), storm.value.workers),
        };
        let rebalance = rebalance.map(|(_, rebalance)| rebalance);
        let before = view.assignments.get(id);
        cases.push(Case { id, before, table, workers: workers.max(1), rebalance, lost: BTreeMap::new() });
    }
    cases
}

/// What a rebalance whose deadline has passed changes.
fn due_rebalance<'a>(
    draft: &mut Draft<'_>,
    id: &TopologyId,
    storm: &Stored<Storm>,
    tasks: &'a Stored<TaskTable>,
) -> Option<(TaskTable, Rebalance<'a>)> {
    let Ok(Outcome::Resumes) = storm.value.status.on(Event::RebalanceDue) else { return None };
    let Some(PendingChange::Rebalance { deadline, resume, workers, parallelism }) = &storm.value.pending
    else {
        draft.find(Some(id), Trouble::NoPendingRebalance);
        return None;
    };
    if *deadline > draft.now.wall {
        draft.wake_at_deadline(*deadline);
        return None;
    }
    let mut resumed = storm.clone();
    resumed.value.status = *resume;
    resumed.value.pending = None;
    resumed.value.workers = workers.unwrap_or(storm.value.workers);
    Some((tasks.value.resized(parallelism), Rebalance { tasks_before: tasks, storm: resumed }))
}

/// Finds the workers that are given up, as many as may be moved now.
fn give_up_workers(draft: &mut Draft<'_>, cases: &mut [Case<'_>]) {
    let now = draft.now;
    let mut left = now.moves_left;
    for case in cases.iter_mut().filter(|case| case.rebalance.is_none()) {
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

impl Case<'_> {
    /// Whether its assignment is as it should be: every task has a place that is not given
    /// up, there is nothing else in it, and no rebalance is due.
    fn is_at_rest(&self) -> bool {
        let Some(before) = self.before else { return self.table.n_tasks() == 0 };
        self.rebalance.is_none()
            && self.lost.is_empty()
            && before.value.workers.values().all(|worker| !worker.tasks.is_empty())
            && before.value.tasks() == self.table.tasks()
    }

    /// The tasks that stay where they are.
    fn kept(&self) -> TaskSet {
        let workers = self.before.iter().flat_map(|before| &before.value.workers);
        workers
            .filter(|(slot, _)| !self.lost.contains_key(*slot))
            .flat_map(|(_, worker)| worker.tasks.iter())
            .collect()
    }

    fn keep(&self) -> Keep {
        match self.rebalance {
            Some(_) => Keep::Nothing,
            None => Keep::Healthy(self.kept()),
        }
    }
}

fn previous(cases: &[Case<'_>]) -> Solution {
    Solution::from_assignments(cases.iter().filter_map(|case| Some((case.id, &case.before?.value))))
}

fn problem(draft: &Draft<'_>, cases: &[Case<'_>]) -> Problem {
    let view = draft.view;
    let placed: BTreeSet<&TopologyId> = cases.iter().map(|case| case.id).collect();
    let occupied = (view.assignments.iter())
        .filter(|(id, _)| !placed.contains(id))
        .flat_map(|(_, assignment)| assignment.value.workers.keys().cloned())
        .collect();
    let hidden = unreadable_assignments(view);
    let may_be_added_to = |id: &SupervisorId| {
        // An assignment that cannot be read may fill any of the slots of those it concerns.
        let told = view
            .orders
            .get(id)
            .is_some_and(|orders| orders.value.topologies.keys().any(|t| hidden.contains(t)));
        !told && !draft.orders.is_blocked(id)
    };
    let mut supervisors: BTreeMap<SupervisorId, Supervisor> = (view.supervisors.iter())
        .map(|(id, supervisor)| {
            let standing = if may_be_added_to(id) { Standing::Live } else { Standing::Away };
            let ports = supervisor.ports.iter().copied().collect();
            (id.clone(), Supervisor { host: supervisor.host.clone(), ports, standing })
        })
        .collect();
    for case in cases {
        for (slot, worker) in case.before.iter().flat_map(|before| &before.value.workers) {
            let away =
                || Supervisor { host: worker.host.clone(), ports: BTreeSet::new(), standing: Standing::Away };
            let supervisor = supervisors.entry(slot.supervisor.clone()).or_insert_with(away);
            // A slot that is offered no longer stays one as long as its worker lives.
            if !case.lost.contains_key(slot) {
                supervisor.ports.insert(slot.port);
            }
        }
    }
    let topologies = cases.iter().map(|case| schedule::Topology {
        id: case.id.clone(),
        workers: case.workers,
        tasks: case.table.clone(),
        keep: case.keep(),
    });
    Problem { supervisors, denied_hosts: BTreeSet::new(), occupied, topologies: topologies.collect() }
}

/// Writes the placement found for one topology, if it is another than before.
fn write(draft: &mut Draft<'_>, case: &Case<'_>, placement: &Placement, problem: &Problem, keep: &Keep) {
    if let Some(unplaced) = &placement.unplaced {
        let (n_tasks, reason) = (unplaced.tasks.len(), unplaced.reason);
        if case.rebalance.is_some() {
            // Applied now, it would stop tasks that have nowhere else to go.
            draft.find(Some(case.id), Trouble::RebalanceWaits { reason });
            return;
        }
        draft.find(Some(case.id), Trouble::NoSlot { n_tasks, reason });
    }
    let assignment = assignment(case, placement, problem, keep, draft.now.wall);
    let before = case.before;
    let is_same = before.map_or(assignment.workers.is_empty(), |before| before.value == assignment);
    if is_same && case.rebalance.is_none() {
        return;
    }
    let version = version_after(before.map(|before| before.version));
    let concerned: Vec<SupervisorId> =
        before.into_iter().flat_map(|before| before.value.supervisors().cloned()).collect();
    let Some(orders) = draft.orders_for(case.id, concerned, Some((&assignment, version))) else { return };
    let (reason, n_moved) = reason(case, &assignment);
    let before: Option<Version> = before.map(|before| before.version);
    let id = case.id.clone();
    let effect = match &case.rebalance {
        None => Effect::Place { id, before, assignment, orders },
        Some(Rebalance { tasks_before, storm }) => {
            let tasks = Stored { value: case.table.clone(), version: tasks_before.version };
            Effect::Rebalance { id, storm: storm.clone(), tasks, before, assignment, orders }
        }
    };
    draft.act(effect, reason, n_moved);
}

fn assignment(
    case: &Case<'_>,
    placement: &Placement,
    problem: &Problem,
    keep: &Keep,
    now: Timestamp,
) -> Assignment {
    let before = case.before.map(|before| &before.value);
    let resized = case.rebalance.as_ref().is_some_and(|rebalance| rebalance.tasks_before.value != case.table);
    let mut assignment = placement.assignment(&problem.supervisors, before, keep, now);
    let Some(before) = before else { return assignment };
    if resized {
        // Every worker has to learn the new table, also one that keeps its tasks.
        for (slot, worker) in &mut assignment.workers {
            if let Some(old) = before.workers.get(slot) {
                worker.start = worker.start.max(now).max(old.start.plus(std::time::Duration::from_millis(1)));
            }
        }
    }
    // Where there is nowhere to go, the workers of a supervisor that is away keep their
    // place: it may come back to them. Nobody else is given a slot of one that is away.
    let is_away = |slot: &Slot| {
        problem.supervisors.get(&slot.supervisor).is_some_and(|supervisor| match supervisor.standing {
            Standing::Away => true,
            Standing::Live => false,
        })
    };
    let unplaced = placement.unplaced.as_ref().map(|unplaced| &unplaced.tasks);
    for slot in case.lost.keys().filter(|slot| is_away(slot)) {
        let Some(worker) = before.workers.get(slot) else { continue };
        let homeless = worker.tasks.iter().all(|task| unplaced.is_some_and(|tasks| tasks.contains(task)));
        if homeless && !assignment.workers.contains_key(slot) {
            assignment.workers.insert(slot.clone(), worker.clone());
        }
    }
    assignment
}

/// Why an assignment is written, and how many tasks leave a lost place by it.
fn reason(case: &Case<'_>, assignment: &Assignment) -> (Reason, usize) {
    if case.rebalance.is_some() {
        return (Reason::RebalanceDue, 0);
    }
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
