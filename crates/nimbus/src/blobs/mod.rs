//! The blobs of this nimbus: files named by their sha256, announced in the tree.
//!
//! A blob is announced only after its bytes are checked, synced and renamed into place, so
//! that every reader of the announcement can fetch them. Every nimbus fetches the missing blobs
//! of live topologies (`replicate.rs`), and deletes blobs that have been unused for a while.
//! A missing blob is never a reason to remove a topology.

pub(crate) mod copies;
mod disk;
mod error;
pub(super) mod replicate;
pub(crate) mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

pub(crate) use error::Error;
use room::UploadLimits;

use crate::check_turn::CheckTurn;
use stormkeeper_api_types::blobs::FetchBlob;
use stormkeeper_coordination::{
    cluster::{
        layout::Ephemeral,
        presence::Presence,
        record::{self, BlobReplica},
        store::{self, Store},
    },
    tree,
};
use stormkeeper_metrics_service::TopologySource;
use stormkeeper_model::{
    BlobKey, NimbusId,
    clock::{Clock, Monotonic},
    topology::Topology,
};
use stormkeeper_runtime::{
    blocking, error_chain,
    fs::{FailedWrites, atomic_file, modes, regular_file},
};
use stormkeeper_topology_package::package;

/// Time that an announcement may take before the caller gets an error; it continues in the
/// background.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two attempts to create the parent znode of an announcement.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(100);

/// Prefix of files that are being written; no key begins with it.
const TEMPORARY: &str = "tmp-";

/// Shortest time that a blob stays after it was uploaded or used, whatever the retention: its
/// sender is about to submit it.
const RETENTION_MIN: Duration = Duration::from_secs(60);

/// The blobs on the disk of this nimbus. Clones share them.
#[derive(Clone)]
pub struct BlobStore {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    limits: UploadLimits,
    // Bytes of uploads under way.
    receiving: AtomicU64,
    me: NimbusId,
    store: Store,
    presence: Presence,
    clock: Clock,
    writes: FailedWrites,
    // The checked blobs on disk; locked for a few instructions.
    held: Mutex<BTreeMap<BlobKey, StoredBlob>>,
    // Locked while a file and its entry in the list are added or removed together.
    files: tokio::sync::Mutex<()>,
    n_temporary: AtomicU64,
}

