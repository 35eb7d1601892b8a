//! Which tasks run in which slots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Port, Slot, SupervisorId, TaskId, Timestamp, task_set::TaskSet};

/// Where the tasks of one topology run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The workers by slot. No task is in two of them.
    pub workers: BTreeMap<Slot, AssignedWorker>,
}

/// One worker of an assignment. Two equal values mean the same worker: whatever differs
/// (tasks, start time) asks for another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedWorker {
    /// The host to reach it at.
    pub host: String,
    /// The tasks it runs.
    pub tasks: TaskSet,
    /// When these tasks were put here, by the leader's clock. It tells two placements of
    /// the same tasks apart; nobody compares it with another clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
}

impl Assignment {
    /// The slot that `task` runs in.
    pub fn slot_of(&self, task: TaskId) -> Option<&Slot> {
        self.workers.iter().find(|(_, worker)| worker.tasks.contains(task)).map(|(slot, _)| slot)
    }

    /// The supervisors that run a part of it, each once.
    pub fn supervisors(&self) -> impl Iterator<Item = &SupervisorId> {
        let mut last = None;
        self.workers.keys().filter_map(move |slot| {
            (last.replace(&slot.supervisor) != Some(&slot.supervisor)).then_some(&slot.supervisor)
        })
    }

    /// The workers of one supervisor, by port.
    pub fn workers_of<'a>(
        &'a self,
        supervisor: &'a SupervisorId,
    ) -> impl Iterator<Item = (Port, &'a AssignedWorker)> {
        self.workers
            .iter()
            .filter(move |(slot, _)| slot.supervisor == *supervisor)
            .map(|(slot, worker)| (slot.port, worker))
    }

    /// Every assigned task.
    pub fn tasks(&self) -> TaskSet {
        self.workers.values().flat_map(|worker| worker.tasks.iter()).collect()
    }
}
