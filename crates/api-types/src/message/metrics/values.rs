//! Values of metrics over time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricMetaView, MetricStoreView};
use stormkeeper_model::{Timestamp, TopologyId};

/// `GET /api/stormkeeper/v1/metrics/data`: points of metrics over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The metric.
    #[serde(flatten)]
    pub meta: MetricMetaView,
    /// Oldest first.
    pub points: Vec<TimedValue>,
}

/// A value and its interval of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimedValue {
    /// Start of the time bucket, which is as wide as the window; the last bucket may still grow.
    pub from_ms: Timestamp,
    /// The value.
    pub value: MetricValue,
}

/// Value of a metric over an interval of time, by type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterValue {
    /// Number of events. Exact.
    pub count: u64,
}

/// A gauge over an interval of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimerValue {
    /// Durations in µs.
    pub histogram: HistogramValue,
    /// Rates of the events.
    pub meter: MeterValue,
}
