//! Liveness of workers and supervisors, from observations of this leader in this term.
//!
//! A heartbeat is an ephemeral znode: it exists or it does not. All times are read from our own
//! monotonic clock when *we* first see a change: clocks of two hosts are never compared, and
//! observations from before our term, or from before the last loss of the connection, do not
//! count.
//!
//! The unit of loss is the worker: as long as one of its tasks has a heartbeat its process is
//! alive, and the worker itself restarts its other tasks. So a healthy task is never touched
//! because of another task.
//!
//! A worker whose supervisor is absent as well waits for a time-out, unless its host is lost: see
//! `liveness/hosts.rs`.

mod growth;
mod hosts;

mod placements;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::hosts::{AbsentSupervisor, VanishedTogether};
pub(crate) use self::placements::{FailedPlacements, is_of_host};
use self::{growth::Growth, hosts::Hosts, placements::Placements};
use crate::policy::Policy;
use stormkeeper_coordination::{
    cluster::{layout, record::SupervisorRecord, view::ClusterView},
    tree::TreePath,
};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_model::{
    BlobKey, Slot, SupervisorId, TaskId, Timestamp, TopologyId, WorkerId,
    assignment::{AssignedWorker, Assignment},
    clock::Monotonic,
    status::TopologyStatus,
    task_set::TaskSet,
};

/// Observations of one leader: when each thing appeared or disappeared.
#[derive(Debug, Clone)]
pub struct Liveness {
    term_began: Monotonic,
    /// Start of the term, or time of the last reconnection: no daemon could register before.
    connected_since: Monotonic,
    interrupted: bool,
    topologies: BTreeMap<TopologyId, TopologyLiveness>,
    /// Supervisors that have assigned workers and are absent, and since when.
    absent_supervisors: BTreeMap<SupervisorId, Monotonic>,
    /// The supervisors with what follows for their hosts.
    hosts: Hosts,
    /// Announced stops of supervisors that are absent and have no assigned workers, and since when.
    idle_stops: BTreeMap<SupervisorId, Monotonic>,
    /// The last assignment of each topology that is not killed, in this term.
    last_assignments: BTreeMap<TopologyId, Assignment>,
    /// Placements without a heartbeat, and those that did not come up.
    placements: Placements,
    /// Topologies with heartbeats and without an assignment, and since when.
    unassigned: BTreeMap<TopologyId, Monotonic>,
    /// Blobs that no nimbus has, and since when.
    missing_blobs: BTreeMap<BlobKey, Monotonic>,
    /// Topologies that have other records but not their topology record, and since when.
    orphaned_topologies: BTreeMap<TopologyId, Monotonic>,
    /// Topologies with znodes that this nimbus may not delete: the first of them, and the time of the last
    /// attempt.
    undeletable: BTreeMap<TopologyId, (TreePath, Monotonic)>,
    /// Workers that have drained, with the deadline of the change that they have drained for.
    drained: BTreeMap<TopologyId, BTreeMap<Slot, Timestamp>>,
    /// What the heartbeats say of the workers of topologies that are being updated.
    updates: BTreeMap<TopologyId, UpdateSight>,
    /// Slots in which no worker can run, according to their supervisors.
    unusable_slots: BTreeSet<Slot>,
    /// Free slots, and topologies that could grow back into them.
    growth: Growth,
}

/// Workers of a topology that is being updated, as their heartbeats say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UpdateSight {
    /// The slots at which the leader has looked, with the launch that has a heartbeat there.
    pub(crate) launches: BTreeMap<Slot, Option<LaunchSight>>,
}

/// A launch of a worker of a topology that is being updated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchSight {
    /// Its id.
    pub(crate) worker: WorkerId,
    /// Deadline of the step that it has drained for.
    pub(crate) drained_for: Option<Timestamp>,
    /// True if the components of all of its tasks have been up for a while.
    pub(crate) is_steady: bool,
    /// A task whose component ends again and again.
    pub(crate) failing: Option<TaskId>,
}

