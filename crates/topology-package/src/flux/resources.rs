//! Collects the author's files for the topology package.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::package::{MAX_FILES, Mode, PackageFile};

/// Names that are never packed: generated files, and files for the author only.
const EXCLUDED: &[&str] = &["__pycache__", ".git"];

/// Maximum nesting of folders. Lower than the number of links that the kernel follows in one path,
/// so that folders that link to each other are reported as such.
const MAX_DEPTH: usize = 32;

/// Reason why the files cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The target of a link is outside of the folder.
    #[error("{} is a link to a target outside of {}; copy the target", path.display(), root.display())]
    OutsideLink {
        /// Path of the link.
        path: PathBuf,
        /// Folder that must contain the target.
        root: PathBuf,
    },
    /// The entry is neither a file nor a folder, or its name or nesting cannot be packed.
    #[error("{} {what}", path.display())]
    Unsupported {
        /// Path of the entry.
        path: PathBuf,
        /// Description of the fault.
        what: &'static str,
    },
    /// The folder has too many entries.
    #[error("{} has more than {MAX_FILES} files and folders", root.display())]
    TooMany {
        /// Path of the folder.
        root: PathBuf,
    },
    /// The files are too large together.
    #[error("{} contains more than the {limit} bytes allowed (nimbus.max.blob.bytes)", root.display())]
    TooLarge {
        /// Path of the folder.
        root: PathBuf,
        /// Maximum number of bytes.
        limit: u64,
    },
}

/// Collects every file below `root`. Links are followed if their target is below `root`. Blocks.
///
/// # Errors
/// The first file that cannot be packed.
pub(crate) fn collect(root: &Path, max_bytes: u64) -> Result<Vec<PackageFile>, Error> {
    let real = root.canonicalize().map_err(|source| Error::Read { path: root.to_owned(), source })?;
    let mut walk = Walk { root, real, files: Vec::new(), n_entries: 0, bytes: 0, max_bytes };
    walk.folder(root, String::new(), 0)?;
    Ok(walk.files)
}

struct Walk<'a> {
    root: &'a Path,
    real: PathBuf,
    files: Vec<PackageFile>,
    /// Number of files and folders visited. It is bounded so that links cannot make the walk
    /// endless.
    n_entries: usize,
    bytes: u64,
    max_bytes: u64,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, name: String, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            // Two folders that link to each other end here as well.
            return Err(unsupported(path, "is nested too deeply"));
        }
        let read = |source| Error::Read { path: path.to_owned(), source };
        for entry in fs::read_dir(path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else {
                return Err(unsupported(&path, "has a name that is not UTF-8"));
            };
            if EXCLUDED.contains(&text) {
                continue;
            }
            let name = if name.is_empty() { text.to_owned() } else { format!("{name}/{text}") };
            self.entry(&path, name, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: String, depth: usize) -> Result<(), Error> {
        self.n_entries += 1;
        if self.n_entries > MAX_FILES {
            return Err(Error::TooMany { root: self.root.to_owned() });
        }
        let read = |source| Error::Read { path: path.to_owned(), source };
        let real = path.canonicalize().map_err(read)?;
        if !real.starts_with(&self.real) {
            return Err(Error::OutsideLink { path: path.to_owned(), root: self.root.to_owned() });
        }
        let metadata = fs::metadata(&real).map_err(read)?;
        if metadata.is_dir() {
            let parent = path.parent().map(Path::canonicalize).transpose().map_err(read)?;
            if parent.is_some_and(|parent| parent.starts_with(&real)) {
                return Err(unsupported(path, "is a link to a folder above it"));
            }
            return self.folder(path, name, depth + 1);
        }
        if !metadata.is_file() {
            return Err(unsupported(path, "is neither a file nor a folder"));
        }
        self.bytes += metadata.len();
        if self.bytes > self.max_bytes {
            return Err(Error::TooLarge { root: self.root.to_owned(), limit: self.max_bytes });
        }
        let mode = match metadata.permissions().mode() & 0o111 {
            0 => Mode::Plain,
            _ => Mode::Executable,
        };
        let bytes = fs::read(&real).map_err(read)?;
        self.files.push(PackageFile { path: name, mode, bytes });
        Ok(())
    }
}

fn unsupported(path: &Path, what: &'static str) -> Error {
    Error::Unsupported { path: path.to_owned(), what }
}
