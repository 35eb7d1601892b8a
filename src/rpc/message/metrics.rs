//! What any nimbus answers about metrics from its own archive, as JSON.
//!
//! Numbers are exact and in the units of their metric; times are milliseconds since 1970.
//! Lists come in pages: `next` is what to ask for as `after` to go on, and its absence says
//! that this was the last page.

use serde::{Deserialize, Serialize};

use crate::model::{
    ComponentId, HostName, NimbusId, Port, StreamId, TaskId, Timestamp, TopologyId, TopologyName,
};

/// Who answers, and how much of the leader's archive it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveView {
    /// The nimbus that answers.
    pub nimbus: NimbusId,
    /// The term of the last entry of its archive's log …
    pub term: i32,
    /// … and the number of that entry.
    pub seq: u64,
    /// How many entries the leader has beyond that, as it last told; 0 for the leader itself,
    /// absent when this nimbus does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries_behind: Option<u64>,
    /// How long ago it last had all that the leader had; absent when it never had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_ms: Option<u64>,
}

/// `GET /api/v1/metrics/topologies`: the topologies that have metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredTopologyList {
    /// By id, those that are gone and `__CLUSTER__`, `__NIMBUS__`, `__SUPERVISOR__` as well.
    pub topologies: Vec<MeasuredTopology>,
    /// Go on after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TopologyId>,
    /// Who answers.
    pub archive: ArchiveView,
}

/// A topology that has metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredTopology {
    /// Its id.
    pub id: TopologyId,
    /// Its name, where it is known: of one that is gone, from the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TopologyName>,
    /// Whether it runs now.
    pub alive: bool,
    /// How many metrics it has.
    pub metas: u64,
}

/// `GET /api/v1/metrics/topology/{id or name}/metas`: what is measured of a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricMetaList {
    /// The topology.
    pub topology_id: TopologyId,
    /// In the order of their ids.
    pub metas: Vec<MetricMeta>,
    /// Go on after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Who answers.
    pub archive: ArchiveView,
}

/// A metric: its name whole and in its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricMeta {
    /// Its id: sixteen hexadecimal digits.
    pub id: String,
    /// Its full name.
    pub name: String,
    /// What it is of: `task`, `component`, `stream`, `worker`, `topology`, `netty`, `nimbus` or
    /// `component-stream`.
    pub level: String,
    /// Its kind: `counter`, `gauge`, `meter`, `histogram` or `timer`.
    pub kind: String,
    /// Its group: `sys`, `udf` or `netty`.
    pub group: String,
    /// Its last part, such as `Emitted`.
    pub metric: String,
    /// Its unit, where it is built in and has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its component, of a stream, task, component-stream or component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// Its task, of a stream or task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Its stream, of a stream or component-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Its host, of a worker, connection or nimbus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port, of a worker, connection or nimbus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `GET /api/v1/metrics/topology/{id or name}/latest`: what each metric has to say about the
/// window that ends now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatestList {
    /// The topology.
    pub topology_id: TopologyId,
    /// The window, in seconds: 60, 600, 7200 or 86400.
    pub window_secs: u32,
    /// In the order of the metrics' ids.
    pub values: Vec<LatestValue>,
    /// Go on after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Who answers.
    pub archive: ArchiveView,
}

/// A metric and its value in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatestValue {
    /// The metric.
    #[serde(flatten)]
    pub meta: MetricMeta,
    /// When the window begins …
    pub from_ms: Timestamp,
    /// … and when it ends: with the last minute that is known of this metric's topology.
    pub to_ms: Timestamp,
    /// The value.
    pub value: MetricValue,
}

/// `GET /api/v1/metrics/data`: points of metrics over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PointList {
    /// The topology that the metrics stand under.
    pub topology_id: TopologyId,
    /// The width of the points, in seconds: 60, 600, 7200 or 86400.
    pub window_secs: u32,
    /// From when on points were asked for …
    pub from_ms: Timestamp,
    /// … and until when.
    pub to_ms: Timestamp,
    /// The metrics in the order of their ids; one without points has an empty list.
    pub series: Vec<Series>,
    /// Go on after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Who answers.
    pub archive: ArchiveView,
}

