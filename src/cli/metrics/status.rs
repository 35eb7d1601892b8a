//! `stormkeeper metrics --status`: the metric store, its export queue and the exporters.

use super::{
    history::minute,
    number::{self, NONE},
};
use crate::cli::output::{self, Table};
use stormkeeper_api_types::message::{ExportQueueSummary, MetricStoreStatus};

pub(super) fn text(status: &MetricStoreStatus) -> String {
    let MetricStoreStatus { archive, bytes, metas, log_from, log_bytes, failure, drops, queue, .. } = status;
    let lag = match archive.entries_behind {
        Some(0) => "up to date".to_owned(),
        Some(n) => format!("{n} entries behind the leader"),
        None => "unknown lag behind the leader".to_owned(),
    };
    let mut text = format!(
        "Metric store of {}, {}\n  log      entry {} of term {}, {lag}\n  reaches  back to entry {log_from} ({})\n  \
         metrics  {}\n  on disk  {}\n",
        archive.nimbus,
        status.stage,
        archive.index,
        archive.term,
        number::bytes(*log_bytes as f64),
        output::count(*metas),
        number::bytes(*bytes as f64),
    );
    if let Some(failure) = failure {
        text.push_str(&format!("! the last write failed: {failure}\n"));
    }
    if let Some(trouble) = &status.trouble {
        text.push_str(&format!("! {}: {trouble}\n", status.stage));
    }
    for aside in &status.aside {
        text.push_str(&format!("! quarantined database with metrics that the cluster is missing: {aside}\n"));
    }
    if !status.followers.is_empty() {
        let mut table = Table::new(&["FOLLOWER", "HAS ENTRY", "BEHIND"]);
        for follower in &status.followers {
            let behind = archive.index.saturating_sub(follower.index);
            table.row([follower.nimbus.to_string(), follower.index.to_string(), output::count(behind)]);
        }
        text.push_str(&format!("\nFollowers\n{}", table.text(2)));
    }
    text.push_str(&self::queue(queue));
    if !drops.is_empty() {
        let mut table = Table::new(&["TOPOLOGY", "CAUSE", "COUNT"]);
        for drop in drops {
            table.row([drop.topology_id.to_string(), drop.cause.clone(), output::count(drop.count)]);
        }
        text.push_str(&format!("\nDropped values\n{}", table.text(2)));
    }
    text
}

fn queue(queue: &ExportQueueSummary) -> String {
    let ExportQueueSummary { reserved, ready, bytes, oldest_ms, uploaders } = queue;
    let oldest = oldest_ms.map_or_else(String::new, |oldest| format!(", oldest from {}", minute(oldest)));
    let mut text = format!(
        "\nExport queue\n  {ready} entries ready ({}{oldest}), {reserved} minutes open\n",
        number::bytes(*bytes as f64)
    );
    if uploaders.is_empty() {
        return text;
    }
    let mut table = Table::new(&["UPLOADER", "DOES", "PENDING", "UPLOADING", "DONE", "REFUSED", "DROPPED"]);
    for uploader in uploaders {
        table.row([
            uploader.name.clone(),
            uploader.work.as_ref().map_or_else(|| NONE.to_owned(), |work| work.doing.clone()),
            uploader.pending.to_string(),
            uploader.uploading.to_string(),
            output::count(uploader.acked),
            output::count(uploader.refused),
            output::count(uploader.dropped),
        ]);
    }
    text.push_str(&table.text(2));
    for uploader in uploaders {
        if let Some(refusal) = &uploader.last_refusal {
            text.push_str(&format!("! {} rejected an entry: {refusal}\n", uploader.name));
        }
        if let Some(failure) = uploader.work.as_ref().and_then(|work| work.last_failure.as_ref()) {
            text.push_str(&format!("! {} failed: {failure}\n", uploader.name));
        }
    }
    text
}
