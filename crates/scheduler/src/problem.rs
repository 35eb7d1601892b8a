//! Input and output of [`crate::solve()`].

use std::collections::{BTreeMap, BTreeSet};

use crate::failures::Failures;
use stormkeeper_model::{
    ComponentId, Port, Slot, SupervisorId, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    resources::{Capacity, Resource, TaskRequests},
    task_set::TaskSet,
    topology::TaskTable,
};

/// Complete input of placement, apart from the previous solution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// The supervisors with their slots.
    pub supervisors: BTreeMap<SupervisorId, Supervisor>,
    /// Slots in use outside of this problem, for example by a topology that is being removed.
    pub occupied: BTreeSet<Slot>,
    /// The topologies to place, oldest first.
    pub topologies: Vec<TopologyDemand>,
    /// Recent failures of the supervisors.
    pub failures: Failures,
}

/// A supervisor and its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    /// Its host. Several supervisors may share one.
    pub host: String,
    /// Its slots.
    pub ports: BTreeSet<Port>,
    /// State that determines whether more tasks may be placed there.
    pub standing: Standing,
    /// Resources for the tasks that request some.
    pub capacity: Capacity,
}

/// State of a supervisor with regard to placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Present: its free slots can be used.
    Live,
    /// Absent, but its workers may still run: tasks kept there stay and none are added.
    Away,
    /// Present, but an operator drains its host: tasks kept there stay until their topology can
    /// be moved without loss, and none are added.
    Drained,
    /// Present, but nobody connects to it, as its certificate has expired: tasks kept there stay, and none
    /// are added.
    Expired,
}

/// Requirements of one topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyDemand {
    /// The topology.
    pub id: TopologyId,
    /// Number of workers requested. The topology gets at most one worker per task.
    pub workers: u32,
    /// All of its tasks.
    pub tasks: TaskTable,
    /// Resources that each task of a component requests. With requests, a topology gets more workers
    /// than it requested if its tasks have no room otherwise.
    pub requests: TaskRequests,
    /// Part of its previous placement that stays.
    pub keep: Keep,
}

/// Part of a previous placement that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// These tasks are healthy and stay where they are, as long as their slot exists. A slot that
    /// lost all of its tasks is used again only if no other is free. A worker whose tasks are all
    /// healthy gets no task that was lost elsewhere: it would have to restart for it.
    Healthy(TaskSet),
    /// A rebalance: workers are spread over the hosts anew, and tasks over the workers. Among equally even
    /// spreads, slots and workers that change least are preferred.
    EvenSpread,
}

/// Placement of the tasks of every topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solution {
    /// The placement of each topology of the problem.
    pub placements: BTreeMap<TopologyId, Placement>,
}

/// Placement of the tasks of one topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The tasks of each worker; none is empty.
    pub workers: BTreeMap<Slot, TaskSet>,
    /// The tasks without a slot, if any.
    pub unplaced: Option<Unplaced>,
}

/// Tasks that have no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// These tasks.
    pub tasks: TaskSet,
    /// The shortage that causes it.
    pub reason: UnplacedReason,
}

/// Reason why tasks have no slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnplacedReason {
    /// There are no live supervisors.
    #[error("no supervisor is alive")]
    NoSupervisor,
    /// All live supervisors are on drained hosts.
    #[error("every host with a live supervisor is drained")]
    EveryHostDrained,
    /// The cluster is full.
    #[error("all {slots} slots are in use")]
    NoFreeSlot {
        /// Number of slots of live supervisors on hosts that are not drained.
        slots: usize,
    },
    /// Slots are free, but nowhere are the resources of a task.
    #[error(
        "a task of {component} requests {} of {resource}, and the best place, {host}, has {} left of {}; \
         add supervisors or capacity, or request less",
        .resource.amount(*.wanted), .resource.amount(*.free), .resource.amount(*.capacity)
    )]
    NoCapacity {
        /// Component of the task.
        component: ComponentId,
        /// The resource that is short.
        resource: Resource,
        /// Amount that the task requests.
        wanted: u64,
        /// Amount that is free at the best place.
        free: u64,
        /// Capacity of the best place.
        capacity: u64,
        /// Host of the supervisor that is the best place.
        host: String,
    },
}

impl Solution {
    /// The solution that corresponds to assignments.
    pub fn from_assignments<'a>(
        assignments: impl IntoIterator<Item = (&'a TopologyId, &'a Assignment)>,
    ) -> Self {
        let placements = assignments.into_iter().map(|(id, assignment)| (id.clone(), assignment.into()));
        Self { placements: placements.collect() }
    }
}

impl From<&Assignment> for Placement {
    fn from(assignment: &Assignment) -> Self {
        let workers = assignment.workers.iter().map(|(slot, worker)| (slot.clone(), worker.tasks.clone()));
        Self { workers: workers.collect(), unplaced: None }
    }
}

impl Placement {
    /// Converts this placement to an assignment with start `now`.
    ///
    /// A worker that `previous` has in the same slot with the same tasks keeps its start, so that
    /// it keeps running, unless one of its tasks was not healthy: then it restarts in place.
    pub fn assignment(
        &self,
        supervisors: &BTreeMap<SupervisorId, Supervisor>,
        previous: Option<&Assignment>,
        keep: &Keep,
        now: Timestamp,
    ) -> Assignment {
        let healthy = |tasks: &TaskSet| match keep {
            Keep::Healthy(kept) => tasks.iter().all(|task| kept.contains(task)),
            Keep::EvenSpread => true,
        };
        let worker = |slot: &Slot, tasks: &TaskSet| {
            let before = previous.and_then(|previous| previous.workers.get(slot));
            if let Some(before) = before.filter(|before| before.tasks == *tasks && healthy(tasks)) {
                return before.clone();
            }
            let host = match (supervisors.get(&slot.supervisor), before) {
                (Some(supervisor), _) => supervisor.host.clone(),
                (None, Some(before)) => before.host.clone(),
                (None, None) => String::new(),
            };
            // The starts of two placements in one slot must differ, even if the clock stood still
            // or was set back between them.
            let start =
                before.map_or(now, |before| now.max(before.start.plus(std::time::Duration::from_millis(1))));
            AssignedWorker { host, tasks: tasks.clone(), start }
        };
        let workers = self.workers.iter().map(|(slot, tasks)| (slot.clone(), worker(slot, tasks)));
        let unknown_fields = previous.map(|previous| previous.unknown_fields.clone()).unwrap_or_default();
        Assignment { workers: workers.collect(), unknown_fields }
    }
}
