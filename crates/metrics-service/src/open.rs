//! Opening of the metric store, repeated until it succeeds.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{ArchiveState, MetricsService, replication::checkpoint};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_runtime::blocking;
use stormkeeper_runtime::error_chain;

/// Directory of the metric store below the local directory.
const DIR: &str = "metrics";

/// Opens the metric store, and closes it at the end.
pub(crate) async fn keep_open(measure: MetricsService, cancelled: CancellationToken) {
    // Not the set that this task belongs to: the store's own tasks end after every user of the store.
    let tasks = std::sync::Arc::new(measure.shared.tasks.child());
    loop {
        let (dir, options) = (measure.shared.setup.local_dir.clone(), options(&measure));
        let threads = std::sync::Arc::clone(&tasks);
        let opened = blocking::run(move || {
            checkpoint::remove_stale(&dir);
            MetricStore::open(&dir.join(DIR), options, &threads)
        });
        match opened.await {
            Ok(archive) => {
                let at = archive.position();
                info!(term = at.term, index = at.index, "metric store is open");
                measure.shared.archive_state.send_replace(ArchiveState::Open(archive));
                publish_failure(&measure, None);
                cancelled.cancelled().await;
                break;
            }
            Err(error) => {
                let reason = error_chain(&error);
                warn!(
                    error = reason,
                    "cannot open the metric store; nimbus runs without metrics and tries again"
                );
                publish_failure(&measure, Some(&reason));
                measure.shared.archive_state.send_replace(ArchiveState::Unavailable(reason));
            }
        }
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = cancelled.cancelled() => break,
            () = tokio::time::sleep(measure.shared.options.intervals.reopen) => {}
        }
    }
    measure
        .shared
        .archive_state
        .send_replace(ArchiveState::Unavailable("this nimbus is stopping".to_owned()));
    tasks.stop(super::STOP_PATIENCE).await;
}

/// Publishes the reason in the record of this nimbus in ZooKeeper, so only when it has changed.
fn publish_failure(measure: &MetricsService, reason: Option<&String>) {
    measure.shared.open_failure.send_if_modified(|published| {
        let is_changed = published.as_ref() != reason;
        if is_changed {
            *published = reason.cloned();
        }
        is_changed
    });
}

fn options(measure: &MetricsService) -> metric_store::Options {
    let options = &measure.shared.options;
    metric_store::Options {
        retention: options.retention,
        names_per_topology_max: options.names_per_topology_max,
        exporters: measure.shared.exporters.iter().map(|exporter| exporter.name().to_owned()).collect(),
        // The runner of an exporter makes one call at a time.
        leases_max: 1,
        lease_timeout: options.intervals.export_timeout,
        nack_pause: options.intervals.export_pause,
        pending_per_topology_max: options.pending_per_topology_max,
        pending_bytes_max: options.pending_bytes_max,
        ..metric_store::Options::new(measure.shared.setup.clock.clone())
    }
}
