//! The entries of a package, checked: the same pass reads a package at the submit and unpacks it on
//! a supervisor, so a package that was accepted can be unpacked.
//!
//! Only plain files and folders are accepted, `topology.json` and `worker` at the top and everything
//! else below `resources/`. An entry is written at its own path and at no other: there are no links.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use crate::package::{Error, MAX_FILES, PROGRAM, RESOURCES, TOPOLOGY};

/// Limit on the path of an entry. Linux allows 4096 bytes with the folder of the worker.
const MAX_PATH_BYTES: usize = 1024;

/// Limit on each part of a path, as file systems have it.
const MAX_NAME_BYTES: usize = 255;

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file, with the bit for execution.
    File {
        /// True if the file is a program.
        is_executable: bool,
    },
    /// A folder.
    Folder,
}

/// Calls `visit` for each entry of a package, in order; entries that `visit` does not read are
/// skipped.
///
/// # Errors
/// [`Error`] at the first entry that cannot be unpacked, or at the end if there is no topology; and
/// errors of `visit`.
pub fn visit<R: Read, E: From<Error>>(
    blob: R,
    mut visit: impl FnMut(&Path, EntryKind, &mut tar::Entry<'_, R>) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(blob);
    let mut names = Names::default();
    let mut has_topology = false;
    for (n, entry) in archive.entries().map_err(Error::NotATar)?.enumerate() {
        let mut entry = entry.map_err(Error::NotATar)?;
        if n >= MAX_FILES {
            return Err(Error::TooManyFiles.into());
        }
        let name = entry.path_bytes().into_owned();
        let tar_kind = entry.header().entry_type();
        let checked = check_entry(&name, tar_kind).and_then(|()| names.add(&name, tar_kind.is_dir()));
        let path = checked.map_err(|what| Error::Entry { path: shown(&name), what })?;
        has_topology |= path == Path::new(TOPOLOGY);
        let kind = match tar_kind.is_dir() {
            true => EntryKind::Folder,
            false => {
                let mode = entry.header().mode().map_err(Error::NotATar)?;
                EntryKind::File { is_executable: mode & 0o111 != 0 }
            }
        };
        visit(&path, kind, &mut entry)?;
    }
    match has_topology {
        true => Ok(()),
        false => Err(Error::NoTopology.into()),
    }
}

/// Copies the bytes of a file. A truncated file is an error.
///
/// # Errors
/// [`CopyError`].
pub fn copy<R: Read>(entry: &mut tar::Entry<'_, R>, to: &mut impl io::Write) -> Result<(), CopyError> {
    let mut n_copied = 0u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = entry.read(&mut buffer).map_err(|error| CopyError::Package(Error::NotATar(error)))?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).map_err(CopyError::Write)?;
        n_copied += n as u64;
    }
    match n_copied == entry.size() {
        true => Ok(()),
        false => Err(CopyError::Package(Error::NotATar(io::ErrorKind::UnexpectedEof.into()))),
    }
}

/// Error of copying a file out of a package.
#[derive(Debug)]
pub enum CopyError {
    /// The package is damaged.
    Package(Error),
    /// The destination cannot be written.
    Write(io::Error),
}

/// Names of a package as a file system sees them.
#[derive(Default)]
struct Names(HashMap<PathBuf, NameOf>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameOf {
    File,
    Folder,
}

impl Names {
    /// Adds a name, and returns it as a path of plain parts.
    fn add(&mut self, name: &[u8], is_folder: bool) -> Result<PathBuf, &'static str> {
        if name.len() > MAX_PATH_BYTES
            || name.split(|byte| *byte == b'/').any(|part| part.len() > MAX_NAME_BYTES)
        {
            return Err("whose name is longer than a file system allows");
        }
        let path: PathBuf = Path::new(OsStr::from_bytes(name)).components().collect();
        for folder in path.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty()) {
            match self.0.get(folder) {
                Some(NameOf::Folder) => break,
                Some(NameOf::File) => return Err("which lies under a file"),
                None => {
                    self.0.insert(folder.to_owned(), NameOf::Folder);
                }
            }
        }
        if self.0.len() >= MAX_FILES {
            return Err("which is one file or folder too many");
        }
        let kind = if is_folder { NameOf::Folder } else { NameOf::File };
        match self.0.insert(path.clone(), kind) {
            None => Ok(path),
            Some(NameOf::Folder) if is_folder => Ok(path),
            Some(NameOf::File | NameOf::Folder) => Err("which occurs twice"),
        }
    }
}

/// Formats the name of an entry for an error: a tar allows names of any length.
fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut shown: String = name.chars().take(MAX_NAME_BYTES).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown
}

/// Checks that an entry unpacks to a plain file or folder in the right place.
fn check_entry(name: &[u8], kind: tar::EntryType) -> Result<(), &'static str> {
    let path = Path::new(OsStr::from_bytes(name));
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if name.contains(&0) || !path.components().all(plain) {
        return Err("whose name leads out of the package");
    }
    let is_below_resources = path.starts_with(RESOURCES);
    let is_resources = path == Path::new(RESOURCES);
    match kind {
        tar::EntryType::Regular if [TOPOLOGY, PROGRAM].iter().any(|top| name == top.as_bytes()) => Ok(()),
        tar::EntryType::Regular if is_below_resources && !is_resources => Ok(()),
        tar::EntryType::Directory if is_below_resources => Ok(()),
        tar::EntryType::Regular | tar::EntryType::Directory => {
            Err("which is neither topology.json, nor worker, nor below resources/")
        }
        _ => Err("which is neither a file nor a folder"),
    }
}
