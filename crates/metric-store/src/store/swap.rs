//! Another database in place of the one that is open, whenever the process may die.
//!
//! What is to happen is told by one name alone, that of the fetched copy: once it stands beside
//! the database the rest follows, now or at the next start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Store;
use crate::Error;
use stormkeeper_model::LogPosition;

/// The most databases that are put aside. Beyond it none is replaced by another.
const ASIDE_MAX: usize = 2;

const ASIDE: &str = "aside-";

/// What becomes of the database whose place another one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Former {
    /// The other one has all that it has.
    IsRemoved,
    /// It has what the other one lacks, up to this entry of its log.
    IsPutAside(LogPosition),
}

impl Store {
    /// Goes on with the copy in `dir`, which is moved away from there. It is opened first, so
    /// that a bad one changes nothing.
    pub(crate) fn replace_with(&self, dir: &Path, former: Former) -> Result<(), Error> {
        if !self.is_open() {
            // A swap before this one may have been cut off, with the only whole copy in `next`.
            self.reopen()?;
        }
        if !dir.join("CURRENT").exists() {
            return Err(Error::Invalid(format!("{} holds no metrics archive", dir.display())));
        }
        let next = match former {
            Former::IsRemoved => "next".to_owned(),
            Former::IsPutAside(position) => format!("next-{}", self.place_aside(position)?),
        };
        drop(self.open_at(dir)?);
        self.clear_remains().map_err(|error| self.cannot_open(&error))?;
        // Before anything is closed: one that is on another file system fails here.
        fs::rename(dir, self.dir.join(next)).map_err(|error| Error::Open {
            path: dir.to_owned(),
            detail: format!("it cannot be moved into {}: {error}", self.dir.display()),
        })?;
        self.reopen()
    }

    /// What was put aside and is still there.
    pub(crate) fn aside(&self) -> Result<Vec<PathBuf>, Error> {
        let names = self.names().map_err(|error| self.cannot_open(&error))?;
        Ok(names.iter().filter(|name| name.starts_with(ASIDE)).map(|name| self.dir.join(name)).collect())
    }

    /// The name under which the database goes aside, if there is room for one more.
    pub(crate) fn place_aside(&self, position: LogPosition) -> Result<String, Error> {
        let name = format!("{ASIDE}{}-{}", position.term, position.index);
        let aside = self.aside()?;
        if aside.len() >= ASIDE_MAX || aside.contains(&self.dir.join(&name)) {
            return Err(Error::NoRoomAside { aside });
        }
        Ok(name)
    }

    /// Brings to its end what a crash may have left half done. A copy in `next` is complete, as
    /// it was moved there after it had been opened.
    pub(super) fn finish_swap(&self) -> io::Result<()> {
        let [db, next, before] = ["db", "next", "before"].map(|name| self.dir.join(name));
        let to_aside = self.names()?.into_iter().find(|name| name.starts_with("next-aside-"));
        let swap = match &to_aside {
            Some(name) => Some((self.dir.join(name), self.dir.join(&name["next-".len()..]))),
            None => next.exists().then(|| (next, before.clone())),
        };
        if let Some((next, former)) = swap {
            if db.exists() {
                // What a swap before this one left there is not needed any more.
                remove(&before)?;
                fs::rename(&db, &former)?;
            }
            fs::rename(&next, &db)?;
            fs::File::open(&self.dir)?.sync_all()?;
        }
        remove(&before)
    }

    fn clear_remains(&self) -> io::Result<()> {
        ["next", "before"].iter().try_for_each(|name| remove(&self.dir.join(name)))
    }

    /// What is in the directory, in order; names that are no text are none of ours.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

/// Only ever used on what this module itself put there.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
