//! Bodies of requests to a nimbus and of its responses, as JSON.
//!
//! Names follow Storm's REST API where it has the same thing (`tasksTotal`, `slotsUsed`).
//! Times are milliseconds since 1970, durations are whole seconds; the field names contain the
//! unit. Unknown fields are ignored, so that a client may be older than its nimbus.

mod cluster;
mod credentials;
mod error;
pub mod live;
mod log_levels;
pub mod logs;
mod metrics;
mod recovery;
mod samples;
mod session;
mod settings;
mod tree;
pub mod unique;

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cluster::{
    ClusterSummary, DrainRequest, DrainSummary, EventList, EventSummary, HostAccepted, LeaderSummary,
    MoveSummary, NimbusList, NimbusStatus, NimbusSummary, OwnerList, OwnerSummary, SupervisorList,
    SupervisorSummary, UnreadableZnode,
};
pub use credentials::{CredentialList, CredentialSummary, CredentialsRequest};
pub use error::{Code, ErrorBody};
pub use log_levels::{LogLevelRequest, LogLevelView, LogLevels};
pub use metrics::{
    CounterValue, DropSummary, ExportQueueSummary, ExporterSummary, ExporterWork, FollowerSummary,
    ForgetRequest, Forgotten, GaugeValue, HistogramValue, LatestList, LatestValue, MeasuredTopology,
    MeasuredTopologyList, MeterValue, MetricControlRequest, MetricMetaList, MetricMetaView,
    MetricStoreStatus, MetricStoreView, MetricValue, PastTopology, PointList, Series, TaskPlace, TaskTrack,
    TimedValue, TimerValue, TopologyHistory,
};

pub use recovery::{CopiedTopology, Recovered, RecoveryRequest, RecoveryStatus, TreeCopySummary};
pub use samples::{SampleList, SampleRequest, SampleView};
pub use session::{AccessMode, RoleName, SignInRequest, WebSession};
pub use settings::{ConfigurationKey, ConfigurationList, SettingOfTopology, SettingOrigin, TopologySettings};
pub use tree::{TreeAcl, TreeExplanation, TreeFacts, TreeNode};

use stormkeeper_model::{
    BlobKey, ComponentId, Port, SupervisorId, TaskId, Timestamp, TopologyId, TopologyName, WorkerId,
    error::TaskError,
    heartbeat::{TaskCounts, TaskStatus},
    status::{PendingChange, TopologyStatus},
    task_set::TaskSet,
    topology::ComponentKind,
};

/// `POST /api/stormkeeper/v1/topology/submit`: run the topology in a blob that was uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitRequest {
    /// Topology name; the name in the topology package when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TopologyName>,
    /// The blob.
    pub blob: BlobKey,
    /// User who submits the topology; informational.
    pub owner: String,
    /// Status after the submission.
    #[serde(default)]
    pub status: InitialStatus,
}

/// `POST /api/stormkeeper/v1/blobs/{sha256}/copy`: fetch a blob from another nimbus. A leader sends this
/// request to the other nimbuses when a topology is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyRequest {
    /// Address of a nimbus that has the blob, `host:port`.
    pub from: String,
}

/// The status of a topology after its submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// `POST /api/stormkeeper/v1/topology/{id or name}/rebalance`: place the tasks again after a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RebalanceRequest {
    /// Longest time for which the workers may drain before, with their spouts stopped; the topology's message
    /// timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// New number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// New number of tasks, by component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map")]
    pub parallelism: BTreeMap<ComponentId, u32>,
    /// Start every worker again, also those that keep their tasks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

/// `POST /api/stormkeeper/v1/topology/{id or name}/update`: run the package in a blob that was
/// uploaded before, a few workers at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateRequest {
    /// The blob.
    pub blob: BlobKey,
    /// Workers that may start at a time, 1 to 100, once the first one runs; one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

