//! RocksDB; the only module that names it. The database is opened, closed and reopened here, so that
//! a full disk or a fetched copy needs no restart.
//!
//! ```text
//! {dir}/db                        the open database
//! {dir}/next                      a complete fetched copy that replaces it
//! {dir}/before                    the replaced database, until it is removed
//! {dir}/next-quarantine-*         as `next`; the replaced database is quarantined
//! {dir}/quarantine-{term}-{index} quarantined database, by the last entry of its log; never removed
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

pub(super) use swap::OldDatabase;
pub(super) use view::{Batch, Cursor, View};

/// Size of the probe file: the data that opening the database writes, and some reserve.
const PROBE_BYTES: usize = 4 << 20;

/// Database of one nimbus. Readers share it, and wait only while it is replaced.
pub(super) struct Store {
    dir: PathBuf,
    retention: Retention,
    cache_bytes: usize,
    /// Retention clock in minutes: expired points are removed at the next compaction.
    now: Arc<AtomicU32>,
    // Held for reading during every read and write, so that the handle is closed only when nothing
    // uses it.
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

    /// Sets the time from which compaction computes the age of points.
    pub(super) fn set_now(&self, now: Minute) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// Runs `work` on the open database. Reads must not take long: the replacement of the database
    /// waits for them.
    pub(super) fn with<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T, Error>) -> Result<T, Error> {
        // A panic of a reader does not change the handle.
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = guard.as_ref() else {
            let detail = "the database is closed until it can be reopened".to_owned();
            let is_stopped = self.is_stopped.load(Ordering::Relaxed);
            return Err(if is_stopped {
                Error::Stopped
            } else {
                Error::Read { path: self.dir.clone(), detail }
            });
        };
        work(&View::new(db, &self.dir))
    }

    /// Closes the database. All later calls return [`Error::Stopped`].
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

    /// Closes and reopens the database: RocksDB accepts no write after a failed one. A replacement
    /// that was interrupted is finished first.
    pub(super) fn reopen(&self) -> Result<(), Error> {
        self.close();
        self.finish_swap().map_err(|error| self.cannot_open(&error))?;
        let db = self.open_at(&self.dir.join("db"))?;
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
        Ok(())
    }

    /// Checks that the disk accepts writes, so that a database on a full disk is not reopened in vain.
    pub(super) fn probe_write(&self) -> io::Result<()> {
        let probe = self.dir.join("probe");
        let written = fs::write(&probe, vec![0xa5; PROBE_BYTES]);
        fs::remove_file(&probe)?;
        written
    }

    /// Makes a complete copy in `dir`, which must not exist. The copy is cheap only on the same file
    /// system.
    pub(super) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.with(|view| view.checkpoint(dir))
    }

    fn cannot_open(&self, error: &io::Error) -> Error {
        Error::Open { path: self.dir.clone(), detail: error.to_string() }
    }
}
