//! Records stored in the tree: JSON objects with a `v` field, readable by a person.
//!
//! - A newer build of the same layout may add fields. Every record keeps the fields that this build
//!   does not know (`unknown_fields`) when it is changed and written back, so that a rolling upgrade
//!   loses nothing. This holds for the fields of the record itself; a nested object is written as a
//!   whole.
//! - A change that an older build would misunderstand increments `v`. An older build then reports
//!   the record as unreadable, and leaves it unchanged.

mod defect;
mod format;
mod plain_errors;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use defect::{Defect, DefectKind};
pub use format::{FORMAT, Stored, Unreadable, decode, encode};

use super::{failure::ReportedFailure, reported_problem::ReportedProblem, users::HeldUsers};
use crate::tree::{TreePath, Version};
pub use stormkeeper_model::UnknownFields;
use stormkeeper_model::{
    BlobKey, ComponentId, InvalidId, NimbusId, Port, Slot, SupervisorId, TaskId, Term, Timestamp, TopologyId,
    TopologyName, WorkerId,
    assignment::{AssignedWorker, Assignment},
    error::TaskError,
    heartbeat::{TaskCounts, TaskStatus},
    log_control::LogControl,
    metric_control::MetricControl,
    platform::Platform,
    resources::{Capacity, TaskRequests},
    status::{PendingChange, TopologyStatus},
    task_set::TaskSet,
    topology::{Ackers, TaskTable},
    tuple_samples::TupleSamples,
    update::Update,
};

/// `/storms/{topology-id}`: a submitted topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyRecord {
    /// Name that the author gave the topology.
    pub name: TopologyName,
    /// Lifecycle status.
    pub status: TopologyStatus,
    /// Time of the submit, by the leader's clock.
    #[serde(rename = "launched_ms")]
    pub launched: Timestamp,
    /// Number of workers that the topology requests.
    pub workers: u32,
    /// The user who submitted the topology.
    pub owner: String,
    /// The topology package that its workers run.
    pub blob: BlobKey,
    /// Bytes of the package, for the quota of the owner; absent in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_bytes: Option<u64>,
    /// Default wait of a kill, a rebalance or a drain.
    pub message_timeout_secs: u64,
    /// Time for which slots must have been free before the topology grows back to its number of workers;
    /// absent if it does not, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_back_secs: Option<u64>,
    /// Ackers of its tuple trees; absent if they are not tracked, and for topologies that older builds
    /// submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ackers: Option<Ackers>,
    /// A kill or rebalance that is waiting for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
    /// Changes that operators made to its metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricControl>,
    /// Log levels of components that operators set; absent without any, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_levels: Option<LogControl>,
    /// Samples of tuples that operators asked for; absent without any, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple_samples: Option<TupleSamples>,
    /// Update that is under way; absent without one, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

impl TopologyRecord {
    /// Returns the packages that its workers may run: during an update also the former one.
    pub fn packages(&self) -> impl Iterator<Item = (&BlobKey, Option<u64>)> {
        let former = self.update.as_ref().map(|update| (&update.former.blob, update.former.blob_bytes));
        std::iter::once((&self.blob, self.blob_bytes)).chain(former)
    }

    /// Returns the package of the worker in `slot` that was placed there at `start`.
    pub fn blob_of(&self, slot: &Slot, start: Timestamp) -> &BlobKey {
        match &self.update {
            Some(update) if update.keeps_former(slot, start) => &update.former.blob,
            Some(_) | None => &self.blob,
        }
    }

    /// Returns whether its workers may run a package.
    pub fn uses(&self, blob: &BlobKey) -> bool {
        self.packages().any(|(used, _)| used == blob)
    }
}

#[cfg(any(test, feature = "test-support"))]
impl TopologyRecord {
    /// Record for tests: an active topology of one worker, launched at the epoch.
    pub fn sample(name: &str) -> Self {
        Self {
            name: name.parse().expect("valid name"),
            status: TopologyStatus::Active,
            launched: Timestamp::EPOCH,
            workers: 1,
            owner: "ann".to_owned(),
            blob: BlobKey::of(b"x"),
            blob_bytes: None,
            message_timeout_secs: 30,
            grow_back_secs: None,
            ackers: None,
            pending: None,
            metrics: None,
            log_levels: None,
            tuple_samples: None,
            update: None,
            unknown_fields: UnknownFields::new(),
        }
    }
}

