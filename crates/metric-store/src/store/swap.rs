//! Replacement of the open database by a copy, safe against a crash at any moment.
//!
//! The directory name of the fetched copy is the only record of the decision: once the copy is
//! beside the database under that name, the remaining steps follow, now or at the next start.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Store;
use crate::Error;
use stormkeeper_model::LogPosition;

/// Maximum number of quarantined databases. Beyond it, no database is replaced by a diverged one.
const QUARANTINE_MAX: usize = 2;

const QUARANTINE_PREFIX: &str = "quarantine-";

/// Fate of the database that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldDatabase {
    /// The copy contains all committed entries of the old database.
    Remove,
    /// The old database, whose log ends at this entry, may hold committed entries that the copy is
    /// missing.
    Quarantine(LogPosition),
}

impl Store {
    /// Replaces the database by the copy in `dir`, which is moved. The copy is opened first, so that
    /// a bad copy changes nothing.
    pub(crate) fn replace_with(&self, dir: &Path, old: OldDatabase) -> Result<(), Error> {
        if !self.is_open() {
            // An earlier replacement may have been interrupted, with the only whole copy in `next`.
            self.reopen()?;
        }
        if !self.medium.has_database(dir) {
            return Err(Error::Invalid(format!("{} contains no metric store", dir.display())));
        }
        let next = match old {
            OldDatabase::Remove => "next".to_owned(),
            OldDatabase::Quarantine(position) => format!("next-{}", self.quarantine_name(position)?),
        };
        drop(self.open_at(dir)?);
        // The directory may have been deleted while the store is open.
        self.medium.prepare_dir(&self.dir)?;
        self.remove_stale_dirs().map_err(|error| self.cannot_open(&error))?;
        // Before the database is closed: the move fails here if the copy is on another file system.
        self.medium.rename(dir, &self.dir.join(next)).map_err(|error| Error::Open {
            path: dir.to_owned(),
            detail: format!("it cannot be moved into {}: {error}", self.dir.display()),
        })?;
        self.reopen()
    }

    /// Returns the quarantined databases.
    pub(crate) fn quarantined(&self) -> Result<Vec<PathBuf>, Error> {
        let names = self.medium.names(&self.dir).map_err(|error| self.cannot_open(&error))?;
        Ok(names
            .iter()
            .filter(|name| name.starts_with(QUARANTINE_PREFIX))
            .map(|name| self.dir.join(name))
            .collect())
    }

    /// Returns the quarantine name of the database, if there is room for one more.
    pub(crate) fn quarantine_name(&self, position: LogPosition) -> Result<String, Error> {
        let name = format!("{QUARANTINE_PREFIX}{}-{}", position.term, position.index);
        let quarantined = self.quarantined()?;
        if quarantined.len() >= QUARANTINE_MAX || quarantined.contains(&self.dir.join(&name)) {
            return Err(Error::QuarantineFull { quarantined });
        }
        Ok(name)
    }

    /// Finishes a replacement that a crash interrupted. A copy in `next` is complete: it is moved
    /// there only after it has been opened.
    pub(super) fn finish_swap(&self) -> io::Result<()> {
        let [db, next, before] = ["db", "next", "before"].map(|name| self.dir.join(name));
        let to_quarantine =
            self.medium.names(&self.dir)?.into_iter().find(|name| name.starts_with("next-quarantine-"));
        let swap = match &to_quarantine {
            Some(name) => Some((self.dir.join(name), self.dir.join(&name["next-".len()..]))),
            None => self.medium.exists(&next).then(|| (next, before.clone())),
        };
        if let Some((next, old)) = swap {
            if self.medium.exists(&db) {
                // Left by an earlier replacement, and not needed any more.
                self.medium.remove_dir(&before)?;
                self.medium.rename(&db, &old)?;
            }
            self.medium.rename(&next, &db)?;
            self.medium.sync_dir(&self.dir)?;
        }
        self.medium.remove_dir(&before)
    }

    fn remove_stale_dirs(&self) -> io::Result<()> {
        ["next", "before"].iter().try_for_each(|name| self.medium.remove_dir(&self.dir.join(name)))
    }
}
