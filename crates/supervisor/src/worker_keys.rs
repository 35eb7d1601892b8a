//! Keys of workers, in their directories.
//!
//! A worker gets the keys of its topology before it starts. When the cluster secret changes, or a cluster
//! that had none gets one, the files of running workers are written again, and the workers read them:
//! none restarts for it.

use std::{fs, io, path::Path};

use stormkeeper_access::{file::create_secret, locks::Locks, secret::WorkerKeys};
use stormkeeper_model::TopologyId;
use stormkeeper_runtime::fs::regular_file;

/// Writes the keys of a worker of `topology` into its directory, unless they are there. Without a cluster
/// secret nothing is written, and keys that are there stay. Blocks.
///
/// # Errors
/// If the file cannot be written; the keys before are still there then.
pub(super) fn put(dir: &Path, topology: &TopologyId, locks: &Locks) -> io::Result<()> {
    let Some(keys) = locks.worker_keys(topology) else { return Ok(()) };
    let (path, text) = (dir.join(WorkerKeys::FILE), keys.text());
    if regular_file::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let temporary = dir.join("access.keys.tmp");
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    create_secret(&temporary, &text)?;
    fs::rename(&temporary, &path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use stormkeeper_access::{locks::Settings, secret::Secrets};

    #[test]
    fn keys_of_a_running_worker_follow_the_secret_and_only_its_user_may_read_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let topology: TopologyId = "wc-1-1".parse().expect("valid");
        let path = dir.path().join(WorkerKeys::FILE);
        put(dir.path(), &topology, &Locks::open()).expect("nothing to write");
        assert!(!path.exists());

        let secret = dir.path().join("secret");
        create_secret(&secret, &Secrets::generate().expect("random bytes")).expect("written");
        let settings = Settings { mode: None, tokens: None, secret: Some(secret.clone()) };
        let locks = Locks::of_supervisor(&settings).expect("valid");
        let first = locks.worker_keys(&topology).expect("a secret");
        put(dir.path(), &topology, &locks).expect("written");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(first.clone()));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        fs::write(&secret, Secrets::generate().expect("random bytes")).expect("written");
        locks.secrets().expect("there").refresh();
        put(dir.path(), &topology, &locks).expect("written");
        let second = WorkerKeys::read(&path).expect("read").expect("there");
        assert_ne!(second, first);
        put(dir.path(), &topology, &Locks::open()).expect("nothing to write");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(second), "the keys stay");
    }
}
