//! What a leader does for metrics, for as long as its leadership lasts.
//!
//! It is a task of the metrics' own set, not of the leader's: to end an upload may take a
//! while, and a leader that gives way must not wait for that.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    daemon::tasks::{Ending, Tasks},
    election::FencedWriter,
    nimbus::{
        blobs::BlobStore,
        measure::{Leading, Measure, Progress, Stage, close, flush, kept, mark, tell, upload},
    },
};

/// How long uploaders may clean up at the end of a leadership.
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl Measure {
    /// Starts to lead; it ends when the answer is dropped.
    pub(in crate::nimbus) fn lead(&self, writer: FencedWriter, blobs: BlobStore) -> Leading {
        let over = self.shared.tasks.cancelled().child_token();
        let leading = lead(self.clone(), writer, blobs, over.clone());
        self.shared.tasks.start_graceful("metric-leading", Ending::Normal, async move {
            if AssertUnwindSafe(leading).catch_unwind().await.is_err() {
                error!("leading broke for metrics; nimbus leads without them");
            }
        });
        Leading(over)
    }
}

async fn lead(measure: Measure, writer: FencedWriter, blobs: BlobStore, over: CancellationToken) {
    let term = writer.term();
    let begun = async {
        // The leadership before may still be cleaning up.
        let baton = measure.shared.baton.lock().await;
        let archive = measure.opened().await;
        measure.acks().clear();
        *measure.progress() = Progress::default();
        measure.shared.stage.send_replace((Stage::TakingOver, Some(term)));
        if measure.succeed(&archive, &writer).await.is_err() {
            info!(%term, "this term is over before metrics were taken in");
            std::future::pending::<()>().await;
        }
        measure.progress().trouble = None;
        (baton, archive)
    };
    let (_baton, archive) = tokio::select! {
        biased;
        // Cancel-safe: entries of others that are being written are written whole.
        () = over.cancelled() => {
            measure.stop_leading(term);
            return;
        }
        begun = begun => begun,
    };
    let tasks = measure.shared.tasks.child();
    start(&measure, &archive, &writer, blobs, &tasks);
    measure.shared.stage.send_replace((Stage::Leading, Some(term)));
    let position = archive.position();
    info!(%term, last_term = position.term, seq = position.seq, "takes metrics in");
    over.cancelled().await;
    measure.stop_leading(term);
    tasks.stop(STOP_PATIENCE).await;
}

/// Starts the tasks of a leader.
fn start(
    measure: &Measure,
    archive: &crate::archive::Archive,
    writer: &FencedWriter,
    blobs: BlobStore,
    tasks: &Tasks,
) {
    let (term, shared) = (writer.term(), &measure.shared);
    let (options, clock) = (shared.options.clone(), shared.setup.clock.clone());
    let its = archive.clone();
    let closing = move || close::close_minutes(its.clone(), term, options.clone(), clock.clone());
    tasks.start("metric-minutes", Ending::Normal, kept("the closing of minutes", closing));
    let its = (measure.clone(), archive.clone(), writer.clone());
    let marking = move || mark::mark(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start("metric-mark", Ending::Normal, kept("the mark of what is safe", marking));
    let its = (measure.clone(), archive.clone(), writer.clone());
    let flushing = move || flush::flush(its.0.clone(), its.1.clone(), its.2.clone());
    tasks.start("metric-flush", Ending::Normal, kept("the flush of metas", flushing));
    let (told, hear) = upload::events(&shared.uploaders);
    let its = (measure.clone(), archive.clone(), blobs);
    let telling = move || tell::tell(its.0.clone(), its.1.clone(), term, its.2.clone(), told.clone());
    tasks.start("metric-events", Ending::Normal, kept("telling of topologies and tasks", telling));
    for (uploader, events) in shared.uploaders.iter().zip(hear) {
        let run = upload::Run::new(measure.clone(), archive.clone(), term, uploader.clone(), tasks);
        tasks.start_graceful("metric-uploader", Ending::Normal, run.run(events, tasks.cancelled()));
    }
}

impl Measure {
    fn stop_leading(&self, term: crate::model::Term) {
        self.shared.stage.send_if_modified(|stage| {
            // The next leadership may have begun.
            let is_ours = stage.1 == Some(term);
            if is_ours {
                *stage = (Stage::Following, None);
            }
            is_ours
        });
    }
}
