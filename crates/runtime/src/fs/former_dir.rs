//! Data directory of a daemon: the subdirectory of `storm.local.dir` that has the name of its kind,
//! so that all daemons of a host can share one `storm.local.dir`.
//!
//! Earlier builds kept the files of a daemon in `storm.local.dir` itself. They are moved by renames,
//! the file `layout` last: if the move is interrupted, the next start continues it. Files of workers
//! that run are also reached by their former paths, which are links after the move.
//!
//! `storm.local.dir` then gets a file `layout` of its own with the kind [`PARENT_KIND`]. Earlier
//! builds refuse a directory of another kind, and would otherwise begin as another daemon beside the
//! subdirectory.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tracing::{info, warn};

use super::{
    LayoutFile, atomic_file,
    layout_file::{self, FILE},
    locked_dir::{Error, lock},
    modes,
};

/// Kind in the file `layout` of a `storm.local.dir` whose daemons have subdirectories. Earlier builds
/// show it in the error `… is the directory of a KIND, not of a nimbus`.
pub const PARENT_KIND: &str = "newer build, which keeps the files of each daemon in a subdirectory (to go back: \
                               docs/operations/upgrade.md)";

/// Files and directories of one kind of daemon in `storm.local.dir`.
#[derive(Debug, Clone, Copy)]
pub struct FormerDir {
    /// Layout of the directory. Its traces are those that no other daemon leaves there.
    pub layout: LayoutFile,
    /// Names that are moved; a name that ends with `-` is a prefix.
    pub moved: &'static [&'static str],
    /// Names that are moved and stay reachable by their former path.
    pub linked: &'static [&'static str],
}

