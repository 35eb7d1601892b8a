//! `stormkeeper metrics --history`, `--track` and `--topologies`: tables of the past.

use super::{
    number::{self, NONE},
    table::Subject,
};
use crate::cli::output::Table;
use stormkeeper_api_types::message::{
    HistogramValue, MeasuredTopology, MetricValue, PastTopology, Series, TaskPlace, TimedValue,
};
use stormkeeper_model::{Timestamp, address::host_port};

/// Formats the points of each metric below a line that names the metric.
pub(super) fn series(series: &[Series]) -> String {
    let mut text = String::new();
    for Series { meta, points } in series.iter().filter(|series| !series.points.is_empty()) {
        let unit = meta.unit.as_deref().map_or_else(String::new, |unit| format!(", {unit}"));
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{} of {} ({}{unit})\n", meta.metric, Subject::label(meta), meta.kind));
        text.push_str(&table(points, meta.unit.as_deref()).text(2));
    }
    text
}

/// All points of a metric have the same kind, so the first point decides the columns.
fn table(points: &[TimedValue], unit: Option<&str>) -> Table {
    let heading: &[&str] = match points.first().map(|point| &point.value) {
        Some(MetricValue::Counter(_)) | None => &["TIME", "COUNT"],
        Some(MetricValue::Gauge(_)) => &["TIME", "VALUE", "MIN", "MAX"],
        Some(MetricValue::Meter(_)) => &["TIME", "COUNT", "MEAN", "M1", "M5", "M15"],
        Some(MetricValue::Histogram(_)) => &["TIME", "COUNT", "MEAN", "P50", "P95", "P99", "MAX"],
        Some(MetricValue::Timer(_)) => &["TIME", "COUNT", "MEAN", "P50", "P95", "P99", "MAX", "RATE"],
    };
    let mut table = Table::new(heading);
    for TimedValue { from_ms, value } in points {
        table.row(std::iter::once(minute(*from_ms)).chain(cells(value, unit)));
    }
    table
}

fn cells(value: &MetricValue, unit: Option<&str>) -> Vec<String> {
    let distribution = |histogram: &HistogramValue, unit: Option<&str>| {
        let HistogramValue { mean, p50, p95, p99, max, .. } = *histogram;
        let cell =
            |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| number::in_unit(value, unit));
        std::iter::once(number::count(histogram.count)).chain([mean, p50, p95, p99, max].map(cell)).collect()
    };
    match value {
        MetricValue::Counter(counter) => vec![number::count(counter.count)],
        MetricValue::Gauge(gauge) => {
            [gauge.value, gauge.min, gauge.max].map(|value| number::in_unit(value, unit)).into()
        }
        MetricValue::Meter(meter) => {
            let rates = [meter.mean, meter.m1, meter.m5, meter.m15].map(number::rate);
            std::iter::once(number::count(meter.count)).chain(rates).collect()
        }
        MetricValue::Histogram(histogram) => distribution(histogram, unit),
        MetricValue::Timer(timer) => {
            let mut cells: Vec<String> = distribution(&timer.histogram, Some("µs"));
            cells.push(number::rate(timer.meter.mean));
            cells
        }
    }
}

/// Formats a time to the minute: stored points begin at a full minute.
pub(super) fn minute(time: Timestamp) -> String {
    time.to_string().chars().take("2026-11-26T01:02".len()).chain(['Z']).collect()
}

/// Formats a time to the second.
fn second(time: Timestamp) -> String {
    time.to_string().chars().take("2026-11-26T01:02:03".len()).chain(['Z']).collect()
}

/// Table of the hosts and ports on which tasks ran.
pub(super) fn track(entries: &[TaskPlace]) -> Table {
    let mut table = Table::new(&["TASK", "COMPONENT", "HOST:PORT", "FROM", "TO", "WHY THERE", "WHY GONE"]);
    for TaskPlace { task, component, host, port, from_ms, to_ms, reason, ended } in entries {
        table.row([
            task.to_string(),
            component.to_string(),
            host_port(host.as_str(), port.0),
            second(*from_ms),
            to_ms.map_or_else(|| "now".to_owned(), second),
            reason.clone(),
            ended.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Table of running and removed topologies.
pub(super) fn topologies(past: &[PastTopology]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STARTED", "BY", "KILLED", "BY"]);
    let known = |name: &Option<String>| name.clone().unwrap_or_else(|| NONE.to_owned());
    for topology in past {
        table.row([
            topology.id.to_string(),
            topology.name.to_string(),
            second(topology.started_ms),
            known(&topology.started_by),
            topology.killed_ms.map_or_else(|| "runs".to_owned(), second),
            known(&topology.killed_by),
        ]);
    }
    table
}

/// Line that names the topologies with metrics but without history: the cluster and its daemons.
pub(super) fn unlisted(measured: &[MeasuredTopology], past: &[PastTopology]) -> Option<String> {
    let is_new = |topology: &&MeasuredTopology| past.iter().all(|past| past.id != topology.id);
    let ids: Vec<String> = measured.iter().filter(is_new).map(|topology| topology.id.to_string()).collect();
    (!ids.is_empty()).then(|| format!("Other topologies with metrics: {}.", ids.join(", ")))
}