#[derive(Debug, Clone, Default)]
struct TopologyLiveness {
    /// Time at which each worker, identified by its start, was first seen assigned.
    placed: BTreeMap<Slot, (Timestamp, Monotonic)>,
    /// Time since which each assigned task has had no heartbeat.
    silent: BTreeMap<TaskId, Monotonic>,
}

/// Health of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerHealth {
    /// At least one of its tasks has a heartbeat.
    Alive,
    /// None of its tasks has a heartbeat, and it is too early to call it lost.
    Unknown {
        /// Time at which it is lost if no heartbeat appears.
        until: Monotonic,
    },
    /// The worker is lost: its tasks must be placed again.
    Lost(LossReason),
}

/// Reason why a worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LossReason {
    /// Its supervisor has been absent too long, and its tasks have no heartbeats.
    #[error("its supervisor has been absent for {0:?}")]
    SupervisorGone(Duration),
    /// Its host is lost: its supervisor has vanished, and none of the workers there has a heartbeat.
    #[error("its host is lost: session expired and all its workers' heartbeats gone")]
    HostLost,
    /// Its supervisor is present, and none of its tasks has a heartbeat.
    #[error("none of its tasks has sent a heartbeat for {0:?}")]
    Silent(Duration),
    /// Its supervisor is present and cannot start it in this slot, and none of its tasks has a
    /// heartbeat.
    #[error("its supervisor reports that no worker can run in this slot, as its port is taken")]
    SlotUnusable,
    /// Its supervisor reports that it cannot start the worker.
    #[error("its supervisor cannot start it")]
    CannotStart,
}

impl Liveness {
    /// Liveness without any observation, for a leader whose term begins `now`.
    pub fn new(now: Monotonic) -> Self {
        Self {
            term_began: now,
            connected_since: now,
            interrupted: false,
            topologies: BTreeMap::new(),
            absent_supervisors: BTreeMap::new(),
            hosts: Hosts::default(),
            idle_stops: BTreeMap::new(),
            last_assignments: BTreeMap::new(),
            placements: Placements::default(),
            unassigned: BTreeMap::new(),
            missing_blobs: BTreeMap::new(),
            orphaned_topologies: BTreeMap::new(),
            undeletable: BTreeMap::new(),
            drained: BTreeMap::new(),
            updates: BTreeMap::new(),
            unusable_slots: BTreeSet::new(),
            growth: Growth::default(),
        }
    }

    /// Replaces the workers that have drained, as their heartbeats say.
    pub(crate) fn note_drained(&mut self, drained: BTreeMap<TopologyId, BTreeMap<Slot, Timestamp>>) {
        self.drained = drained;
    }

    /// Replaces what the heartbeats say of topologies that are being updated.
    pub(crate) fn note_updates(&mut self, updates: BTreeMap<TopologyId, UpdateSight>) {
        self.updates = updates;
    }

    /// Returns what the heartbeats say of the workers of a topology that is being updated.
    pub(crate) fn update_sight(&self, id: &TopologyId) -> Option<&UpdateSight> {
        self.updates.get(id)
    }

    /// Returns whether all workers of an assignment have drained for the change with this deadline.
    pub(crate) fn is_drained(&self, id: &TopologyId, assignment: &Assignment, change: Timestamp) -> bool {
        let drained = self.drained.get(id);
        let is_drained = |slot: &Slot| drained.and_then(|drained| drained.get(slot)) == Some(&change);
        !assignment.workers.is_empty() && assignment.workers.keys().all(is_drained)
    }

    /// Adds supervisors that announce their stops, as this nimbus knows from before its term. This is
    /// a property of their builds and no observation of time.
    #[must_use]
    pub fn with_announcers(mut self, announcers: &BTreeSet<SupervisorId>) -> Self {
        self.hosts.add_announcers(announcers);
        self
    }

    /// Returns the supervisors that announce their stops, for [`Liveness::with_announcers`].
    pub fn announcers(&self, now: Monotonic) -> BTreeSet<SupervisorId> {
        self.hosts.announcers(now).cloned().collect()
    }

