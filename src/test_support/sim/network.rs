//! HTTP between processes: whoever is up and reachable is asked in memory.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::StatusCode;

use crate::{
    model::{BlobKey, Term},
    nimbus::Handle,
    rpc::blobs::{BlobPeers, FetchBlob, FetchError},
};

/// How long a request takes to get there.
const LATENCY: Duration = Duration::from_millis(2);

/// Every nimbus that listens, by its API address.
#[derive(Debug, Default)]
pub(super) struct Network {
    // Guards who listens; held for a few instructions.
    stations: Mutex<BTreeMap<String, Station>>,
}

#[derive(Debug)]
struct Station {
    handle: Handle,
    is_frozen: bool,
}

impl Network {
    pub(super) fn join(&self, handle: Handle) {
        self.lock().insert(handle.api().to_owned(), Station { handle, is_frozen: false });
    }

    pub(super) fn leave(&self, api: &str) {
        self.lock().remove(api);
    }

    /// A frozen process does not answer.
    pub(super) fn freeze(&self, api: &str, is_frozen: bool) {
        if let Some(station) = self.lock().get_mut(api) {
            station.is_frozen = is_frozen;
        }
    }

    /// The nimbus that answers at `api`.
    pub(super) fn reach(&self, api: &str) -> Option<Handle> {
        self.lock().get(api).filter(|station| !station.is_frozen).map(|station| station.handle.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Station>> {
        self.stations.lock().expect("no one panics while holding the network")
    }
}

#[async_trait]
impl BlobPeers for Network {
    async fn ask_to_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError> {
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
