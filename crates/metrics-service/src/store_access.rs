//! Access of the parts to the metric store, which is opened again and again until it succeeds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{ReplicaState, RequestError, replication::checkpoint, service::STOP_PATIENCE};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_runtime::{blocking, error_chain, tasks::Tasks, watch};

/// Directory of the metric store below the local directory.
const DIR: &str = "metrics";

/// Period of looking for the directory of the open store: an operator sees within ten seconds that it
/// was deleted.
const DIR_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Availability of the metric store. Clones share the same state.
#[derive(Debug, Clone)]
pub(crate) struct StoreAccess {
    state: watch::Sender<StoreState>,
    /// Reason why the metric store cannot be opened; `None` while it is open, and before the first
    /// attempt.
    open_failure: watch::Sender<Option<String>>,
    /// True if the directory was deleted while the store is open.
    is_dir_gone: watch::Sender<bool>,
}

/// Returns whether a directory of a store is missing or has no database. During a replacement the
/// database has another name for a moment.
fn has_no_database(dir: &Path) -> bool {
    let is_database = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        matches!(&*name, "db" | "before") || name.starts_with("next")
    };
    match std::fs::read_dir(dir) {
        Ok(names) => !names.filter_map(Result::ok).any(|entry| is_database(&entry.file_name())),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[derive(Debug, Clone)]
enum StoreState {
    /// The store is not open, for this reason.
    Unavailable(String),
    Open(MetricStore),
}

impl StoreAccess {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(StoreState::Unavailable("the metric store is being opened".to_owned())),
            open_failure: watch::Sender::new(None),
            is_dir_gone: watch::Sender::new(false),
        }
    }

    /// Returns the metric store, if it is open.
    pub(crate) fn get(&self) -> Result<MetricStore, RequestError> {
        match &*self.state.borrow() {
            StoreState::Open(store) => Ok(store.clone()),
            StoreState::Unavailable(reason) => Err(RequestError::Unavailable { reason: reason.clone() }),
        }
    }

    /// Waits until the metric store is open.
    pub(crate) async fn wait_until_open(&self) -> MetricStore {
        let mut state = self.state.subscribe();
        loop {
            if let StoreState::Open(store) = &*state.borrow_and_update() {
                return store.clone();
            }
            if state.changed().await.is_err() {
                // The sender lives as long as this value.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Watches the reason why the metric store cannot be opened.
    pub(crate) fn open_failures(&self) -> watch::Receiver<Option<String>> {
        self.open_failure.subscribe()
    }

    /// True if the directory of the open store was deleted.
    pub(crate) fn is_dir_gone(&self) -> bool {
        *self.is_dir_gone.borrow()
    }

    /// Records that the store has a directory again.
    pub(crate) fn note_dir_is_back(&self) {
        if self.is_dir_gone.send_replace(false) {
            info!("the metric store has a directory again");
        }
    }

    /// The problem of an open store whose directory was deleted. The database goes on with the files
    /// that it has open. A follower replaces it by a checkpoint; the open database of the leader may be
    /// the only one with committed metrics, so it is not closed while another nimbus can follow it.
    pub(crate) fn problem(&self, state: ReplicaState) -> Option<String> {
        let what = "the directory of the metric store was deleted while this nimbus runs: its metrics are lost when it \
                    stops";
        let next = match state {
            ReplicaState::Following => "it fetches them from the leader",
            ReplicaState::TakingOver | ReplicaState::Leading => {
                "it leads, so it keeps them open and cannot replace them. Let another nimbus catch up (METRICS \
                 `current` in `stormkeeper nimbuses`), then restart this one, which fetches them from the next \
                 leader; if it is the only nimbus, it begins anew at its next start"
            }
        };
        self.is_dir_gone().then(|| format!("{what}; {next}"))
    }

    /// Looks whether the directory of the open store is there, until the end.
    async fn watch_dir(&self, dir: PathBuf) {
        loop {
            tokio::time::sleep(DIR_CHECK_PERIOD).await;
            let looked_at = dir.clone();
            let is_gone = blocking::run(move || has_no_database(&looked_at)).await;
            if !is_gone {
                self.note_dir_is_back();
            } else if !self.is_dir_gone.send_replace(true) {
                error!(
                    dir = %dir.display(),
                    "the directory of the metric store was deleted: a follower fetches a checkpoint, a leader goes on \
                     with its open files until it is restarted"
                );
            }
        }
    }

    /// Opens the metric store below `local_dir`, with a pause after each failure, and closes it at
    /// the end.
    ///
    /// `tasks` must not be the set that runs this future: the store's own tasks end after every user
    /// of the store.
    pub(crate) async fn keep_open(
        self,
        local_dir: &Path,
        options: metric_store::Options,
        pause: Duration,
        tasks: Tasks,
        cancelled: CancellationToken,
    ) {
        let tasks = std::sync::Arc::new(tasks);
        let medium = options.medium.clone();
        loop {
            let (dir, options) = (local_dir.to_owned(), options.clone());
            let threads = std::sync::Arc::clone(&tasks);
            let opened = blocking::run(move || {
                checkpoint::remove_stale(&options.medium, &dir);
                MetricStore::open(&dir.join(DIR), options, &threads)
            });
            match opened.await {
                Ok(store) => {
                    let at = store.position();
                    info!(term = at.term, index = at.index, "metric store is open");
                    self.state.send_replace(StoreState::Open(store));
                    self.publish_failure(None);
                    let on_disk = matches!(medium, metric_store::Medium::Disk);
                    tokio::select! {
                        biased;
                        // Cancel-safe: both only wait.
                        () = cancelled.cancelled() => break,
                        () = self.watch_dir(local_dir.join(DIR)), if on_disk => {}
                    }
                    break;
                }
                Err(error) => {
                    let reason = error_chain(&error);
                    warn!(
                        error = reason,
                        "cannot open the metric store; nimbus runs without metrics and tries again"
                    );
                    self.publish_failure(Some(&reason));
                    self.state.send_replace(StoreState::Unavailable(reason));
                }
            }
            tokio::select! {
                biased;
                // Cancel-safe: both only wait.
                () = cancelled.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.state.send_replace(StoreState::Unavailable("this nimbus is stopping".to_owned()));
        tasks.stop(STOP_PATIENCE).await;
    }

    /// Publishes the reason only if it has changed: it is in the record of this nimbus in ZooKeeper.
    fn publish_failure(&self, reason: Option<&String>) {
        self.open_failure.send_if_modified(|published| {
            let is_changed = published.as_ref() != reason;
            if is_changed {
                *published = reason.cloned();
            }
            is_changed
        });
    }
}
