//! Placement of tasks: new topologies, lost workers, due rebalances.
//!
//! A slot is given to a topology only if it is free in the present tree: a slot that one action
//! of a plan frees is not used by another action of the same plan. So no slot holds two workers,
//! wherever a leader dies between two actions. Lost workers are handled first; if there is none
//! to write, one due rebalance is executed; and if there is none either, topologies begin to leave
//! drained hosts, and one topology begins to grow back.

mod drain;
mod grow_back;
mod place_missing;
mod rebalance;
mod renamed;
mod restore;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use place_missing::restarted;

use crate::{
    decide::{
        draft::{Draft, version_after},
        failing,
        supervisor_assignments::unreadable_assignments,
    },
    liveness::LossReason,
    plan::{ClusterProblem, Effect, Reason, SupervisorAssignmentsChange},
};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{Stored, SupervisorRecord, TasksRecord, TopologyRecord},
        view::ClusterView,
    },
    tree::Version,
};
use stormkeeper_model::{
    Slot, SupervisorId, TopologyId,
    assignment::Assignment,
    resources::Capacity,
    status::{LifecycleEvent, PendingChange, TopologyStatus, Transition},
    task_set::TaskSet,
};
use stormkeeper_scheduler as scheduler;
use stormkeeper_scheduler::{Keep, Problem, Solution, Standing, Supervisor, check, solve};

/// A topology to be placed, with its records.
struct PlacementCase<'a> {
    id: &'a TopologyId,
    topology_record: &'a Stored<TopologyRecord>,
    tasks: &'a Stored<TasksRecord>,
    before: Option<&'a Stored<Assignment>>,
    /// True if the deadline of its rebalance has passed.
    is_due: bool,
    /// Lost workers, and why each is lost.
    lost: BTreeMap<Slot, LossReason>,
}

pub(super) fn place(draft: &mut Draft<'_>) {
    let mut cases = cases(draft);
    place_missing::find_lost_workers(draft, &mut cases);
    let n_before = draft.plan.actions.len();
    restore::restore_assignments(draft, &cases);
    if draft.plan.actions.len() == n_before {
        place_missing::place_missing(draft, &cases);
    }
    if draft.plan.actions.len() == n_before {
        renamed::correct_hosts(draft, &cases);
    }
    if draft.plan.actions.len() == n_before {
        rebalance::rebalance_next(draft, &cases);
    }
    if draft.plan.actions.len() == n_before {
        drain::begin_moves(draft, &cases);
    }
    if draft.plan.actions.len() == n_before {
        grow_back::begin(draft, &cases);
    }
}

/// The topologies that can be placed, oldest first; nothing is changed for the others.
fn cases<'a>(draft: &mut Draft<'a>) -> Vec<PlacementCase<'a>> {
    let view = draft.view;
    let mut storms: Vec<(&TopologyId, &Stored<TopologyRecord>)> = view.topologies.iter().collect();
    storms.sort_by_key(|(id, topology_record)| (topology_record.value.launched, *id));
    let mut cases = Vec::with_capacity(storms.len());
    for (id, topology_record) in storms {
        match topology_record.value.status {
            TopologyStatus::Killed => continue,
            TopologyStatus::Active | TopologyStatus::Inactive | TopologyStatus::Rebalancing => {}
        }
        if view.is_unreadable(&layout::assignment(id)) {
            continue;
        }
        let Some(tasks) = view.tasks.get(id) else {
            if !view.is_unreadable(&layout::tasks(id)) {
                draft.add_finding(Some(id), ClusterProblem::Missing { path: layout::tasks(id) });
            }
            continue;
        };
        let is_due = is_rebalance_due(draft, id, &topology_record.value);
        let before = view.assignments.get(id);
        cases.push(PlacementCase { id, topology_record, tasks, before, is_due, lost: BTreeMap::new() });
    }
    cases
}

fn is_rebalance_due(draft: &mut Draft<'_>, id: &TopologyId, topology_record: &TopologyRecord) -> bool {
    let Ok(Transition::Resumes) = topology_record.status.on(LifecycleEvent::RebalanceDue) else {
        return false;
    };
    let Some(PendingChange::Rebalance { deadline, .. }) = &topology_record.pending else {
        draft.add_finding(Some(id), ClusterProblem::NoPendingRebalance);
        return false;
    };
    if *deadline > draft.now.wall && !draft.is_drained(id, *deadline) {
        draft.wake_at_deadline(*deadline);
        return false;
    }
    true
}

impl PlacementCase<'_> {
    fn workers(&self) -> u32 {
        self.topology_record.value.workers.max(1)
    }

    /// Number of workers that it has.
    fn n_workers(&self) -> usize {
        self.before.map_or(0, |before| before.value.workers.len())
    }

    /// The tasks of its workers that are not lost.
    fn kept(&self) -> TaskSet {
        let workers = self.before.iter().flat_map(|before| &before.value.workers);
        workers
            .filter(|(slot, _)| !self.lost.contains_key(*slot))
            .flat_map(|(_, worker)| worker.tasks.iter())
            .collect()
    }

    /// The tasks of its workers that are neither lost nor on drained hosts.
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

/// Solves, and returns the solution only if it has no violations.
fn solve_checked(draft: &mut Draft<'_>, problem: &Problem, cases: &[PlacementCase<'_>]) -> Option<Solution> {
    let assigned = cases.iter().filter_map(|case| Some((case.id, &case.before?.value)));
    let previous = Solution::from_assignments(assigned);
    let solution = solve(problem, &previous);
    match check::violations(problem, &previous, &solution).first() {
        None => Some(solution),
        Some(violation) => {
            draft.add_finding(None, ClusterProblem::BadPlacement { violation: violation.to_string() });
            None
        }
    }
}

