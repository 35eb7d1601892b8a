//! The bodies of requests and answers of a nimbus, as JSON.
//!
//! Names follow Storm's REST API where it has the same thing (`tasksTotal`, `slotsUsed`).
//! Times are milliseconds since 1970, durations are whole seconds; both say so in their
//! names. Unknown fields are ignored, so that a client may be older than its nimbus.

mod cluster;
mod error;
mod metrics;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use cluster::{
    ClusterSummary, DrainRequest, DrainSummary, EventList, EventSummary, HostAccepted, LeaderSummary,
    MoveSummary, NimbusList, NimbusStatus, NimbusSummary, SupervisorList, SupervisorSummary, UnreadableZnode,
};
pub use error::{Code, ErrorBody};
pub use metrics::{
    ArchiveStatus, ArchiveView, CounterValue, DropSummary, FollowerSummary, ForgetRequest, Forgotten,
    GaugeValue, HistogramValue, LatestList, LatestValue, MeasuredTopology, MeasuredTopologyList, MeterValue,
    MetricControlRequest, MetricMeta, MetricMetaList, MetricValue, PastTopology, PointList, QueueSummary,
    Series, TaskPlace, TaskTrack, TimedValue, TimerValue, TopologyHistory, UploaderSummary, UploaderWork,
};

use crate::model::{
    BlobKey, ComponentId, Port, SupervisorId, TaskId, Timestamp, TopologyId, TopologyName, WorkerId,
    beat::{TaskCounts, TaskStatus},
    error::TaskError,
    status::{PendingChange, TopologyStatus},
    task_set::TaskSet,
    topology::ComponentKind,
};

/// `POST /api/v1/topology/submit`: run the topology of a blob that was put before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitRequest {
    /// The name to run it under; the topology's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TopologyName>,
    /// The blob.
    pub blob: BlobKey,
    /// Who submits it; for people to read.
    pub owner: String,
    /// Whether its spouts run at once.
    #[serde(default)]
    pub status: InitialStatus,
}

/// `POST /api/v1/blobs/{sha256}/copy`: fetch a blob from the nimbus that has it. A leader asks
/// this of the other nimbuses when a topology is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyRequest {
    /// Where the blob is, `host:port`.
    pub from: String,
}

/// The status that a topology begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitialStatus {
    /// Spouts run as soon as they are placed.
    #[default]
    Active,
    /// Spouts wait until the topology is activated.
    Inactive,
}

impl From<InitialStatus> for TopologyStatus {
    fn from(initial: InitialStatus) -> Self {
        match initial {
            InitialStatus::Active => Self::Active,
            InitialStatus::Inactive => Self::Inactive,
        }
    }
}

/// `POST /api/v1/topology/{id or name}/rebalance`: place the tasks anew after a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RebalanceRequest {
    /// How long spouts are stopped before; the topology's message timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// The number of workers from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// The number of tasks of some components from then on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parallelism: BTreeMap<ComponentId, u32>,
}

/// `POST /api/v1/topology/{id or name}/kill`: remove the topology after a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KillRequest {
    /// How long spouts are stopped before; the topology's message timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
}

/// The answer to submit, activate, deactivate, rebalance and kill: how the topology stands
/// now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What was asked for: `submit`, `activate`, …
    pub topology_operation: String,
    /// The topology.
    pub topology_id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// Its status from now on.
    pub status: TopologyStatus,
    /// What waits for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
}

/// A kill or rebalance that waits for its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The change with its options and its deadline by the leader's clock.
    #[serde(flatten)]
    pub change: PendingChange,
    /// How long until then, in milliseconds; 0 when it is due.
    pub remaining_ms: u64,
}

/// `GET /api/v1/topology/summary`: every topology in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyList {
    /// By name, then id.
    pub topologies: Vec<TopologySummary>,
    /// How old the answering nimbus' view is, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
}