#[derive(Clone)]
struct StoredBlob {
    bytes: u64,
    /// Time at which it was uploaded or a topology last used it.
    used: Monotonic,
    /// True if a topology in the last view uses it.
    is_used: bool,
    /// The topology in it, after the first read.
    topology: Option<Arc<Topology>>,
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl BlobStore {
    /// Opens the blobs below `local_dir`. The list is empty until [`BlobStore::scan_disk`].
    ///
    /// # Errors
    /// [`Error::Disk`] if the directory cannot be created.
    pub(super) fn open(
        local_dir: &Path,
        (bytes_max, limits): (u64, UploadLimits),
        me: NimbusId,
        store: Store,
        presence: Presence,
        (clock, writes): (Clock, FailedWrites),
    ) -> Result<Self, Error> {
        let dir = local_dir.join("blobs");
        modes::create_dir_all(&dir).map_err(|source| Error::Disk { path: dir.clone(), source })?;
        // Incomplete files of a crashed process; nothing is being written yet.
        for name in names_in(&dir)?.iter().filter(|name| is_temporary(name)) {
            let path = dir.join(name);
            std::fs::remove_file(&path).map_err(|source| Error::Disk { path, source })?;
        }
        let held = Mutex::new(BTreeMap::new());
        let n_temporary = AtomicU64::new(0);
        let files = tokio::sync::Mutex::new(());
        let receiving = AtomicU64::new(0);
        let shared = Shared {
            dir,
            bytes_max,
            limits,
            receiving,
            me,
            store,
            presence,
            clock,
            writes,
            held,
            files,
            n_temporary,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The largest blob accepted.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }

    /// Returns whether a blob is here, complete and checked.
    pub fn holds(&self, key: &BlobKey) -> bool {
        self.lock().contains_key(key)
    }

    /// The file of a blob and its size; `None` if it is not here.
    pub fn file(&self, key: &BlobKey) -> Option<(PathBuf, u64)> {
        Some((self.path(key), self.lock().get(key)?.bytes))
    }

    /// Records that a blob is about to be used, so that it is not deleted as unused.
    pub(super) fn touch(&self, key: &BlobKey) {
        let now = self.shared.clock.monotonic();
        if let Some(held) = self.lock().get_mut(key) {
            held.used = now;
        }
    }

    /// The topology in a blob; `None` if the blob is not here.
    ///
    /// # Errors
    /// The reason as text if the blob holds no valid topology package.
    pub async fn topology(&self, key: &BlobKey) -> Result<Option<Arc<Topology>>, String> {
        if let Some(known) = self.known_topology(key) {
            return Ok(known);
        }
        let path = self.path(key);
        let topology = blocking::run(move || read_topology(&path)).await;
        self.known_after_read(key, topology).await
    }

    /// True if [`BlobStore::topology`] reads nothing for this blob.
    pub(super) fn has_read_topology(&self, key: &BlobKey) -> bool {
        self.known_topology(key).is_some()
    }

    /// As [`BlobStore::topology`], and returns the turn that reading a topology takes.
    pub(super) async fn topology_in_turn(
        &self,
        key: &BlobKey,
        turn: CheckTurn,
    ) -> (CheckTurn, Result<Option<Arc<Topology>>, String>) {
        if let Some(known) = self.known_topology(key) {
            return (turn, Ok(known));
        }
        let path = self.path(key);
        let (turn, topology) = turn.run(move || read_topology(&path)).await;
        (turn, self.known_after_read(key, topology).await)
    }

    /// Remembers a topology that was read. A blob that cannot be read may have been deleted.
    async fn known_after_read(
        &self,
        key: &BlobKey,
        topology: Result<Topology, String>,
    ) -> Result<Option<Arc<Topology>>, String> {
        match topology {
            Ok(topology) => Ok(Some(self.remember_topology(key, topology))),
            Err(reason) if self.check_file(key).await => Err(reason),
            Err(_) => Ok(None),
        }
    }

    /// The topology in a blob if it is known without reading the blob: it is `Some(None)` if the
    /// blob is not here.
    fn known_topology(&self, key: &BlobKey) -> Option<Option<Arc<Topology>>> {
        match self.lock().get(key) {
            None => Some(None),
            Some(StoredBlob { topology, .. }) => topology.clone().map(Some),
        }
    }

    fn remember_topology(&self, key: &BlobKey, topology: Topology) -> Arc<Topology> {
        let topology = Arc::new(topology);
        if let Some(held) = self.lock().get_mut(key) {
            held.topology = Some(Arc::clone(&topology));
        }
        topology
    }

    /// Stores the bytes of `body` if their sha256 is `key`, and announces the blob. Storing a
    /// blob again changes nothing, and needs room for it for a moment.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::Unannounced`] the blob is kept and will be announced.
    ///
    /// # Cancellation safety
    /// If dropped early, at most a file is left that the next start removes.
    pub async fn put<S, E>(&self, key: &BlobKey, body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: fmt::Display,
    {
        let file = self.temporary();
        let bytes = self.receive(key, body, &file.0).await?;
        self.keep(key, file, bytes).await
    }

    /// Fetches a blob of at most `bytes_max` from the first nimbus of `holders` that sends it, and
    /// announces it.
    ///
    /// # Errors
    /// The error of each nimbus.
    pub(super) async fn fetch(
        &self,
        key: &BlobKey,
        holders: &[String],
        client: &dyn FetchBlob,
        bytes_max: u64,
    ) -> Result<(), String> {
        let mut reasons = Vec::new();
        for holder in holders {
            let file = self.temporary();
            let kept = match client.fetch_at_most(holder, key, &file.0, bytes_max).await {
                Ok(bytes) => self.keep(key, file, bytes).await.map_err(|error| error_chain(&error)),
                Err(error) => Err(error_chain(&error)),
            };
            match kept {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(match reasons.is_empty() {
            true => "no live nimbus has it".to_owned(),
            false => reasons.join("; "),
        })
    }

    /// Writes `body` to a new file and checks its sha256.
    async fn receive<S, E>(&self, key: &BlobKey, body: S, path: &Path) -> Result<u64, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: fmt::Display,
    {
        let (dir, at) = (self.shared.dir.clone(), path.to_owned());
        // The directory may have been deleted since the start.
        let create = move || modes::create_dir_all(&dir).and_then(|()| File::create_new(at));
        let mut file = self.written(path, blocking::run(create).await)?;
        let (mut digest, mut bytes, mut check_at) = (Sha256::new(), 0_u64, 0);
        let mut receiving = self.receiving();
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk =
                chunk.map_err(|error| Error::Interrupted { key: key.clone(), reason: error.to_string() })?;
            bytes += chunk.len() as u64;
            if bytes > self.shared.bytes_max {
                return Err(Error::TooLarge { key: key.clone(), limit: self.shared.bytes_max });
            }
            if bytes > check_at {
                let room = self.check_room(chunk.len() as u64).await;
                room.map_err(|reason| Error::NoRoom { key: key.clone(), reason })?;
                check_at = bytes + room::CHECK_BYTES;
            }
            receiving.add(chunk.len() as u64);
            digest.update(&chunk);
            let written = blocking::run(move || file.write_all(&chunk).map(|()| file)).await;
            file = self.written(path, written)?;
        }
        // With the bytes since the last check.
        let room = self.check_room(0).await;
        room.map_err(|reason| Error::NoRoom { key: key.clone(), reason })?;
        let found = BlobKey::from_digest(&digest.finalize());
        match found == *key {
            true => Ok(bytes),
            false => Err(Error::Mismatch { key: key.clone(), found }),
        }
    }

    /// Renames a checked file into place, durably, and announces the blob.
    async fn keep(&self, key: &BlobKey, file: Temporary, bytes: u64) -> Result<(), Error> {
        let temporary = file.0.clone();
        let synced = blocking::run(move || File::open(temporary)?.sync_all()).await;
        self.written(&file.0, synced)?;
        let files = self.shared.files.lock().await;
        let (temporary, path) = (file.0.clone(), self.path(key));
        let renamed = blocking::run(move || atomic_file::rename(&temporary, &path)).await;
        self.written(&file.0, renamed)?;
        let used = self.shared.clock.monotonic();
        self.lock().insert(key.clone(), StoredBlob { bytes, used, is_used: false, topology: None });
        drop(files);
        info!(blob = %key, bytes, "stored a blob");
        self.announce(key, bytes).await
    }

    /// Announces in the tree that this nimbus has a blob, in this and every later session.
    pub(super) async fn announce(&self, key: &BlobKey, bytes: u64) -> Result<(), Error> {
        let unannounced = |source| Error::Unannounced { key: key.clone(), source };
        let announced = async {
            self.ensure_parent(key).await?;
            self.shared.presence.keep(
                &self.holding(key),
                record::encode(&BlobReplica { bytes, unknown_fields: record::UnknownFields::new() }),
            );
            // It may have been deleted by hand.
            self.shared.presence.verify(&self.holding(key));
            self.shared.presence.settled().await;
            self.shared.presence.denial(&self.holding(key)).map_or(Ok(()), |denial| Err(denial.into()))
        };
        match tokio::time::timeout(ANNOUNCE_TIMEOUT, announced).await {
            Ok(result) => result.map_err(unannounced),
            Err(_too_long) => Err(unannounced(tree::Error::Disconnected.into())),
        }
    }

    /// Creates the parent znode of a blob's announcements; retries until the tree is reachable.
    async fn ensure_parent(&self, key: &BlobKey) -> Result<(), store::Error> {
        loop {
            match self.shared.store.ensure_blob(key).await {
                Err(store::Error::Tree(error)) if error.is_retryable() => {
                    tokio::time::sleep(ANNOUNCE_PAUSE).await
                }
                result => return result,
            }
        }
    }

    /// Lists the blobs with their sizes and the times of their last use.
    fn list(&self) -> Vec<(BlobKey, u64, Monotonic)> {
        self.lock().iter().map(|(key, held)| (key.clone(), held.bytes, held.used)).collect()
    }

    /// Deletes a blob that has been unused for `retention`. The announcement is deleted first, so
    /// that nobody tries to fetch it here. Returns whether the blob was deleted.
    async fn delete_unused(&self, key: &BlobKey, retention: Duration) -> bool {
        let _files = self.shared.files.lock().await;
        if !self.unlist_if_unused(key, self.shared.clock.monotonic(), retention) {
            return false;
        }
        self.shared.presence.withdraw(&self.holding(key));
        remove(&self.path(key)).await;
        info!(blob = %key, "removed a blob that no topology uses");
        true
    }

    /// Removes a blob from the list if it has been unused for `retention`.
    fn unlist_if_unused(&self, key: &BlobKey, now: Monotonic, retention: Duration) -> bool {
        let mut all = self.lock();
        let is_unused = all.get(key).is_some_and(|held| now.since(held.used) >= retention.max(RETENTION_MIN));
        is_unused && all.remove(key).is_some()
    }

    fn holding(&self, key: &BlobKey) -> Ephemeral {
        Ephemeral::BlobReplica(key.clone(), self.shared.me.clone())
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.shared.dir.join(key.as_str())
    }

    fn temporary(&self) -> Temporary {
        let n = self.shared.n_temporary.fetch_add(1, Ordering::Relaxed);
        Temporary(self.shared.dir.join(format!("{TEMPORARY}{}-{n}", std::process::id())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlobKey, StoredBlob>> {
        self.shared.held.lock().expect("no one panics while holding the list of blobs")
    }
}

/// A file that is removed on drop unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Absent if it was renamed; if removing fails the next start removes it.
        let _gone = std::fs::remove_file(&self.0);
    }
}

async fn remove(path: &Path) {
    let doomed = path.to_owned();
    if let Err(error) = blocking::run(move || std::fs::remove_file(doomed)).await {
        warn!(path = %path.display(), %error, "could not remove a file");
    }
}

/// Returns whether a name is one of [`BlobStore::temporary`]: `tmp-PID-NUMBER`.
fn is_temporary(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.strip_prefix(TEMPORARY).and_then(|numbers| numbers.split_once('-'));
    parts.is_some_and(|(pid, n)| is_number(pid) && is_number(n))
}

fn names_in(dir: &Path) -> Result<Vec<String>, Error> {
    let disk = |source| Error::Disk { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(disk)? {
        // A name that is not UTF-8 is no key and no file of ours.
        names.extend(entry.map_err(disk)?.file_name().into_string().ok());
    }
    Ok(names)
}

fn hash(path: &Path) -> std::io::Result<(BlobKey, u64)> {
    let mut file = regular_file::open(path)?;
    let mut digest = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut digest)?;
    Ok((BlobKey::from_digest(&digest.finalize()), bytes))
}

fn read_topology(path: &Path) -> Result<Topology, String> {
    let file = regular_file::open(path).map_err(|error| error.to_string())?;
    package::read_topology(std::io::BufReader::new(file)).map_err(|error| error_chain(&error))
}

#[async_trait]
impl TopologySource for BlobStore {
    async fn topology(&self, blob: &BlobKey) -> Option<Arc<Topology>> {
        Self::topology(self, blob).await.ok().flatten()
    }
}
