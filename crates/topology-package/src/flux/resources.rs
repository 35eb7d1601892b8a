//! The author's files, as they travel.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::package::{File, MAX_FILES, Mode};

/// What never travels: it is made anew, or belongs to the author alone.
const LEFT_OUT: &[&str] = &["__pycache__", ".git"];

/// How deeply folders may be nested. Fewer than the links that the kernel follows in one
/// path, so that folders that lead to one another by links are named as such.
const MAX_DEPTH: usize = 32;

/// Why the files cannot travel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link leads elsewhere.
    #[error("{} is a link that leads out of {}; copy what it names", path.display(), root.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// The folder that it must stay in.
        root: PathBuf,
    },
    /// It is neither a file nor a folder, or has a name that cannot travel.
    #[error("{} {what}", path.display())]
    Strange {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There are too many.
    #[error("{} has more than {MAX_FILES} files and folders", root.display())]
    TooMany {
        /// The folder.
        root: PathBuf,
    },
    /// They are too large together.
    #[error("{} holds more than the {limit} bytes allowed (nimbus.max.blob.bytes)", root.display())]
    TooLarge {
        /// The folder.
        root: PathBuf,
        /// How much may travel.
        limit: u64,
    },
}

/// Every file below `root`. Links are followed as long as they stay below it. Blocks.
///
/// # Errors
/// The first file that cannot travel.
pub(super) fn collect(root: &Path, max_bytes: u64) -> Result<Vec<File>, Error> {
    let real = root.canonicalize().map_err(|source| Error::Read { path: root.to_owned(), source })?;
    let mut walk = Walk { root, real, files: Vec::new(), n_entries: 0, bytes: 0, max_bytes };
    walk.folder(root, String::new(), 0)?;
    Ok(walk.files)
}

struct Walk<'a> {
    root: &'a Path,
    real: PathBuf,
    files: Vec<File>,
    /// Files and folders seen; counted so that links cannot make the walk endless.
    n_entries: usize,
    bytes: u64,
    max_bytes: u64,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, name: String, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            // Also what two folders that link to each other come to.
            return Err(strange(path, "is nested too deeply"));
        }
        let read = |source| Error::Read { path: path.to_owned(), source };
        for entry in fs::read_dir(path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else {
                return Err(strange(&path, "has a name that is not UTF-8"));
            };
            if LEFT_OUT.contains(&text) {
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
            return Err(Error::LeadsOut { path: path.to_owned(), root: self.root.to_owned() });
        }
        let metadata = fs::metadata(&real).map_err(read)?;
        if metadata.is_dir() {
            let above = path.parent().map(Path::canonicalize).transpose().map_err(read)?;
            if above.is_some_and(|above| above.starts_with(&real)) {
                return Err(strange(path, "is a link to a folder above it"));
            }
            return self.folder(path, name, depth + 1);
        }
        if !metadata.is_file() {
            return Err(strange(path, "is neither a file nor a folder"));
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
        self.files.push(File { path: name, mode, bytes });
        Ok(())
    }
}

fn strange(path: &Path, what: &'static str) -> Error {
    Error::Strange { path: path.to_owned(), what }
}
