//! Tables of `stormkeeper metrics`, with the most important columns first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::number::{self, NONE};
use crate::cli::output::Table;
use stormkeeper_api_types::message::{GaugeValue, HistogramValue, LatestValue, MetricMetaView, MetricValue};
use stormkeeper_metrics::name::SYS;
use stormkeeper_model::{Timestamp, address::host_port, time::format_duration};

/// Subject of a row. Tasks are ordered by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    component: Option<String>,
    task: Option<u32>,
    stream: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    /// For metrics of a stream: the component that emits its tuples.
    source: Option<String>,
}

impl Subject {
    fn new(meta: &MetricMetaView) -> Self {
        Self {
            source: short(&meta.metric).0.map(str::to_owned),
            component: meta.component.as_ref().map(ToString::to_string),
            task: meta.task.map(|task| task.0),
            stream: meta.stream.as_ref().map(ToString::to_string),
            host: meta.host.clone(),
            port: meta.port,
        }
    }

    /// The subject as one word: `split`, `split/3`, `split/3/default`, `node-1:6700`, `topology`.
    pub(super) fn label(meta: &MetricMetaView) -> String {
        let Self { component, task, stream, host, port, source: _ } = Self::new(meta);
        let parts = [component, task.map(|task| task.to_string()), stream];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match (host, port) {
            // A supervisor has no port of its own.
            (Some(host), None | Some(0)) => host,
            (Some(host), Some(port)) => host_port(&host, port),
            (None, _) if parts.is_empty() => "topology".to_owned(),
            (None, _) => parts.join("/"),
        }
    }
}

/// Kind of name that rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowName {
    Component,
    Task,
    Stream,
    Worker,
    Host,
}

impl RowName {
    fn heading(self) -> &'static str {
        match self {
            Self::Component => "COMPONENT",
            Self::Task => "TASK",
            Self::Stream => "STREAM",
            Self::Worker => "HOST:PORT",
            Self::Host => "HOST",
        }
    }

    fn cell(self, of: &Subject) -> String {
        let none = || NONE.to_owned();
        match self {
            Self::Component => of.component.clone().unwrap_or_else(none),
            Self::Task => of.task.map_or_else(none, |task| task.to_string()),
            Self::Stream => match (&of.stream, &of.source) {
                (Some(stream), Some(source)) => format!("{stream} from {source}"),
                (Some(stream), None) => stream.clone(),
                (None, _) => none(),
            },
            Self::Worker => match (&of.host, of.port) {
                (Some(host), Some(port)) => host_port(host, port),
                _ => none(),
            },
            Self::Host => of.host.clone().unwrap_or_else(none),
        }
    }
}

/// Part of a metric's value that a cell shows.
#[derive(Debug, Clone, Copy)]
enum Show {
    /// A count.
    Count,
    /// Mean rate of a meter over the window.
    Rate,
    /// Mean rate of a meter that counts bytes.
    ByteRate,
    /// One statistic of a distribution in µs.
    Micros(fn(&HistogramValue) -> Option<f64>),
    /// A gauge in its unit; if it combines several readings, with the greatest of them.
    Gauge,
}

/// A column: heading, metric, and the part of the value that it shows.
type Column = (&'static str, &'static str, Show);

/// Columns of throughput, failures, latencies and saturation.
const FLOW: &[Column] = &[
    ("EMITTED", "Emitted", Show::Count),
    ("SEND", "SendTps", Show::Rate),
    ("RECEIVE", "RecvTps", Show::Rate),
    ("EXECUTED", "Executed", Show::Count),
    ("ACKED", "Acked", Show::Count),
    ("FAILED", "Failed", Show::Count),
    ("LATENCY p50", "ProcessLatency", Show::Micros(|h| h.p50)),
    ("p95", "ProcessLatency", Show::Micros(|h| h.p95)),
    ("p99", "ProcessLatency", Show::Micros(|h| h.p99)),
    ("EXECUTE p50", "ExecutorTime", Show::Micros(|h| h.p50)),
    ("p99", "ExecutorTime", Show::Micros(|h| h.p99)),
    ("TRAVEL p99", "TupleLifeCycle", Show::Micros(|h| h.p99)),
    ("CAPACITY", "Capacity", Show::Gauge),
    ("QUEUE", "ExecutorQueue", Show::Gauge),
    ("PENDING", "PendingNum", Show::Gauge),
    ("IDLE", "EmptyCpuRatio", Show::Gauge),
];

