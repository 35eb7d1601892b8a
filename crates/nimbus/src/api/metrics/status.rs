//! Status of the metric store of this nimbus, its export queue and its exporters.

use std::collections::BTreeMap;

use super::source::{self, Source};
use crate::api::{Api, error::ApiError};
use stormkeeper_api_types::message::{
    DropSummary, ExportQueueSummary, ExporterSummary, ExporterWork, FollowerSummary, MetricStoreStatus,
};
use stormkeeper_metric_store::{DropCause, QueueStatus, Status};
use stormkeeper_metrics_service::ExporterState;

pub(super) async fn of(api: &Api) -> Result<MetricStoreStatus, ApiError> {
    let Source { archive, view } = source::of(api)?;
    let Status { bytes, position: _, log_from, log_bytes, metas, drops, failure, aside } =
        archive.status().await.map_err(source::archive_error)?;
    let queue = archive.queue_status().await.map_err(source::archive_error)?;
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
        archive: view,
        stage: measured.state.word().to_owned(),
        trouble: measured.problem,
        followers: followers.collect(),
        bytes,
        metas,
        log_from,
        log_bytes,
        failure,
        aside: aside.iter().map(|path| path.display().to_string()).collect(),
        drops: drops.collect(),
        queue: self::queue(queue, measured.exporters),
    })
}

fn queue(status: QueueStatus, mut states: BTreeMap<String, ExporterState>) -> ExportQueueSummary {
    let QueueStatus { reserved, ready, bytes, oldest, uploaders } = status;
    let uploaders = uploaders.into_iter().map(|(name, status)| ExporterSummary {
        work: states.remove(&name).map(work),
        name,
        pending: status.pending,
        uploading: status.uploading,
        acked: status.acked,
        dropped: status.dropped,
        refused: status.refused,
        last_refusal: status.last_refusal,
    });
    ExportQueueSummary {
        reserved,
        ready,
        bytes,
        oldest_ms: oldest.map(|minute| minute.start()),
        uploaders: uploaders.collect(),
    }
}

fn work(state: ExporterState) -> ExporterWork {
    let ExporterState { activity, since, points, rejected, failures, events, events_dropped, last_failure } =
        state;
    ExporterWork {
        doing: activity.word().to_owned(),
        since_ms: since,
        points,
        points_refused: rejected,
        failures,
        events,
        events_lost: events_dropped,
        last_failure,
    }
}