/// Builds the problem for `topologies`. For the slots of the cases, `stays` returns whether the
/// worker there may stay.
fn problem(
    draft: &Draft<'_>,
    cases: &[PlacementCase<'_>],
    topologies: Vec<scheduler::TopologyDemand>,
    stays: impl Fn(&PlacementCase<'_>, &Slot) -> bool,
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
            let away = || Supervisor {
                host: worker.host.clone(),
                ports: BTreeSet::new(),
                standing: Standing::Away,
                capacity: Capacity::default(),
            };
            let supervisor = supervisors.entry(slot.supervisor.clone()).or_insert_with(away);
            if stays(case, slot) {
                // A slot that is no longer offered remains one while its worker is alive.
                supervisor.ports.insert(slot.port);
            } else {
                occupied.insert(slot.clone());
            }
        }
    }
    let failures = failing::failures(draft, given_up(draft, cases));
    Problem { supervisors, occupied, topologies, failures }
}

/// The slots that are given up although their supervisor is present.
fn given_up<'a>(
    draft: &'a Draft<'_>,
    cases: &'a [PlacementCase<'_>],
) -> impl Iterator<Item = failing::GivenUp<'a>> {
    cases.iter().flat_map(|case| {
        let of_supervisor = |loss: &LossReason| match loss {
            LossReason::Silent(_) | LossReason::CannotStart => true,
            LossReason::SupervisorGone(_) | LossReason::HostLost | LossReason::SlotUnusable => false,
        };
        let slots = case.lost.iter().filter(move |(_, loss)| of_supervisor(loss));
        slots.map(|(slot, _)| failing::GivenUp {
            topology: case.id,
            supervisor: &slot.supervisor,
            is_of_topology: draft.liveness.is_of_topology(case.id, slot),
        })
    })
}

/// The present supervisors.
fn supervisors(draft: &Draft<'_>) -> BTreeMap<SupervisorId, Supervisor> {
    let view = draft.view;
    let hidden = unreadable_assignments(view);
    let place = |id: &SupervisorId, record: &SupervisorRecord| {
        // An unreadable assignment may use any slot of the supervisors that it concerns.
        let assigned = view
            .supervisor_assignments
            .get(id)
            .map(|supervisor_assignments| &supervisor_assignments.value.topologies);
        let is_hidden = assigned.is_some_and(|topologies| topologies.keys().any(|id| hidden.contains(id)));
        let is_away = is_hidden || draft.supervisor_assignments.is_blocked(id);
        let standing = match (is_away, view.is_drained(&record.host), record.certificate_expired) {
            (true, ..) => Standing::Away,
            (false, true, _) => Standing::Drained,
            (false, false, true) => Standing::Expired,
            (false, false, false) => Standing::Live,
        };
        let (host, ports) = (record.host.clone(), record.ports.iter().copied().collect());
        Supervisor { host, ports, standing, capacity: record.capacity }
    };
    let mut supervisors: BTreeMap<SupervisorId, Supervisor> =
        (view.supervisors.iter()).map(|(id, record)| (id.clone(), place(id, record))).collect();
    // Workers that can start are better than none, if every certificate has expired.
    if !supervisors.values().any(|supervisor| supervisor.standing == Standing::Live) {
        let expired = supervisors.values_mut().filter(|supervisor| supervisor.standing == Standing::Expired);
        expired.for_each(|supervisor| supervisor.standing = Standing::Live);
    }
    supervisors
}

/// A topology that keeps all its workers except the lost ones.
fn kept(case: &PlacementCase<'_>) -> scheduler::TopologyDemand {
    scheduler::TopologyDemand {
        id: case.id.clone(),
        workers: case.workers(),
        tasks: case.tasks.value.components.clone(),
        requests: case.tasks.value.requests.clone(),
        keep: Keep::Healthy(case.kept()),
    }
}

/// The version that an assignment of `case` would replace, and the changes of supervisor
/// assignments that go with it; `None` if these cannot be written.
fn replaced_version(
    draft: &mut Draft<'_>,
    case: &PlacementCase<'_>,
    assignment: &Assignment,
) -> Option<(Option<Version>, Vec<SupervisorAssignmentsChange>)> {
    let before = case.before.map(|before| before.version);
    let supervisor_assignments = draft.supervisor_assignments_for(
        case.id,
        case.supervisors(),
        Some((assignment, version_after(before))),
    )?;
    Some((before, supervisor_assignments))
}

/// Replaces workers of a topology, to which `assignment` gives a new start, together with its
/// record.
pub(super) fn replace_workers(
    draft: &mut Draft<'_>,
    id: &TopologyId,
    topology_record: Stored<TopologyRecord>,
    assignment: Assignment,
    reason: Reason,
) {
    let view = draft.view;
    let (Some(before), Some(tasks)) = (view.assignments.get(id), view.tasks.get(id)) else { return };
    let version = version_after(Some(before.version));
    let supervisors: Vec<SupervisorId> = before.value.supervisors().cloned().collect();
    let changes = draft.supervisor_assignments_for(id, supervisors, Some((&assignment, version)));
    let Some(supervisor_assignments) = changes else { return };
    let effect = Effect::ReplaceWorkers {
        id: id.clone(),
        topology_record: Box::new(topology_record),
        tasks: tasks.version,
        before: before.version,
        assignment,
        supervisor_assignments,
    };
    draft.act(effect, reason, 0);
}

fn place_effect(
    case: &PlacementCase<'_>,
    before: Option<Version>,
    assignment: Assignment,
    supervisor_assignments: Vec<SupervisorAssignmentsChange>,
) -> Effect {
    let (topology_record, tasks) = (case.topology_record.version, case.tasks.version);
    Effect::Place { id: case.id.clone(), topology_record, tasks, before, assignment, supervisor_assignments }
}
