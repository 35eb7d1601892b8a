//! Replacement of the open database by a copy, safe against a crash at any moment.
//!
//! The directory name of the fetched copy is the only record of the decision: once the copy is
//! beside the database under that name, the remaining steps follow, now or at the next start.

use std::{
    fs, io,
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
        if !dir.join("CURRENT").exists() {
            return Err(Error::Invalid(format!("{} contains no metric store", dir.display())));
        }
        let next = match old {
            OldDatabase::Remove => "next".to_owned(),
            OldDatabase::Quarantine(position) => format!("next-{}", self.quarantine_name(position)?),
        };
        drop(self.open_at(dir)?);
        self.remove_stale_dirs().map_err(|error| self.cannot_open(&error))?;
        // Before the database is closed: the move fails here if the copy is on another file system.
        fs::rename(dir, self.dir.join(next)).map_err(|error| Error::Open {
            path: dir.to_owned(),
            detail: format!("it cannot be moved into {}: {error}", self.dir.display()),
        })?;
        self.reopen()
    }

    /// Returns the quarantined databases.
    pub(crate) fn quarantined(&self) -> Result<Vec<PathBuf>, Error> {
        let names = self.names().map_err(|error| self.cannot_open(&error))?;
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
        let to_quarantine = self.names()?.into_iter().find(|name| name.starts_with("next-quarantine-"));
        let swap = match &to_quarantine {
            Some(name) => Some((self.dir.join(name), self.dir.join(&name["next-".len()..]))),
            None => next.exists().then(|| (next, before.clone())),
        };
        if let Some((next, old)) = swap {
            if db.exists() {
                // Left by an earlier replacement, and not needed any more.
                remove(&before)?;
                fs::rename(&db, &old)?;
            }
            fs::rename(&next, &db)?;
            fs::File::open(&self.dir)?.sync_all()?;
        }
        remove(&before)
    }

    fn remove_stale_dirs(&self) -> io::Result<()> {
        ["next", "before"].iter().try_for_each(|name| remove(&self.dir.join(name)))
    }

    /// Returns the names in the directory, sorted; names that are not UTF-8 are not ours.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

/// Removes a directory. Must be used only on directories that this module created.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
