//! Tasks of a leader, for as long as its leadership lasts.
//!
//! They belong to the task set of the metrics service, not of the leader: to end an export may take
//! a while, and a leader that resigns must not wait for the export.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    MetricsService, TopologySource, history,
    replication::{high_watermark, meta_publish},
    service::restart_on_panic,
};
use stormkeeper_coordination::election::FencedWriter;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Timeout for the cleanup of exporters at the end of a leadership.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Ends the tasks of a leadership when it is dropped.
#[derive(Debug)]
pub struct Leading(CancellationToken);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl MetricsService {
    /// Starts the tasks of a leader; they end when the returned guard is dropped.
    pub fn lead(&self, writer: FencedWriter, topologies: Arc<dyn TopologySource>) -> Leading {
        let over = self.tasks.cancelled().child_token();
        let leading = lead(self.clone(), writer, topologies, over.clone());
        self.tasks.start_graceful("metric-leader", OnExit::Ignore, async move {
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
    service: MetricsService,
    writer: FencedWriter,
    topologies: Arc<dyn TopologySource>,
    over: CancellationToken,
) {
    let (term, replication) = (writer.term(), Arc::clone(&service.replication));
    let begun = async {
        // The tasks of the previous leadership may still be cleaning up.
        let leadership_lock = service.leadership_lock.lock().await;
        let store = service.store.wait_until_open().await;
        replication.begin_takeover(term);
        if replication.take_over(&store, &writer).await.is_err() {
            info!(%term, "the term ended before metric ingest started");
            std::future::pending::<()>().await;
        }
        (leadership_lock, store)
    };
    let (_leadership_lock, store) = tokio::select! {
        biased;
        // Cancel-safe: a page of entries that is being applied is applied completely.
        () = over.cancelled() => {
            replication.end_leading(term);
            return;
        }
        begun = begun => begun,
    };
    let tasks = service.tasks.child();
    start(&service, &store, &writer, topologies, &tasks);
    replication.begin_leading(term);
    let position = store.position();
    info!(%term, last_term = position.term, index = position.index, "metric ingest started");
    over.cancelled().await;
    replication.end_leading(term);
    tasks.stop(STOP_PATIENCE).await;
}

/// Starts the tasks of a leader.
fn start(
    service: &MetricsService,
    store: &MetricStore,
    writer: &FencedWriter,
    topologies: Arc<dyn TopologySource>,
    tasks: &Tasks,
) {
    let term = writer.term();
    let its = (Arc::clone(&service.replication), store.clone(), writer.clone());
    let committing = move || high_watermark::publish_commits(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start("metric-high-watermark", OnExit::Ignore, restart_on_panic("high watermark", committing));
    let its = (Arc::clone(&service.replication), store.clone(), writer.clone());
    let publishing = move || meta_publish::publish_metas(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start(
        "metric-meta-publish",
        OnExit::Ignore,
        restart_on_panic("publication of the metas", publishing),
    );
    let fanout = service.export.start(store, term, tasks);
    let its = (Arc::clone(&service.history), store.clone(), topologies);
    let recording =
        move || history::record_history(its.0.clone(), its.1.clone(), term, its.2.clone(), fanout.clone());
    tasks.start(
        "metric-history",
        OnExit::Ignore,
        restart_on_panic("recording of topology and task history", recording),
    );
}