    /// Records that ZooKeeper cannot be reached. Things absent from the next view may be absent
    /// because no daemon could register: every timer then restarts.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Updates the timers from a fresh view.
    pub fn observe(&mut self, view: &ClusterView, now: Monotonic) {
        #[cfg(feature = "injected-bugs")]
        let now = self.with_injected_bug(now);
        if std::mem::take(&mut self.interrupted) {
            self.connected_since = now;
        }
        // An assignment that cannot be read may be unchanged.
        self.topologies
            .retain(|id, _| view.assignments.contains_key(id) || view.is_unreadable(&layout::assignment(id)));
        let no_heartbeats = TaskSet::default();
        for (id, assignment) in &view.assignments {
            let heartbeats = view.heartbeats.get(id).unwrap_or(&no_heartbeats);
            self.topologies.entry(id.clone()).or_default().observe(
                &assignment.value.workers,
                heartbeats,
                now,
            );
        }
        self.remember_assignments(view);
        let needed = view.assignments.values().flat_map(|assignment| assignment.value.supervisors());
        let absent_supervisors = needed
            .filter(|id| !view.supervisors.contains_key(*id) && !view.is_unreadable(&layout::supervisor(id)));
        update_since(&mut self.absent_supervisors, absent_supervisors, now);
        self.hosts.observe(view, now);
        let is_idle = |id: &&SupervisorId| {
            !view.supervisors.contains_key(*id)
                && !view.is_unreadable(&layout::supervisor(id))
                && !self.absent_supervisors.contains_key(*id)
        };
        let idle_stops = view.stopped_supervisors.keys().filter(is_idle);
        update_since(&mut self.idle_stops, idle_stops, now);
        self.placements.observe(view, self.connected_since, now);
        let unassigned = view
            .heartbeats
            .iter()
            .filter(|(id, heartbeats)| !heartbeats.is_empty() && !view.assignments.contains_key(*id))
            .map(|(id, _)| id);
        update_since(&mut self.unassigned, unassigned, now);
        let missing_blobs = view.blobs.iter().filter(|(_, holders)| holders.is_empty()).map(|(key, _)| key);
        update_since(&mut self.missing_blobs, missing_blobs, now);
        let orphaned_topologies = orphaned_topologies(view);
        update_since(&mut self.orphaned_topologies, orphaned_topologies.iter(), now);
        self.undeletable.retain(|id, _| view.topologies.contains_key(id) || orphaned_topologies.contains(id));
        self.unusable_slots = unusable_slots(view);
        self.growth.observe(view, now);
    }

    /// Free slots, and topologies that could grow back into them.
    pub(crate) fn growth(&self) -> &Growth {
        &self.growth
    }

    /// Notes that a znode of a topology could not be deleted.
    pub fn note_undeletable(&mut self, id: &TopologyId, path: &TreePath, now: Monotonic) {
        self.undeletable.insert(id.clone(), (path.clone(), now));
    }

    /// A znode of the topology that this nimbus may not delete, and the time of the last attempt.
    pub fn undeletable(&self, id: &TopologyId) -> Option<(&TreePath, Monotonic)> {
        self.undeletable.get(id).map(|(path, tried)| (path, *tried))
    }

    fn remember_assignments(&mut self, view: &ClusterView) {
        for (id, assignment) in &view.assignments {
            if self.last_assignments.get(id) != Some(&assignment.value) {
                self.last_assignments.insert(id.clone(), assignment.value.clone());
            }
        }
        let is_live = |id: &TopologyId| match view.topologies.get(id) {
            Some(record) => record.value.status != TopologyStatus::Killed,
            None => view.is_unreadable(&layout::storm(id)),
        };
        self.last_assignments.retain(|id, _| is_live(id));
    }

    /// The last assignment of a topology that this leader saw.
    pub fn last_assignment(&self, id: &TopologyId) -> Option<&Assignment> {
        self.last_assignments.get(id)
    }

