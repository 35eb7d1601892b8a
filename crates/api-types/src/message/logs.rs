//! Bodies about the logs of workers, of the agent of a supervisor and of nimbuses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{Port, SupervisorId, Timestamp, TopologyId, WorkerId};

/// Header of every response of an agent: the id of its supervisor.
pub const SUPERVISOR: &str = "x-stormkeeper-supervisor";

/// Logs of the workers of one topology on one supervisor: `GET …/logs/{topology}` of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentLogs {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// Its host.
    pub host: String,
    /// The launches with their files, by port, the newest launch of a port first.
    pub workers: Vec<WorkerLogs>,
    /// Number of older launches that are not listed.
    #[serde(default)]
    pub omitted: usize,
}

/// Logs of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerLogs {
    /// Port of the slot.
    pub port: Port,
    /// The launch.
    pub worker: WorkerId,
    /// True while its process exists or may exist.
    pub running: bool,
    /// The files, `worker.log` first, then its older parts.
    pub files: Vec<LogFile>,
    /// Entries with the name of a log that are not served; absent if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedLog>,
}

/// Entry of a log directory that has the name of a log and is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedLog {
    /// The name: `worker.log`, `worker.log.1`, `worker.out` and so on.
    pub name: String,
    /// Reason, such as a link that could lead to a file of another user.
    pub reason: String,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogFile {
    /// The name: `worker.log`, `worker.log.1`, `worker.out` and so on.
    pub name: String,
    /// Number of bytes.
    pub size: u64,
    /// Time of the last change, by the clock of the host.
    #[serde(rename = "modifiedMs")]
    pub modified: Timestamp,
}

/// Part of a log file: `GET …/logs/{topology}/{port}/{file}` of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogChunk {
    /// The launch.
    pub worker: WorkerId,
    /// True if the process of the launch existed before the file was read.
    pub running: bool,
    /// Name of the file that was read: an older part if the log was rotated since the last request.
    pub file: String,
    /// Position of the first byte of `text`.
    pub offset: u64,
    /// Size of the file.
    pub size: u64,
    /// Position for the next request, which may be in the next newer file.
    pub next: LogPosition,
    /// True if the position of the request is gone: the file was truncated, or rotated too often.
    pub lost: bool,
    /// True if there was nothing after `text`.
    pub end: bool,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Position in a log, which stays valid when the log is rotated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogPosition {
    /// Identity of the file on its disk, which a rename keeps.
    pub identity: String,
    /// Number of bytes before the position.
    pub offset: u64,
}

/// Lines of the logs of one supervisor: `GET …/logs/{topology}/search` of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLines {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// Its host.
    pub host: String,
    /// The launches that were searched, by port, the newest launch of a port first.
    pub workers: Vec<WorkerLines>,
    /// Reason why older lines may be missing; absent if all lines were searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// Lines of the log of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerLines {
    /// Port of the slot.
    pub port: Port,
    /// The launch.
    pub worker: WorkerId,
    /// True if the process of the launch existed before the log was read.
    pub running: bool,
    /// The last lines that were asked for, oldest first.
    pub lines: Vec<LogLine>,
    /// Position after the last line that was read, of each log.
    pub next: Vec<LogCursor>,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Name of the file.
    pub file: String,
    /// Position of its first byte.
    pub offset: u64,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Position in one of the logs of a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogCursor {
    /// Name of the log: `worker.log` or `worker.out`.
    pub file: String,
    /// The position.
    #[serde(flatten)]
    pub position: LogPosition,
}

/// `GET /api/stormkeeper/v1/topology/{topology}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLogs {
    /// The topology.
    pub id: TopologyId,
    /// False if the topology was removed.
    pub present: bool,
    /// The logs of each supervisor that answered, by host and id.
    pub supervisors: Vec<AgentLogs>,
    /// The supervisors whose logs are missing.
    pub unavailable: Vec<UnavailableAgent>,
}

/// `GET /api/stormkeeper/v1/topology/{topology}/logs/search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLogLines {
    /// The topology.
    pub id: TopologyId,
    /// The lines of each supervisor that answered, by host and id.
    pub supervisors: Vec<LogLines>,
    /// The supervisors whose logs are missing.
    pub unavailable: Vec<UnavailableAgent>,
}

/// A supervisor whose logs are missing in a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnavailableAgent {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// Its host, as far as it is known.
    pub host: String,
    /// Reason, and what to do.
    pub reason: String,
}