/// Progress of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateView {
    /// Number of workers to replace.
    pub total: usize,
    /// Number of workers that were replaced, in the present direction.
    pub replaced: usize,
    /// Number of those that run.
    pub running: usize,
    /// Worker that drains before it is replaced, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,
    /// Workers that were replaced and do not run for long enough yet, `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starting: Vec<String>,
    /// Reason for which the update goes back to the former package, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The package that is left.
    pub former_blob: BlobKey,
}

/// `POST /api/stormkeeper/v1/topology/{id or name}/kill`: remove the topology after a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KillRequest {
    /// Longest time for which the workers may drain before, with their spouts stopped; the topology's message
    /// timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
}

/// Response to submit, activate, deactivate, rebalance and kill: the topology's new state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The requested operation: `submit`, `activate`, …
    pub topology_operation: String,
    /// The topology.
    pub topology_id: TopologyId,
    /// Topology name.
    pub name: TopologyName,
    /// The new status.
    pub status: TopologyStatus,
    /// The kill or rebalance that waits for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
}

/// A kill or rebalance that waits for its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The change with its options and its deadline by the leader's clock.
    /// The change with its options, and its deadline by the leader's clock.
    #[serde(flatten)]
    pub change: PendingChange,
    /// Time until the deadline, in milliseconds; 0 when the change is due.
    pub remaining_ms: u64,
}

/// `GET /api/stormkeeper/v1/topology/summary`: all topologies in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyList {
    /// Sorted by name, then id.
    pub topologies: Vec<TopologySummary>,
    /// Znodes that hold no valid record: the topology of one below `/storms` is not in the list.
    #[serde(default)]
    pub unreadable: Vec<UnreadableZnode>,
    /// Problems of the cluster that are not of one topology, such as a supervisor that fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The answering nimbus sees another tree than its own, and this list is the last one of its own
    /// tree: the difference, and advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_problem: Option<String>,
    /// Age of the answering nimbus' view, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
}

/// A topology in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySummary {
    /// Topology id.
    pub id: TopologyId,
    /// Topology name.
    pub name: TopologyName,
    /// User who submitted the topology.
    pub owner: String,
    /// Topology status.
    pub status: TopologyStatus,
    /// The kill or rebalance that waits for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Time of the submission.
    #[serde(rename = "launchedMs")]
    pub launched: Timestamp,
    /// Time since the submission.
    pub uptime_seconds: u64,
    /// Number of tasks.
    pub tasks_total: usize,
    /// Number of tasks that have a slot.
    pub tasks_assigned: usize,
    /// Number of tasks with a heartbeat.
    pub tasks_alive: usize,
    /// Current number of workers.
    pub workers_total: usize,
    /// Configured number of workers.
    pub workers_wanted: u32,
    /// The same as `tasksTotal`: each task is its own executor.
    pub executors_total: usize,
    /// Number of nimbuses that have the blob.
    pub replication_count: usize,
    /// Problem because of which the topology is not fully placed or does not run well, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `GET /api/stormkeeper/v1/topology/{id or name}`: a topology with all details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyDetail {
    /// The topology's line in the list.
    #[serde(flatten)]
    pub summary: TopologySummary,
    /// Key of the topology package.
    pub blob: BlobKey,
    /// Default wait of a kill or rebalance, in seconds.
    pub msg_timeout: u64,
    /// Workers, sorted by host and port.
    pub workers: Vec<WorkerSummary>,
    /// Components, sorted by id.
    pub components: Vec<ComponentSummary>,
    /// Tasks in ascending order.
    pub tasks: Vec<TaskSummary>,
    /// Problems of the supervisors of its workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supervisor_problems: Vec<String>,
    /// Update that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateView>,
    /// Log levels that operators have set for a time.
    #[serde(default, skip_serializing_if = "LogLevels::is_empty")]
    pub log_levels: LogLevels,
    /// Age of the answering nimbus' view, in milliseconds.
    pub view_age_ms: u64,
}

impl TopologyDetail {
    /// Number of tasks whose component is running.
    pub fn n_running(&self) -> usize {
        let is_up =
            |task: &&TaskSummary| matches!(task.status, Some(TaskStatus::Running | TaskStatus::Inactive));
        self.tasks.iter().filter(is_up).count()
    }

