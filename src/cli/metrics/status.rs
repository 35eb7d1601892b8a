//! `stormkeeper metrics --status`: the metric store, its export queue and the exporters.

use super::{
    history::minute,
    number::{self, NONE},
};
use crate::cli::output::{self, Table};
use stormkeeper_api_types::message::{ExportQueueSummary, ExporterWork, MetricStoreStatus};

pub(super) fn text(status: &MetricStoreStatus) -> String {
    let MetricStoreStatus { store, bytes, metas, log_from, log_bytes, failure, drops, queue, .. } = status;
    let lag = match store.entries_behind {
        Some(0) => "up to date".to_owned(),
        Some(n) => format!("{n} entries behind the leader"),
        None => "unknown lag behind the leader".to_owned(),
    };
    let mut text = format!(
        "Metric store of {}, {}\n  log      entry {} of term {}, {lag}\n  reaches  back to entry {log_from} ({})\n  \
         metrics  {}\n  on disk  {}\n",
        store.nimbus,
        status.state,
        store.index,
        store.term,
        number::bytes(*log_bytes as f64),
        output::count(*metas),
        number::bytes(*bytes as f64),
    );
    if let Some(failure) = failure {
        text.push_str(&format!("! the last write failed: {failure}\n"));
    }
    if let Some(problem) = &status.problem {
        text.push_str(&format!("! {}: {problem}\n", status.state));
    }
    for database in &status.quarantined {
        text.push_str(&format!(
            "! quarantined database with metrics that the cluster is missing: {database}\n"
        ));
    }
    if !status.followers.is_empty() {
        let mut table = Table::new(&["FOLLOWER", "LOG END", "LAG"]);
        for follower in &status.followers {
            let behind = store.index.saturating_sub(follower.index);
            table.row([follower.nimbus.to_string(), follower.index.to_string(), output::count(behind)]);
        }
        text.push_str(&format!("\nFollowers\n{}", table.text(2)));
    }
    text.push_str(&self::queue(queue, &status.state));
    if !drops.is_empty() {
        let mut table = Table::new(&["TOPOLOGY", "CAUSE", "COUNT"]);
        for drop in drops {
            table.row([drop.topology_id.to_string(), drop.cause.clone(), output::count(drop.count)]);
        }
        text.push_str(&format!("\nDropped values\n{}", table.text(2)));
    }
    text
}

fn queue(queue: &ExportQueueSummary, state: &str) -> String {
    let ExportQueueSummary { reserved, ready, bytes, oldest_ms, exporters } = queue;
    let oldest = oldest_ms.map_or_else(String::new, |oldest| format!(", oldest from {}", minute(oldest)));
    let whose = if state == "leading" { "" } else { ", this replica's copy: only the leader exports" };
    let mut text = format!(
        "\nExport queue{whose}\n  {ready} entries ready ({}{oldest}), {reserved} minutes open\n",
        number::bytes(*bytes as f64)
    );
    if exporters.is_empty() {
        return text;
    }
    let columns =
        ["EXPORTER", "STATE", "PENDING", "LEASED", "ACKED", "NACKED", "DROPPED", "POINTS", "REFUSED"];
    let mut table = Table::new(&columns);
    for exporter in exporters {
        let points = |count: fn(&ExporterWork) -> u64| {
            exporter.work.as_ref().map_or_else(|| NONE.to_owned(), |work| output::count(count(work)))
        };
        table.row([
            exporter.name.clone(),
            exporter.work.as_ref().map_or_else(|| NONE.to_owned(), |work| work.doing.clone()),
            exporter.pending.to_string(),
            exporter.leased.to_string(),
            output::count(exporter.acked),
            output::count(exporter.nacked),
            output::count(exporter.dropped),
            points(|work| work.points),
            points(|work| work.points_rejected),
        ]);
    }
    text.push_str(&table.text(2));
    for exporter in exporters {
        if let Some(work) = exporter.work.as_ref().filter(|work| work.points_rejected > 0) {
            let reason = work.last_rejection.as_deref().unwrap_or("the log of nimbus has the reason");
            let n = output::count(work.points_rejected);
            text.push_str(&format!(
                "! {} lost {n} points, which its store refuses: {reason}\n",
                exporter.name
            ));
        }
        if let Some(refusal) = &exporter.last_nack {
            text.push_str(&format!("! {} rejected an entry: {refusal}\n", exporter.name));
        }
        if let Some(failure) = exporter.work.as_ref().and_then(|work| work.last_failure.as_ref()) {
            text.push_str(&format!("! {} failed: {failure}\n", exporter.name));
        }
    }
    text
}
