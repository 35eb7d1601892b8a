//! Bodies about the cluster: its nimbuses, supervisors and hosts, and what happened in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    HostName, NimbusId, SupervisorId, Term, Timestamp, TopologyId, event::EventKind, task_set::TaskSet,
};

/// `GET /api/v1/supervisor/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorList {
    /// By host, then id.
    pub supervisors: Vec<SupervisorSummary>,
    /// The hosts that are to be emptied, by name.
    #[serde(default)]
    pub drains: Vec<DrainSummary>,
    /// How old the answering nimbus' view is, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
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
    /// Whether its host is to be emptied.
    #[serde(default)]
    pub drained: bool,
}

/// `GET /api/v1/nimbus/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NimbusList {
    /// By id.
    pub nimbuses: Vec<NimbusSummary>,
    /// The term of the leader, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// How old the answering nimbus' view is, in milliseconds.
    #[serde(default)]
    pub view_age_ms: u64,
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
    /// Why its metrics archive cannot be opened, and what to do about it; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_closed: Option<String>,
    /// How many entries its metrics archive is behind the leader's. The nimbus that answers knows
    /// it of itself and, while it leads, of the others; absent where it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_behind: Option<u64>,
    /// What keeps its archive from following the leader's, or keeps it as the leader from taking
    /// metrics in. The nimbus that answers knows it of itself alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_trouble: Option<String>,
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

/// `POST /api/v1/host/{host}/drain`: have the workers of a host leave it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// How long the spouts of a topology are stopped before it moves; its message timeout
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
}

/// The answer to drain and undrain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostAccepted {
    /// What was asked for: `drain` or `undrain`.
    pub host_operation: String,
    /// The host.
    pub host: HostName,
    /// How many workers are still there.
    pub workers_left: usize,
}

/// A host that is to be emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainSummary {
    /// The host.
    pub host: HostName,
    /// Since when, by the leader's clock.
    #[serde(rename = "sinceMs")]
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// How long the spouts of a topology are stopped before it moves, when that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
    /// How many workers are still there; 0 when it is empty.
    pub workers_left: usize,
}

/// `GET /api/v1/cluster/events`: what happened lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// Newest first.
    pub events: Vec<EventSummary>,
    /// Whether there are older ones that were not asked for.
    pub truncated: bool,
    /// How old the answering nimbus' view is, in milliseconds.
    pub view_age_ms: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// Its number: later ones are larger.
    pub number: u64,
    /// When, by the clock of the nimbus that did it.
    #[serde(rename = "timeMs")]
    pub time: Timestamp,
    /// The term in which it happened.
    pub term: Term,
    /// The nimbus that did it.
    pub nimbus: NimbusId,
    /// What.
    pub event: EventKind,
    /// The topology it happened to, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_id: Option<TopologyId>,
    /// Why.
    pub reason: String,
    /// Who asked for it, if someone did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The tasks that got another place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveSummary>,
    /// How many more moves there were than are listed.
    #[serde(default)]
    pub moves_left_out: usize,
}

/// Tasks that went from one slot to another, each `supervisor:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveSummary {
    /// Which.
    pub tasks: TaskSet,
    /// Where they were; absent when they had no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where they are from then on; absent when they have no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
