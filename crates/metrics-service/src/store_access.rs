//! Access of the parts to the metric store, which is opened again and again until it succeeds.

use std::{path::Path, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{RequestError, replication::checkpoint, service::STOP_PATIENCE};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_runtime::{blocking, error_chain, tasks::Tasks, watch};

/// Directory of the metric store below the local directory.
const DIR: &str = "metrics";

/// Availability of the metric store. Clones share the same state.
#[derive(Debug, Clone)]
pub(crate) struct StoreAccess {
    state: watch::Sender<StoreState>,
    /// Reason why the metric store cannot be opened; `None` while it is open, and before the first
    /// attempt.
    open_failure: watch::Sender<Option<String>>,
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
                    cancelled.cancelled().await;
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
