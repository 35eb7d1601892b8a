//! The log as followers ask for it, and what they take from it.

use std::{path::PathBuf, sync::Arc};

use super::MetricStore;
use crate::{Error, key::Table, log};
use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetricMeta};
use stormkeeper_model::{LogPosition, TopologyId};
use stormkeeper_runtime::blocking;

impl MetricStore {
    /// The last entry of the log that is on disk.
    pub fn position(&self) -> LogPosition {
        self.shared.log().1
    }

    /// The entries after those that a follower has.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn log_after(&self, query: &LogQuery) -> Result<LogPage, Error> {
        let query = query.clone();
        self.read(move |shared, view| {
            let (shape, last) = shared.log();
            log::after(view, shape.base, last, &query)
        })
        .await
    }

    /// Takes over entries of the leader, in order from the end of the log on. Answers the last
    /// one that is on disk.
    ///
    /// # Errors
    /// [`Error::NotNext`], [`Error::Unreadable`]: those before the bad one are taken.
    /// [`Error::Write`].
    pub async fn apply(&self, entries: Vec<(LogPosition, Vec<u8>)>) -> Result<LogPosition, Error> {
        self.write(move |writer| {
            for (at, bytes) in &entries {
                writer.follow(*at, bytes)?;
            }
            Ok(writer.last)
        })
        .await
    }

    /// Makes a copy of the whole archive in `dir`, which must not exist. What it holds on the
    /// same file system costs no room.
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

    /// Goes on with the copy in `dir`, which is moved away from there; it must be on the file
    /// system of the archive. What this nimbus had is gone.
    ///
    /// # Errors
    /// Those of [`MetricStore::open`]; then the archive is as it was.
    pub async fn replace_with(&self, dir: PathBuf) -> Result<(), Error> {
        self.write(move |writer| writer.replace_with(&dir, false)).await
    }

    /// As [`MetricStore::replace_with`], for a copy that lacks what this nimbus has: that is put
    /// aside, see [`MetricStore::aside`].
    ///
    /// # Errors
    /// The same, and [`Error::NoRoomAside`].
    pub async fn give_way_to(&self, dir: PathBuf) -> Result<(), Error> {
        self.write(move |writer| writer.replace_with(&dir, true)).await
    }

    /// The archives that were put aside and are still there.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn aside(&self) -> Result<Vec<PathBuf>, Error> {
        self.read(|shared, _| shared.store.aside()).await
    }

    /// Whether one more archive could be put aside.
    ///
    /// # Errors
    /// [`Error::NoRoomAside`].
    pub async fn has_room_aside(&self) -> Result<(), Error> {
        self.read(|shared, _| shared.store.place_aside(shared.log().1).map(drop)).await
    }

    /// Makes the metas of a topology equal to `metas`, which a follower has from the leader.
    ///
    /// # Errors
    /// [`Error::Invalid`] for metas of another topology, [`Error::Write`].
    pub async fn replace_metas(&self, topology: &TopologyId, metas: Vec<MetricMeta>) -> Result<(), Error> {
        let topology = topology.clone();
        self.write(move |writer| writer.replace_metas(&topology, &metas)).await
    }

    /// Lets go what is expired at once, instead of when RocksDB comes to it. It takes long, and
    /// is there for operators and tests.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn tidy_up(&self) -> Result<(), Error> {
        self.read(|_, view| {
            // Twice: what is merged in the first is looked at in the second.
            view.compact(Table::Points);
            view.compact(Table::Points);
            Ok(())
        })
        .await
    }
}