/// The points of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The metric.
    #[serde(flatten)]
    pub meta: MetricMeta,
    /// Oldest first.
    pub points: Vec<TimedValue>,
}

/// A value, and the stretch of time that it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedValue {
    /// When its bucket begins. It is as wide as the window; the last one may still grow.
    pub from_ms: Timestamp,
    /// The value.
    pub value: MetricValue,
}

/// What a metric has to say about a stretch of time, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricValue {
    /// How often something happened.
    Counter(CounterValue),
    /// How something stood.
    Gauge(GaugeValue),
    /// How often it happened per second.
    Meter(MeterValue),
    /// How values were distributed.
    Histogram(HistogramValue),
    /// How long something took, in µs, and how often it happened per second.
    Timer(TimerValue),
}

/// A counter in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValue {
    /// How often it happened then. Exact.
    pub count: u64,
}

/// A gauge in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GaugeValue {
    /// As it was last read: the sum over all that were read, or their mean where a sum would
    /// make no sense, such as of ratios.
    pub value: f64,
    /// How many were read then: tasks, workers.
    pub n: u64,
    /// The least of all single readings.
    pub min: f64,
    /// The greatest of all single readings.
    pub max: f64,
}

/// A meter in a stretch of time; rates are per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeterValue {
    /// How often it happened then. Exact.
    pub count: u64,
    /// The rate at the end, averaged over about one minute.
    pub m1: f64,
    /// Over about five minutes.
    pub m5: f64,
    /// Over about fifteen minutes.
    pub m15: f64,
    /// The count by the time that it is of.
    pub mean: f64,
}

/// A distribution in a stretch of time. Without values there is only a count of 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramValue {
    /// How many values there were. Exact.
    pub count: u64,
    /// Their sum. Exact.
    pub sum: f64,
    /// The least. Exact.
    pub min: Option<f64>,
    /// The greatest. Exact.
    pub max: Option<f64>,
    /// Their mean. Exact.
    pub mean: Option<f64>,
    /// How far they are from it, estimated from those that were sampled.
    pub stddev: Option<f64>,
    /// So much or less were half of them; at most 1.1 % off, of those that were sampled.
    pub p50: Option<f64>,
    /// So much or less were 75 % of them; the same holds for this and the next.
    pub p75: Option<f64>,
    /// 90 %.
    pub p90: Option<f64>,
    /// 95 %.
    pub p95: Option<f64>,
    /// 98 %.
    pub p98: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// 99.9 %.
    pub p999: Option<f64>,
}

/// A timer in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimerValue {
    /// How long, in µs.
    pub histogram: HistogramValue,
    /// How often.
    pub meter: MeterValue,
}

/// `POST /api/v1/topology/{id or name}/metrics`: what a running topology measures otherwise than
/// its settings say, in place of what was asked for before; nothing in it undoes all of that.
/// `GET` answers it as it is. Names are the last parts of metrics' names, such as `EmitTime`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricControlRequest {
    /// Metrics that are measured although settings disable them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<String>,
    /// Metrics that are not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// The share of values that goes into histograms' buckets, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Metrics that each worker writes to its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub debug: Vec<String>,
}

/// `GET /api/v1/metrics/topology/{id or name}/track`: which task ran where and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskTrack {
    /// The topology.
    pub topology_id: TopologyId,
    /// By task, the first place first.
    pub entries: Vec<TaskPlace>,
    /// Whether the first were left out, as there are more than asked for.
    #[serde(default)]
    pub truncated: bool,
    /// Who answers.
    pub archive: ArchiveView,
}

