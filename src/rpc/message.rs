//! The bodies of requests and answers of a nimbus, as JSON.
//!
//! Names follow Storm's REST API where it has the same thing (`tasksTotal`, `slotsUsed`).
//! Times are milliseconds since 1970, durations are whole seconds; both say so in their
//! names. Unknown fields are ignored, so that a client may be older than its nimbus.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::model::{
    BlobKey, ComponentId, NimbusId, Port, SupervisorId, TaskId, Term, Timestamp, TopologyId, TopologyName,
    WorkerId,
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

/// `GET /api/v1/supervisor/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorList {
    /// By host, then id.
    pub supervisors: Vec<SupervisorSummary>,
}

/// A live supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorSummary {
    /// Its id.
    pub id: SupervisorId,
    /// Its host.
    pub host: String,
    /// How long it has run, as far as the two machines' clocks agree.
    pub uptime_seconds: u64,
    /// How many workers it can run.
    pub slots_total: usize,
    /// How many it is assigned.
    pub slots_used: usize,
    /// The difference.
    pub slots_free: usize,
    /// CPU that it offers, in hundredths of a core.
    pub total_cpu: u32,
    /// Memory that it offers, in MiB.
    pub total_mem: u32,
    /// The version of its program.
    pub version: String,
}

/// `GET /api/v1/nimbus/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NimbusList {
    /// By id.
    pub nimbuses: Vec<NimbusSummary>,
}

/// A live nimbus replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NimbusSummary {
    /// Its id.
    pub id: NimbusId,
    /// Its host.
    pub host: String,
    /// Where its API answers, `host:port`.
    pub api: String,
    /// `Leader` or `Not a Leader`, in Storm's words.
    pub status: NimbusStatus,
    /// How long it has run, as far as the two machines' clocks agree.
    #[serde(rename = "nimbusUpTimeSeconds")]
    pub uptime_seconds: u64,
    /// How many blobs of live topologies it lacks.
    pub blobs_missing: usize,
    /// The version of its program.
    pub version: String,
}

/// Which part a nimbus plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NimbusStatus {
    /// It decides and writes.
    #[serde(rename = "Leader")]
    Leader,
    /// It watches and answers reads.
    #[serde(rename = "Not a Leader")]
    Follower,
}

impl fmt::Display for NimbusStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        })
    }
}

/// `GET /api/v1/cluster/summary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSummary {
    /// The version of the answering nimbus.
    pub version: String,
    /// Who leads; absent during an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderSummary>,
    /// How many nimbuses live.
    pub nimbuses: usize,
    /// How many supervisors live.
    pub supervisors: usize,
    /// How many topologies there are.
    pub topologies: usize,
    /// How many workers the supervisors can run.
    pub slots_total: usize,
    /// How many they are assigned.
    pub slots_used: usize,
    /// The difference.
    pub slots_free: usize,
    /// How many tasks there are.
    pub tasks_total: usize,
    /// The same: a task is its own executor.
    pub executors_total: usize,
    /// Znodes that hold no valid record.
    #[serde(default)]
    pub unreadable: Vec<UnreadableZnode>,
    /// How old the answering nimbus' view is, in milliseconds.
    pub view_age_ms: u64,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderSummary {
    /// The leading nimbus.
    pub nimbus: NimbusId,
    /// Where its API answers, `host:port`.
    pub api: String,
    /// Its term.
    pub term: Term,
}

/// A znode that holds no valid record: skipped, and left alone with all it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadableZnode {
    /// Its path.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The answer to a request that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of trouble it is; stable.
    pub code: Code,
    /// What went wrong, where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What kind of trouble an [`ErrorBody`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed: not JSON, a wrong field, a bad id.
    InvalidRequest,
    /// The topology cannot run.
    InvalidTopology,
    /// There is no topology of that id or name.
    UnknownTopology,
    /// A topology of that name is there already.
    NameInUse,
    /// The topology's status does not allow it.
    IllegalTransition,
    /// The blob has not been put, or is nowhere.
    BlobMissing,
    /// The bytes of a blob are not those of its key.
    BlobMismatch,
    /// Something is over its limit; the message names it.
    TooLarge,
    /// A znode that is needed holds no valid record.
    UnreadableRecord,
    /// Others wrote the same record again and again; nothing was changed.
    Conflict,
    /// There is no leader now, or it is not reachable; nothing was changed.
    NoLeader,
    /// ZooKeeper is not reachable now; nothing was changed.
    TreeUnavailable,
    /// The connection broke while writing; whether it took effect is not known.
    OutcomeUnknown,
    /// This nimbus has not read the cluster yet.
    NotReady,
    /// There is nothing at this path of the API.
    NoSuchRoute,
    /// The path is there, with another method.
    WrongMethod,
    /// A fault of ours; the log of the nimbus has the details.
    Internal,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl Code {
    /// Its text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidTopology => "invalid_topology",
            Self::UnknownTopology => "unknown_topology",
            Self::NameInUse => "name_in_use",
            Self::IllegalTransition => "illegal_transition",
            Self::BlobMissing => "blob_missing",
            Self::BlobMismatch => "blob_mismatch",
            Self::TooLarge => "too_large",
            Self::UnreadableRecord => "unreadable_record",
            Self::Conflict => "conflict",
            Self::NoLeader => "no_leader",
            Self::TreeUnavailable => "tree_unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::NotReady => "not_ready",
            Self::NoSuchRoute => "no_such_route",
            Self::WrongMethod => "wrong_method",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_newer_nimbus_is_readable() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"code":"on_fire","message":"m","since":1}"#).expect("readable");
        assert_eq!(body, ErrorBody { code: Code::Other, message: "m".to_owned(), hint: None });
    }

    #[test]
    fn codes_print_as_they_are_sent() {
        for code in [Code::InvalidRequest, Code::NameInUse, Code::NoSuchRoute, Code::Internal, Code::Other] {
            assert_eq!(serde_json::to_value(code).expect("text"), code.as_str());
        }
    }

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