/// Columns of the resource usage of a process.
const USAGE: &[Column] = &[
    ("CPU", "CpuUsedRatio", Show::Gauge),
    ("MEMORY", "MemoryUsed", Show::Gauge),
    ("MEMORY", "MemoryUsage", Show::Gauge),
    ("DISK", "DiskUsage", Show::Gauge),
    ("THREADS", "Threads", Show::Gauge),
    ("FILES", "OpenFiles", Show::Gauge),
    ("SENDS", "NettyCliSendSpeed", Show::ByteRate),
    ("RECEIVES", "NettySrvRecvSpeed", Show::ByteRate),
    ("SENDS", "NetSendSpeed", Show::Gauge),
    ("RECEIVES", "NetRecvSpeed", Show::Gauge),
    ("INGEST", "IngestPoints", Show::Rate),
    ("EXPORT QUEUE", "ExportQueue", Show::Gauge),
];

/// Table of throughput and latency, with a row for each subject of `values`. Columns without values
/// are left out. Returns `None` if no column is left.
pub(super) fn flow(values: &[LatestValue], name: RowName) -> Option<Table> {
    rows(values, name, FLOW)
}

/// Table of the resource usage of processes.
pub(super) fn usage(values: &[LatestValue], name: RowName) -> Option<Table> {
    rows(values, name, USAGE)
}

