//! Status of the metric store of this nimbus, its export queue and its exporters.

use std::collections::BTreeMap;

use super::source::{self, Source};
use crate::api::{Api, error::ApiError};
use stormkeeper_api_types::message::{
    DropSummary, ExportQueueSummary, ExporterSummary, ExporterWork, FollowerSummary, MetricStoreStatus,
};
use stormkeeper_metric_store::{DropCause, QueueStatus, StoreStatus};
use stormkeeper_metrics_service::ExporterState;

pub(super) async fn of(api: &Api) -> Result<MetricStoreStatus, ApiError> {
    let Source { store, view } = source::of(api)?;
    let StoreStatus { bytes, position: _, log_from, log_bytes, metas, drops, failure, quarantined } =
        store.status().await.map_err(source::store_error)?;
    let queue = store.queue_status().await.map_err(source::store_error)?;
    let measured = api.nimbus.metrics_status().await;
    let drops = drops.into_iter().flat_map(|(topology_id, causes)| {
        let of_one = move |(cause, count): (DropCause, u64)| DropSummary {
            topology_id: topology_id.clone(),
            cause: cause.word().to_owned(),
            count,
        };
        causes.into_iter().map(of_one)
    });
    let followers = measured.followers.into_iter();
    let followers = followers.map(|(nimbus, at)| FollowerSummary { nimbus, index: at.index });
    Ok(MetricStoreStatus {
        store: view,
        state: measured.state.word().to_owned(),
        problem: measured.problem,
        followers: followers.collect(),
        bytes,
        metas,
        log_from,
        log_bytes,
        failure,
        quarantined: quarantined.iter().map(|path| path.display().to_string()).collect(),
        drops: drops.collect(),
        queue: self::queue(queue, measured.exporters),
    })
}

fn queue(status: QueueStatus, mut states: BTreeMap<String, ExporterState>) -> ExportQueueSummary {
    let QueueStatus { reserved, ready, bytes, oldest, exporters } = status;
    let exporters = exporters.into_iter().map(|(name, status)| ExporterSummary {
        work: states.remove(&name).map(work),
        name,
        pending: status.pending,
        leased: status.leased,
        acked: status.acked,
        dropped: status.dropped,
        nacked: status.nacked,
        last_nack: status.last_nack,
    });
    ExportQueueSummary {
        reserved,
        ready,
        bytes,
        oldest_ms: oldest.map(|minute| minute.start()),
        exporters: exporters.collect(),
    }
}

fn work(state: ExporterState) -> ExporterWork {
    let ExporterState { activity, since, points, rejected, failures, events, .. } = state;
    ExporterWork {
        doing: activity.word().to_owned(),
        since_ms: since,
        points,
        points_rejected: rejected,
        failures,
        events,
        events_dropped: state.events_dropped,
        last_failure: state.last_failure,
        last_rejection: state.last_rejection,
    }
}
