//! Bodies about the cluster: nimbuses, supervisors, hosts and events.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{
    HostName, NimbusId, SupervisorId, Term, Timestamp, TopologyId, event::EventKind, task_set::TaskSet,
};

/// `GET /api/stormkeeper/v1/supervisor/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorList {
    /// Sorted by host, then id.
    pub supervisors: Vec<SupervisorSummary>,
    /// The drained hosts, sorted by name.
    #[serde(default)]
    pub drains: Vec<DrainSummary>,
    /// Age of the answering nimbus' view, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
}

/// A live supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorSummary {
    /// Supervisor id.
    pub id: SupervisorId,
    /// Host name.
    pub host: String,
    /// Uptime in seconds; includes the clock difference of the two hosts.
    pub uptime_seconds: u64,
    /// Number of workers that the supervisor can run.
    pub slots_total: usize,
    /// Number of assigned workers.
    pub slots_used: usize,
    /// Number of free slots.
    pub slots_free: usize,
    /// Offered CPU, in hundredths of a core.
    pub total_cpu: u32,
    /// Offered memory, in MiB.
    pub total_mem: u32,
    /// CPU that the tasks of its workers request, in hundredths of a core.
    #[serde(default)]
    pub used_cpu: u64,
    /// Memory that the tasks of its workers request, in MiB.
    #[serde(default)]
    pub used_mem: u64,
    /// CPU that the supervisor declares for requests, in hundredths of a core; absent if unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_capacity: Option<u64>,
    /// Memory that the supervisor declares for requests, in MiB; absent if unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_capacity: Option<u64>,
    /// Reason why the host does not enforce memory limits of components; absent if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limits_unenforced: Option<String>,
    /// Program version.
    pub version: String,
    /// True if the host is drained.
    #[serde(default)]
    pub drained: bool,
    /// Problems of the supervisor and of the workers in its slots.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// `GET /api/stormkeeper/v1/nimbus/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NimbusList {
    /// Sorted by id.
    pub nimbuses: Vec<NimbusSummary>,
    /// Term of the leader, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The answering nimbus sees another tree than its own, and this list is the last one of its own
    /// tree: the difference, and advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_problem: Option<String>,
    /// Age of the answering nimbus' view, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
}

/// A live nimbus replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NimbusSummary {
    /// Nimbus id.
    pub id: NimbusId,
    /// Host name.
    pub host: String,
    /// API address, `host:port`.
    pub api: String,
    /// `Leader` or `Not a Leader`, in Storm's words.
    pub status: NimbusStatus,
    /// Uptime in seconds; includes the clock difference of the two hosts.
    #[serde(rename = "nimbusUpTimeSeconds")]
    pub uptime_seconds: u64,
    /// Number of missing blobs of live topologies.
    pub blobs_missing: usize,
    /// Reason why the metric store cannot be opened, and advice; absent while the store is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_store_error: Option<String>,
    /// Writes to its local directory that fail, and whether its disk is almost full, with advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_problem: Option<String>,
    /// Changed files with tokens or secrets that are not in force, with the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_problem: Option<String>,
    /// Difference of its clock from the leader's, if that is more than two seconds, and advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_problem: Option<String>,
    /// Listeners that everybody who reaches its host may use without a proof; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<String>,
    /// Number of entries by which the metric log is behind the leader's. The answering nimbus knows
    /// the value of itself and, while it leads, of the followers; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_lag_entries: Option<u64>,
    /// Problem that stops the metric log from following the leader's, or stops ingest on the leader.
    /// The answering nimbus knows the problem of itself only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_problem: Option<String>,
    /// Program version.
    pub version: String,
}

/// Role of a nimbus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NimbusStatus {
    /// Decides and writes.
    #[serde(rename = "Leader")]
    Leader,
    /// Watches and answers reads.
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

