//! Backend in memory: a disk with databases, for a simulation that loses power, processes and disks.

mod database;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::rules::Expiry;
use crate::Error;
#[cfg(any(test, feature = "test-support"))]
pub(crate) use database::Content;
#[cfg(not(any(test, feature = "test-support")))]
use database::Content;
use database::Stored;

pub(super) use database::{Batch, Cursor, Database, View};

/// Disk in memory. Clones share its content, so a store that is dropped and opened again, as after
/// the end of its process, finds its databases. A directory exists only if it contains a database.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    // Guards the content; held for one operation.
    disk: Mutex<Disk>,
    listener: OnceLock<Box<Listener>>,
}

type Listener = dyn Fn(&DirectoryChange<'_>) + Send + Sync;

/// Change of the directories that a store is about to make. Losses of power and of the disk are
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryChange<'a> {
    /// A directory is renamed.
    Rename {
        /// Its name before.
        from: &'a Path,
        /// Its name afterwards.
        to: &'a Path,
    },
    /// A directory is removed, with all directories in it.
    Remove(&'a Path),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("disk", &self.disk).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Disk {
    databases: Directories,
    /// Directories after a loss of power: a rename or a removal is lost unless the directory was
    /// synced.
    synced: Directories,
    is_full: bool,
}

type Directories = BTreeMap<PathBuf, Arc<Stored>>;

impl MemoryDisk {
    /// Calls `listener` before each change of directories, so that it can read what the change
    /// removes. A disk has at most one listener; a second one is ignored.
    pub fn listen(&self, listener: impl Fn(&DirectoryChange<'_>) + Send + Sync + 'static) {
        let _first = self.0.listener.set(Box::new(listener));
    }

    fn announce(&self, change: &DirectoryChange<'_>) {
        if let Some(listener) = self.0.listener.get() {
            listener(change);
        }
    }

    /// Loses power: everything below `dir` that is not synced is lost, and the open databases there
    /// are closed. A store that still has one open writes into the void.
    pub fn crash(&self, dir: &Path) {
        let mut disk = self.lock();
        disk.databases.retain(|path, _| !path.starts_with(dir));
        let synced: Vec<_> =
            below(&disk.synced, dir).map(|(path, of)| (path.clone(), of.after_crash())).collect();
        for (path, stored) in synced {
            disk.databases.insert(path.clone(), Arc::clone(&stored));
            disk.synced.insert(path, stored);
        }
    }

    /// Returns the database in `dir`, also while a store has it open.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn content(&self, dir: &Path) -> Option<Content> {
        self.lock().databases.get(dir).map(|stored| stored.content())
    }

    /// Loses all databases below `dir`, as with a lost disk.
    pub fn remove(&self, dir: &Path) {
        let mut disk = self.lock();
        disk.databases.retain(|path, _| !path.starts_with(dir));
        disk.synced.retain(|path, _| !path.starts_with(dir));
    }

    /// Makes the disk full, or gives it space again. On a full disk every write fails.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the database in `path`, and creates it if there is none. Errors name `dir`.
    pub(super) fn open(&self, path: &Path, dir: &Path, expiry: &Expiry) -> Result<Database, Error> {
        let mut disk = self.lock();
        let stored = disk.databases.get(path).cloned().unwrap_or_default();
        disk.insert(path, &stored);
        let (disk, expiry) = (self.clone(), expiry.clone());
        Database::open(stored, disk, expiry).ok_or_else(|| Error::Locked { path: dir.to_owned() })
    }

    /// Writes a whole database into `dir`, which must not exist.
    pub(super) fn write_database(&self, dir: &Path, content: Content) -> io::Result<()> {
        let mut disk = self.lock();
        disk.check_space()?;
        if disk.exists(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.insert(dir, &Arc::new(Stored::new(content)));
        Ok(())
    }

    /// Reads a whole database that is not open.
    pub(super) fn read_database(&self, dir: &Path) -> io::Result<Content> {
        let disk = self.lock();
        disk.databases.get(dir).map(|stored| stored.content()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn check_space(&self) -> io::Result<()> {
        self.lock().check_space()
    }

    pub(super) fn has_database(&self, dir: &Path) -> bool {
        self.lock().databases.contains_key(dir)
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.lock().exists(path)
    }

    /// Returns the names in `dir`, sorted.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let disk = self.lock();
        let name = |path: &Path| Some(path.strip_prefix(dir).ok()?.iter().next()?.to_str()?.to_owned());
        let mut names: Vec<String> = below(&disk.databases, dir).filter_map(|(path, _)| name(path)).collect();
        names.dedup();
        names
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.announce(&DirectoryChange::Rename { from, to });
        let mut disk = self.lock();
        if !disk.exists(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.exists(to) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let moved: Vec<_> =
            below(&disk.databases, from).map(|(path, of)| (path.clone(), Arc::clone(of))).collect();
        for (path, stored) in moved {
            disk.databases.remove(&path);
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            // `join` of an empty path would add a separator.
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            disk.databases.insert(new, stored);
        }
        Ok(())
    }

    pub(super) fn remove_dir(&self, dir: &Path) {
        if self.exists(dir) {
            self.announce(&DirectoryChange::Remove(dir));
        }
        self.lock().databases.retain(|path, _| !path.starts_with(dir));
    }

    /// Makes all earlier renames and removals permanent: the journal of a file system keeps their
    /// order.
    pub(super) fn sync_dirs(&self) {
        let mut disk = self.lock();
        disk.synced = disk.databases.clone();
    }
}

impl Disk {
    /// RocksDB syncs the files and the directory of a new database, and of a checkpoint.
    fn insert(&mut self, path: &Path, stored: &Arc<Stored>) {
        if !self.databases.contains_key(path) {
            self.databases.insert(path.to_owned(), Arc::clone(stored));
            self.synced.insert(path.to_owned(), Arc::clone(stored));
        }
    }

    fn check_space(&self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn exists(&self, path: &Path) -> bool {
        below(&self.databases, path).next().is_some()
    }
}

fn below<'a>(
    directories: &'a Directories,
    dir: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a Arc<Stored>)> {
    directories.iter().filter(move |(path, _)| path.starts_with(dir))
}
