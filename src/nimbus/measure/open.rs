//! Opening the archive, and trying again while that fails.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    archive::{self, Archive},
    daemon::blocking,
    nimbus::measure::{Door, Measure, checkpoint},
    rpc::client::chain,
};

/// The archive's directory below the local one.
const DIR: &str = "metrics";

/// Opens the archive, and closes it in the end.
pub(super) async fn keep_open(measure: Measure, cancelled: CancellationToken) {
    // Not the set that this task is in: it ends after everyone who uses the archive.
    let tasks = std::sync::Arc::new(measure.shared.tasks.child());
    loop {
        let (dir, options) = (measure.shared.setup.local_dir.clone(), options(&measure));
        let threads = std::sync::Arc::clone(&tasks);
        let opened = blocking::run(move || {
            checkpoint::remove_leftovers(&dir);
            Archive::open(&dir.join(DIR), options, &threads)
        });
        match opened.await {
            Ok(archive) => {
                let at = archive.position();
                info!(term = at.term, seq = at.seq, "the metrics archive is open");
                measure.shared.door.send_replace(Door::Open(archive));
                tell(&measure, None);
                cancelled.cancelled().await;
                break;
            }
            Err(error) => {
                let reason = chain(&error);
                warn!(error = reason, "nimbus runs without metrics; the archive is tried again");
                tell(&measure, Some(&reason));
                measure.shared.door.send_replace(Door::Closed(reason));
            }
        }
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = cancelled.cancelled() => break,
            () = tokio::time::sleep(measure.shared.options.pace.open) => {}
        }
    }
    measure.shared.door.send_replace(Door::Closed("this nimbus is stopping".to_owned()));
    tasks.stop(super::STOP_PATIENCE).await;
}

/// Everyone is told, by the record of this nimbus in the tree: so only when it is news.
fn tell(measure: &Measure, reason: Option<&String>) {
    measure.shared.closed.send_if_modified(|told| {
        let is_news = told.as_ref() != reason;
        if is_news {
            *told = reason.cloned();
        }
        is_news
    });
}

fn options(measure: &Measure) -> archive::Options {
    let options = &measure.shared.options;
    archive::Options {
        retention: options.retention,
        names_per_topology_max: options.names_per_topology_max,
        uploaders: measure.shared.uploaders.iter().map(|uploader| uploader.name().to_owned()).collect(),
        // One call at a time is made on an uploader.
        uploading_max: 1,
        upload_timeout: options.pace.upload,
        upload_pause: options.pace.upload_pause,
        pending_per_topology_max: options.pending_per_topology_max,
        pending_bytes_max: options.pending_bytes_max,
        ..archive::Options::new(measure.shared.setup.clock.clone())
    }
}