/// A topology in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologySummary {
    /// Its id.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// Who submitted it.
    pub owner: String,
    /// Its status.
    pub status: TopologyStatus,
    /// What waits for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// When it was submitted.
    #[serde(rename = "launchedMs")]
    pub launched: Timestamp,
    /// How long ago.
    pub uptime_seconds: u64,
    /// How many tasks it has.
    pub tasks_total: usize,
    /// How many of them have a slot.
    pub tasks_assigned: usize,
    /// How many of them beat.
    pub tasks_alive: usize,
    /// How many workers it has now.
    pub workers_total: usize,
    /// How many workers it wants.
    pub workers_wanted: u32,
    /// The same as `tasksTotal`: a task is its own executor.
    pub executors_total: usize,
    /// On how many nimbuses its blob is.
    pub replication_count: usize,
    /// What keeps it from being whole, when something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// `GET /api/v1/topology/{id or name}`: a topology with everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyDetail {
    /// The line of the list.
    #[serde(flatten)]
    pub summary: TopologySummary,
    /// The artefact that its workers run.
    pub blob: BlobKey,
    /// How long a kill or rebalance waits when nobody says, in seconds.
    pub msg_timeout: u64,
    /// Its workers by host and port.
    pub workers: Vec<WorkerSummary>,
    /// Its components by id.
    pub components: Vec<ComponentSummary>,
    /// Its tasks in ascending order.
    pub tasks: Vec<TaskSummary>,
    /// How old the answering nimbus' view is, in milliseconds.
    pub view_age_ms: u64,
}

impl TopologyDetail {
    /// How many tasks have their component up.
    pub fn n_running(&self) -> usize {
        let is_up =
            |task: &&TaskSummary| matches!(task.status, Some(TaskStatus::Running | TaskStatus::Inactive));
        self.tasks.iter().filter(is_up).count()
    }

    /// Whether every task has its component up.
    pub fn is_running(&self) -> bool {
        self.summary.tasks_total > 0 && self.n_running() == self.summary.tasks_total
    }
}

/// One worker of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSummary {
    /// The supervisor that runs it.
    pub supervisor_id: SupervisorId,
    /// Where it listens for tuples: the host …
    pub host: String,
    /// … and the port.
    pub port: Port,
    /// The launch that its tasks' beats name; absent until the first beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// How long it has run by its beats; absent until the first beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// When its tasks were put there.
    #[serde(rename = "assignedMs")]
    pub assigned: Timestamp,
    /// Its tasks.
    pub tasks: TaskSet,
    /// How many of them beat.
    pub tasks_alive: usize,
}

/// One component of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSummary {
    /// Its id.
    pub id: ComponentId,
    /// Spout or bolt; absent when the answering nimbus has not got the blob yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ComponentKind>,
    /// How many tasks run it.
    pub parallelism: usize,
    /// How many of them beat.
    pub tasks_alive: usize,
    /// What its tasks have done since their workers started.
    #[serde(flatten)]
    pub counts: TaskCounts,
    /// Its last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorSummary>,
}

/// One task of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskSummary {
    /// The task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// The host it is placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port of its worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Whether it runs, as far as the tree shows.
    pub liveness: TaskLiveness,
    /// How far it is, by its beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// How long its worker has run, by its beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// What it has done since its worker started.
    #[serde(flatten)]
    pub counts: TaskCounts,
}

/// Whether a task runs, as far as the tree shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskLiveness {
    /// It beats.
    Alive,
    /// It has a slot and no beat: it is being started, or its worker is gone.
    Silent,
    /// It has no slot.
    Unassigned,
}

impl fmt::Display for TaskLiveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Unassigned => "unassigned",
        })
    }
}

/// An error of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorSummary {
    /// The component.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// When, by the worker's clock.
    #[serde(rename = "errorTimeMs")]
    pub time: Timestamp,
    /// The worker's host.
    #[serde(rename = "errorHost")]
    pub host: String,
    /// The worker's port.
    #[serde(rename = "errorPort")]
    pub port: Port,
    /// One line.
    #[serde(rename = "error")]
    pub message: String,
    /// A stack trace or the child's last words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
}

impl From<TaskError> for ErrorSummary {
    fn from(error: TaskError) -> Self {
        let TaskError { component, task, time, host, port, message, stack } = error;
        Self { component, task, time, host, port, message, stack }
    }
}

/// `GET /api/v1/topology/{id or name}/errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyErrors {
    /// The topology.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// The last error of each component that had one.
    pub last: BTreeMap<ComponentId, ErrorSummary>,
    /// The errors kept of each task, newest first.
    pub errors: Vec<ErrorSummary>,
    /// Whether tasks were left out because too many had errors.
    #[serde(default)]
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_option_is_refused_not_ignored() {
        let error = serde_json::from_str::<KillRequest>(r#"{"wait":3}"#).expect_err("refused");
        assert!(error.to_string().contains("unknown field `wait`"), "{error}");
    }

    #[test]
    fn pending_changes_are_flat() {
        let change = PendingChange::Kill { deadline: Timestamp::from_millis(7) };
        let json = serde_json::to_value(Pending { change, remaining_ms: 3 }).expect("JSON");
        assert_eq!(json, serde_json::json!({"change": "kill", "deadline_ms": 7, "remainingMs": 3}));
    }
}
