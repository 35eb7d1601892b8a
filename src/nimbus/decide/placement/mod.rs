//! Where tasks go: new topologies, lost workers, due rebalances.
//!
//! A slot is given to a topology only when nobody has it in the tree as it is: what one
//! action of a plan would free, another one of the same plan does not take. So no slot holds
//! two workers wherever a leader dies between two actions. Lost workers come first; when
//! there is nothing of that kind to write, one due rebalance is carried out.

mod drain;
mod heal;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{
        layout,
        record::{Stored, Storm},
        view::ClusterView,
    },
    model::{
        Slot, SupervisorId, TopologyId,
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
        liveness::Loss,
        plan::{Effect, OrdersChange, Trouble},
    },
    schedule::{self, Keep, Problem, Solution, Standing, Supervisor, check, solve},
    tree::Version,
};

/// A topology that can be placed.
struct Case<'a> {
    id: &'a TopologyId,
    storm: &'a Stored<Storm>,
    tasks: &'a Stored<TaskTable>,
    before: Option<&'a Stored<Assignment>>,
    /// Whether the deadline of its rebalance has passed.
    is_due: bool,
    /// Workers that are given up, and why.
    lost: BTreeMap<Slot, Loss>,
}

pub(super) fn place(draft: &mut Draft<'_>) {
    let mut cases = cases(draft);
    heal::give_up_workers(draft, &mut cases);
    let n_before = draft.plan.actions.len();
    heal::heal(draft, &cases);
    if draft.plan.actions.len() == n_before {
        rebalance::rebalance_next(draft, &cases);
    }
    if draft.plan.actions.len() == n_before {
        drain::begin_moves(draft, &cases);
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
        let is_due = is_rebalance_due(draft, id, &storm.value);
        let before = view.assignments.get(id);
        cases.push(Case { id, storm, tasks, before, is_due, lost: BTreeMap::new() });
    }
    cases
}

fn is_rebalance_due(draft: &mut Draft<'_>, id: &TopologyId, storm: &Storm) -> bool {
    let Ok(Outcome::Resumes) = storm.status.on(Event::RebalanceDue) else { return false };
    let Some(PendingChange::Rebalance { deadline, .. }) = &storm.pending else {
        draft.find(Some(id), Trouble::NoPendingRebalance);
        return false;
    };
    if *deadline > draft.now.wall {
        draft.wake_at_deadline(*deadline);
        return false;
    }
    true
}

impl Case<'_> {
    fn workers(&self) -> u32 {
        self.storm.value.workers.max(1)
    }

    /// The tasks of its workers that are not given up.
    fn kept(&self) -> TaskSet {
        let workers = self.before.iter().flat_map(|before| &before.value.workers);
        workers
            .filter(|(slot, _)| !self.lost.contains_key(*slot))
            .flat_map(|(_, worker)| worker.tasks.iter())
            .collect()
    }

    /// The tasks of its workers that are not given up, but for those on drained hosts.
    fn kept_elsewhere(&self, view: &ClusterView) -> TaskSet {
        let workers = self.before.iter().flat_map(|before| &before.value.workers);
        workers
            .filter(|(slot, worker)| !self.lost.contains_key(*slot) && !view.is_drained(&worker.host))
            .flat_map(|(_, worker)| worker.tasks.iter())
            .collect()
    }

    fn supervisors(&self) -> Vec<SupervisorId> {
        self.before.into_iter().flat_map(|before| before.value.supervisors().cloned()).collect()
    }
}

/// Solves, and checks the answer before anyone believes it.
fn solve_checked(draft: &mut Draft<'_>, problem: &Problem, cases: &[Case<'_>]) -> Option<Solution> {
    let assigned = cases.iter().filter_map(|case| Some((case.id, &case.before?.value)));
    let previous = Solution::from_assignments(assigned);
    let solution = solve(problem, &previous);
    match check::lint(problem, &previous, &solution).first() {
        None => Some(solution),
        Some(violation) => {
            draft.find(None, Trouble::BadPlacement { violation: violation.to_string() });
            None
        }
    }
}

/// The question where `topologies` go, for cases of which `kept` says which workers stay.
fn problem(
    draft: &Draft<'_>,
    cases: &[Case<'_>],
    topologies: Vec<schedule::Topology>,
    stays: impl Fn(&Case<'_>, &Slot) -> bool,
) -> Problem {
    let view = draft.view;
    let placed: BTreeSet<&TopologyId> = cases.iter().map(|case| case.id).collect();
    let mut occupied: BTreeSet<Slot> = (view.assignments.iter())
        .filter(|(id, _)| !placed.contains(id))
        .flat_map(|(_, assignment)| assignment.value.workers.keys().cloned())
        .collect();
    let mut supervisors = supervisors(draft);
    for case in cases {
        for (slot, worker) in case.before.iter().flat_map(|before| &before.value.workers) {
            let away =
                || Supervisor { host: worker.host.clone(), ports: BTreeSet::new(), standing: Standing::Away };
            let supervisor = supervisors.entry(slot.supervisor.clone()).or_insert_with(away);
            if stays(case, slot) {
                // A slot that is offered no longer stays one as long as its worker lives.
                supervisor.ports.insert(slot.port);
            } else {
                occupied.insert(slot.clone());
            }
        }
    }
    Problem { supervisors, occupied, topologies }
}

/// The supervisors that are there.
fn supervisors(draft: &Draft<'_>) -> BTreeMap<SupervisorId, Supervisor> {
    let view = draft.view;
    let hidden = unreadable_assignments(view);
    let standing = |id: &SupervisorId| {
        // An assignment that cannot be read may fill any of the slots of those it concerns.
        let told = view.orders.get(id).map(|orders| &orders.value.topologies);
        let is_told = told.is_some_and(|topologies| topologies.keys().any(|id| hidden.contains(id)));
        let is_drained = view.supervisors.get(id).is_some_and(|record| view.is_drained(&record.host));
        match (is_told || draft.orders.is_blocked(id), is_drained) {
            (true, _) => Standing::Away,
            (false, true) => Standing::Drained,
            (false, false) => Standing::Live,
        }
    };
    (view.supervisors.iter())
        .map(|(id, supervisor)| {
            let ports = supervisor.ports.iter().copied().collect();
            (id.clone(), Supervisor { host: supervisor.host.clone(), ports, standing: standing(id) })
        })
        .collect()
}

/// A topology as it is to be kept: whole, but for the workers that are given up.
fn kept(case: &Case<'_>) -> schedule::Topology {
    schedule::Topology {
        id: case.id.clone(),
        workers: case.workers(),
        tasks: case.tasks.value.clone(),
        keep: Keep::Healthy(case.kept()),
    }
}

/// The version that an assignment of `case` would replace, and the orders that change with
/// it; `None` when the orders cannot be written.
fn replacing(
    draft: &mut Draft<'_>,
    case: &Case<'_>,
    assignment: &Assignment,
) -> Option<(Option<Version>, Vec<OrdersChange>)> {
    let before = case.before.map(|before| before.version);
    let orders = draft.orders_for(case.id, case.supervisors(), Some((assignment, version_after(before))))?;
    Some((before, orders))
}

fn placing(
    case: &Case<'_>,
    before: Option<Version>,
    assignment: Assignment,
    orders: Vec<OrdersChange>,
) -> Effect {
    let (storm, tasks) = (case.storm.version, case.tasks.version);
    Effect::Place { id: case.id.clone(), storm, tasks, before, assignment, orders }
}