/// `/tasks/{topology-id}`: the tasks of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksRecord {
    /// The tasks of each component.
    pub components: TaskTable,
    /// Resources that each task of a component requests; empty in older builds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: TaskRequests,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/credentials/{topology-id}`: the credentials of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsRecord {
    /// Number of the change that wrote the record, from 1.
    pub number: u64,
    /// Last change of each credential, by name.
    pub entries: BTreeMap<String, CredentialEntry>,
    /// Name of the key with which the values are encrypted.
    pub key: String,
    /// The encrypted values, as hexadecimal digits.
    pub sealed: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// Last change of one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialEntry {
    /// Time of the change, by the leader's clock.
    #[serde(rename = "changed_ms")]
    pub changed: Timestamp,
    /// Author of the change, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `/assignments/{topology-id}`: the slots in which the tasks run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredAssignment {
    workers: Vec<StoredWorker>,
    #[serde(flatten)]
    unknown_fields: UnknownFields,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredWorker {
    supervisor: SupervisorId,
    port: Port,
    host: String,
    // Text, so that a record of many workers with a million tasks each is rejected at the second.
    tasks: String,
    #[serde(rename = "start_ms")]
    start: Timestamp,
}

/// Encodes an assignment as the bytes of its znode.
pub fn encode_assignment(assignment: &Assignment) -> Vec<u8> {
    let workers = assignment.workers.iter().map(|(slot, worker)| StoredWorker {
        supervisor: slot.supervisor.clone(),
        port: slot.port,
        host: worker.host.clone(),
        tasks: worker.tasks.to_string(),
        start: worker.start,
    });
    encode(&StoredAssignment {
        workers: workers.collect(),
        unknown_fields: assignment.unknown_fields.clone(),
    })
}

/// Decodes an assignment.
///
/// # Errors
/// [`Unreadable`] if the data is no assignment, or contains a slot or a task twice.
pub fn decode_assignment(path: &TreePath, bytes: &[u8]) -> Result<Assignment, Unreadable> {
    let stored: StoredAssignment = decode(path, bytes)?;
    let damaged = |reason: String| Unreadable { path: path.clone(), defect: Defect::damage(reason) };
    let mut assignment = Assignment { unknown_fields: stored.unknown_fields, ..Assignment::default() };
    let mut seen = std::collections::BTreeSet::new();
    for StoredWorker { supervisor, port, host, tasks, start } in stored.workers {
        let tasks: TaskSet = tasks.parse().map_err(|error: InvalidId| damaged(error.to_string()))?;
        if let Some(task) = tasks.iter().find(|task| !seen.insert(*task)) {
            return Err(damaged(format!("task {task} is in two workers")));
        }
        let slot = Slot { supervisor, port };
        let name = slot.to_string();
        if assignment.workers.insert(slot, AssignedWorker { host, tasks, start }).is_some() {
            return Err(damaged(format!("slot {name} is listed twice")));
        }
    }
    Ok(assignment)
}

/// `/supervisors/{supervisor-id}`: a live supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorRecord {
    /// Host at which its workers are reached.
    pub host: String,
    /// Its slots, without those whose port is in use by another program.
    pub ports: Vec<Port>,
    /// Resources of the host, or built-in amounts: for older nimbuses, which only display them.
    pub resources: Resources,
    /// Declared resources for tasks; empty if none are declared, and in older builds.
    #[serde(default, skip_serializing_if = "Capacity::is_unlimited")]
    pub capacity: Capacity,
    /// Reason why the host does not enforce memory limits of components; absent if it does, and in
    /// older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limits_unenforced: Option<String>,
    /// Version of the program.
    pub version: String,
    /// Start time, by the supervisor's clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// True if this supervisor announces a clean stop in `/stopped-supervisors`; false in older
    /// builds, whose absence may be a restart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announces_stop: bool,
    /// True if its workers track tuple trees; false in older builds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tracks_tuples: bool,
    /// Processor and C library of its host; absent in older builds, which start no worker programs of
    /// topologies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Problems of the supervisor and of the workers in its slots; none in older builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ReportedProblem>,
    /// Milliseconds by which its clock is ahead of the leader's, if that is a problem; absent in older
    /// builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Address of its agent, `host:port`; absent while it does not listen, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Recent failures on this supervisor; none in older builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ReportedFailure>,
    /// Listeners that everybody who reaches this host may use without a proof, for people; absent if there
    /// are none, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<String>,
    /// Users that it has at ZooKeeper; absent in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zookeeper_users: Option<HeldUsers>,
    /// True while its certificate has expired, so that no nimbus connects to it; false in older builds. A
    /// leader places nothing there while another supervisor is live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certificate_expired: bool,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/stopped-supervisors/{supervisor-id}`: a supervisor that has stopped cleanly and is expected
