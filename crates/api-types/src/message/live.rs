//! Bodies about live numbers, of the agent of a supervisor and of nimbuses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use stormkeeper_model::{
    ComponentId, Port, StreamId, SupervisorId, TaskId, Timestamp, TopologyId, WorkerId, heartbeat::TaskCounts,
};

/// Media type of the lines of an agent.
pub const LINES: &str = "application/x-ndjson";

/// Line of `GET …/live/{topology}` of an agent: a sample of a worker, or the reason why there is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentLine {
    /// Port of the slot.
    pub port: Port,
    /// The launch.
    pub worker: WorkerId,
    /// Milliseconds for which the agent has kept the sample.
    #[serde(default)]
    pub kept_ms: u64,
    /// The sample (`stormkeeper_metrics::live::LiveSample`), as the worker sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Box<RawValue>>,
    /// Reason why there is no sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Live numbers of a topology: `GET …/topology/{topology}/live`, and the data of an event `live`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLive {
    /// Id of the topology.
    pub id: TopologyId,
    /// Time of this answer by the clock of the nimbus.
    pub time_ms: Timestamp,
    /// Age of the oldest numbers in this answer; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Number that changes when the topology, its workers or its tasks have another state.
    #[serde(default)]
    pub state: u64,
    /// Number of workers whose numbers are in this answer.
    pub workers_live: usize,
    /// Number of workers of the topology.
    pub workers_total: usize,
    /// Workers whose numbers are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingWorker>,
    /// The components.
    pub components: Vec<LiveComponent>,
    /// The tasks; absent in events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<LiveTask>,
    /// Number of components and streams that are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A worker without live numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingWorker {
    /// Its supervisor.
    pub supervisor: SupervisorId,
    /// Its host.
    pub host: String,
    /// Port of its slot.
    pub port: Port,
    /// Reason.
    pub reason: String,
}

/// Tuples per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveRates {
    /// Tuples that were emitted.
    pub emitted: f64,
    /// Copies sent to receiving tasks.
    pub transferred: f64,
    /// Tuples executed by a bolt, or `next` calls of a spout that emitted something.
    pub executed: f64,
    /// Tuples that were acked.
    pub acked: f64,
    /// Tuples that failed.
    pub failed: f64,
}

/// Live numbers of a component: of its tasks in workers that send numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveComponent {
    /// The component.
    pub id: ComponentId,
    /// Number of tasks that are counted.
    pub tasks: usize,
    /// Tuples since the workers started.
    pub counts: TaskCounts,
    /// Tuples per second in the last two or three seconds; absent before there are two samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<LiveRates>,
    /// Tuples that the component has not finished.
    pub pending: u64,
    /// Share of the time in which its tasks were busy, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Fill of the fullest queue of a task, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
    /// Mean time of one call in the last seconds, in µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute_us: Option<f64>,
    /// Mean latency in the last seconds, in µs. Bolt: to the ack; spout: from the emit to the last ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_us: Option<f64>,
    /// The streams that it emits to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<LiveStream>,
}

/// Live numbers of a stream of a component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveStream {
    /// The stream.
    pub id: StreamId,
    /// Tuples since the workers started.
    pub emitted: u64,
    /// Copies sent to receiving tasks since then.
    pub transferred: u64,
    /// Tuples per second; absent before there are two samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted_rate: Option<f64>,
}

/// Live numbers of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveTask {
    /// The task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// Tuples since its worker started.
    pub counts: TaskCounts,
    /// Tuples per second; absent before there are two samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<LiveRates>,
    /// Tuples that its component has not finished.
    pub pending: u64,
    /// Share of the time in which it was busy, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Fill of its queue, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
}
