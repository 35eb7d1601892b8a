//! HTTP between processes: requests to a reachable process are calls in memory.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::StatusCode;

use stormkeeper_api_types::blobs::{BlobPeers, FetchBlob, FetchError};
use stormkeeper_model::{BlobKey, Term};
use stormkeeper_nimbus::Handle;

/// Latency of a request.
const LATENCY: Duration = Duration::from_millis(2);

/// All listening nimbuses, by API address.
#[derive(Debug, Default)]
pub(super) struct Network {
    // Guards the listening nimbuses; held for a few instructions.
    listeners: Mutex<BTreeMap<String, Listener>>,
}

#[derive(Debug)]
struct Listener {
    handle: Handle,
    is_frozen: bool,
}

impl Network {
    pub(super) fn join(&self, handle: Handle) {
        self.lock().insert(handle.api().to_owned(), Listener { handle, is_frozen: false });
    }

    pub(super) fn leave(&self, api: &str) {
        self.lock().remove(api);
    }

    /// Freezes a process, which then does not respond, or resumes it.
    pub(super) fn freeze(&self, api: &str, is_frozen: bool) {
        if let Some(listener) = self.lock().get_mut(api) {
            listener.is_frozen = is_frozen;
        }
    }

    /// The nimbus that responds at `api`.
    pub(super) fn reach(&self, api: &str) -> Option<Handle> {
        self.lock().get(api).filter(|listener| !listener.is_frozen).map(|listener| listener.handle.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Listener>> {
        self.listeners.lock().expect("no one panics while holding the network")
    }
}

#[async_trait]
impl BlobPeers for Network {
    async fn request_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError> {
        tokio::time::sleep(LATENCY).await;
        let refused = |status| FetchError::Refused { api: api.to_owned(), key: key.clone(), status };
        let handle = self.reach(api).ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE))?;
        handle.copy_blob(key, from.to_owned(), term).await.map_err(|_refusal| refused(StatusCode::CONFLICT))
    }
}

#[async_trait]
impl FetchBlob for Network {
    async fn fetch(&self, api: &str, key: &BlobKey, into: &Path) -> Result<u64, FetchError> {
        tokio::time::sleep(LATENCY).await;
        let refused = |status| FetchError::Refused { api: api.to_owned(), key: key.clone(), status };
        let handle = self.reach(api).ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE))?;
        let (path, _) = handle.blobs().file(key).ok_or_else(|| refused(StatusCode::NOT_FOUND))?;
        std::fs::copy(path, into).map_err(|source| FetchError::Write { path: into.to_owned(), source })
    }
}