/// back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedSupervisor {
    /// Host of the supervisor.
    pub host: String,
    /// Time of the stop, by the supervisor's clock.
    #[serde(rename = "stopped_ms")]
    pub stopped: Timestamp,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// Resources of a host for workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU in hundredths of a core.
    pub cpu_percent: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
}

/// `/taskbeats/{topology-id}/{task-id}`: the heartbeat of a live task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeartbeat {
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// The worker.
    pub worker: WorkerId,
    /// Status of the task.
    pub status: TaskStatus,
    /// Uptime of the worker.
    pub uptime_secs: u64,
    /// Tuple counts of the task.
    #[serde(flatten)]
    pub counts: TaskCounts,
    /// Tuples that the task has received and its component has not finished; 0 in older builds.
    #[serde(default)]
    pub pending: u64,
    /// Deadline of the kill or rebalance for which the worker has processed all of its tuples; absent
    /// while it has not, and in older builds.
    #[serde(default, rename = "drained_for_ms", skip_serializing_if = "Option::is_none")]
    pub drained_for: Option<Timestamp>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/taskerrors/…`: an error of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredError {
    /// Time of the error, by the clock of its writer: the worker, or the supervisor of a failed worker.
    #[serde(rename = "time_ms")]
    pub time: Timestamp,
    /// The component of the task.
    pub component: ComponentId,
    /// The task.
    pub task: TaskId,
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// Message of one line.
    pub message: String,
    /// A stack trace, or the last lines of the child's stderr or of the failed worker's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

impl From<TaskError> for StoredError {
    fn from(error: TaskError) -> Self {
        let TaskError { component, task, time, host, port, message, stack } = error;
        let unknown_fields = UnknownFields::new();
        Self { time, component, task, host, port, message, stack, unknown_fields }
    }
}

impl From<StoredError> for TaskError {
    fn from(error: StoredError) -> Self {
        let StoredError { time, component, task, host, port, message, stack, .. } = error;
        Self { component, task, time, host, port, message, stack }
    }
}

/// `/nimbuses/{nimbus-id}`: a live nimbus replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NimbusRecord {
    /// Host of the nimbus.
    pub host: String,
    /// Address of its API, `host:port`.
    pub api: String,
    /// Version of the program.
    pub version: String,
    /// Start time, by the nimbus's clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// Number of blobs of live topologies that this nimbus is missing.
    pub blobs_missing: usize,
    /// Leader or follower.
    pub role: Role,
    /// Reason and remedy if its metric store cannot be opened; absent if it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_store_error: Option<String>,
    /// Reason and remedy if writes to its local directory fail, or its disk is almost full, so that it
    /// accepts no blobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_problem: Option<String>,
    /// Reason and remedy if a changed file with tokens or secrets is not in force; absent in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_problem: Option<String>,
    /// Milliseconds by which its clock is ahead of the leader's, if that is a problem; absent in older
    /// builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Listeners that everybody who reaches this host may use without a proof, for people; absent if there
    /// are none, and in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<String>,
    /// Users that it has at ZooKeeper; absent in older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zookeeper_users: Option<HeldUsers>,
    /// True while its certificate has expired, so that it leaves the leadership to others; false in older
    /// builds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certificate_expired: bool,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// Role of a nimbus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Decides and writes.
    Leader,
    /// Observes the cluster and serves reads.
    Follower,
}

/// `/term`: the last election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// The term that the election began.
    pub term: Term,
    /// The elected nimbus.
    pub nimbus: NimbusId,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/leader`: the current leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The leading nimbus.
    pub nimbus: NimbusId,
    /// Address of its API, `host:port`.
    pub api: String,
    /// Its term.
    pub term: Term,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/supervisor-assignments/{supervisor-id}`: the topologies that concern one supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorAssignments {
    /// Version of each topology's assignment that uses this supervisor.
    pub topologies: BTreeMap<TopologyId, Version>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/drains/{host}`: a host that is being drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Start of the drain, by the leader's clock.
    #[serde(rename = "since_ms")]
    pub since: Timestamp,
    /// The user who requested the drain.
    pub by: String,
    /// Time for which the spouts of a topology are stopped before it leaves the host; if absent,
    /// the topology's message timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/blobs/{sha256}/{nimbus-id}`: a nimbus that has the blob on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobReplica {
    /// Size of the blob.
    pub bytes: u64,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// `/metrics/{topology-id}`: fingerprint of the metric metas that the leader has published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFingerprint {
    /// Number of metas.
    pub count: u64,
    /// Digest of the metas' names and ids, in hexadecimal; empty if there are no metas.
    pub digest: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

impl MetaFingerprint {
    /// Returns whether both are the fingerprint of the same metas.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.count, &self.digest) == (other.count, &other.digest)
    }
}

#[cfg(test)]
mod tests;