fn rows(values: &[LatestValue], name: RowName, columns: &[Column]) -> Option<Table> {
    let mut rows: BTreeMap<Subject, BTreeMap<&str, &LatestValue>> = BTreeMap::new();
    for value in values.iter().filter(|value| value.meta.group != stormkeeper_metrics::name::UDF) {
        rows.entry(Subject::new(&value.meta)).or_default().insert(short(&value.meta.metric).1, value);
    }
    let measured: BTreeSet<&str> = rows.values().flat_map(|row| row.keys().copied()).collect();
    let columns: Vec<&Column> = columns.iter().filter(|(_, metric, _)| measured.contains(metric)).collect();
    if columns.is_empty() {
        return None;
    }
    let heading: Vec<&str> =
        std::iter::once(name.heading()).chain(columns.iter().map(|(heading, ..)| *heading)).collect();
    let mut table = Table::new(&heading);
    for (of, row) in &rows {
        let cell = |(_, metric, show): &&Column| {
            row.get(metric).and_then(|value| cell(value, *show)).unwrap_or_else(|| NONE.to_owned())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        if cells.iter().any(|cell| cell != NONE) {
            table.row(std::iter::once(name.cell(of)).chain(cells));
        }
    }
    Some(table)
}

fn cell(latest: &LatestValue, show: Show) -> Option<String> {
    let unit = latest.meta.unit.as_deref();
    match (show, latest.value) {
        (Show::Count, MetricValue::Counter(counter)) => Some(number::count(counter.count)),
        (Show::Count, MetricValue::Meter(meter)) => Some(number::count(meter.count)),
        (Show::Rate, MetricValue::Meter(meter)) => Some(number::rate(meter.mean)),
        (Show::Rate, MetricValue::Timer(timer)) => Some(number::rate(timer.meter.mean)),
        (Show::ByteRate, MetricValue::Meter(meter)) => Some(format!("{}/s", number::bytes(meter.mean))),
        (Show::Micros(part), MetricValue::Histogram(histogram)) => part(&histogram).map(number::micros),
        (Show::Micros(part), MetricValue::Timer(timer)) => part(&timer.histogram).map(number::micros),
        (Show::Gauge, MetricValue::Gauge(gauge)) => {
            Some(format!("{}{}", self::gauge(&gauge, unit), read_ago(&gauge, latest.to_ms)))
        }
        _ => None,
    }
}

/// Reports of one minute may arrive one after the other, so a reading of the minute before the last is
/// as current as any.
const CURRENT: Duration = Duration::from_secs(60);

/// Age of a gauge's reading at the end of the window, in parentheses, if the reading is of the past.
fn read_ago(gauge: &GaugeValue, end: Timestamp) -> String {
    match gauge.at_ms.map(|at| end.since(at)) {
        Some(age) if age > CURRENT => format!(" ({} before)", format_duration(age)),
        Some(_) | None => String::new(),
    }
}

/// Formats a gauge. If it combines several readings, the greatest follows: it shows the worst case.
fn gauge(gauge: &GaugeValue, unit: Option<&str>) -> String {
    let value = number::in_unit(gauge.value, unit);
    match gauge.n > 1 && gauge.max > gauge.value {
        true => format!("{value}, max {}", number::in_unit(gauge.max, unit)),
        false => value,
    }
}

/// Line above the tables: the topology as a whole.
pub(super) fn sum(values: &[LatestValue]) -> Option<String> {
    let of = |metric: &str, show| {
        let found = values.iter().find(|value| value.meta.group == SYS && value.meta.metric == metric)?;
        cell(found, show)
    };
    let rate = of("SendTps", Show::Rate).map_or_else(String::new, |rate| format!(" ({rate})"));
    let p99 =
        of("ProcessLatency", Show::Micros(|h| h.p99)).map_or_else(String::new, |p99| format!(", p99 {p99}"));
    let parts = [
        of("Emitted", Show::Count).map(|n| format!("emitted {n}{rate}")),
        of("Acked", Show::Count).map(|n| format!("acked {n}")),
        of("Failed", Show::Count).map(|n| format!("failed {n}")),
        of("ProcessLatency", Show::Micros(|h| h.p50)).map(|p50| format!("latency p50 {p50}{p99}")),
        of("CpuUsedRatio", Show::Gauge).map(|cpu| format!("CPU {cpu}")),
        of("MemoryUsed", Show::Gauge).map(|memory| format!("memory {memory}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("   "))
}

/// Table of metrics, ordered by subject and name.
pub(super) fn list<'a>(values: impl Iterator<Item = &'a LatestValue>) -> Option<Table> {
    let mut values: Vec<&LatestValue> = values.collect();
    let by = |value: &LatestValue| {
        let meta = &value.meta;
        (level_order(&meta.level), Subject::new(meta), meta.group.clone(), meta.metric.clone())
    };
    values.sort_by_cached_key(|value| by(value));
    let mut table = Table::new(&["LEVEL", "OF", "METRIC", "KIND", "VALUE"]);
    for value in &values {
        table.row([
            value.meta.level.clone(),
            Subject::label(&value.meta),
            metric(&value.meta),
            value.meta.kind.clone(),
            match value.value {
                MetricValue::Gauge(gauge) => {
                    text(&value.value, value.meta.unit.as_deref()) + &read_ago(&gauge, value.to_ms)
                }
                _ => text(&value.value, value.meta.unit.as_deref()),
            },
        ]);
    }
    (!values.is_empty()).then_some(table)
}

/// Splits the metric's part of a name into source and short name. Metrics of a stream are named
/// `source.Name`, to distinguish the components that emit its tuples.
fn short(metric: &str) -> (Option<&str>, &str) {
    match metric.rsplit_once('.') {
        Some((source, short)) if !short.is_empty() => (Some(source), short),
        Some(_) | None => (None, metric),
    }
}

/// Name of a metric as shown: user metrics have their group as a prefix.
fn metric(meta: &MetricMetaView) -> String {
    match meta.group == SYS {
        true => meta.metric.clone(),
        false => format!("{}/{}", meta.group, meta.metric),
    }
}

/// Order of the levels, widest first.
fn level_order(level: &str) -> usize {
    const ORDER: [&str; 7] =
        ["topology", "component", "component-stream", "task", "stream", "worker", "netty"];
    ORDER.iter().position(|known| *known == level).unwrap_or(ORDER.len())
}

/// Formats a value of any kind in one line.
pub(super) fn text(value: &MetricValue, unit: Option<&str>) -> String {
    match value {
        MetricValue::Counter(counter) => number::count(counter.count),
        MetricValue::Gauge(value) => gauge(value, unit),
        MetricValue::Meter(meter) => {
            let of_bytes = unit.is_some_and(|unit| unit.starts_with("bytes"));
            let rate = |rate: f64| match of_bytes {
                true => format!("{}/s", number::bytes(rate)),
                false => number::rate(rate),
            };
            format!(
                "{} (m1 {}, m5 {}, m15 {})",
                rate(meter.mean),
                rate(meter.m1),
                rate(meter.m5),
                rate(meter.m15)
            )
        }
        MetricValue::Histogram(histogram) => distribution(histogram, unit),
        MetricValue::Timer(timer) => {
            format!("{}, {}", number::rate(timer.meter.mean), distribution(&timer.histogram, Some("µs")))
        }
    }
}

fn distribution(histogram: &HistogramValue, unit: Option<&str>) -> String {
    let mut text = format!("n {}", number::count(histogram.count));
    let parts = [
        ("mean", histogram.mean),
        ("p50", histogram.p50),
        ("p95", histogram.p95),
        ("p99", histogram.p99),
        ("max", histogram.max),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            text.push_str(&format!(", {name} {}", number::in_unit(value, unit)));
        }
    }
    text
}
