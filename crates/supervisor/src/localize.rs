//! Localizing blobs on this host: `blobs/<sha256>/`, unpacked, shared by all slots.
//!
//! The agent states the set of needed blobs again and again. The localizer fetches the missing
//! blobs for as long as they are needed, each in a separate task with its own backoff, and removes
//! blobs that were unused for the retention. A blob is either complete or absent: downloads and
//! unpacking use temporary names, which are removed at the next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    offer,
    slot::Blob,
    unpack::{self, unpack},
};
use stormkeeper_api_types::blobs::{FetchBlob, FetchError};
use stormkeeper_coordination::cluster::store::{self, Store};
use stormkeeper_model::{
    BlobKey,
    backoff::Delays,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    blocking, error_chain,
    fs::{atomic_file, modes},
    tasks::{OnExit, Tasks},
};

const DIR: &str = "blobs";

/// Part of every temporary name; no blob key contains it.
const TEMPORARY: &str = ".tmp-";

/// Suffix of a damaged blob; no blob key ends with it.
const DAMAGED: &str = ".damaged";

/// Bounds of the pause between two attempts to fetch a blob.
const RETRY: Delays = Delays::between(Duration::from_millis(500), Duration::from_secs(30));

/// Length of the queue of outcomes that the agent has not received; senders wait while it is full.
const OUTCOMES: usize = 64;

/// Outcome of an attempt to localize a blob.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The blob is unpacked on this host.
    Arrived(BlobKey),
    /// The attempt failed; the next one follows after a pause.
    Failed {
        /// The blob.
        key: BlobKey,
        /// The chain of causes.
        reason: String,
        /// True if the attempt would fail on any other host as well.
        everywhere: bool,
    },
}

/// Cause of a failed attempt to localize a blob.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot find out which nimbuses have the blob")]
    Holders(#[source] store::Error),
    #[error("no nimbus has the blob")]
    NoHolder,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    #[error("cannot move the blob to {}", path.display())]
    Place { path: PathBuf, source: io::Error },
}

impl Error {
    /// True if the attempt would fail on any other host as well: no nimbus gives the blob, or nobody
    /// can unpack it.
    fn is_everywhere(&self) -> bool {
        match self {
            Self::NoHolder | Self::Unpack(unpack::Error::Package(_)) => true,
            Self::Fetch(error) => match error {
                FetchError::Http { .. }
                | FetchError::Refused { .. }
                | FetchError::TooLarge { .. }
                | FetchError::WrongBytes { .. } => true,
                FetchError::Setup(_) | FetchError::Read { .. } | FetchError::Write { .. } => false,
            },
            Self::Holders(_)
            | Self::Unpack(unpack::Error::Read { .. } | unpack::Error::Write { .. })
            | Self::Place { .. } => false,
        }
    }
}

/// The blobs of this host.
#[derive(Debug)]
pub(super) struct Localizer {
    fetcher: Fetcher,
    clock: Clock,
    retention: Duration,
    tasks: Tasks,
    outcomes: mpsc::Sender<Outcome>,
    blobs: BTreeMap<BlobKey, Local>,
}

#[derive(Debug)]
enum Local {
    Present {
        unused_since: Option<Monotonic>,
    },
    /// Dropping the tasks ends the fetch.
    Fetching {
        _task: Tasks,
    },
}

impl Localizer {
    /// Opens the blobs in `local_dir`. Returns the receiver of the outcomes of fetches as well.
    /// Blocks.
    ///
    /// # Errors
    /// If the directory cannot be created or listed.
    pub(super) fn open(
        local_dir: &Path,
        retention: Duration,
        (store, client): (Store, Arc<dyn FetchBlob>),
        clock: Clock,
        tasks: &Tasks,
    ) -> io::Result<(Self, mpsc::Receiver<Outcome>)> {
        let dir = local_dir.join(DIR);
        modes::create_dir_all(&dir)?;
        let mut blobs = BTreeMap::new();
        for file in fs::read_dir(&dir)? {
            let file = file?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_temporary = |name: &str| {
                name.split_once(TEMPORARY).is_some_and(|(key, _)| key.parse::<BlobKey>().is_ok())
            };
            match name.parse() {
                Ok(key) if file.file_type()?.is_dir() => {
                    blobs.insert(key, Local::Present { unused_since: None });
                }
                // Anything else is not ours.
                Ok(_) => {
                    warn!(path = %file.path().display(), "not a directory: not a blob of this supervisor")
                }
                Err(_) if is_temporary(name) => remove_all(&file.path()),
                Err(_) => {}
            }
        }
        let (outcomes, received) = mpsc::channel(OUTCOMES);
        let fetcher = Fetcher { dir, store, client };
        Ok((Self { fetcher, clock, retention, tasks: tasks.child(), outcomes, blobs }, received))
    }

