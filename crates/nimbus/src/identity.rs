//! Identity of a nimbus: an id that lasts as long as its local directory, and a lock that at
//! most one process can hold.
//!
//! Thanks to the lock a restarted nimbus may take over from its own dead session: no other
//! process can be using its id.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use stormkeeper_model::{InvalidId, NimbusId};
use stormkeeper_runtime::fs::{LayoutFile, atomic_file, layout_file};

const ID_FILE: &str = "nimbus-id";

/// Layout of the data directory of a nimbus. The metric store has its own in `metrics`.
const LAYOUT: LayoutFile = LayoutFile {
    kind: "nimbus",
    traces: &[ID_FILE, "blobs"],
    remedy: "set another storm.local.dir, or stop the nimbus and move the directory away: a new nimbus then fetches \
             blobs and metrics from the other nimbuses",
};

/// The id of this nimbus and the lock on its directory, held until this is dropped.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: NimbusId,
    _lock: File,
}

/// Reason why a local directory gives no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file in it cannot be used.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The directory has another layout.
    #[error(transparent)]
    Layout(#[from] layout_file::Error),
    /// Another process holds the lock.
    #[error("another nimbus is running in {}; give each its own storm.local.dir", path.display())]
    InUse {
        /// The locked directory.
        path: PathBuf,
    },
    /// The id file does not hold a valid id.
    #[error("{} does not hold a nimbus id; delete it unless the nimbus must keep its former id", path.display())]
    BadId {
        /// The id file.
        path: PathBuf,
        /// Parse error.
        #[source]
        source: InvalidId,
    },
}

impl Identity {
    /// Locks `dir` and reads the id in it, or makes one: `<host>-<8 hexadecimal digits>`.
    pub(super) fn acquire(dir: &Path, host: &str) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        // Before the lock: its file must not appear in a directory of another layout.
        LAYOUT.check(dir)?;
        fs::create_dir_all(dir).map_err(io(dir))?;
        let lock_path = dir.join("nimbus.lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path: lock_path, source }),
        }
        LAYOUT.check_or_create(dir)?;
        let path = dir.join(ID_FILE);
        let id = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|source| Error::BadId { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = new_id(host);
                atomic_file::write(&path, format!("{id}\n").as_bytes()).map_err(io(&path))?;
                id
            }
            Err(source) => return Err(Error::Io { path, source }),
        };
        Ok(Self { id, _lock: lock })
    }
}

/// Most characters of the host name in an id, so that the id stays well under its limit.
const HOST_CHARS_MAX: usize = 60;

fn new_id(host: &str) -> NimbusId {
    let host: String = (host.chars().take(HOST_CHARS_MAX))
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' })
        .collect();
    format!("{host}-{:08x}", fastrand::u32(..)).parse().expect("letters, digits, dots and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_stable_and_a_second_process_is_rejected() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::acquire(dir.path(), "ho:st/1").expect("taken");
        assert!(first.id.as_str().starts_with("ho-st-1-"), "{}", first.id);
        let refused = Identity::acquire(dir.path(), "host").expect_err("in use");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        let id = first.id.clone();
        drop(first);
        assert_eq!(Identity::acquire(dir.path(), "other").expect("taken").id, id);
    }

    #[test]
    fn directory_of_an_earlier_build_is_refused_and_not_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(ID_FILE), "host-1").expect("written");
        let refused = Identity::acquire(dir.path(), "host").expect_err("refused");
        assert!(matches!(refused, Error::Layout(layout_file::Error::Unversioned { .. })), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn an_invalid_id_file_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Identity::acquire(dir.path(), "host").expect("taken"));
        fs::write(dir.path().join(ID_FILE), "a/b").expect("written");
        let refused = Identity::acquire(dir.path(), "host").expect_err("spoilt");
        assert!(refused.to_string().contains("nimbus-id"), "{refused}");
    }
}
