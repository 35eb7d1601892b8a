//! Metrics API of any nimbus, answered from its own metric store, as JSON.
//!
//! Numbers are exact and in the units of their metric; times are milliseconds since 1970.
//! Lists are paged: the value of `next` is the `after` of the next page; without `next` the page is
//! the last.

mod status;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use status::{
    DropSummary, ExportQueueSummary, ExporterSummary, ExporterWork, FollowerSummary, MetricStoreStatus,
};
pub use values::{
    CounterValue, GaugeValue, HistogramValue, MeterValue, MetricValue, PointList, Series, TimedValue,
    TimerValue,
};

use stormkeeper_model::{
    ComponentId, HostName, NimbusId, Port, StreamId, TaskId, Timestamp, TopologyId, TopologyName,
    metric_control::MetricControl,
};

/// The answering nimbus, and the progress of its metric store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStoreView {
    /// The answering nimbus.
    pub nimbus: NimbusId,
    /// Term of the last entry of its metric log …
    pub term: i32,
    /// … and the index of that entry.
    pub index: u64,
    /// Number of later entries that the leader had at the last contact; 0 for the leader itself,
    /// absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries_behind: Option<u64>,
    /// Time since the metric log was last caught up with the leader's; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_ms: Option<u64>,
}

/// `GET /api/stormkeeper/v1/metrics/topologies`: the topologies that have metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredTopologyList {
    /// Sorted by id; includes killed topologies and `__CLUSTER__`, `__NIMBUS__`, `__SUPERVISOR__`.
    pub topologies: Vec<MeasuredTopology>,
    /// Start of the next page, after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TopologyId>,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// A topology that has metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredTopology {
    /// Topology id.
    pub id: TopologyId,
    /// Topology name, if known; for a killed topology it is from the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TopologyName>,
    /// True if the topology runs.
    pub alive: bool,
    /// Number of metrics.
    pub metas: u64,
}

/// `GET /api/stormkeeper/v1/metrics/topology/{id or name}/metas`: the metrics of a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricMetaList {
    /// The topology.
    pub topology_id: TopologyId,
    /// Sorted by id.
    pub metas: Vec<MetricMetaView>,
    /// Start of the next page, after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// A metric: its full name and the parts of the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricMetaView {
    /// Metric id: sixteen hexadecimal digits.
    pub id: String,
    /// Full name.
    pub name: String,
    /// Level: `task`, `component`, `stream`, `worker`, `topology`, `netty`, `nimbus` or
    /// `component-stream`.
    pub level: String,
    /// Type: `counter`, `gauge`, `meter`, `histogram` or `timer`.
    pub kind: String,
    /// Group: `sys`, `udf` or `netty`.
    pub group: String,
    /// Last part of the name, such as `Emitted`.
    pub metric: String,
    /// Unit, for a built-in metric that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Component, for a stream, task, component-stream or component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// Task, for a stream or task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Stream, for a stream or component-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Host, for a worker, connection or nimbus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port, for a worker, connection or nimbus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `GET /api/stormkeeper/v1/metrics/topology/{id or name}/latest`: the value of each metric in the window
/// that ends now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatestList {
    /// The topology.
    pub topology_id: TopologyId,
    /// The window, in seconds: 60, 600, 7200 or 86400.
    pub window_secs: u32,
    /// Sorted by metric id.
    pub values: Vec<LatestValue>,
    /// Start of the next page, after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// A metric and its value in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatestValue {
    /// The metric.
    #[serde(flatten)]
    pub meta: MetricMetaView,
    /// Start of the window …
    pub from_ms: Timestamp,
    /// … and its end: the end of the last known minute of this metric's topology.
    pub to_ms: Timestamp,
    /// The value.
    pub value: MetricValue,
}

/// `POST /api/stormkeeper/v1/topology/{id or name}/metrics`: metric switches of a running topology that
/// override its settings. A request replaces the one before; an empty request removes all
/// overrides. `GET` returns the current overrides. Names are the last parts of metric names, such as
/// `EmitTime`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricControlRequest {
    /// Metrics that are measured although settings disable them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<String>,
    /// Metrics that are not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// Share of values that goes into histograms' buckets, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Metrics that each worker writes to its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub debug: Vec<String>,
}

impl From<MetricControl> for MetricControlRequest {
    fn from(MetricControl { enabled, disabled, sample_rate, debug }: MetricControl) -> Self {
        Self { enabled, disabled, sample_rate, debug }
    }
}

impl From<MetricControlRequest> for MetricControl {
    fn from(MetricControlRequest { enabled, disabled, sample_rate, debug }: MetricControlRequest) -> Self {
        Self { enabled, disabled, sample_rate, debug }
    }
}

/// `GET /api/stormkeeper/v1/metrics/topology/{id or name}/track`: the workers in which each task ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskTrack {
    /// The topology.
    pub topology_id: TopologyId,
    /// Sorted by task, then by time.
    pub entries: Vec<TaskPlace>,
    /// True if the first entries were left out because of the limit.
    #[serde(default)]
    pub truncated: bool,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// The stay of a task in one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskPlace {
    /// The task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// The worker's host.
    pub host: HostName,
    /// The worker's port.
    pub port: Port,
    /// Start of the stay.
    pub from_ms: Timestamp,
    /// End of the stay; absent while the task is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<Timestamp>,
    /// Reason for the start.
    pub reason: String,
    /// Reason for the end; absent while the task is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// `GET /api/stormkeeper/v1/metrics/history`: current and past topologies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyHistory {
    /// Newest first.
    pub topologies: Vec<PastTopology>,
    /// True if older topologies were left out because of the limit.
    #[serde(default)]
    pub truncated: bool,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// A topology in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastTopology {
    /// Topology id.
    pub id: TopologyId,
    /// Topology name.
    pub name: TopologyName,
    /// Time of the submission.
    pub started_ms: Timestamp,
    /// User who submitted the topology, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// Time of the kill; absent while the topology lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_ms: Option<Timestamp>,
    /// User who killed the topology, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<String>,
    /// Reason of the kill; absent while the topology lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<String>,
    /// Last share of values that goes into the topology's histogram buckets.
    pub sample_rate: f64,
}

/// Request to forget metrics of a killed topology.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetRequest {
    /// Ids of the metrics, as in the lists of metrics; at most 10,000.
    pub ids: Vec<String>,
}

/// Response to [`ForgetRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// The topology.
    pub topology_id: TopologyId,
    /// Number of remaining metrics.
    pub metas: u64,
}
