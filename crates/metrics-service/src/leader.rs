//! Tasks of a leader, for as long as its leadership lasts.
//!
//! They belong to the task set of the metrics service, not of the leader: to end an upload may take
//! a while, and a leader that resigns must not wait for the upload.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    FetchStatus, Leading, MetricsService, ReplicaState, TopologySource, export::close_minutes,
    export::runner, history::recorder, replication::high_watermark, replication::meta_publish,
    restart_on_panic,
};
use stormkeeper_coordination::election::FencedWriter;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Timeout for the cleanup of exporters at the end of a leadership.
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl MetricsService {
    /// Starts the tasks of a leader; they end when the returned guard is dropped.
    pub fn lead(&self, writer: FencedWriter, topologies: Arc<dyn TopologySource>) -> Leading {
        let over = self.shared.tasks.cancelled().child_token();
        let leading = lead(self.clone(), writer, topologies, over.clone());
        self.shared.tasks.start_graceful("metric-leader", OnExit::Ignore, async move {
            if AssertUnwindSafe(leading).catch_unwind().await.is_err() {
                error!(
                    "metrics leader task panicked; nimbus continues without metrics until the next leadership"
                );
            }
        });
        Leading(over)
    }
}

async fn lead(
    measure: MetricsService,
    writer: FencedWriter,
    topologies: Arc<dyn TopologySource>,
    over: CancellationToken,
) {
    let term = writer.term();
    let begun = async {
        // The tasks of the previous leadership may still be cleaning up.
        let leadership_lock = measure.shared.leadership_lock.lock().await;
        let archive = measure.wait_until_open().await;
        measure.replica_progress().clear();
        *measure.fetch_status() = FetchStatus::default();
        measure.shared.replica_state.send_replace((ReplicaState::TakingOver, Some(term)));
        if measure.take_over(&archive, &writer).await.is_err() {
            info!(%term, "the term ended before metric ingest started");
            std::future::pending::<()>().await;
        }
        measure.fetch_status().problem = None;
        (leadership_lock, archive)
    };
    let (_leadership_lock, archive) = tokio::select! {
        biased;
        // Cancel-safe: a page of entries that is being applied is applied completely.
        () = over.cancelled() => {
            measure.stop_leading(term);
            return;
        }
        begun = begun => begun,
    };
    let tasks = measure.shared.tasks.child();
    start(&measure, &archive, &writer, topologies, &tasks);
    measure.shared.replica_state.send_replace((ReplicaState::Leading, Some(term)));
    let position = archive.position();
    info!(%term, last_term = position.term, index = position.index, "metric ingest started");
    over.cancelled().await;
    measure.stop_leading(term);
    tasks.stop(STOP_PATIENCE).await;
}

/// Starts the tasks of a leader.
fn start(
    measure: &MetricsService,
    archive: &stormkeeper_metric_store::MetricStore,
    writer: &FencedWriter,
    topologies: Arc<dyn TopologySource>,
    tasks: &Tasks,
) {
    let (term, shared) = (writer.term(), &measure.shared);
    let (options, clock) = (shared.options.clone(), shared.setup.clock.clone());
    let its = archive.clone();
    let closing = move || close_minutes::close_minutes(its.clone(), term, options.clone(), clock.clone());
    tasks.start("metric-minutes", OnExit::Ignore, restart_on_panic("closing of minutes", closing));
    let its = (measure.clone(), archive.clone(), writer.clone());
    let marking = move || high_watermark::publish_commits(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start("metric-high-watermark", OnExit::Ignore, restart_on_panic("high watermark", marking));
    let its = (measure.clone(), archive.clone(), writer.clone());
    let flushing = move || meta_publish::publish_metas(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start(
        "metric-meta-publish",
        OnExit::Ignore,
        restart_on_panic("publication of the metas", flushing),
    );
    let (fanout, receivers) = runner::events(&shared.exporters);
    let its = (measure.clone(), archive.clone(), topologies);
    let telling =
        move || recorder::record_history(its.0.clone(), its.1.clone(), term, its.2.clone(), fanout.clone());
    tasks.start(
        "metric-history",
        OnExit::Ignore,
        restart_on_panic("recording of topology and task history", telling),
    );
    for (exporter, events) in shared.exporters.iter().zip(receivers) {
        let run = runner::ExporterTask::new(measure.clone(), archive.clone(), term, exporter.clone(), tasks);
        tasks.start_graceful("metric-exporter", OnExit::Ignore, run.run(events, tasks.cancelled()));
    }
}

impl MetricsService {
    fn stop_leading(&self, term: stormkeeper_model::Term) {
        self.shared.replica_state.send_if_modified(|state| {
            // The next leadership may have begun.
            let is_ours = state.1 == Some(term);
            if is_ours {
                *state = (ReplicaState::Following, None);
            }
            is_ours
        });
    }
}
