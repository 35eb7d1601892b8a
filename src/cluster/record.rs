//! What is stored in the tree: JSON objects with a `v` field, readable by a person.
//!
//! A field that a newer version wrote is kept when the record is changed and written back
//! (`rest`), so that a rolling upgrade loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{
        BlobKey, ComponentId, NimbusId, Port, Slot, SupervisorId, TaskId, Term, Timestamp, TopologyId,
        TopologyName, WorkerId,
        assignment::{AssignedWorker, Assignment},
        beat::{TaskCounts, TaskStatus},
        error::TaskError,
        metric_control::MetricControl,
        status::{PendingChange, TopologyStatus},
        topology::TaskTable,
    },
    tree::{TreePath, Version},
};

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// Fields that this version does not know.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// A record as read, with the version of its znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// The data version of its znode.
    pub version: Version,
}

/// A znode whose data is not the record that belongs there.
#[derive(Debug, thiserror::Error)]
#[error("{path} does not hold a valid record: {reason}")]
pub struct Unreadable {
    /// The znode.
    pub path: TreePath,
    /// What is wrong with its data.
    pub reason: String,
}

#[derive(Serialize)]
struct Out<'a, T> {
    v: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct In<T> {
    #[expect(dead_code, reason = "must be there and be a number; its value selects nothing yet")]
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// A record as the bytes of a znode.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Out { v: FORMAT, record }).expect("records are maps with text keys")
}

/// Reads the bytes of the znode at `path`.
///
/// # Errors
/// [`Unreadable`] when they are not JSON or not this record.
pub fn decode<T: DeserializeOwned>(path: &TreePath, bytes: &[u8]) -> Result<T, Unreadable> {
    let unreadable = |reason: String| Unreadable { path: path.clone(), reason };
    if bytes.is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    serde_json::from_slice::<In<T>>(bytes)
        .map(|read| read.record)
        .map_err(|error| unreadable(error.to_string()))
}

/// `/storms/{topology-id}`: a submitted topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// The author's name for it.
    pub name: TopologyName,
    /// Where it is in its life.
    pub status: TopologyStatus,
    /// When it was submitted, by the leader's clock.
    #[serde(rename = "launched_ms")]
    pub launched: Timestamp,
    /// How many workers it wants.
    pub workers: u32,
    /// Who submitted it.
    pub owner: String,
    /// The artefact that its workers run.
    pub blob: BlobKey,
    /// How long a kill or a rebalance waits when the operator does not say.
    pub message_timeout_secs: u64,
    /// A kill or rebalance that waits for its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
    /// What operators changed about its metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricControl>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `/tasks/{topology-id}`: which tasks run which component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// The tasks of each component.
    pub components: TaskTable,
}

/// `/assignments/{topology-id}`: where the tasks run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredAssignment {
    workers: Vec<StoredWorker>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredWorker {
    supervisor: SupervisorId,
    port: Port,
    #[serde(flatten)]
    worker: AssignedWorker,
}

/// An assignment as the bytes of its znode.
pub fn encode_assignment(assignment: &Assignment) -> Vec<u8> {
    let workers = assignment.workers.iter().map(|(slot, worker)| StoredWorker {
        supervisor: slot.supervisor.clone(),
        port: slot.port,
        worker: worker.clone(),
    });
    encode(&StoredAssignment { workers: workers.collect() })
}

/// Reads an assignment.
///
/// # Errors
/// [`Unreadable`] when it is no assignment, or names a slot or a task twice.
pub fn decode_assignment(path: &TreePath, bytes: &[u8]) -> Result<Assignment, Unreadable> {
    let stored: StoredAssignment = decode(path, bytes)?;
    let mut assignment = Assignment::default();
    let mut seen = std::collections::BTreeSet::new();
    for StoredWorker { supervisor, port, worker } in stored.workers {
        if let Some(task) = worker.tasks.iter().find(|task| !seen.insert(*task)) {
            return Err(Unreadable { path: path.clone(), reason: format!("task {task} is in two workers") });
        }
        let slot = Slot { supervisor, port };
        let name = slot.to_string();
        if assignment.workers.insert(slot, worker).is_some() {
            return Err(Unreadable { path: path.clone(), reason: format!("slot {name} is there twice") });
        }
    }
    Ok(assignment)
}

/// `/supervisors/{supervisor-id}`: a live supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// The host its workers are reached at.
    pub host: String,
    /// Its slots.
    pub ports: Vec<Port>,
    /// What it offers to workers.
    pub resources: Resources,
    /// The version of its program.
    pub version: String,
    /// When it started, by its own clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
}

/// What a host offers to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU in hundredths of a core.
    pub cpu_percent: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
}

/// `/taskbeats/{topology-id}/{task-id}`: a live task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskBeat {
    /// The worker's host.
    pub host: String,
    /// The worker's port.
    pub port: Port,
    /// The worker.
    pub worker: WorkerId,
    /// How far the task is.
    pub status: TaskStatus,
    /// How long its worker has run.
    pub uptime_secs: u64,
    /// What it has done.
    #[serde(flatten)]
    pub counts: TaskCounts,
}