impl FormerDir {
    /// Returns the data directory of this kind of daemon in `storm_local_dir`, after the files of
    /// an earlier build were moved there. Blocks.
    ///
    /// A directory that has the name of the kind and holds its files stays as it is.
    ///
    /// # Errors
    /// [`Error`] if a daemon uses the former directory, if both directories are in use, or if a file
    /// cannot be moved. The next attempt continues.
    pub fn settle(&self, storm_local_dir: &Path) -> Result<PathBuf, Error> {
        let kind = self.layout.kind;
        let dir = storm_local_dir.join(kind);
        if !self.is_in(storm_local_dir)? {
            mark_parent(storm_local_dir);
            self.name_leftovers(storm_local_dir, &dir);
            return Ok(dir);
        }
        let is_named = storm_local_dir.file_name().is_some_and(|name| name == kind);
        let is_itself = leads_to(&dir, storm_local_dir);
        if is_named && (is_itself || !dir.join(FILE).exists()) {
            return Ok(storm_local_dir.to_owned());
        }
        let _lock = lock(storm_local_dir, kind)?;
        // A process that held the lock may have moved the files.
        if self.is_in(storm_local_dir)? {
            if is_itself {
                // By this link, workers of this build found their files while an earlier build ran. They
                // retry until the files are in their place again, a few renames later.
                fs::remove_file(&dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
            }
            self.move_all(storm_local_dir, &dir)?;
        }
        mark_parent(storm_local_dir);
        Ok(dir)
    }

    /// Names in the log what an earlier build, or an operator who went back to one, left behind.
    fn name_leftovers(&self, parent: &Path, dir: &Path) {
        let names: Vec<String> = self.names_in(parent).unwrap_or_default();
        let is_file = |name: &String| !parent.join(name).is_symlink();
        let names: Vec<String> = names.into_iter().filter(is_file).collect();
        // With another daemon's `layout`, they are the files of that daemon.
        let is_parent = fs::read_to_string(parent.join(FILE)).is_ok_and(|text| text.contains(PARENT_KIND));
        if is_parent && dir.join(FILE).exists() && !names.is_empty() {
            let (names, kind) = (names.join(", "), self.layout.kind);
            warn!(
                names, parent = %parent.display(), dir = %dir.display(),
                "files of a {kind} in storm.local.dir are not used: if they are newer than those in its subdirectory, \
                 stop the {kind} and move them there; otherwise move them away"
            );
        }
    }

    /// Returns those names in `dir` that are moved.
    fn names_in(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        let names = fs::read_dir(dir)?.filter_map(|entry| name(entry).transpose());
        let is_moved = |name: &String| {
            let is_prefixed = |known: &&str| known.ends_with('-') && name.starts_with(*known);
            self.moved.iter().any(|known| known == name || is_prefixed(known))
        };
        names.filter(|name| name.as_ref().map_or(true, is_moved)).collect()
    }

    /// Returns whether the files of this kind of daemon are in `dir` itself.
    fn is_in(&self, dir: &Path) -> Result<bool, Error> {
        match self.layout.is_present(dir) {
            Err(layout_file::Error::OtherKind { .. }) => Ok(false),
            present => Ok(present?),
        }
    }

    fn move_all(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let kind = self.layout.kind;
        if to.join(FILE).exists() {
            return Err(Error::Twice { daemon: kind, former: from.to_owned(), dir: to.to_owned() });
        }
        info!(from = %from.display(), to = %to.display(), "moving the files of a {kind} into its own subdirectory");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        modes::create_dir_all(to).map_err(failed(to))?;
        for name in self.names_in(from).map_err(failed(from))? {
            move_one(from, to, &name).map_err(failed(&from.join(&name)))?;
        }
        for name in self.linked {
            move_and_link(from, to, name).map_err(failed(&from.join(name)))?;
        }
        // Everything else is in its place on disk before `layout` says so.
        atomic_file::sync_dir(to).and_then(|()| atomic_file::sync_dir(from)).map_err(failed(from))?;
        let moved = fs::rename(from.join(FILE), to.join(FILE));
        moved.map_err(failed(&from.join(FILE)))?;
        // The lock of an earlier build, which this process holds. It is created again if it is needed.
        let _left_behind = fs::remove_file(from.join(format!("{kind}.lock")));
        atomic_file::sync_dir(to).and_then(|()| atomic_file::sync_dir(from)).map_err(failed(from))
    }
}

/// Returns whether `link` is a symbolic link to `dir`.
fn leads_to(link: &Path, dir: &Path) -> bool {
    let same = || Some(fs::canonicalize(link).ok()? == fs::canonicalize(dir).ok()?);
    link.is_symlink() && same().unwrap_or(false)
}

/// Leaves the file `layout` in `storm.local.dir` that earlier builds refuse, unless it has one.
fn mark_parent(storm_local_dir: &Path) {
    let path = storm_local_dir.join(FILE);
    if fs::symlink_metadata(&path).is_ok() {
        return;
    }
    let marked = modes::create_dir_all(storm_local_dir).and_then(|()| layout_file::write(&path, PARENT_KIND));
    if let Err(error) = marked {
        info!(path = %path.display(), %error, "cannot write the file by which earlier builds refuse storm.local.dir");
    }
}

/// Moves `name` from one directory to another one below it. A mount point and a link of the operator
/// stay where they are, and the new path is a link to them.
fn move_one(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let (old, new) = (from.join(name), to.join(name));
    if fs::symlink_metadata(&new).is_ok() {
        // A link that an interrupted move has made; anything else is not overwritten.
        return if fs::read_link(&new).is_ok() { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) };
    }
    if !fs::symlink_metadata(&old)?.is_symlink() {
        match fs::rename(&old, &new) {
            Err(error) if is_mount_point(&error) => {}
            renamed => return renamed,
        }
    }
    info!(path = %old.display(), "left in its place, because it is a link or a mount point");
    symlink(Path::new("..").join(name), &new)
}

/// As [`move_one`]; the former path becomes a link to the new one, in one step if the file system
/// can exchange two names.
fn move_and_link(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let (old, new) = (from.join(name), to.join(name));
    // As seen from the former directory.
    let target = Path::new(to.file_name().unwrap_or_default()).join(name);
    let is_link = |path: &Path| fs::read_link(path).is_ok_and(|found| found == target);
    match fs::symlink_metadata(&old) {
        Ok(_) if is_link(&old) => return Ok(()),
        Ok(metadata) if metadata.is_symlink() => return move_one(from, to, name),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if new.exists() { symlink(&target, &old) } else { Ok(()) };
        }
        Err(error) => return Err(error),
    }
    if !is_link(&new) {
        symlink(&target, &new)?;
    }
    match renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(_) => {
            // Not every file system can. A worker that uses the former path in between retries.
            fs::remove_file(&new)?;
            move_one(from, to, name)?;
            if fs::symlink_metadata(&old).is_err() {
                symlink(&target, &old)?;
            }
        }
    }
    info!(path = %old.display(), to = %new.display(), "moved; workers that run use the former path, which is a link now");
    Ok(())
}

fn is_mount_point(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
#[path = "former_dir_tests.rs"]
mod tests;