    /// Directory of a blob that is present.
    pub(super) fn dir_of(&self, key: &BlobKey) -> PathBuf {
        self.fetcher.dir_of(key)
    }

    /// The blobs that are complete.
    pub(super) fn present(&self) -> impl Iterator<Item = BlobKey> {
        let is_present = |(_, local): &(&BlobKey, &Local)| matches!(local, Local::Present { .. });
        self.blobs.iter().filter(is_present).map(|(key, _)| key.clone())
    }

    /// Progress of localizing a blob.
    pub(super) fn state(&self, key: &BlobKey) -> Blob {
        match self.blobs.get(key) {
            Some(Local::Present { .. }) => Blob::Present,
            Some(Local::Fetching { .. }) | None => Blob::Fetching,
        }
    }

    /// Sets the blobs that are needed now: starts to fetch the missing ones, cancels fetches that
    /// are no longer needed, and removes blobs that were unused for the retention.
    pub(super) fn want(&mut self, wanted: &BTreeSet<BlobKey>) {
        let now = self.clock.monotonic();
        let mut outdated = Vec::new();
        self.blobs.retain(|key, local| match local {
            Local::Fetching { .. } => wanted.contains(key),
            Local::Present { unused_since } if wanted.contains(key) => {
                *unused_since = None;
                true
            }
            Local::Present { unused_since } => {
                let is_outdated = now.since(*unused_since.get_or_insert(now)) >= self.retention;
                if is_outdated {
                    outdated.push(key.clone());
                }
                !is_outdated
            }
        });
        for key in outdated {
            info!(blob = %key, "removing a blob that no slot uses");
            self.remove(&key);
            remove_all(&self.fetcher.dir.join(format!("{key}{DAMAGED}")));
        }
        for key in wanted {
            if !self.blobs.contains_key(key) {
                self.blobs.insert(key.clone(), Local::Fetching { _task: self.fetch(key) });
            }
        }
    }

    /// Records that a blob is present.
    pub(super) fn arrived(&mut self, key: BlobKey) {
        self.blobs.insert(key, Local::Present { unused_since: None });
    }

    /// Puts a blob aside that was present and is missing or damaged; it is fetched again while it
    /// is needed. Only the last damaged copy of a blob is kept. Does nothing for a blob that is not
    /// present: it was found damaged twice, and may be on its way again.
    pub(super) fn lost(&mut self, key: &BlobKey) {
        if !matches!(self.blobs.get(key), Some(Local::Present { .. })) {
            return;
        }
        self.blobs.remove(key);
        let (dir, aside) = (self.dir_of(key), self.fetcher.dir.join(format!("{key}{DAMAGED}")));
        if fs::symlink_metadata(&dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return warn!(blob = %key, "a localized blob is missing on disk: fetching it again");
        }
        remove_all(&aside);
        match fs::rename(&dir, &aside) {
            Ok(()) => {
                warn!(blob = %key, kept = %aside.display(), "a localized blob is damaged: put aside, and fetched again");
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                warn!(
                    path = %dir.display(), %error,
                    "a blob cannot be put aside and stays: make its directory writable for the user of the supervisor"
                );
            }
            Err(error) => {
                warn!(blob = %key, %error, "a damaged blob cannot be put aside: removing it");
                self.remove(key);
            }
        }
    }

    /// The blobs that are present, with their directories.
    pub(super) fn present_dirs(&self) -> Vec<(BlobKey, PathBuf)> {
        let present = self.blobs.iter().filter(|(_, local)| matches!(local, Local::Present { .. }));
        present.map(|(key, _)| (key.clone(), self.dir_of(key))).collect()
    }

    /// Removes a blob. Its name is free at once, its disk space a little later.
    fn remove(&self, key: &BlobKey) {
        let (dir, trash) = (self.dir_of(key), self.fetcher.temporary(key, "gone"));
        match fs::rename(&dir, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn!(blob = %key, %error, "cannot remove a blob"),
        }
        self.tasks.start("remove blob", OnExit::Ignore, async move {
            blocking::run(move || remove_all(&trash)).await;
        });
    }

