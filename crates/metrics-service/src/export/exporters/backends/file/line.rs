//! Lines of the file. Each is one JSON object, whose field `line` names the type of the line, and
//! `cluster` the cluster.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::export::exporters::{ExportError, series};
use stormkeeper_metric_store::{ExportKey, HistoryEvent};
use stormkeeper_metrics::{MetricName, Point, protocol::MetricMeta};

/// Line of a metric in a minute.
pub(super) fn point(
    cluster: &str,
    key: &ExportKey,
    meta: &MetricMeta,
    point: &Point,
    lines: &mut Vec<u8>,
) -> Result<(), ExportError> {
    let mut line = begin("point", cluster);
    place(key, &mut line);
    name(meta, &mut line);
    let values = series::of(&meta.name, point).into_iter();
    let values = values.map(|number| (number.name.to_owned(), number.value.to_json()));
    line.insert("values".to_owned(), Value::Object(values.collect()));
    write("a point", &line, lines)
}

/// Line that ends an entry of the queue, which has `n_points`.
pub(super) fn export(
    cluster: &str,
    key: &ExportKey,
    n_points: u64,
    lines: &mut Vec<u8>,
) -> Result<(), ExportError> {
    let mut line = begin("upload", cluster);
    place(key, &mut line);
    line.insert("topology".to_owned(), key.topology.to_string().into());
    line.insert("parts".to_owned(), key.parts.into());
    line.insert("points".to_owned(), n_points.into());
    write("an export", &line, lines)
}

/// Line of a new metric.
pub(super) fn meta(cluster: &str, meta: &MetricMeta, lines: &mut Vec<u8>) -> Result<(), ExportError> {
    let mut line = begin("meta", cluster);
    name(meta, &mut line);
    write("a metric", &line, lines)
}

/// Line of an event.
pub(super) fn event(cluster: &str, event: &HistoryEvent, lines: &mut Vec<u8>) -> Result<(), ExportError> {
    #[derive(Serialize)]
    struct Line<'a> {
        line: &'static str,
        cluster: &'a str,
        topology: String,
        time: u64,
        event: &'a HistoryEvent,
    }
    let time = event.at().as_millis() / 1000;
    let topology = event.topology().to_string();
    write("an event", &Line { line: "event", cluster, topology, time, event }, lines)
}

/// Begins a line of a type.
fn begin(line: &'static str, cluster: &str) -> Map<String, Value> {
    let fields = [("line", line.into()), (series::CLUSTER, cluster.into())];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Adds the minute, and the part of the minute.
fn place(key: &ExportKey, line: &mut Map<String, Value>) {
    line.insert("time".to_owned(), series::timestamp(key.minute).into());
    line.insert("minute".to_owned(), key.minute.to_string().into());
    line.insert("kind".to_owned(), key.kind.word().into());
    line.insert("part".to_owned(), key.part.into());
}

fn name(meta: &MetricMeta, line: &mut Map<String, Value>) {
    let name: &MetricName = &meta.name;
    line.insert("id".to_owned(), meta.id.to_string().into());
    line.insert("name".to_owned(), name.to_string().into());
    line.insert("type".to_owned(), name.kind().word().into());
    for (label, value) in series::labels(name) {
        line.insert(label.to_owned(), value.into());
    }
    line.insert("group".to_owned(), name.group().into());
    line.insert("metric".to_owned(), name.name().into());
}

fn write(what: &'static str, line: &impl Serialize, lines: &mut Vec<u8>) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *lines, line).map_err(|source| ExportError::Unwritable {
        what,
        form: "JSON",
        source,
    })?;
    lines.push(b'\n');
    Ok(())
}
