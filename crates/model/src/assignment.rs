//! Assignments: which tasks run in which slots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Port, Slot, SupervisorId, Timestamp, UnknownFields, task_set::TaskSet};

/// Placement of the tasks of one topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The workers by slot. No task is in two workers.
    pub workers: BTreeMap<Slot, AssignedWorker>,
    /// Fields of its record that a newer version added.
    pub unknown_fields: UnknownFields,
}

/// One worker of an assignment. Equal values mean the same worker; any difference (tasks, start
/// time) requires a new process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedWorker {
    /// Host of the worker.
    pub host: String,
    /// Tasks that the worker runs.
    pub tasks: TaskSet,
    /// Time at which these tasks were placed here, by the leader's clock. It distinguishes two
    /// placements of the same tasks; it is never compared with another clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
}

impl Assignment {
    /// Returns the supervisors that run workers of this assignment, each once.
    pub fn supervisors(&self) -> impl Iterator<Item = &SupervisorId> {
        let mut last = None;
        self.workers.keys().filter_map(move |slot| {
            (last.replace(&slot.supervisor) != Some(&slot.supervisor)).then_some(&slot.supervisor)
        })
    }

    /// Returns the workers of one supervisor, by port.
    pub fn workers_of<'a>(
        &'a self,
        supervisor: &'a SupervisorId,
    ) -> impl Iterator<Item = (Port, &'a AssignedWorker)> {
        self.workers
            .iter()
            .filter(move |(slot, _)| slot.supervisor == *supervisor)
            .map(|(slot, worker)| (slot.port, worker))
    }

    /// Returns every assigned task.
    pub fn tasks(&self) -> TaskSet {
        self.workers.values().flat_map(|worker| worker.tasks.iter()).collect()
    }
}
