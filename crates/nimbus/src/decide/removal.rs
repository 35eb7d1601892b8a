//! Removal of a killed topology, one step at a time, and of the other records of a topology
//! whose topology record was deleted by hand.
//!
//! The assignment and the supervisor assignments go first, so that the workers stop. When their
//! heartbeats are gone, or overdue, all other records go, and the topology record last: while it
//! exists, any leader sees that there is work left, and each step is decided only from the
//! records that exist.

use std::time::Duration;

use crate::{
    decide::draft::Draft,
    plan::{ClusterProblem, Effect, Reason},
};
use stormkeeper_coordination::cluster::{
    layout,
    record::{Stored, TopologyRecord},
    view::ClusterView,
};
use stormkeeper_model::{
    SupervisorId, TopologyId,
    status::{PendingChange, TopologyStatus},
};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

pub(super) fn remove_killed(draft: &mut Draft<'_>) {
    for (id, topology_record) in &draft.view.topologies {
        if topology_record.value.status != TopologyStatus::Killed {
            continue;
        }
        // A kill without a deadline is due at once.
        let deadline = match &topology_record.value.pending {
            Some(PendingChange::Kill { deadline }) => Some(*deadline),
            Some(PendingChange::Rebalance { .. }) | None => None,
        };
        let reason = match deadline {
            Some(deadline) if deadline > draft.now.wall && !draft.is_drained(id, deadline) => {
                draft.wake_at_deadline(deadline);
                continue;
            }
            Some(deadline) if deadline > draft.now.wall => Reason::Drained,
            Some(_) | None => Reason::KillDue,
        };
        remove_next(draft, id, (Some(topology_record), reason));
    }
}

/// Time before the records of a topology without topology record are removed, so that it can be
/// restored.
const ORPHAN_KEPT: Duration = Duration::from_secs(60);

/// Time before a missing topology record is reported: the parts of a view may be of different
/// moments, so that for this long it may only appear to be missing.
const ORPHAN_REPORTED_AFTER: Duration = Duration::from_secs(1);

/// Interval of the attempts to delete what a nimbus may not delete, until somebody has changed that.
const UNDELETABLE_RETRIED_AFTER: Duration = Duration::from_secs(30);

/// Removes the records of topologies without topology record, in the same steps.
pub(super) fn remove_orphans(draft: &mut Draft<'_>) {
    let liveness = draft.liveness;
    for (id, since) in liveness.orphaned_topologies() {
        let shown = since.plus(ORPHAN_REPORTED_AFTER);
        if !draft.is_past(shown) {
            draft.wake_at(shown);
            continue;
        }
        match liveness.undeletable(id) {
            Some((path, _)) => {
                draft.add_finding(Some(id), ClusterProblem::Undeletable { path: path.clone() });
            }
            None => draft.add_finding(Some(id), ClusterProblem::NoRecord { path: layout::storm(id) }),
        }
        let due = since.plus(ORPHAN_KEPT.max(draft.policy.settle));
        match draft.is_past(due) {
            true => remove_next(draft, id, (None, Reason::NoRecord)),
            false => draft.wake_at(due),
        }
    }
}

/// Plans the next step of removing a topology; `topology_record` is its topology record, if it has one.
fn remove_next(
    draft: &mut Draft<'_>,
    id: &TopologyId,
    (topology_record, reason): (Option<&Stored<TopologyRecord>>, Reason),
) {
    let view = draft.view;
    #[cfg(feature = "injected-bugs")]
    if let Some(topology_record) =
        topology_record.filter(|_| injected_bugs::is_injected(InjectedBug::RecordRemovedFirst))
    {
        let effect = Effect::RemoveTopologyRecord { id: id.clone(), version: topology_record.version };
        return draft.act(effect, Reason::RecordsGone, 0);
    }
    if let Some(assignment) = view.assignments.get(id) {
        let supervisors: Vec<SupervisorId> = assignment.value.supervisors().cloned().collect();
        return unassign(draft, id, Some(assignment.version), supervisors, reason);
    }
    if view.is_unreadable(&layout::assignment(id)) {
        let affected = view
            .supervisor_assignments
            .iter()
            .filter(|(_, supervisor_assignments)| supervisor_assignments.value.topologies.contains_key(id));
        let supervisors = affected.map(|(supervisor, _)| supervisor.clone()).collect();
        return unassign(draft, id, None, supervisors, reason);
    }
    // The rest waits for a person; the kill does not.
    let retry = draft.liveness.undeletable(id).map(|(_, tried)| tried.plus(UNDELETABLE_RETRIED_AFTER));
    let waits = retry.filter(|retry| !draft.is_past(*retry));
    if let Some(retry) = waits {
        draft.wake_at(retry);
    }
    if waits.is_some() || !has_records(view, id) {
        let Some(topology_record) = topology_record else { return };
        let effect = Effect::RemoveTopologyRecord { id: id.clone(), version: topology_record.version };
        return draft.act(effect, Reason::RecordsGone, 0);
    }
    let has_heartbeats = view.heartbeats.get(id).is_some_and(|has_heartbeats| !has_heartbeats.is_empty());
    let end = draft.liveness.heartbeats_overdue_at(id, draft.now.monotonic, draft.policy);
    let reason = match (has_heartbeats, draft.is_past(end)) {
        (false, _) => Reason::HeartbeatsGone,
        (true, true) => Reason::HeartbeatsOverdue,
        (true, false) => return draft.wake_at(end),
    };
    draft.act(Effect::RemoveRecords { id: id.clone() }, reason, 0);
}

fn unassign(
    draft: &mut Draft<'_>,
    id: &TopologyId,
    version: Option<stormkeeper_coordination::tree::Version>,
    supervisors: Vec<SupervisorId>,
    reason: Reason,
) {
    let Some(supervisor_assignments) = draft.supervisor_assignments_for(id, supervisors, None) else {
        return;
    };
    draft.act(Effect::Unassign { id: id.clone(), version, supervisor_assignments }, reason, 0);
}

/// Returns whether a topology has records besides its topology record and its assignment.
fn has_records(view: &ClusterView, id: &TopologyId) -> bool {
    view.tasks.contains_key(id)
        || view.heartbeats.contains_key(id)
        || view.errors.contains(id)
        || view.metric_fingerprints.contains_key(id)
        || view.credentials.contains_key(id)
        || [layout::tasks(id), layout::taskbeats(id), layout::metrics(id), layout::credentials(id)]
            .iter()
            .any(|path| view.is_unreadable(path))
}
