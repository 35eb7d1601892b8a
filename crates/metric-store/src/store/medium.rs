//! Media that can hold databases, and their directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{database::Database, memory, rocks, rules::Expiry};
use crate::Error;
use stormkeeper_runtime::fs::{LayoutFile, layout_file};

pub use memory::{DirectoryChange, MemoryDisk};

/// Layout of the directory of a store. The format of the database is in the database.
const LAYOUT: LayoutFile = LayoutFile {
    kind: "metric store",
    traces: &["db", "next", "before"],
    remedy: "stop the nimbus, move the directory away and start the nimbus: a follower then fetches the leader's \
             copy, and without another nimbus the store begins empty",
};

/// Size of the probe file: the data that opening the database writes, and some reserve.
const PROBE_BYTES: usize = 4 << 20;

/// Medium that holds the database of a store, and the checkpoints that are beside it.
#[derive(Debug, Clone, Default)]
pub enum Medium {
    /// RocksDB in files.
    #[default]
    Disk,
    /// The same in memory, for simulations.
    Memory(MemoryDisk),
}

/// Checkpoint of a metric store on a medium, to be copied to another nimbus.
#[derive(Debug)]
pub struct CheckpointSource {
    medium: Medium,
    dir: PathBuf,
}

impl CheckpointSource {
    /// Names the checkpoint in `dir`, which [`crate::MetricStore::checkpoint`] made. The directory
    /// must stay until the checkpoint is copied.
    pub fn new(medium: &Medium, dir: PathBuf) -> Self {
        Self { medium: medium.clone(), dir }
    }

    /// Copies the checkpoint into `dir` on `medium`, where [`crate::MetricStore::replace_with`]
    /// installs it. `dir` must not exist.
    ///
    /// # Errors
    /// Errors of the medium, and [`io::ErrorKind::Unsupported`] if the checkpoint is on a medium of
    /// the other kind.
    pub fn copy_to(&self, medium: &Medium, dir: &Path) -> io::Result<()> {
        match (&self.medium, medium) {
            (Medium::Disk, Medium::Disk) => copy_files(&self.dir, dir),
            (Medium::Memory(from), Medium::Memory(to)) => {
                let content = from.read_database(&self.dir)?;
                to.write_database(dir, content)
            }
            (Medium::Disk, Medium::Memory(_)) | (Medium::Memory(_), Medium::Disk) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        fs::copy(entry.path(), &copy)?;
        fs::File::open(copy)?.sync_all()?;
    }
    fs::File::open(to)?.sync_all()
}

impl Medium {
    /// Removes a directory, if it exists. Must be used only on directories of the metric store, and
    /// on checkpoints.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Disk => match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Self::Memory(disk) => {
                disk.remove_dir(dir);
                Ok(())
            }
        }
    }

    /// Opens the database in `path`, and creates it if there is none. Errors name `dir`.
    pub(super) fn open(
        &self,
        path: &Path,
        dir: &Path,
        expiry: &Expiry,
        cache_bytes: usize,
    ) -> Result<Database, Error> {
        match self {
            Self::Disk => rocks::open(path, dir, expiry, cache_bytes).map(Database::Rocks),
            Self::Memory(disk) => disk.open(path, dir, expiry).map(Database::Memory),
        }
    }

    /// Returns whether there is a database in `dir`, whole or damaged.
    pub(super) fn has_database(&self, dir: &Path) -> bool {
        match self {
            Self::Disk => rocks::has_database(dir),
            Self::Memory(disk) => disk.has_database(dir),
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Disk => path.exists(),
            Self::Memory(disk) => disk.exists(path),
        }
    }

    /// Checks the layout of the directory of a store, and creates the directory if it is missing.
    ///
    /// # Errors
    /// [`Error::Layout`], and [`Error::Open`] if the directory cannot be used.
    pub(crate) fn prepare_dir(&self, dir: &Path) -> Result<(), Error> {
        match self {
            Self::Disk => LAYOUT.check_or_create(dir).map_err(|error| match error {
                layout_file::Error::Io { path, source } => {
                    Error::Open { path: dir.to_owned(), detail: format!("{}: {source}", path.display()) }
                }
                refused => Error::Layout(refused),
            }),
            // Ends with its process, so no other build can find it.
            Self::Memory(_) => Ok(()),
        }
    }

    /// Returns the names in `dir`, sorted; names that are not UTF-8 are not ours.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Disk => {
                let mut names = Vec::new();
                for entry in fs::read_dir(dir)? {
                    names.extend(entry?.file_name().into_string());
                }
                names.sort();
                Ok(names)
            }
            Self::Memory(disk) => Ok(disk.names(dir)),
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Disk => fs::rename(from, to),
            Self::Memory(disk) => disk.rename(from, to),
        }
    }

    /// Makes the names in `dir` permanent.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Disk => fs::File::open(dir)?.sync_all(),
            Self::Memory(disk) => {
                disk.sync_dirs();
                Ok(())
            }
        }
    }

    /// Checks that `dir` has room for what opening a database writes.
    pub(super) fn probe_write(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Disk => {
                let probe = dir.join("probe");
                let written = fs::write(&probe, vec![0xa5; PROBE_BYTES]);
                fs::remove_file(&probe)?;
                written
            }
            Self::Memory(disk) => disk.check_space(),
        }
    }
}