/// A task in one place.
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
    /// Since when it was there.
    pub from_ms: Timestamp,
    /// Until when; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<Timestamp>,
    /// Why it came there.
    pub reason: String,
    /// Why it went; absent while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// `GET /api/v1/metrics/history`: the topologies that there were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyHistory {
    /// Newest first.
    pub topologies: Vec<PastTopology>,
    /// Whether older ones were left out, as there are more than asked for.
    #[serde(default)]
    pub truncated: bool,
    /// Who answers.
    pub archive: ArchiveView,
}

/// A topology in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastTopology {
    /// Its id.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// When it was submitted.
    pub started_ms: Timestamp,
    /// Who submitted it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// When it was killed; absent while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_ms: Option<Timestamp>,
    /// Who killed it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<String>,
    /// Why it was killed; absent while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<String>,
    /// The share of values that goes into its histograms' buckets, as it was last.
    pub sample_rate: f64,
}

/// `GET /api/v1/metrics/status`: the archive of the nimbus that answers, and its upload queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// Who answers.
    pub archive: ArchiveView,
    /// What it does for metrics: `following`, `taking over` or `leading`.
    pub stage: String,
    /// What went wrong last with following or taking over, until something goes right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Of a leader: what each live follower has of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<FollowerSummary>,
    /// About how many bytes it has on disk.
    pub bytes: u64,
    /// How many metrics it knows, of all topologies.
    pub metas: u64,
    /// The number of the oldest entry of its log.
    pub log_from: u64,
    /// About how many bytes its log has.
    pub log_bytes: u64,
    /// The last write that failed, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Where archives are that had what the leader's lacked, and were put aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<String>,
    /// What was left out or taken otherwise than it came, by topology and cause, ever.
    pub drops: Vec<DropSummary>,
    /// What is to be sent to external stores.
    pub queue: QueueSummary,
}

/// A follower, as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowerSummary {
    /// Which.
    pub nimbus: NimbusId,
    /// The number of the last entry that it has.
    pub seq: u64,
}

/// How often something was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropSummary {
    /// Of which topology.
    pub topology_id: TopologyId,
    /// Why: `invalid-name`, `too-many-names`, `queue-full`, …
    pub cause: String,
    /// How often.
    pub count: u64,
}

/// The upload queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSummary {
    /// Minutes of topologies that are not closed.
    pub reserved: usize,
    /// Entries that at least one uploader has not acknowledged.
    pub ready: usize,
    /// About so many bytes are to be uploaded.
    pub bytes: u64,
    /// The minute of the oldest entry; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<Timestamp>,
    /// By name.
    pub uploaders: Vec<UploaderSummary>,
}

/// One uploader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploaderSummary {
    /// Its name.
    pub name: String,
    /// Entries that it has not acknowledged.
    pub pending: usize,
    /// Entries that it has now.
    pub uploading: usize,
    /// Entries that it has acknowledged, ever.
    pub acked: u64,
    /// Entries that were dropped before it acknowledged them, ever.
    pub dropped: u64,
    /// Entries that it refused or that ran out of time, since this nimbus started.
    pub refused: u64,
    /// Why it refused one last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
    /// What it does, while this nimbus leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<UploaderWork>,
}

/// What an uploader does, and what it has done since this nimbus leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploaderWork {
    /// `starting`, `idle`, `uploading`, `pausing` or `stuck`.
    pub doing: String,
    /// Since when.
    pub since_ms: Timestamp,
    /// How many points its store took.
    pub points: u64,
    /// How many points its store, or its rules, refused for good.
    pub points_refused: u64,
    /// How often it failed, panicked or ran out of time.
    pub failures: u64,
    /// How many events were told to it.
    pub events: u64,
    /// How many were not, as it was behind or failed.
    pub events_lost: u64,
    /// How it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Which metrics of a topology that is gone are to be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetRequest {
    /// Their ids, as the lists of metrics show them; at most 10,000.
    pub ids: Vec<String>,
}

/// Metrics were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Of which topology.
    pub topology_id: TopologyId,
    /// How many it has left.
    pub metas: u64,
}
