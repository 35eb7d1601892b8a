//! Bringing blobs to this machine: `blobs/<sha256>/`, unpacked, shared by all slots.
//!
//! What is wanted is a set that the agent states again and again; the localizer fetches what
//! is missing for as long as it is wanted, each blob in a task of its own with a backoff of
//! its own, and removes what nobody has wanted for a while. A blob is either whole or not
//! there: downloads and unpacking happen under temporary names, which a start removes.

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
    backoff::Backoff,
    clock::{Clock, Monotonic},
    cluster::store::{self, Store},
    daemon::{
        blocking,
        tasks::{Ending, Tasks},
    },
    model::BlobKey,
    rpc::blobs::{FetchBlob, FetchError},
    supervisor::{
        durable,
        slot::Blob,
        unpack::{self, unpack},
    },
};

const DIR: &str = "blobs";

/// Part of every temporary name. No key holds it.
const TEMPORARY: &str = ".tmp-";

/// Between two tries to fetch a blob, when no holder could give it.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Blobs that have arrived and not been taken note of; a sender waits while it is full.
const ARRIVALS: usize = 64;

/// Why one try to bring a blob here failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot find out who has it")]
    Holders(#[source] store::Error),
    #[error("no nimbus has it")]
    NoHolder,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    #[error("cannot move it to {}", path.display())]
    Place { path: PathBuf, source: io::Error },
}

/// The blobs of this machine.
#[derive(Debug)]
pub(super) struct Localizer {
    fetcher: Fetcher,
    clock: Clock,
    retention: Duration,
    tasks: Tasks,
    arrivals: mpsc::Sender<BlobKey>,
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
    /// The blobs in `local_dir`, and where the keys of those that arrive come out. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub(super) fn open(
        local_dir: &Path,
        retention: Duration,
        (store, client): (Store, Arc<dyn FetchBlob>),
        clock: Clock,
        tasks: &Tasks,
    ) -> io::Result<(Self, mpsc::Receiver<BlobKey>)> {
        let dir = local_dir.join(DIR);
        fs::create_dir_all(&dir)?;
        let mut blobs = BTreeMap::new();
        for file in fs::read_dir(&dir)? {
            let file = file?;
            let name = file.file_name();
            if let Some(key) = name.to_str().and_then(|name| name.parse().ok()) {
                blobs.insert(key, Local::Present { unused_since: None });
            } else if name.to_string_lossy().contains(TEMPORARY) {
                remove_all(&file.path());
            }
        }
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        let fetcher = Fetcher { dir, store, client };
        Ok((Self { fetcher, clock, retention, tasks: tasks.child(), arrivals, blobs }, arrived))
    }

    /// Where a blob is when it is present.
    pub(super) fn dir_of(&self, key: &BlobKey) -> PathBuf {
        self.fetcher.dir_of(key)
    }

    /// How far a blob is.
    pub(super) fn state(&self, key: &BlobKey) -> Blob {
        match self.blobs.get(key) {
            Some(Local::Present { .. }) => Blob::Present,
            Some(Local::Fetching { .. }) | None => Blob::Fetching,
        }
    }

    /// States all that is wanted now: starts what is missing, gives up what is not wanted any
    /// more, and removes what has not been wanted for the retention.
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
        }
        for key in wanted {
            if !self.blobs.contains_key(key) {
                self.blobs.insert(key.clone(), Local::Fetching { _task: self.fetch(key) });
            }
        }
    }

    /// Takes note that a blob has arrived.
    pub(super) fn arrived(&mut self, key: BlobKey) {
        self.blobs.insert(key, Local::Present { unused_since: None });
    }

    /// Takes note that a blob that was present is damaged; it is fetched again while it is
    /// wanted.
    pub(super) fn lost(&mut self, key: &BlobKey) {
        warn!(blob = %key, "a blob has gone from the disk: fetching it again");
        if self.blobs.remove(key).is_some() {
            self.remove(key);
        }
    }

    /// The name is free at once, the bytes a little later.
    fn remove(&self, key: &BlobKey) {
        let (dir, aside) = (self.dir_of(key), self.fetcher.temporary(key, "gone"));
        match fs::rename(&dir, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn!(blob = %key, %error, "cannot remove a blob"),
        }
        self.tasks.start("remove blob", Ending::Normal, async move {
            blocking::run(move || remove_all(&aside)).await;
        });
    }

    fn fetch(&self, key: &BlobKey) -> Tasks {
        let task = self.tasks.child();
        let (fetcher, arrivals, key) = (self.fetcher.clone(), self.arrivals.clone(), key.clone());
        task.start("localize", Ending::Normal, async move {
            let mut backoff =
                Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("constants in order");
            while let Err(error) = fetcher.localize(&key).await {
                let delay = backoff.next_delay();
                let reason = chain(&error);
                warn!(blob = %key, reason, retry_in = ?delay, "cannot bring a blob here");
                tokio::time::sleep(delay).await;
            }
            info!(blob = %key, "localized");
            // Fails only when the agent is gone.
            let _agent_is_gone = arrivals.send(key).await;
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

    /// A name that nothing in this process or, after a start, in this directory has.
    fn temporary(&self, key: &BlobKey, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.dir.join(format!("{key}{TEMPORARY}{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    async fn localize(&self, key: &BlobKey) -> Result<(), Error> {
        let download = Temporary(self.temporary(key, "tar"));
        self.download(key, &download.0).await?;
        let (unpacked, dir) = (Temporary(self.temporary(key, "dir")), self.dir_of(key));
        // Not cancelled in the middle: it ends by itself and leaves nothing temporary behind.
        let place = move || {
            unpack(&download.0, &unpacked.0)?;
            place(&unpacked.0, &dir).map_err(|source| Error::Place { path: dir, source })
        };
        blocking::run(place).await
    }

    /// Asks every nimbus that has the blob, in any order, until one gives it.
    async fn download(&self, key: &BlobKey, into: &Path) -> Result<(), Error> {
        let mut holders = self.store.blob_holders(key).await.map_err(Error::Holders)?;
        fastrand::shuffle(&mut holders);
        if holders.is_empty() {
            // A leader that just came back may have the bytes before it says so in the tree.
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

/// Gives an unpacked blob its name, with its bytes on disk before.
fn place(unpacked: &Path, dir: &Path) -> io::Result<()> {
    // One call for a blob of any number of files.
    rustix::fs::syncfs(fs::File::open(unpacked)?)?;
    match fs::rename(unpacked, dir) {
        // A task that was given up may have finished all the same: the bytes are the same.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        renamed => renamed?,
    }
    durable::sync_dir(dir)
}

/// Removed when dropped, if it is still there.
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
        Err(error) => warn!(path = %path.display(), %error, "cannot remove"),
    }
}

/// An error with its causes, for one line of a log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "localize_tests.rs"]
mod tests;
