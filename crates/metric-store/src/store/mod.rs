//! Database of a store: RocksDB on disk, or its twin in memory. No other module names RocksDB. The
//! database is opened, closed and reopened here, so that a full disk or a fetched copy needs no
//! restart.
//!
//! ```text
//! {dir}/layout                    version of these names
//! {dir}/db                        the open database
//! {dir}/next                      a complete fetched copy that replaces it
//! {dir}/before                    the replaced database, until it is removed
//! {dir}/next-quarantine-*         as `next`; the replaced database is quarantined
//! {dir}/quarantine-{term}-{index} quarantined database, by the last entry of its log; never removed
//! ```

mod database;
mod medium;
mod memory;
mod rocks;
mod rules;
mod swap;

#[cfg(test)]
mod contract;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Error, Options,
    key::{self, Setting, Table},
    record::{self, FORMAT},
};
use database::Database;
use rules::Expiry;
use stormkeeper_metrics::Minute;

pub use medium::{CheckpointSource, DirectoryChange, Medium, MemoryDisk};

pub(super) use database::{Batch, Cursor, View};
pub(super) use swap::OldDatabase;

/// Database of one nimbus. Readers share it, and wait only while it is replaced.
pub(super) struct Store {
    dir: PathBuf,
    medium: Medium,
    cache_bytes: usize,
    /// Points that the next compaction removes.
    expiry: Expiry,
    // Held for reading during every read and write, so that the handle is closed only when nothing
    // uses it.
    db: RwLock<Option<Database>>,
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
            medium: options.medium.clone(),
            cache_bytes: options.cache_bytes,
            expiry: Expiry::new(options.retention),
            db: RwLock::new(None),
            is_stopped: AtomicBool::new(false),
        };
        store.medium.prepare_dir(dir)?;
        store.reopen()?;
        Ok(store)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets the time from which compaction computes the age of points.
    pub(super) fn set_now(&self, now: Minute) {
        self.expiry.set_now(now);
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
        work(&db.view(&self.dir))
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
            db.stop();
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
        self.medium.probe_write(&self.dir)
    }

    /// Makes a complete copy in `dir`, which must not exist. The copy is cheap only on the same file
    /// system.
    pub(super) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.with(|view| view.checkpoint(dir))
    }

    fn open_at(&self, path: &Path) -> Result<Database, Error> {
        let db = self.medium.open(path, &self.dir, &self.expiry, self.cache_bytes)?;
        check_format(&db.view(&self.dir), &self.dir)?;
        Ok(db)
    }

    fn cannot_open(&self, error: &io::Error) -> Error {
        Error::Open { path: self.dir.clone(), detail: error.to_string() }
    }
}

/// Writes the format into a new database, and rejects a database of another format.
fn check_format(view: &View<'_>, dir: &Path) -> Result<(), Error> {
    let key = key::setting(Setting::Format);
    match view.get(Table::State, &key)? {
        None => {
            let mut batch = view.batch();
            batch.put(Table::State, &key, &record::encode(&FORMAT));
            view.write(batch)?;
            view.sync()
        }
        Some(bytes) => {
            let found: u32 = record::decode("the format", &bytes)?;
            if found != FORMAT {
                return Err(Error::Version { path: dir.to_owned(), found, known: FORMAT });
            }
            Ok(())
        }
    }
}
