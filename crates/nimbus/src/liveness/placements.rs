//! Placements that did not come up: remembered, so that the supervisor is tried last for a while.
//!
//! A leader remembers what it saw itself in its term. What a supervisor knows of its own failures is
//! in its record, and so every leader has it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use stormkeeper_coordination::cluster::{
    failure::{FailureKind, ReportedFailure},
    view::ClusterView,
};
use stormkeeper_model::{
    Slot, SupervisorId, Timestamp, TopologyId, assignment::AssignedWorker, clock::Monotonic,
    restarts::RESTART_WINDOW, task_set::TaskSet,
};

/// Time without a heartbeat after which a placement that is replaced has failed. A worker that starts
/// needs less, or is reported with the same reason.
pub(super) const SILENT_MIN: Duration = Duration::from_secs(10);

/// Maximum number of failed placements that are remembered for one topology on one supervisor.
const FAILED_MAX: usize = 20;

/// Placements without a heartbeat, and those that were given up.
#[derive(Debug, Clone, Default)]
pub(super) struct Placements {
    /// Placements whose supervisor is present and whose tasks have no heartbeat.
    silent: BTreeMap<(TopologyId, Slot), SilentPlacement>,
    /// Times at which a placement was replaced without having come up.
    failed: BTreeMap<(TopologyId, SupervisorId), VecDeque<FailedPlacement>>,
}

#[derive(Debug, Clone, Copy)]
struct FailedPlacement {
    at: Monotonic,
    is_of_topology: bool,
}

/// Recent failed placements of one topology on one supervisor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedPlacements<'a> {
    pub(crate) topology: &'a TopologyId,
    pub(crate) supervisor: &'a SupervisorId,
    /// Number of those that another topology may meet there too.
    pub(crate) n_of_host: u32,
    /// Number of those of which the supervisor has said that the reason may be in the topology.
    pub(crate) n_of_topology: u32,
}

#[derive(Debug, Clone, Copy)]
struct SilentPlacement {
    start: Timestamp,
    since: Monotonic,
    /// True if its supervisor reports that it cannot bring up this placement, and another may.
    is_hopeless: bool,
    /// True if its supervisor has reported a failure of the topology there.
    is_of_topology: bool,
}

impl Placements {
    /// Updates the placements from a fresh view.
    pub(super) fn observe(&mut self, view: &ClusterView, connected_since: Monotonic, now: Monotonic) {
        let mut silent = BTreeMap::new();
        let no_heartbeats = TaskSet::default();
        for (id, assignment) in &view.assignments {
            let heartbeats = view.heartbeats.get(id).unwrap_or(&no_heartbeats);
            for (slot, worker) in &assignment.value.workers {
                if worker.tasks.iter().any(|task| heartbeats.contains(task)) {
                    continue;
                }
                let Some(supervisor) = view.supervisors.get(&slot.supervisor) else { continue };
                let key = (id.clone(), slot.clone());
                let before = self.silent.get(&key).filter(|before| before.start == worker.start);
                let since = before.map_or(now, |before| before.since).max(connected_since);
                let is_here = |failure: &&ReportedFailure| {
                    failure.port == Some(slot.port) && failure.topology.as_ref() == Some(id)
                };
                let here: Vec<_> = supervisor.failures.iter().filter(is_here).collect();
                let is_this = |failure: &&ReportedFailure| failure.placed == Some(worker.start);
                let is_hopeless = here.iter().copied().filter(is_this).any(may_start_elsewhere);
                let is_of_topology = before.is_some_and(|before| before.is_of_topology)
                    || here.iter().any(|failure| is_of_topology(failure));
                let start = worker.start;
                silent.insert(key, SilentPlacement { start, since, is_hopeless, is_of_topology });
            }
        }
        for (key @ (id, slot), before) in &self.silent {
            let is_over = silent.get(key).is_none_or(|after| after.start != before.start);
            // A worker that has a heartbeat now came up, and one whose supervisor is absent was not
            // given up for this reason; a topology without an assignment was killed.
            let assigned = view.assignments.get(id).map(|assignment| &assignment.value.workers);
            let is_replaced = assigned
                .is_some_and(|workers| workers.get(slot).is_none_or(|worker| worker.start != before.start));
            let has_failed = before.is_hopeless || now.since(before.since) >= SILENT_MIN;
            if is_over && is_replaced && has_failed && view.supervisors.contains_key(&slot.supervisor) {
                let times = self.failed.entry((id.clone(), slot.supervisor.clone())).or_default();
                if times.len() >= FAILED_MAX {
                    times.pop_front();
                }
                times.push_back(FailedPlacement { at: now, is_of_topology: before.is_of_topology });
            }
        }
        self.silent = silent;
        self.failed.retain(|(id, _), times| {
            times.retain(|failed| now.since(failed.at) < RESTART_WINDOW);
            !times.is_empty() && view.topologies.contains_key(id)
        });
    }

    /// True if the supervisor of a placement without a heartbeat cannot bring it up, and the topology
    /// was not moved away from there before: such a move is made once, and then the launch time counts
    /// as for any other worker.
    pub(super) fn should_leave(&self, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
        let silent = self.silent.get(&(id.clone(), slot.clone()));
        silent.is_some_and(|silent| silent.start == worker.start && silent.is_hopeless)
            && !self.failed.contains_key(&(id.clone(), slot.supervisor.clone()))
    }

    /// True if no task of a worker has a heartbeat.
    pub(super) fn is_silent(&self, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
        let silent = self.silent.get(&(id.clone(), slot.clone()));
        silent.is_some_and(|silent| silent.start == worker.start)
    }

    /// True if no task of a worker has a heartbeat, and its supervisor has said that the reason may
    /// be in the topology.
    pub(super) fn is_of_topology(&self, id: &TopologyId, slot: &Slot) -> bool {
        self.silent.get(&(id.clone(), slot.clone())).is_some_and(|silent| silent.is_of_topology)
    }

    /// Recent failed placements of each topology on each supervisor.
    pub(super) fn failed(&self) -> impl Iterator<Item = FailedPlacements<'_>> {
        self.failed.iter().map(|((topology, supervisor), times)| {
            let n = |of_topology: bool| {
                let times = times.iter().filter(|failed| failed.is_of_topology == of_topology);
                u32::try_from(times.count()).unwrap_or(u32::MAX)
            };
            FailedPlacements { topology, supervisor, n_of_host: n(false), n_of_topology: n(true) }
        })
    }

    /// Placements without a heartbeat whose supervisor is present, and since when.
    pub(super) fn silent(&self) -> impl Iterator<Item = (&TopologyId, &Slot, Monotonic)> {
        self.silent.iter().map(|((id, slot), silent)| (id, slot, silent.since))
    }
}

/// True for a failure to bring a worker up that the topology may not have on another host.
fn may_start_elsewhere(failure: &ReportedFailure) -> bool {
    failure.kind.is_start() && !failure.everywhere
}

/// True for a failure whose reason may be in the topology.
fn is_of_topology(failure: &ReportedFailure) -> bool {
    matches!(failure.kind, FailureKind::Topology | FailureKind::Worker | FailureKind::Component)
}

/// True for a failure to bring a worker up that other topologies may meet on the same host, and this
/// one may not have on another host.
pub(crate) fn is_of_host(failure: &ReportedFailure) -> bool {
    matches!(failure.kind, FailureKind::Launch | FailureKind::Code) && !failure.everywhere
}