    fn fetch(&self, key: &BlobKey) -> Tasks {
        let task = self.tasks.child();
        let (fetcher, outcomes, key) = (self.fetcher.clone(), self.outcomes.clone(), key.clone());
        task.start("localize", OnExit::Ignore, async move {
            let mut backoff = RETRY.backoff();
            while let Err(error) = fetcher.localize(&key).await {
                let delay = backoff.next_delay();
                let reason = error_chain(&error);
                warn!(blob = %key, reason, retry_in = ?delay, "cannot localize a blob");
                let failed = Outcome::Failed { key: key.clone(), reason, everywhere: error.is_everywhere() };
                // Fails only when the agent has ended.
                let _agent_is_gone = outcomes.send(failed).await;
                tokio::time::sleep(delay).await;
            }
            info!(blob = %key, "localized a blob");
            // Fails only when the agent has ended.
            let _agent_is_gone = outcomes.send(Outcome::Arrived(key)).await;
        });
        task
    }
}

#[derive(Debug, Clone)]
struct Fetcher {
    dir: PathBuf,
    store: Store,
    client: Arc<dyn FetchBlob>,
}

impl Fetcher {
    fn dir_of(&self, key: &BlobKey) -> PathBuf {
        self.dir.join(key.as_str())
    }

    /// A name that is unique in this process; earlier processes' names are removed at the start.
    fn temporary(&self, key: &BlobKey, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.dir.join(format!("{key}{TEMPORARY}{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    async fn localize(&self, key: &BlobKey) -> Result<(), Error> {
        let download = Temporary(self.temporary(key, "tar"));
        let dir = self.dir.clone();
        // It may have been deleted since the start.
        let created = blocking::run(move || modes::create_dir_all(&dir)).await;
        created.map_err(|source| Error::Place { path: self.dir.clone(), source })?;
        self.download(key, &download.0).await?;
        let (unpacked, dir) = (Temporary(self.temporary(key, "dir")), self.dir_of(key));
        // Not cancelled in between: the task ends by itself and removes its temporary files.
        let (local_dir, key) = (self.dir.parent().map_or_else(PathBuf::new, Path::to_owned), key.clone());
        let place = move || {
            unpack(&download.0, &unpacked.0)?;
            place(&unpacked.0, &dir).map_err(|source| Error::Place { path: dir, source })?;
            if let Err(error) = offer::keep(&local_dir, &key, &download.0) {
                warn!(blob = %key, %error, "cannot keep the file of a package; it is fetched again later");
            }
            Ok(())
        };
        blocking::run(place).await
    }

    /// Downloads the blob from the nimbuses that have it, in random order, until one succeeds.
    async fn download(&self, key: &BlobKey, into: &Path) -> Result<(), Error> {
        let mut holders = self.store.blob_sources(key).await.map_err(Error::Holders)?;
        fastrand::shuffle(&mut holders);
        if holders.is_empty() {
            // A leader that just restarted may have the blob before the tree lists it.
            holders.extend(self.store.leader().await.map_err(Error::Holders)?.map(|leader| leader.api));
        }
        let mut last = Error::NoHolder;
        for api in holders {
            match self.client.fetch(&api, key, into).await {
                Ok(_n_bytes) => return Ok(()),
                Err(error) => last = error.into(),
            }
            remove_all(into);
        }
        Err(last)
    }
}

/// Returns the blobs whose directories do not exist. Blocks.
pub(super) fn missing(blobs: &[(BlobKey, PathBuf)]) -> Vec<BlobKey> {
    let is_missing =
        |dir: &Path| fs::symlink_metadata(dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    blobs.iter().filter(|(_, dir)| is_missing(dir)).map(|(key, _)| key.clone()).collect()
}

/// Syncs an unpacked blob to disk and renames it to its final name.
fn place(unpacked: &Path, dir: &Path) -> io::Result<()> {
    // One system call for a blob of any number of files.
    rustix::fs::syncfs(fs::File::open(unpacked)?)?;
    match fs::rename(unpacked, dir) {
        // A cancelled task may have finished all the same: its bytes are identical.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        renamed => renamed?,
    }
    atomic_file::sync_parent(dir)
}

/// A path that is removed on drop, if it still exists.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        remove_all(&self.0);
    }
}

fn remove_all(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(path = %path.display(), %error, "cannot remove a file or directory of a blob"),
    }
}

#[cfg(test)]
#[path = "localize_tests.rs"]
mod tests;
