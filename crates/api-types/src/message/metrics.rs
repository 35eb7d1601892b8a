//! Metrics API of any nimbus, answered from its own metric store, as JSON.
//!
//! Numbers are exact and in the units of their metric; times are milliseconds since 1970.
//! Lists are paged: the value of `next` is the `after` of the next page; without `next` the page is
//! the last.

use serde::{Deserialize, Serialize};

use stormkeeper_model::{
    ComponentId, HostName, NimbusId, Port, StreamId, TaskId, Timestamp, TopologyId, TopologyName,
    metric_control::MetricControl,
};

/// The answering nimbus, and the progress of its metric store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/topologies`: the topologies that have metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/topology/{id or name}/metas`: the metrics of a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/topology/{id or name}/latest`: the value of each metric in the window that
/// ends now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/data`: points of metrics over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PointList {
    /// The topology of the metrics.
    pub topology_id: TopologyId,
    /// The width of the points, in seconds: 60, 600, 7200 or 86400.
    pub window_secs: u32,
    /// Start of the requested interval …
    pub from_ms: Timestamp,
    /// … and its end.
    pub to_ms: Timestamp,
    /// The metrics, sorted by id; a metric without points has an empty list.
    pub series: Vec<Series>,
    /// Start of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The answering nimbus.
    pub store: MetricStoreView,
}

/// The points of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The metric.
    #[serde(flatten)]
    pub meta: MetricMetaView,
    /// Oldest first.
    pub points: Vec<TimedValue>,
}

/// A value and its interval of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedValue {
    /// Start of the time bucket, which is as wide as the window; the last bucket may still grow.
    pub from_ms: Timestamp,
    /// The value.
    pub value: MetricValue,
}

/// Value of a metric over an interval of time, by type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricValue {
    /// Number of events.
    Counter(CounterValue),
    /// Current value.
    Gauge(GaugeValue),
    /// Number of events, and events per second.
    Meter(MeterValue),
    /// Distribution of values.
    Histogram(HistogramValue),
    /// Distribution of durations in µs, and events per second.
    Timer(TimerValue),
}

/// A counter over an interval of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValue {
    /// Number of events. Exact.
    pub count: u64,
}

/// A gauge over an interval of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GaugeValue {
    /// Value at the last reading: the sum over all tasks or workers, or their mean for metrics whose
    /// sum is meaningless, such as ratios.
    pub value: f64,
    /// Number of tasks or workers in the last reading.
    pub n: u64,
    /// Minimum of all single readings.
    pub min: f64,
    /// Maximum of all single readings.
    pub max: f64,
    /// End of the minute of the last reading. If it is before the end of the window, nothing reads
    /// the gauge any more, or not at present.
    #[serde(rename = "atMs", default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<Timestamp>,
}

/// A meter over an interval of time; rates are per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeterValue {
    /// Number of events. Exact.
    pub count: u64,
    /// Rate at the end, averaged over about one minute; 0 if nothing has reported a rate since the
    /// end of the window, here and below.
    pub m1: f64,
    /// Rate at the end, averaged over about five minutes.
    pub m5: f64,
    /// Rate at the end, averaged over about fifteen minutes.
    pub m15: f64,
    /// The count divided by the time from the first minute with events to the end of the interval.
    pub mean: f64,
}

/// A distribution over an interval of time. Without values, count and sum are 0
/// and the other fields are null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramValue {
    /// Number of values. Exact.
    pub count: u64,
    /// Sum of the values. Exact.
    pub sum: f64,
    /// Minimum. Exact.
    pub min: Option<f64>,
    /// Maximum. Exact.
    pub max: Option<f64>,
    /// Mean. Exact.
    pub mean: Option<f64>,
    /// Standard deviation, estimated from the sampled values.
    pub stddev: Option<f64>,
    /// Median of the sampled values; relative error at most 1.1 %.
    pub p50: Option<f64>,
    /// 75th percentile of the sampled values; the same error bound, here and below.
    pub p75: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 98th percentile.
    pub p98: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    pub p999: Option<f64>,
}

