//! Id of this supervisor, and the lock that keeps other processes from using its directory.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use stormkeeper_model::SupervisorId;
use stormkeeper_runtime::fs::{LayoutFile, atomic_file, layout_file};

const ID_FILE: &str = "supervisor-id";
const LOCK_FILE: &str = "supervisor.lock";

/// Layout of the data directory of a supervisor, with the ledger, the blobs and the workers.
const LAYOUT: LayoutFile = LayoutFile {
    kind: "supervisor",
    traces: &[ID_FILE, "ledger", "blobs", "workers"],
    remedy: "set another storm.local.dir, or stop the supervisor and its workers and move the directory away: a new \
             supervisor then fetches the blobs again",
};

/// Cause of a failure to use a supervisor's local directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The directory has another layout.
    #[error(transparent)]
    Layout(#[from] layout_file::Error),
    /// Another supervisor uses the directory.
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

/// The id of a supervisor and the lock of its local directory, held until this is dropped.
#[derive(Debug)]
pub struct Identity {
    /// The id of the directory's supervisor.
    pub id: SupervisorId,
    _lock: File,
}

impl Identity {
    /// Locks the directory at `dir`, which is created if it is missing, and reads its supervisor's
    /// id. The first time, creates an id from `host`. Blocks.
    ///
    /// # Errors
    /// [`Error`]; above all when another process uses the directory.
    pub fn acquire(dir: &Path, host: &str) -> Result<Self, Error> {
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        // Before the lock: its file must not appear in a directory of another layout.
        LAYOUT.check(dir)?;
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
        LAYOUT.check_or_create(dir)?;
        let id_path = dir.join(ID_FILE);
        let id = match fs::read_to_string(&id_path) {
            Ok(text) => text.trim().parse().map_err(|_| Error::NotAnId { path: id_path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = new_id(host, fastrand::u32(..));
                atomic_file::write(&id_path, format!("{id}\n").as_bytes())
                    .map_err(|error| io(&id_path, error))?;
                id
            }
            Err(error) => return Err(io(&id_path, error)),
        };
        Ok(Self { id, _lock: lock })
    }
}

/// `host-8 hex digits`, with a dash for each character that an id may not contain.
fn new_id(host: &str, random: u32) -> SupervisorId {
    /// Leaves room for the digits in the longest id that is allowed.
    const MAX_HOST_CHARS: usize = 100;
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' };
    let host: String = host.chars().take(MAX_HOST_CHARS).map(fits).collect();
    format!("{host}-{random:08x}").parse().expect("letters, digits, dots and dashes make an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_survives_a_restart_with_another_host() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Identity::acquire(dir.path(), "host.example").expect("taken").id;
        assert!(first.as_str().starts_with("host.example-"), "{first}");
        assert_eq!(Identity::acquire(dir.path(), "other").expect("taken").id, first);
    }

    #[test]
    fn second_supervisor_in_a_directory_is_rejected() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let taken = Identity::acquire(dir.path(), "h").expect("taken");
        let refused = Identity::acquire(dir.path(), "h").expect_err("in use").to_string();
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        drop(taken);
        Identity::acquire(dir.path(), "h").expect("free again");
    }

    #[test]
    fn directory_of_an_earlier_build_is_refused_and_not_changed() {
        for trace in ["supervisor-id", "ledger", "workers"] {
            let dir = tempfile::tempdir().expect("temporary directory");
            fs::write(dir.path().join(trace), "").expect("written");
            let refused = Identity::acquire(dir.path(), "h").expect_err("refused");
            assert!(matches!(refused, Error::Layout(layout_file::Error::Unversioned { .. })), "{refused}");
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        }
    }

    #[test]
    fn damaged_id_file_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        drop(Identity::acquire(dir.path(), "h").expect("taken"));
        fs::write(dir.path().join(ID_FILE), "not / an id").expect("written");
        assert!(matches!(Identity::acquire(dir.path(), "h"), Err(Error::NotAnId { .. })));
    }

    #[test]
    fn any_host_yields_a_valid_id() {
        for host in ["::1", "a b", "", "ä", &"x".repeat(300)] {
            assert!(new_id(host, 1).as_str().ends_with("-00000001"));
        }
    }
}