/// `GET /api/stormkeeper/v1/cluster/summary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSummary {
    /// Version of the answering nimbus.
    pub version: String,
    /// The leader; absent during an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderSummary>,
    /// Number of live nimbuses.
    pub nimbuses: usize,
    /// Number of live supervisors.
    pub supervisors: usize,
    /// Number of topologies.
    pub topologies: usize,
    /// Number of workers that the supervisors can run.
    pub slots_total: usize,
    /// Number of assigned workers.
    pub slots_used: usize,
    /// Number of free slots.
    pub slots_free: usize,
    /// Number of tasks.
    pub tasks_total: usize,
    /// The same as `tasksTotal`: each task is its own executor.
    pub executors_total: usize,
    /// Znodes without a valid record.
    #[serde(default)]
    pub unreadable: Vec<UnreadableZnode>,
    /// Problems of the cluster that are not of one topology, such as a supervisor that fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Age of the answering nimbus' view, in milliseconds.
    pub view_age_ms: u64,
}

/// The leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaderSummary {
    /// Nimbus id.
    pub nimbus: NimbusId,
    /// API address, `host:port`.
    pub api: String,
    /// Term of the leadership.
    pub term: Term,
}

/// A znode without a valid record. Nimbus skips the znode and does not touch its topology or host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadableZnode {
    /// Path of the znode.
    pub path: String,
    /// Defect of the record.
    pub reason: String,
    /// Remedy for an operator; empty in the answers of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// `POST /api/stormkeeper/v1/host/{host}/drain`: move the workers of a host to other hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// Time for which the spouts of a topology are stopped before the topology moves; its message
    /// timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
}

/// The response to drain and undrain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostAccepted {
    /// The requested operation: `drain` or `undrain`.
    pub host_operation: String,
    /// The host.
    pub host: HostName,
    /// Number of workers still on the host.
    pub workers_left: usize,
}

/// A drained host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainSummary {
    /// The host.
    pub host: HostName,
    /// Start of the drain, by the leader's clock.
    #[serde(rename = "sinceMs")]
    pub since: Timestamp,
    /// User who requested the drain.
    pub by: String,
    /// Time for which the spouts of a topology are stopped before the topology moves, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// Number of workers still on the host; 0 when the drain is complete.
    pub workers_left: usize,
}

/// `GET /api/stormkeeper/v1/cluster/events`: recent events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// Newest first.
    pub events: Vec<EventSummary>,
    /// True if there are older events beyond the limit.
    pub truncated: bool,
    /// Number of older events beyond the limit: a larger limit returns them too. Absent in the answers of
    /// earlier builds.
    #[serde(default)]
    pub omitted: usize,
    /// Age of the answering nimbus' view, in milliseconds.
    pub view_age_ms: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// Event number: later events have larger numbers.
    pub number: u64,
    /// Time of the event, by the clock of the nimbus that caused it.
    #[serde(rename = "timeMs")]
    pub time: Timestamp,
    /// The term of the event.
    pub term: Term,
    /// The nimbus that caused the event.
    pub nimbus: NimbusId,
    /// Kind of the event.
    pub event: EventKind,
    /// The affected topology, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_id: Option<TopologyId>,
    /// Reason of the event.
    pub reason: String,
    /// User who requested the operation, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The moved tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveSummary>,
    /// Number of moves that are not listed.
    #[serde(default)]
    pub moves_omitted: usize,
}

/// Tasks that moved from one slot to another, each `supervisor:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MoveSummary {
    /// The tasks.
    pub tasks: TaskSet,
    /// The old slot; absent if the tasks had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The new slot; absent if the tasks have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// `GET /api/stormkeeper/v1/owner/summary`: the owners of topologies, with what they use and may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerList {
    /// The owners that have topologies or a quota of their own.
    pub owners: Vec<OwnerSummary>,
    /// Age of the answering nimbus' view, in milliseconds.
    pub view_age_ms: u64,
}

/// One owner of topologies. A limit that is absent is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerSummary {
    /// Its name.
    pub owner: String,
    /// Number of its topologies.
    pub topologies: u64,
    /// Maximum number of its topologies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topologies_max: Option<u64>,
    /// Number of tasks of its topologies.
    pub tasks: u64,
    /// Maximum number of tasks of its topologies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
    /// Bytes of its different packages.
    pub blob_bytes: u64,
    /// Bytes of packages that it has uploaded to the nimbus that answers and no topology of it uses yet: they
    /// count too where the bytes are limited. 0 in answers of older builds.
    #[serde(default)]
    pub unused_blob_bytes: u64,
    /// Maximum bytes of its packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_bytes_max: Option<u64>,
}