/// A timer over an interval of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimerValue {
    /// Durations in µs.
    pub histogram: HistogramValue,
    /// Rates of the events.
    pub meter: MeterValue,
}

/// `POST /api/v1/topology/{id or name}/metrics`: metric switches of a running topology that
/// override its settings. A request replaces the one before; an empty request removes all
/// overrides. `GET` returns the current overrides. Names are the last parts of metric names, such as
/// `EmitTime`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/topology/{id or name}/track`: the workers in which each task ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/history`: current and past topologies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// `GET /api/v1/metrics/status`: metric store and export queue of the answering nimbus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricStoreStatus {
    /// The answering nimbus.
    pub store: MetricStoreView,
    /// State of the replica: `following`, `taking over` or `leading`.
    pub state: String,
    /// The last problem with following or taking over, until the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// On a leader, the log position of each live follower.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<FollowerSummary>,
    /// Approximate size on disk, in bytes.
    pub bytes: u64,
    /// Number of known metrics, over all topologies.
    pub metas: u64,
    /// Index of the oldest entry of the metric log.
    pub log_from: u64,
    /// Approximate size of the metric log, in bytes.
    pub log_bytes: u64,
    /// The last failed write, until a write succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Paths of the quarantined databases, which may contain committed entries that the leader's
    /// log is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// Number of items that were dropped or changed, by topology and cause, since the store exists.
    pub drops: Vec<DropSummary>,
    /// The export queue.
    pub queue: ExportQueueSummary,
}

/// A follower, as known to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowerSummary {
    /// The follower.
    pub nimbus: NimbusId,
    /// Index of the last entry of its log.
    pub index: u64,
}

/// Number of dropped items of one topology and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropSummary {
    /// The topology.
    pub topology_id: TopologyId,
    /// Cause: `invalid-name`, `too-many-names`, `queue-full`, …
    pub cause: String,
    /// Number of items.
    pub count: u64,
}

/// The export queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportQueueSummary {
    /// Number of minutes of topologies that are not closed.
    pub reserved: usize,
    /// Number of entries that at least one exporter has not acknowledged.
    pub ready: usize,
    /// Approximate number of bytes to export.
    pub bytes: u64,
    /// Minute of the oldest entry; absent if the queue is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<Timestamp>,
    /// Sorted by name.
    pub exporters: Vec<ExporterSummary>,
}

/// One exporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExporterSummary {
    /// Name of the exporter.
    pub name: String,
    /// Number of entries that the exporter has not acknowledged.
    pub pending: usize,
    /// Number of leased entries.
    pub leased: usize,
    /// Number of acknowledged entries since the store exists.
    pub acked: u64,
    /// Number of entries dropped before their acknowledgement, since the store exists.
    pub dropped: u64,
    /// Number of entries that were nacked or timed out, since this nimbus started.
    pub nacked: u64,
    /// Reason of the last nack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_nack: Option<String>,
    /// Activity of the exporter, while this nimbus leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<ExporterWork>,
}

/// Activity of an exporter, and its counts since this nimbus leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExporterWork {
    /// Current activity: `starting`, `idle`, `leased`, `pausing` or `stuck`.
    pub doing: String,
    /// Start of the current activity.
    pub since_ms: Timestamp,
    /// Number of points that the external store accepted.
    pub points: u64,
    /// Number of points that the external store, or the exporter's rules, rejected for good.
    pub points_rejected: u64,
    /// Number of failures, panics and timeouts.
    pub failures: u64,
    /// Number of events that the exporter received.
    pub events: u64,
    /// Number of events that the exporter missed, because it was behind or failed.
    pub events_dropped: u64,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Reason of the last rejection of points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rejection: Option<String>,
}

/// Request to forget metrics of a killed topology.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetRequest {
    /// Ids of the metrics, as in the lists of metrics; at most 10,000.
    pub ids: Vec<String>,
}

/// Response to [`ForgetRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// The topology.
    pub topology_id: TopologyId,
    /// Number of remaining metrics.
    pub metas: u64,
}
