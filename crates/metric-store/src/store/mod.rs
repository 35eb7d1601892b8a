//! RocksDB: the only code that names it. It is opened, closed and opened again here, so that a
//! full disk or a fetched copy needs no restart.
//!
//! ```text
//! {dir}/db                 what is open
//! {dir}/next               a fetched copy, complete, that takes its place
//! {dir}/before             what it took the place of, until it is removed
//! {dir}/next-aside-*       as `next`; what it takes the place of is put aside
//! {dir}/aside-{term}-{index} what was put aside, up to which entry of its log; never removed
//! ```

mod open;
mod swap;
mod view;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::{Error, Options, Retention};
use stormkeeper_metrics::Minute;

pub(super) use swap::Former;
pub(super) use view::{Batch, Cursor, View};

/// What opening the database writes, and some room for what follows.
const PROBE_BYTES: usize = 4 << 20;

/// The database of one nimbus. Readers share it; only while it is swapped they wait.
pub(super) struct Store {
    dir: PathBuf,
    retention: Retention,
    cache_bytes: usize,
    /// What is older than this minute's retention may go at the next compaction.
    now: Arc<AtomicU32>,
    // Held for reading while anything is read or written, so that a handle is only closed
    // when no one uses it.
    db: RwLock<Option<rocksdb::DB>>,
    is_stopped: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let store = Self {
            dir: dir.to_owned(),
            retention: options.retention,
            cache_bytes: options.cache_bytes,
            now: Arc::new(AtomicU32::new(0)),
            db: RwLock::new(None),
            is_stopped: AtomicBool::new(false),
        };
        fs::create_dir_all(dir).map_err(|error| store.cannot_open(&error))?;
        store.reopen()?;
        Ok(store)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets what is older than the retention, seen from `now`, go.
    pub(super) fn set_now(&self, now: Minute) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// Runs `work` on the open database. It must not take long when it only reads: a swap
    /// waits for it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T, Error>) -> Result<T, Error> {
        // A panic of a reader leaves the handle as it was.
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = guard.as_ref() else {
            let detail = "it is closed until it can be opened again".to_owned();
            let is_stopped = self.is_stopped.load(Ordering::Relaxed);
            return Err(if is_stopped {
                Error::Stopped
            } else {
                Error::Read { path: self.dir.clone(), detail }
            });
        };
        work(&View::new(db, &self.dir))
    }

    /// Closes the database. Whoever asks after that is told that the archive is closed.
    pub(super) fn close_for_good(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.close();
    }

    pub(super) fn is_open(&self) -> bool {
        self.db.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn close(&self) {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(db) = db {
            db.cancel_all_background_work(true);
        }
    }

    /// Closes it and opens it again: after a write failed, RocksDB takes no others. A swap that
    /// was begun comes first.
    pub(super) fn reopen(&self) -> Result<(), Error> {
        self.close();
        self.finish_swap().map_err(|error| self.cannot_open(&error))?;
        let db = self.open_at(&self.dir.join("db"))?;
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
        Ok(())
    }

    /// Whether the disk takes anything: so that a full one is not opened on again and again.
    pub(super) fn has_room(&self) -> io::Result<()> {
        let probe = self.dir.join("probe");
        let written = fs::write(&probe, vec![0xa5; PROBE_BYTES]);
        fs::remove_file(&probe)?;
        written
    }

    /// A complete copy in `dir`, which must not exist and must be on the same file system to
    /// be cheap.
    pub(super) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.with(|view| view.checkpoint(dir))
    }

    fn cannot_open(&self, error: &io::Error) -> Error {
        Error::Open { path: self.dir.clone(), detail: error.to_string() }
    }
}