    /// Injected bug for tests of the simulator: things absent from the first view count as
    /// absent since the start of the process, without time to come back.
    #[cfg(feature = "injected-bugs")]
    fn with_injected_bug(&mut self, now: Monotonic) -> Monotonic {
        use stormkeeper_runtime::injected_bugs::{InjectedBug, is_injected};
        let is_first = self.topologies.is_empty();
        match is_injected(InjectedBug::LivenessFromBeforeTerm) && is_first {
            true => {
                (self.term_began, self.connected_since) = (Monotonic::START, Monotonic::START);
                Monotonic::START
            }
            false => now,
        }
    }

    /// Health of the worker of `id` in `slot`.
    pub fn worker(
        &self,
        id: &TopologyId,
        slot: &Slot,
        worker: &AssignedWorker,
        now: Monotonic,
        policy: &Policy,
    ) -> WorkerHealth {
        let seen = self.topologies.get(id);
        let silent_since = |task| seen.and_then(|seen| seen.silent.get(&task)).copied();
        let mut last = None;
        for task in worker.tasks.iter() {
            match silent_since(task) {
                Some(since) => last = last.max(Some(since)),
                None => return WorkerHealth::Alive,
            }
        }
        let silent = last.unwrap_or(now).max(self.connected_since);
        let settled = self.connected_since.plus(policy.settle);
        if let Some(absent_since) = self.absent_supervisors.get(&slot.supervisor) {
            let absent_since = (*absent_since).max(self.connected_since);
            let timeout = absent_since.plus(policy.supervisor_timeout).max(settled);
            let lost_at = self.hosts.lost_at(&slot.supervisor, self.connected_since, now, policy);
            return match lost_at.filter(|lost_at| *lost_at < timeout) {
                Some(lost_at) if now >= lost_at => WorkerHealth::Lost(LossReason::HostLost),
                Some(until) => WorkerHealth::Unknown { until },
                None if now >= timeout => {
                    WorkerHealth::Lost(LossReason::SupervisorGone(now.since(absent_since)))
                }
                None => WorkerHealth::Unknown { until: timeout },
            };
        }
        if self.unusable_slots.contains(slot) {
            return match now >= settled {
                true => WorkerHealth::Lost(LossReason::SlotUnusable),
                false => WorkerHealth::Unknown { until: settled },
            };
        }
        if self.placements.should_leave(id, slot, worker) {
            return match now >= settled {
                true => WorkerHealth::Lost(LossReason::CannotStart),
                false => WorkerHealth::Unknown { until: settled },
            };
        }
        let placed = seen.and_then(|seen| seen.placed.get(slot)).map_or(now, |(_, placed)| *placed);
        let until = (placed.max(self.term_began).plus(policy.task_launch))
            .max(silent.plus(policy.task_timeout))
            .max(settled);
        match now >= until {
            true => WorkerHealth::Lost(LossReason::Silent(now.since(silent))),
            false => WorkerHealth::Unknown { until },
        }
    }

    /// The absent supervisors that have assigned workers.
    pub fn absent_supervisors(&self) -> impl Iterator<Item = AbsentSupervisor<'_>> {
        self.hosts.absent(self.connected_since)
    }

    /// The supervisors that vanished together, if they are too many to treat their hosts as lost.
    pub fn vanished_together(&self, now: Monotonic, policy: &Policy) -> Option<VanishedTogether> {
        self.hosts.vanished_together(self.connected_since, now, policy)
    }

    /// Time since which an announced stop concerns neither a registered supervisor nor one with
    /// assigned workers.
    pub fn idle_stops(&self) -> impl Iterator<Item = (&SupervisorId, Monotonic)> {
        self.idle_stops.iter().map(|(id, since)| (id, (*since).max(self.connected_since)))
    }

    /// Recent failed placements of each topology on each supervisor.
    pub(crate) fn failed_placements(&self) -> impl Iterator<Item = FailedPlacements<'_>> {
        self.placements.failed()
    }

    /// True if no task of a worker has a heartbeat, and its supervisor has said that the reason may
    /// be in the topology.
    pub(crate) fn is_of_topology(&self, id: &TopologyId, slot: &Slot) -> bool {
        self.placements.is_of_topology(id, slot)
    }

    /// Placements without a heartbeat whose supervisor is present, and since when.
    pub fn silent_placements(&self) -> impl Iterator<Item = (&TopologyId, &Slot, Monotonic)> {
        self.placements.silent()
    }

    /// True if no task of a worker has a heartbeat.
    pub fn is_silent(&self, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
        self.placements.is_silent(id, slot, worker)
    }

    /// Time at which the remaining heartbeats of a topology without an assignment belong to
    /// workers that do not stop, and may be deleted.
    pub fn heartbeats_overdue_at(&self, id: &TopologyId, now: Monotonic, policy: &Policy) -> Monotonic {
        let since = self.unassigned.get(id).copied().unwrap_or(now);
        since.max(self.connected_since).plus(policy.task_timeout)
    }

    /// Topologies that have other records but not their topology record, and since when.
    pub fn orphaned_topologies(&self) -> impl Iterator<Item = (&TopologyId, Monotonic)> {
        self.orphaned_topologies.iter().map(|(id, since)| (id, (*since).max(self.connected_since)))
    }

    /// Time since which no nimbus has had the blob.
    pub fn blob_missing_since(&self, key: &BlobKey) -> Option<Monotonic> {
        self.missing_blobs.get(key).map(|since| (*since).max(self.connected_since))
    }
}

