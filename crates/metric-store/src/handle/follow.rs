//! Log pages for followers, and the operations of a follower.

use std::{path::PathBuf, sync::Arc};

use super::MetricStore;
use crate::{Error, key::Table, log};
use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetricMeta};
use stormkeeper_model::{LogPosition, TopologyId};
use stormkeeper_runtime::blocking;

impl MetricStore {
    /// Returns the position of the last log entry on disk.
    pub fn position(&self) -> LogPosition {
        self.shared.log().1
    }

    /// Returns the entries after the follower's last one.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn log_after(&self, query: &LogQuery) -> Result<LogPage, Error> {
        let query = query.clone();
        self.read(move |shared, view| {
            let (extent, last) = shared.log();
            log::after(view, extent.base, last, &query)
        })
        .await
    }

    /// Appends entries of the leader, in order from the end of the log on. Returns the position of
    /// the last one on disk.
    ///
    /// # Errors
    /// [`Error::NotNext`], [`Error::Unreadable`]: entries before the bad one are applied.
    /// [`Error::Write`].
    pub async fn apply(&self, entries: Vec<(LogPosition, Vec<u8>)>) -> Result<LogPosition, Error> {
        self.write(move |writer| {
            for (at, bytes) in &entries {
                writer.append_replicated(*at, bytes)?;
            }
            Ok(writer.last)
        })
        .await
    }

    /// Makes a copy of the whole database in `dir`, which must not exist. On the same file system the
    /// copy shares files and needs no additional space.
    ///
    /// # Errors
    /// [`Error::Write`], with the directory.
    pub async fn checkpoint(&self, dir: PathBuf) -> Result<(), Error> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let shared = Arc::clone(&self.shared);
        blocking::run(move || {
            let _permit = permit;
            shared.store.checkpoint(&dir)
        })
        .await
    }

    /// Replaces the database by the copy in `dir`, which is moved and must be on the same file
    /// system. The old database is deleted.
    ///
    /// # Errors
    /// Same as [`MetricStore::open`]; the database is unchanged then.
    pub async fn replace_with(&self, dir: PathBuf) -> Result<(), Error> {
        self.write(move |writer| writer.replace_with(&dir, false)).await
    }

    /// Same as [`MetricStore::replace_with`], for a copy that may be missing committed entries of this
    /// nimbus: the old database is quarantined, see [`MetricStore::quarantined`].
    ///
    /// # Errors
    /// Same as [`MetricStore::replace_with`], and [`Error::QuarantineFull`].
    pub async fn replace_and_quarantine(&self, dir: PathBuf) -> Result<(), Error> {
        self.write(move |writer| writer.replace_with(&dir, true)).await
    }

    /// Returns the quarantined databases.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn quarantined(&self) -> Result<Vec<PathBuf>, Error> {
        self.read(|shared, _| shared.store.quarantined()).await
    }

    /// Checks that one more database can be quarantined.
    ///
    /// # Errors
    /// [`Error::QuarantineFull`].
    pub async fn check_quarantine_room(&self) -> Result<(), Error> {
        self.read(|shared, _| shared.store.quarantine_name(shared.log().1).map(drop)).await
    }

    /// Makes the metas of a topology equal to `metas`, which a follower received from the leader.
    ///
    /// # Errors
    /// [`Error::Invalid`] for metas of another topology, [`Error::Write`].
    pub async fn replace_metas(&self, topology: &TopologyId, metas: Vec<MetricMeta>) -> Result<(), Error> {
        let topology = topology.clone();
        self.write(move |writer| writer.replace_metas(&topology, &metas)).await
    }

    /// Removes expired points at once, instead of at RocksDB's next compaction. Slow; for operators
    /// and tests.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn compact(&self) -> Result<(), Error> {
        self.read(|_, view| {
            // Twice: the first run merges, and the second one filters the merged points.
            view.compact(Table::Points);
            view.compact(Table::Points);
            Ok(())
        })
        .await
    }
}