    /// True if the components of all tasks are running.
    pub fn is_running(&self) -> bool {
        self.summary.tasks_total > 0 && self.n_running() == self.summary.tasks_total
    }
}

/// One worker of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSummary {
    /// The supervisor of the worker.
    pub supervisor_id: SupervisorId,
    /// Host on which the worker listens for tuples …
    pub host: String,
    /// … and the port.
    pub port: Port,
    /// The launch that the tasks' heartbeats name; absent until the first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Uptime according to the heartbeats; absent until the first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// Time of the assignment.
    #[serde(rename = "assignedMs")]
    pub assigned: Timestamp,
    /// The worker's tasks.
    pub tasks: TaskSet,
    /// Number of tasks with a heartbeat.
    pub tasks_alive: usize,
}

/// One component of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSummary {
    /// Component id.
    pub id: ComponentId,
    /// Spout or bolt; absent if the answering nimbus does not have the blob yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ComponentKind>,
    /// Number of tasks.
    pub parallelism: usize,
    /// Number of tasks with a heartbeat.
    pub tasks_alive: usize,
    /// Counts of its tasks since their workers started.
    #[serde(flatten)]
    pub counts: TaskCounts,
    /// Tuples that its tasks have received and have not finished; of a spout, those that it emitted with an
    /// id and that are neither acked nor failed.
    #[serde(default)]
    pub pending: u64,
    /// The component's last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorSummary>,
}

/// One task of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskSummary {
    /// The task.
    pub task: TaskId,
    /// The task's component.
    pub component: ComponentId,
    /// The host of the task's worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port of the task's worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Liveness according to the tree.
    pub liveness: TaskLiveness,
    /// Status according to the task's heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Uptime of the worker according to the task's heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// Counts since the worker started.
    #[serde(flatten)]
    pub counts: TaskCounts,
    /// Tuples that the task has received and its component has not finished; of a spout, those that it
    /// emitted with an id and that are neither acked nor failed.
    #[serde(default)]
    pub pending: u64,
}

/// Liveness of a task according to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskLiveness {
    /// The task has a heartbeat.
    Alive,
    /// The task has a slot and no heartbeat: its worker is starting, or is gone.
    Silent,
    /// The task has no slot.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorSummary {
    /// The component.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// Time of the error, by the clock of its writer: the worker, or the supervisor of a failed worker.
    #[serde(rename = "errorTimeMs")]
    pub time: Timestamp,
    /// The worker's host.
    #[serde(rename = "errorHost")]
    pub host: String,
    /// The worker's port.
    #[serde(rename = "errorPort")]
    pub port: Port,
    /// Message in one line.
    #[serde(rename = "error")]
    pub message: String,
    /// A stack trace, or the end of the child's stderr; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
}

impl From<TaskError> for ErrorSummary {
    fn from(error: TaskError) -> Self {
        let TaskError { component, task, time, host, port, message, stack } = error;
        Self { component, task, time, host, port, message, stack }
    }
}

/// `GET /api/stormkeeper/v1/topology/{id or name}/errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyErrors {
    /// The topology.
    pub id: TopologyId,
    /// Topology name.
    pub name: TopologyName,
    /// The last error of each component that had one.
    pub last: BTreeMap<ComponentId, ErrorSummary>,
    /// The recorded errors of each task, newest first.
    pub errors: Vec<ErrorSummary>,
    /// True if tasks were left out because too many had errors.
    #[serde(default)]
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_rejected() {
        let error = serde_json::from_str::<KillRequest>(r#"{"wait":3}"#).expect_err("refused");
        assert!(error.to_string().contains("unknown field `wait`"), "{error}");
    }

    #[test]
    fn pending_changes_are_flattened() {
        let change = PendingChange::Kill { deadline: Timestamp::from_millis(7) };
        let json = serde_json::to_value(Pending { change, remaining_ms: 3 }).expect("JSON");
        assert_eq!(json, serde_json::json!({"change": "kill", "deadline_ms": 7, "remainingMs": 3}));
    }
}
