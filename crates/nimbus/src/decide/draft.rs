//! A plan under construction.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    decide::{Moment, supervisor_assignments::SupervisorAssignmentsTable},
    liveness::Liveness,
    plan::{Action, ClusterProblem, Effect, Finding, Plan, Reason, SupervisorAssignmentsChange, check_size},
    policy::Policy,
};
use stormkeeper_coordination::{
    cluster::{layout, view::ClusterView},
    tree::Version,
};
use stormkeeper_model::{
    SupervisorId, Timestamp, TopologyId,
    assignment::Assignment,
    clock::Monotonic,
    event::{Move, moves},
};

/// The decisions made and the state that they produce: later actions of the same plan build on
/// the versions that earlier ones write.
pub(super) struct Draft<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) liveness: &'a Liveness,
    pub(super) now: Moment,
    pub(super) policy: &'a Policy,
    pub(super) plan: Plan,
    pub(super) supervisor_assignments: SupervisorAssignmentsTable,
    /// The version of every readable assignment, and the supervisors in it.
    pub(super) assigned: BTreeMap<TopologyId, (Version, BTreeSet<SupervisorId>)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        view: &'a ClusterView,
        liveness: &'a Liveness,
        now: Moment,
        policy: &'a Policy,
    ) -> Self {
        let assigned = view.assignments.iter().map(|(id, assignment)| {
            (id.clone(), (assignment.version, assignment.value.supervisors().cloned().collect()))
        });
        let assigned = assigned.collect();
        let supervisor_assignments = SupervisorAssignmentsTable::new(view, &assigned);
        Self { view, liveness, now, policy, plan: Plan::default(), supervisor_assignments, assigned }
    }

    /// Returns whether `time` has passed.
    pub(super) fn is_past(&self, time: Monotonic) -> bool {
        self.now.monotonic >= time
    }

    /// Returns whether all workers of a topology have drained for its change with this deadline. A topology
    /// without an assignment has no workers.
    pub(super) fn is_drained(&self, id: &TopologyId, change: Timestamp) -> bool {
        match self.view.assignments.get(id) {
            Some(assignment) => self.liveness.is_drained(id, &assignment.value, change),
            None => !self.view.is_unreadable(&layout::assignment(id)),
        }
    }

    /// Requests another decision at `time`.
    pub(super) fn wake_at(&mut self, time: Monotonic) {
        self.wake_in(time.since(self.now.monotonic));
    }

    /// Requests another decision at the deadline of a record.
    pub(super) fn wake_at_deadline(&mut self, deadline: Timestamp) {
        self.wake_in(deadline.since(self.now.wall));
    }

    fn wake_in(&mut self, delay: Duration) {
        self.plan.next = Some(self.plan.next.map_or(delay, |next| next.min(delay)));
    }

    pub(super) fn add_finding(&mut self, topology: Option<&TopologyId>, problem: ClusterProblem) {
        self.plan.findings.push(Finding { topology: topology.cloned(), problem });
    }

    /// The changes of supervisor assignments that go with a new assignment of `id`, or with its
    /// deletion.
    pub(super) fn supervisor_assignments_for(
        &mut self,
        id: &TopologyId,
        before: impl IntoIterator<Item = SupervisorId>,
        after: Option<(&Assignment, Version)>,
    ) -> Option<Vec<SupervisorAssignmentsChange>> {
        let named: BTreeSet<SupervisorId> =
            after.iter().flat_map(|(assignment, _)| assignment.supervisors().cloned()).collect();
        let concerned: BTreeSet<SupervisorId> = before.into_iter().chain(named.iter().cloned()).collect();
        let mut changes = Vec::with_capacity(concerned.len());
        for supervisor in concerned {
            let version = after.filter(|_| named.contains(&supervisor)).map(|(_, version)| version);
            match self.supervisor_assignments.with(&supervisor, id, version) {
                Ok(change) => changes.extend(change),
                Err(blocked) => {
                    self.add_finding(
                        Some(id),
                        ClusterProblem::SupervisorAssignmentsBlocked { supervisor: blocked },
                    );
                    return None;
                }
            }
        }
        Some(changes)
    }

    /// Adds an action and the state that it produces. An action too large to be written is
    /// reported instead, and does not block the others.
    pub(super) fn act(&mut self, effect: Effect, reason: Reason, n_moved: usize) {
        if let Some(Err(problem)) = effect.ops().map(|ops| check_size(&ops)) {
            self.add_finding(effect.topology(), problem);
            return;
        }
        self.supervisor_assignments.apply(effect.supervisor_assignments());
        match &effect {
            Effect::Place { id, before, assignment, .. }
            | Effect::Rebalance { id, before, assignment, .. } => {
                let supervisors = assignment.supervisors().cloned().collect();
                self.assigned.insert(id.clone(), (version_after(*before), supervisors));
            }
            Effect::ReplaceWorkers { id, before, assignment, .. } => {
                let supervisors = assignment.supervisors().cloned().collect();
                self.assigned.insert(id.clone(), (version_after(Some(*before)), supervisors));
            }
            Effect::Unassign { id, .. } => {
                self.assigned.remove(id);
            }
            Effect::BeginMove { .. }
            | Effect::EndLogLevels { .. }
            | Effect::EndSamples { .. }
            | Effect::StepUpdate { .. }
            | Effect::RemoveRecords { .. }
            | Effect::RemoveTopologyRecord { .. }
            | Effect::CorrectSupervisorAssignments(_)
            | Effect::RestoreParents { .. }
            | Effect::DeleteBlobNode { .. }
            | Effect::DeleteEvents { .. }
            | Effect::DeleteStops { .. } => {}
        }
        let moves = self.moves(&effect);
        self.plan.actions.push(Action { effect, reason, n_moved, moves });
    }

    /// The tasks that `effect` assigns to another slot.
    fn moves(&self, effect: &Effect) -> Vec<Move> {
        let before = |id| self.view.assignments.get(id).map(|assignment| &assignment.value);
        match effect {
            Effect::Place { id, assignment, .. } | Effect::Rebalance { id, assignment, .. } => {
                moves(before(id), Some(assignment))
            }
            Effect::Unassign { .. }
            | Effect::BeginMove { .. }
            | Effect::EndLogLevels { .. }
            | Effect::EndSamples { .. }
            | Effect::StepUpdate { .. }
            | Effect::ReplaceWorkers { .. }
            | Effect::RemoveRecords { .. }
            | Effect::RemoveTopologyRecord { .. }
            | Effect::CorrectSupervisorAssignments(_)
            | Effect::RestoreParents { .. }
            | Effect::DeleteBlobNode { .. }
            | Effect::DeleteEvents { .. }
            | Effect::DeleteStops { .. } => Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }
}

/// The version of a record after it is created, or written once more.
pub(super) fn version_after(before: Option<Version>) -> Version {
    before.map_or(Version::FIRST, Version::next)
}
