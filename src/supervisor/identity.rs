//! Who this supervisor is, and that nobody else is it at the same time.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{model::SupervisorId, supervisor::durable};

const ID_FILE: &str = "supervisor-id";
const LOCK_FILE: &str = "supervisor.lock";

/// Why a supervisor cannot use its local directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another supervisor has the directory.
    #[error("{} is in use by another supervisor; give each its own storm.local.dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file with the id holds something else.
    #[error("{} does not hold a supervisor id; remove it to become a new supervisor", path.display())]
    NotAnId {
        /// The file.
        path: PathBuf,
    },
}

/// The right to use a local directory, for as long as it lives.
#[derive(Debug)]
pub struct Identity {
    /// The id of the directory's supervisor.
    pub id: SupervisorId,
    _lock: File,
}

impl Identity {
    /// Takes the directory at `dir`, which is created if it is missing, and reads its
    /// supervisor's id; the first time, makes one from `host`. Blocks.
    ///
    /// # Errors
    /// [`Error`]; above all when another process uses the directory.
    pub fn take(dir: &Path, host: &str) -> Result<Self, Error> {
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        fs::create_dir_all(dir).map_err(|error| io(dir, error))?;
        let lock_path = dir.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| io(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(io(&lock_path, error)),
        }
        let id_path = dir.join(ID_FILE);
        let id = match fs::read_to_string(&id_path) {
            Ok(text) => text.trim().parse().map_err(|_| Error::NotAnId { path: id_path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = new_id(host, fastrand::u32(..));
                durable::write(&id_path, format!("{id}\n").as_bytes())
                    .map_err(|error| io(&id_path, error))?;
                id
            }
            Err(error) => return Err(io(&id_path, error)),
        };
        Ok(Self { id, _lock: lock })
    }
}

/// `host-8 hex digits`, with a dash for whatever an id may not hold.
fn new_id(host: &str, random: u32) -> SupervisorId {
    /// Leaves room for the digits in the longest id allowed.
    const MAX_HOST_CHARS: usize = 100;
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' };
    let host: String = host.chars().take(MAX_HOST_CHARS).map(fits).collect();
    format!("{host}-{random:08x}").parse().expect("letters, digits, dots and dashes make an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Identity::take(dir.path(), "host.example").expect("taken").id;
        assert!(first.as_str().starts_with("host.example-"), "{first}");
        assert_eq!(Identity::take(dir.path(), "other").expect("taken").id, first);
    }

    #[test]
    fn two_supervisors_never_share_a_directory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let taken = Identity::take(dir.path(), "h").expect("taken");
        let refused = Identity::take(dir.path(), "h").expect_err("in use").to_string();
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        drop(taken);
        Identity::take(dir.path(), "h").expect("free again");
    }

    #[test]
    fn a_damaged_id_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(ID_FILE), "not / an id").expect("written");
        assert!(matches!(Identity::take(dir.path(), "h"), Err(Error::NotAnId { .. })));
    }

    #[test]
    fn any_host_makes_an_id() {
        for host in ["::1", "a b", "", "ä", &"x".repeat(300)] {
            assert!(new_id(host, 1).as_str().ends_with("-00000001"));
        }
    }
}