impl TopologyLiveness {
    fn observe(&mut self, workers: &BTreeMap<Slot, AssignedWorker>, heartbeats: &TaskSet, now: Monotonic) {
        self.placed.retain(|slot, _| workers.contains_key(slot));
        let mut silent = BTreeMap::new();
        for (slot, worker) in workers {
            let placed = self.placed.entry(slot.clone()).or_insert((worker.start, now));
            if placed.0 != worker.start {
                *placed = (worker.start, now);
            }
            for task in worker.tasks.iter().filter(|task| !heartbeats.contains(*task)) {
                silent.insert(task, self.silent.get(&task).copied().unwrap_or(now));
            }
        }
        self.silent = silent;
    }
}

/// Slots in which no worker can run, according to their supervisors.
fn unusable_slots(view: &ClusterView) -> BTreeSet<Slot> {
    let of = |(id, record): (&SupervisorId, &SupervisorRecord)| {
        let ports = record.problems.iter().filter(|problem| problem.unusable).filter_map(|it| it.port);
        ports.map(|port| Slot { supervisor: id.clone(), port }).collect::<Vec<_>>()
    };
    view.supervisors.iter().flat_map(of).collect()
}

/// Topologies that have other records but not their topology record.
fn orphaned_topologies(view: &ClusterView) -> BTreeSet<TopologyId> {
    let roots =
        [layout::assignments(), layout::tasks_parent(), layout::taskbeats_parent(), layout::metrics_parent()];
    let roots = [&roots[..], &[layout::credentials_parent()]].concat();
    let unreadable = (view.unreadable.keys())
        .filter(|path| path.parent().is_some_and(|parent| roots.contains(&parent)))
        .filter_map(|path| path.name().parse().ok());
    let readable = (view.assignments.keys())
        .chain(view.tasks.keys())
        .chain(view.heartbeats.keys())
        .chain(view.credentials.keys())
        .chain(&view.errors)
        .chain(view.metric_fingerprints.keys());
    let is_orphaned = |id: &TopologyId| {
        !view.topologies.contains_key(id)
            && !is_system_topology(id)
            && !view.is_unreadable(&layout::storm(id))
    };
    readable
        .filter(|id| is_orphaned(id))
        .cloned()
        .chain(unreadable.filter(|id: &TopologyId| is_orphaned(id)))
        .collect()
}

/// Replaces the keys of `since` by `keys`; a key that was there keeps its time, a new one gets
/// `now`.
fn update_since<'a, K: Ord + Clone + 'a>(
    since: &mut BTreeMap<K, Monotonic>,
    keys: impl Iterator<Item = &'a K>,
    now: Monotonic,
) {
    let mut kept = BTreeMap::new();
    for key in keys {
        kept.insert(key.clone(), since.get(key).copied().unwrap_or(now));
    }
    *since = kept;
}
