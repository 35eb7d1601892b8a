//! Absent supervisors: what operators should know about them, and the announced stops of which no
//! task waits.

use std::time::Duration;

use super::supervisor_assignments::unreadable_assignments;
use crate::{
    decide::draft::Draft,
    host_problem::HostProblem,
    plan::{ClusterProblem, Effect, Reason},
};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{SupervisorId, TopologyId};

/// Time before an absent supervisor is reported: a supervisor that opens a new session is absent
/// for a moment.
const REPORTED_AFTER: Duration = Duration::from_secs(3);

/// Shortest time for which an announced stop is kept after the last task has left its supervisor.
const STOP_KEPT: Duration = Duration::from_secs(60);

/// Most announced stops that one action deletes; the next round deletes the others.
const STOPS_DELETED_MAX: usize = 100;

/// Reports absent supervisors to the topologies that have workers there.
pub(super) fn report_absent(draft: &mut Draft<'_>) {
    let (liveness, timeout) = (draft.liveness, draft.policy.supervisor_timeout);
    let together = liveness.vanished_together(draft.now.monotonic, draft.policy);
    for absent in liveness.absent_supervisors() {
        let reported_at = absent.since.plus(REPORTED_AFTER);
        if !draft.is_past(reported_at) {
            draft.wake_at(reported_at);
            continue;
        }
        for (topology, host) in topologies_on(draft.view, absent.supervisor) {
            let supervisor = absent.supervisor.clone();
            let problem = match (absent.is_silent, absent.has_stopped, together) {
                (false, _, _) => HostProblem::SupervisorAbsent { supervisor, host },
                (true, true, _) => HostProblem::SupervisorStopped { supervisor, host, timeout },
                (true, false, Some(together)) => HostProblem::VanishedTogether { host, together, timeout },
                (true, false, None) => HostProblem::HostAbsent { supervisor, host },
            };
            draft.add_finding(Some(topology), ClusterProblem::Hosts(problem));
        }
    }
}

/// The topologies that have workers on `supervisor`, with its host.
fn topologies_on<'a>(
    view: &'a ClusterView,
    supervisor: &SupervisorId,
) -> impl Iterator<Item = (&'a TopologyId, String)> {
    view.assignments.iter().filter_map(move |(id, assignment)| {
        let (_, worker) = assignment.value.workers.iter().find(|(slot, _)| slot.supervisor == *supervisor)?;
        Some((id, worker.host.clone()))
    })
}

/// Deletes announced stops of absent supervisors that have no tasks.
pub(super) fn delete_idle_stops(draft: &mut Draft<'_>) {
    if !unreadable_assignments(draft.view).is_empty() {
        // The workers of an unreadable assignment may be on any of these supervisors.
        return;
    }
    let (liveness, kept) = (draft.liveness, STOP_KEPT.max(draft.policy.supervisor_timeout));
    let mut supervisors = Vec::new();
    for (supervisor, since) in liveness.idle_stops() {
        let due = since.plus(kept);
        match draft.is_past(due) {
            true if supervisors.len() < STOPS_DELETED_MAX => supervisors.push(supervisor.clone()),
            true => {}
            false => draft.wake_at(due),
        }
    }
    if !supervisors.is_empty() {
        draft.act(Effect::DeleteStops { supervisors }, Reason::StopsIdle, 0);
    }
}
