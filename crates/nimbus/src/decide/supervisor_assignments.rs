//! Supervisor assignments: the assignments of the topologies, by supervisor.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decide::draft::Draft,
    plan::{Effect, Reason, RecordState, SupervisorAssignmentsChange},
};
use stormkeeper_coordination::{
    cluster::{layout, record::SupervisorAssignments, view::ClusterView},
    tree::Version,
};
use stormkeeper_model::{SupervisorId, TopologyId};

type Assigned = BTreeMap<TopologyId, (Version, BTreeSet<SupervisorId>)>;

/// The assignments of every supervisor after the actions decided before.
pub(super) struct SupervisorAssignmentsTable {
    entries: BTreeMap<SupervisorId, (RecordState, SupervisorAssignments)>,
    /// Supervisors whose assignments cannot be read and must not be written: a newer build wrote
    /// them, or their correct content is not known, because an assignment of a topology cannot be
    /// read either.
    blocked: BTreeSet<SupervisorId>,
}

impl SupervisorAssignmentsTable {
    pub(super) fn new(view: &ClusterView, assigned: &Assigned) -> Self {
        let mut entries: BTreeMap<_, _> = view
            .supervisor_assignments
            .iter()
            .map(|(id, supervisor_assignments)| {
                (
                    id.clone(),
                    (RecordState::At(supervisor_assignments.version), supervisor_assignments.value.clone()),
                )
            })
            .collect();
        let is_all_known = unreadable_assignments(view).is_empty();
        let unreadable = (view.unreadable.iter())
            .filter(|(path, _)| path.parent() == Some(layout::supervisor_assignments_parent()))
            .filter_map(|(path, defect)| Some((path.name().parse().ok()?, defect.must_stay())));
        let (blocked, rebuilt): (Vec<(SupervisorId, bool)>, Vec<_>) =
            unreadable.partition(|(_, must_stay)| *must_stay || !is_all_known);
        let blocked = blocked.into_iter().map(|(id, _)| id).collect();
        let mut expected = expected(assigned);
        for (id, _) in rebuilt {
            let supervisor_assignments = expected.remove(&id).unwrap_or_default();
            entries.insert(id, (RecordState::Unreadable, supervisor_assignments));
        }
        Self { entries, blocked }
    }

    /// The change that makes the assignments of `supervisor` name `id` at `version`, or not at
    /// all; `None` if they already do.
    ///
    /// # Errors
    /// The supervisor, if its assignments cannot be written.
    pub(super) fn with(
        &self,
        supervisor: &SupervisorId,
        id: &TopologyId,
        version: Option<Version>,
    ) -> Result<Option<SupervisorAssignmentsChange>, SupervisorId> {
        if self.blocked.contains(supervisor) {
            return Err(supervisor.clone());
        }
        let entry = self.entries.get(supervisor);
        let (before, mut supervisor_assignments) = entry.map_or(
            (RecordState::Absent, SupervisorAssignments::default()),
            |(before, supervisor_assignments)| (*before, supervisor_assignments.clone()),
        );
        let had = match version {
            Some(version) => supervisor_assignments.topologies.insert(id.clone(), version),
            None => supervisor_assignments.topologies.remove(id),
        };
        let change = SupervisorAssignmentsChange {
            supervisor: supervisor.clone(),
            before,
            after: Some(supervisor_assignments),
        };
        Ok((had != version).then_some(change))
    }

    /// Returns the supervisors whose unreadable assignments are written again.
    pub(super) fn rebuilt(&self) -> impl Iterator<Item = &SupervisorId> {
        let is_rebuilt = |(state, _): &(RecordState, _)| *state == RecordState::Unreadable;
        self.entries.iter().filter(move |(_, entry)| is_rebuilt(entry)).map(|(id, _)| id)
    }

    /// Returns whether the assignments of `supervisor` cannot be written.
    pub(super) fn is_blocked(&self, supervisor: &SupervisorId) -> bool {
        self.blocked.contains(supervisor)
    }

    pub(super) fn apply(&mut self, changes: &[SupervisorAssignmentsChange]) {
        for SupervisorAssignmentsChange { supervisor, before, after } in changes {
            let Some(supervisor_assignments) = after else {
                self.entries.remove(supervisor);
                continue;
            };
            let before = match before {
                RecordState::Absent => RecordState::At(Version::FIRST),
                RecordState::At(version) => RecordState::At(version.next()),
                RecordState::Unreadable => RecordState::Unreadable,
            };
            self.entries.insert(supervisor.clone(), (before, supervisor_assignments.clone()));
        }
    }
}

/// Rewrites supervisor assignments that differ from the assignments of the topologies, creates
/// missing ones, and deletes the empty ones of absent supervisors.
pub(super) fn correct(draft: &mut Draft<'_>) {
    let hidden = unreadable_assignments(draft.view);
    let mut expected = expected(&draft.assigned);
    for supervisor in draft.supervisor_assignments.entries.keys() {
        expected.entry(supervisor.clone()).or_default();
    }
    let rewritten: BTreeSet<SupervisorId> = (draft.plan.actions.iter())
        .flat_map(|action| action.effect.supervisor_assignments())
        .map(|change| change.supervisor.clone())
        .collect();
    for (supervisor, mut expected) in expected {
        if draft.supervisor_assignments.is_blocked(&supervisor) {
            continue;
        }
        let entry = draft.supervisor_assignments.entries.get(&supervisor);
        let (before, now) = entry.map_or((RecordState::Absent, None), |(before, now)| (*before, Some(now)));
        // The content of an unreadable assignment is not known, so its entries are kept.
        let kept = now.into_iter().flat_map(|now| &now.topologies).filter(|(id, _)| hidden.contains(*id));
        expected.topologies.extend(kept.map(|(id, version)| (id.clone(), *version)));
        expected.unknown_fields = now.map(|now| now.unknown_fields.clone()).unwrap_or_default();
        let is_live = draft.view.supervisors.contains_key(&supervisor)
            || draft.view.is_unreadable(&layout::supervisor(&supervisor));
        let after = match now {
            None if expected.topologies.is_empty() => continue,
            Some(_) if expected.topologies.is_empty() && !is_live => None,
            Some(now) if *now == expected && before != RecordState::Unreadable => continue,
            // An action of this plan already rewrites them.
            Some(now) if *now == expected && rewritten.contains(&supervisor) => continue,
            Some(_) | None => Some(expected),
        };
        let change = SupervisorAssignmentsChange { supervisor, before, after };
        draft.act(Effect::CorrectSupervisorAssignments(change), Reason::SupervisorAssignmentsDiffer, 0);
    }
}

/// Computes the supervisor assignments from the readable assignments of the topologies.
fn expected(assigned: &Assigned) -> BTreeMap<SupervisorId, SupervisorAssignments> {
    let mut expected: BTreeMap<SupervisorId, SupervisorAssignments> = BTreeMap::new();
    for (id, (version, supervisors)) in assigned {
        for supervisor in supervisors {
            expected.entry(supervisor.clone()).or_default().topologies.insert(id.clone(), *version);
        }
    }
    expected
}

/// The topologies whose assignment exists and cannot be read.
pub(super) fn unreadable_assignments(view: &ClusterView) -> BTreeSet<TopologyId> {
    (view.unreadable.keys())
        .filter(|path| path.parent() == Some(layout::assignments()))
        .filter_map(|path| path.name().parse().ok())
        .collect()
}
