//! A topology as a job: the values from which bodies are made.

use crate::{FlinkId, JobState, TaskState};

/// A topology.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Id of the job.
    pub id: FlinkId,
    /// Name of the topology.
    pub name: String,
    /// State.
    pub state: JobState,
    /// Time of the submit, in milliseconds since 1970.
    pub start_ms: u64,
    /// Time of the kill; absent while the topology exists.
    pub end_ms: Option<u64>,
    /// Time of this answer.
    pub now_ms: u64,
    /// Components, in the order of their ids.
    pub vertices: Vec<Vertex>,
}

/// A component.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// Id of the vertex.
    pub id: FlinkId,
    /// Id of the component.
    pub name: String,
    /// Streams that it receives; empty if the topology package is not here.
    pub inputs: Vec<PlanInput>,
    /// Tasks, in the order of their ids.
    pub subtasks: Vec<Subtask>,
}

/// A stream between two components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanInput {
    /// The emitting vertex.
    pub from: FlinkId,
    /// Stream and grouping, such as `default FIELDS(word)`.
    pub strategy: String,
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Subtask {
    /// Id of the task.
    pub task: u32,
    /// State.
    pub state: TaskState,
    /// Worker; absent without a slot.
    pub worker: Option<WorkerAddress>,
    /// Time of its placement there.
    pub start_ms: Option<u64>,
    /// Tuples since the submit.
    pub records: RecordCounts,
    /// Share of the time in which the task is busy, 0 to 1.
    pub busy: Option<f64>,
    /// Share of its queue that is full, 0 to 1.
    pub queue: Option<f64>,
}

/// Number of tuples, as far as they are measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Tuples that were executed.
    pub read: Option<u64>,
    /// Tuples that were emitted.
    pub written: Option<u64>,
}

/// Place of a worker, which is its id as a task manager: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerAddress {
    /// Host.
    pub host: String,
    /// Port of the slot.
    pub port: u16,
}

impl std::fmt::Display for WorkerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Job {
    /// Time from the submit to the kill, or to now.
    pub(crate) fn duration_ms(&self) -> u64 {
        self.end_ms.unwrap_or(self.now_ms).saturating_sub(self.start_ms)
    }

    /// Time of the kill, or Flink's −1.
    pub(crate) fn end_or_minus_one(&self) -> i64 {
        self.end_ms.map_or(-1, |end| i64::try_from(end).unwrap_or(i64::MAX))
    }

    /// States of all subtasks.
    pub(crate) fn task_states(&self) -> Vec<TaskState> {
        self.vertices.iter().flat_map(|vertex| vertex.states()).collect()
    }

    /// Returns a vertex.
    pub fn vertex(&self, id: FlinkId) -> Option<&Vertex> {
        self.vertices.iter().find(|vertex| vertex.id == id)
    }
}

impl Vertex {
    pub(crate) fn states(&self) -> Vec<TaskState> {
        self.subtasks.iter().map(|subtask| subtask.state).collect()
    }

    /// Sum of the counts of all subtasks, and whether all of them are measured.
    pub(crate) fn records(&self) -> RecordCounts {
        let sum = |of: fn(&RecordCounts) -> Option<u64>| {
            self.subtasks.iter().filter_map(|subtask| of(&subtask.records)).reduce(u64::saturating_add)
        };
        RecordCounts { read: sum(|records| records.read), written: sum(|records| records.written) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn id(digit: &str) -> FlinkId {
        digit.repeat(32).parse().expect("valid")
    }

    pub(crate) fn subtask(task: u32, state: TaskState) -> Subtask {
        Subtask {
            task,
            state,
            worker: Some(WorkerAddress { host: "h".to_owned(), port: 6700 }),
            start_ms: Some(1_500),
            records: RecordCounts { read: Some(10 * u64::from(task)), written: None },
            busy: Some(0.25),
            queue: Some(0.0),
        }
    }

    /// A spout `a` with one task, and a bolt `b` with two.
    pub(crate) fn job() -> Job {
        let input = PlanInput { from: id("a"), strategy: "default SHUFFLE".to_owned() };
        let running = |task| subtask(task, TaskState::Running);
        Job {
            id: id("f"),
            name: "wc".to_owned(),
            state: JobState::Running,
            start_ms: 1_000,
            end_ms: None,
            now_ms: 61_000,
            vertices: vec![
                Vertex { id: id("a"), name: "a".to_owned(), inputs: Vec::new(), subtasks: vec![running(1)] },
                Vertex {
                    id: id("b"),
                    name: "b".to_owned(),
                    inputs: vec![input],
                    subtasks: vec![running(2), running(3)],
                },
            ],
        }
    }
}
