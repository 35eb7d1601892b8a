//! The question that [`crate::schedule::solve()`] answers, and the answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Port, Slot, SupervisorId, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    task_set::TaskSet,
    topology::TaskTable,
};

/// Everything that placement depends on, besides the previous solution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// The supervisors whose slots exist.
    pub supervisors: BTreeMap<SupervisorId, Supervisor>,
    /// Slots that something else fills, for example a topology that is being removed.
    pub occupied: BTreeSet<Slot>,
    /// The topologies to place, oldest first.
    pub topologies: Vec<Topology>,
}

/// What a supervisor offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    /// Its host. Several supervisors may share one.
    pub host: String,
    /// Its slots.
    pub ports: BTreeSet<Port>,
    /// Whether more may be placed there.
    pub standing: Standing,
}

/// Whether a supervisor can be given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers: its free slots can be filled.
    Live,
    /// It is out of sight, while its workers may run on: what is kept there stays and
    /// nothing is added.
    Away,
    /// It answers, and an operator has its host emptied: what is kept there stays until its
    /// topology can be moved without loss, and nothing is added.
    Drained,
}

/// What one topology wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The topology.
    pub id: TopologyId,
    /// How many workers it asks for. It gets no more than it has tasks.
    pub workers: u32,
    /// All of its tasks.
    pub tasks: TaskTable,
    /// What stays of its previous placement.
    pub keep: Keep,
}

/// What stays of a previous placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// These tasks are healthy and stay where they are, as long as their slot exists. A slot that lost all of its tasks is filled again only when no
    /// other is free. A worker whose tasks are all healthy is given no task that was lost
    /// elsewhere: it would have to start again for the sake of that.
    Healthy(TaskSet),
    /// A rebalance: everything is placed anew, in the previous slots where those are as
    /// even as others.
    Nothing,
}

/// Where the tasks of every topology run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solution {
    /// The placement of each topology of the problem.
    pub placements: BTreeMap<TopologyId, Placement>,
}

/// Where the tasks of one topology run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The tasks of each worker; none is empty.
    pub workers: BTreeMap<Slot, TaskSet>,
    /// The tasks that run nowhere, if any.
    pub unplaced: Option<Unplaced>,
}

/// Tasks that have no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Which.
    pub tasks: TaskSet,
    /// Why.
    pub reason: Reason,
}

/// Why tasks have no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nobody offers a slot.
    #[error("no supervisor is alive")]
    NoSupervisor,
    /// Nobody offers a slot but hosts that are to be emptied.
    #[error("every host with a live supervisor is drained")]
    EveryHostDrained,
    /// The cluster is full.
    #[error("all {slots} slots are in use")]
    NoFreeSlot {
        /// How many slots live supervisors have on hosts that are not drained.
        slots: usize,
    },
}

impl Solution {
    /// The solution that assignments express.
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
    /// This placement as an assignment that begins at `now`.
    ///
    /// A worker that `previous` has in the same slot with the same tasks keeps its start,
    /// so that it runs on, unless one of its tasks was not healthy: then it starts again
    /// where it is.
    pub fn assignment(
        &self,
        supervisors: &BTreeMap<SupervisorId, Supervisor>,
        previous: Option<&Assignment>,
        keep: &Keep,
        now: Timestamp,
    ) -> Assignment {
        let healthy = |tasks: &TaskSet| match keep {
            Keep::Healthy(kept) => tasks.iter().all(|task| kept.contains(task)),
            Keep::Nothing => true,
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
            // Two placements in one slot must differ, also when the clock stood still or
            // was turned back between them.
            let start =
                before.map_or(now, |before| now.max(before.start.plus(std::time::Duration::from_millis(1))));
            AssignedWorker { host, tasks: tasks.clone(), start }
        };
        let workers = self.workers.iter().map(|(slot, tasks)| (slot.clone(), worker(slot, tasks)));
        Assignment { workers: workers.collect() }
    }
}