/// `/taskerrors/…`: an error of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredError {
    /// When, by the worker's clock.
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
    /// One line.
    pub message: String,
    /// A stack trace or the child's last words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
}

impl From<TaskError> for StoredError {
    fn from(error: TaskError) -> Self {
        let TaskError { component, task, time, host, port, message, stack } = error;
        Self { time, component, task, host, port, message, stack }
    }
}

impl From<StoredError> for TaskError {
    fn from(error: StoredError) -> Self {
        let StoredError { time, component, task, host, port, message, stack } = error;
        Self { component, task, time, host, port, message, stack }
    }
}

/// `/nimbuses/{nimbus-id}`: a live nimbus replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nimbus {
    /// Its host.
    pub host: String,
    /// Where its API answers, `host:port`.
    pub api: String,
    /// The version of its program.
    pub version: String,
    /// When it started, by its own clock.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// How many blobs of live topologies it lacks.
    pub blobs_missing: usize,
    /// Whether it leads.
    pub role: Role,
    /// Why its metrics archive cannot be opened, and what to do about it; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_closed: Option<String>,
}

/// Which part a nimbus plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It decides and writes.
    Leader,
    /// It watches and answers reads.
    Follower,
}

/// `/term`: the last election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// The term that it began.
    pub term: Term,
    /// Who won.
    pub nimbus: NimbusId,
}

/// `/leader`: who leads now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The leading nimbus.
    pub nimbus: NimbusId,
    /// Where its API answers, `host:port`.
    pub api: String,
    /// Its term.
    pub term: Term,
}

/// `/orders/{supervisor-id}`: what concerns one supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The version of each topology's assignment that names this supervisor.
    pub topologies: BTreeMap<TopologyId, Version>,
}

/// `/drains/{host}`: a host that is to be emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when, by the leader's clock.
    #[serde(rename = "since_ms")]
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// How long the spouts of a topology are stopped before it leaves; its message timeout
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `/blobs/{sha256}/{nimbus-id}`: a nimbus that has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHolding {
    /// How many.
    pub bytes: u64,
}

/// `/metrics/{topology-id}`: what the leader has flushed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricMetas {
    /// How many metas.
    pub count: u64,
    /// A digest of their names and ids, in hexadecimal; empty while there is none.
    pub digest: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> TreePath {
        "/storms/wc-1-100".parse().expect("valid path")
    }

    fn storm() -> Storm {
        Storm {
            name: "wc".parse().expect("valid name"),
            status: TopologyStatus::Active,
            launched: Timestamp::from_millis(100_000),
            workers: 2,
            owner: "ann".to_owned(),
            blob: BlobKey::of(b"x"),
            message_timeout_secs: 30,
            pending: Some(PendingChange::Rebalance {
                deadline: Timestamp::from_millis(130_000),
                resume: TopologyStatus::Inactive,
                workers: Some(3),
                parallelism: BTreeMap::from([("split".parse().expect("valid id"), 4)]),
                only_drained: false,
            }),
            metrics: None,
            rest: Rest::new(),
        }
    }

    #[test]
    fn a_storm_reads_back_and_is_plain_json() {
        let bytes = encode(&storm());
        let text = String::from_utf8(bytes.clone()).expect("JSON is text");
        assert!(text.starts_with(r#"{"v":1,"name":"wc","status":"active","launched_ms":100000,"#), "{text}");
        assert_eq!(decode::<Storm>(&path(), &bytes).expect("readable"), storm());
    }

    #[test]
    fn fields_of_a_newer_version_are_kept() {
        let mut json: serde_json::Value = serde_json::from_slice(&encode(&storm())).expect("JSON");
        json["v"] = 2.into();
        json["colour"] = "blue".into();
        let read: Storm = decode(&path(), json.to_string().as_bytes()).expect("readable");
        let again: serde_json::Value = serde_json::from_slice(&encode(&read)).expect("JSON");
        assert_eq!(again["colour"], "blue");
    }

    #[test]
    fn what_was_written_by_hand_is_reported_with_its_path() {
        for bad in [&b""[..], b"hello", b"{}", br#"{"v":1}"#, br#"{"name":"wc"}"#] {
            let error = decode::<Storm>(&path(), bad).expect_err("unreadable");
            assert!(error.to_string().starts_with("/storms/wc-1-100 does not hold"), "{error}");
        }
    }

    #[test]
    fn an_assignment_reads_back_and_refuses_a_task_in_two_workers() {
        let text = r#"{"v":1,"workers":[
            {"supervisor":"a","port":6700,"host":"h","tasks":"1-3","start_ms":5},
            {"supervisor":"a","port":6701,"host":"h","tasks":"4","start_ms":5}]}"#;
        let assignment = decode_assignment(&path(), text.as_bytes()).expect("readable");
        assert_eq!(assignment.workers.len(), 2);
        assert_eq!(
            decode_assignment(&path(), &encode_assignment(&assignment)).expect("readable"),
            assignment
        );
        let twice = text.replace("\"4\"", "\"3-4\"");
        let error = decode_assignment(&path(), twice.as_bytes()).expect_err("unreadable");
        assert!(error.to_string().contains("task 3 is in two workers"), "{error}");
    }
}
