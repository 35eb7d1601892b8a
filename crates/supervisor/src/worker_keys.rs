//! Keys and ZooKeeper users of workers, in their directories.
//!
//! A worker gets the keys of its topology before it starts. When the cluster secret changes, or a cluster
//! that had none gets one, the files of running workers are written again, and the workers read them:
//! none restarts for it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    run_as::{self, FilesPlace},
    worker_dir,
};
use stormkeeper_access::{
    file::{self, Protection},
    locks::Locks,
    secret::WorkerKeys,
    tls::{Tls, worker::WorkerTls},
};
use stormkeeper_coordination::cluster::users::Users;
use stormkeeper_model::{Timestamp, TopologyId, WorkerId};
use stormkeeper_topology_package::launch::{CREDENTIALS_FILE, USERS_FILE, ZOOKEEPER_IDENTITY_FILE};

/// Writes the keys and the TLS of a worker of `topology` into its directory, unless they are there. Without a
/// cluster secret nothing is written, and keys that are there stay. Blocks.
///
/// # Errors
/// If the file cannot be written; the keys before are still there then.
pub(super) fn put(place: &FilesPlace, topology: &TopologyId, locks: &Locks) -> io::Result<()> {
    let Some(keys) = locks.worker_keys(topology) else { return Ok(()) };
    place.replace_secret(WorkerKeys::FILE, &keys.text())?;
    put_tls(place, locks.tls())
}

/// Writes whether a worker uses TLS, and whom it trusts. Without TLS the file is removed: the ports of
/// nimbuses are plain again.
fn put_tls(place: &FilesPlace, tls: &Tls) -> io::Result<()> {
    match tls.worker_text() {
        Some(text) => place.replace_secret(WorkerTls::FILE, &text),
        None => match std::fs::remove_file(place.path(WorkerTls::FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Writes the ZooKeeper users of a worker of `topology` into its directory, if the supervisor has a file of
/// users. Blocks.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn put_users(place: &FilesPlace, topology: &TopologyId, users: Option<&Users>) -> io::Result<()> {
    match users {
        Some(users) => place.replace_secret(USERS_FILE, &users.of_worker(topology).to_string()),
        None => Ok(()),
    }
}

/// Files with the certificate that workers present to ZooKeeper, and with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, with those between it and its authority, in PEM.
    pub certificates: PathBuf,
    /// Its key in PEM, which nobody but its owner may read.
    pub key: PathBuf,
}

/// Writes the certificate and the key for ZooKeeper into the directory of a worker of another user, which
/// cannot read the files of the configuration. Blocks.
///
/// # Errors
/// If a file cannot be read, or the copy cannot be written; the copy before is still there then.
pub(super) fn put_zookeeper_identity(place: &FilesPlace, files: Option<&IdentityFiles>) -> io::Result<()> {
    let Some(IdentityFiles { certificates, key }) = files.filter(|_| place.is_of_another_user()) else {
        return Ok(());
    };
    let certificates = file::read(certificates, Protection::Unchanged).map_err(io::Error::other)?;
    let key = file::read(key, Protection::Secret).map_err(io::Error::other)?;
    place.replace_secret(ZOOKEEPER_IDENTITY_FILE, &format!("{}\n{key}", certificates.trim_end()))
}

/// Age of a launch from which it is looked at: a younger one may have been begun after the list of live
/// workers was made.
const ENDED_AFTER: Duration = Duration::from_secs(60);

/// Removes the secrets of the workers that are not `live`: keys, users, and credentials of topologies.
/// Their logs stay. Blocks.
///
/// # Errors
/// If the launches cannot be listed, or a file cannot be removed; the others are removed all the same.
pub(super) fn remove_of_ended(local_dir: &Path, live: &BTreeSet<WorkerId>, now: Timestamp) -> io::Result<()> {
    let is_old =
        |worker: &WorkerId| worker_dir::launched_at(worker).is_some_and(|at| at.plus(ENDED_AFTER) < now);
    let ended =
        worker_dir::all(local_dir)?.into_iter().filter(|worker| !live.contains(worker) && is_old(worker));
    let mut outcome = Ok(());
    for worker in ended {
        let dirs = [worker_dir::path(local_dir, &worker), run_as::files_dir(local_dir).join(worker.as_str())];
        for file in [WorkerKeys::FILE, USERS_FILE, ZOOKEEPER_IDENTITY_FILE, CREDENTIALS_FILE] {
            for dir in &dirs {
                match fs::remove_file(dir.join(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                    _ => {}
                }
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use stormkeeper_access::{
        file::create_secret,
        locks::Settings,
        secret::Secrets,
        tls::{TlsMode, test_support::Authority},
    };
    use stormkeeper_coordination::cluster::users::UserFiles;

    #[test]
    fn keys_of_a_running_worker_follow_the_secret_and_only_its_user_may_read_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let topology: TopologyId = "wc-1-1".parse().expect("valid");
        let path = dir.path().join(WorkerKeys::FILE);
        put(&FilesPlace::plain(dir.path()), &topology, &Locks::open()).expect("nothing to write");
        assert!(!path.exists());

        let secret = dir.path().join("secret");
        create_secret(&secret, &Secrets::generate().expect("random bytes")).expect("written");
        let settings = Settings { secret: Some(secret.clone()), ..Settings::default() };
        let locks = Locks::of_supervisor(&settings).expect("valid");
        let first = locks.worker_keys(&topology).expect("a secret");
        put(&FilesPlace::plain(dir.path()), &topology, &locks).expect("written");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(first.clone()));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        fs::write(&secret, Secrets::generate().expect("random bytes")).expect("written");
        locks.secrets().expect("there").refresh();
        put(&FilesPlace::plain(dir.path()), &topology, &locks).expect("written");
        let second = WorkerKeys::read(&path).expect("read").expect("there");
        assert_ne!(second, first);
        put(&FilesPlace::plain(dir.path()), &topology, &Locks::open()).expect("nothing to write");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(second), "the keys stay");
    }

    #[test]
    fn running_worker_learns_the_authorities_of_its_supervisor_and_forgets_them_without_tls() {
        let dir = tempfile::tempdir().expect("a directory");
        let topology: TopologyId = "wc-1-1".parse().expect("valid");
        let (secret, ca) = (dir.path().join("secret"), dir.path().join("ca"));
        create_secret(&secret, &Secrets::generate().expect("random bytes")).expect("written");
        let authority = Authority::new();
        authority.write(&ca);
        let files = authority.issue(dir.path(), "host", &["s1"]);
        let locks = |mode| {
            let tls = files.settings(mode, &ca);
            let settings = Settings { secret: Some(secret.clone()), tls, ..Settings::default() };
            Locks::of_supervisor(&settings).expect("valid")
        };
        let written = || {
            let path = dir.path().join(WorkerTls::FILE);
            WorkerTls::read(&path).expect("valid").map(|tls| tls.mode())
        };
        for (mode, expected) in [
            (TlsMode::Optional, Some(TlsMode::Optional)),
            (TlsMode::Required, Some(TlsMode::Required)),
            (TlsMode::Off, None),
            (TlsMode::Off, None),
        ] {
            put(&FilesPlace::plain(dir.path()), &topology, &locks(mode)).expect("written");
            assert_eq!(written(), expected);
        }
    }

    #[test]
    fn worker_gets_the_users_of_its_topology_and_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let topology: TopologyId = "wc-1-1".parse().expect("valid");
        put_users(&FilesPlace::plain(dir.path()), &topology, None).expect("nothing to write");
        let path = dir.path().join(USERS_FILE);
        assert!(!path.exists());
        let files = UserFiles::generate([1, 2, 3].map(|byte| [byte; 32]));
        put_users(&FilesPlace::plain(dir.path()), &topology, Some(&files.supervisor)).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let users = Users::parse(&fs::read_to_string(&path).expect("read")).expect("valid");
        assert_eq!(users, files.nimbus.of_worker(&topology));
        assert_ne!(users, files.nimbus.of_worker(&"wc-2-1".parse().expect("valid")));
    }

    #[test]
    fn worker_of_another_user_gets_certificate_and_key_and_again_when_they_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = IdentityFiles { certificates: dir.path().join("crt"), key: dir.path().join("key") };
        fs::write(&files.certificates, "a certificate\n").expect("written");
        create_secret(&files.key, "a key\n").expect("written");
        let path = dir.path().join(ZOOKEEPER_IDENTITY_FILE);
        put_zookeeper_identity(&FilesPlace::plain(dir.path()), Some(&files)).expect("nothing to write");
        assert!(!path.exists(), "the same user reads the files themselves");

        let owner = fs::metadata(dir.path()).expect("there");
        let place = FilesPlace::of_user(dir.path(), (owner.uid(), owner.gid()));
        put_zookeeper_identity(&place, None).expect("nothing to write");
        assert!(!path.exists());
        put_zookeeper_identity(&place, Some(&files)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "a certificate\na key\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::write(&files.key, "another key\n").expect("written");
        put_zookeeper_identity(&place, Some(&files)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "a certificate\nanother key\n");

        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("set");
        let error = put_zookeeper_identity(&place, Some(&files)).expect_err("refused").to_string();
        assert!(error.contains("chmod 600") && !error.contains("another key"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("read"), "a certificate\nanother key\n", "it stays");
    }

    #[test]
    fn secrets_of_ended_workers_are_removed_and_their_logs_and_those_of_live_ones_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let launch = |secs: u64| -> WorkerId { format!("6700-{secs}-00000a").parse().expect("valid id") };
        let [live, ended, young] = [launch(1000), launch(1001), launch(1950)];
        let file = |worker: &WorkerId, name: &str| worker_dir::path(dir.path(), worker).join(name);
        let of_user = run_as::files_dir(dir.path()).join(ended.as_str());
        fs::create_dir_all(&of_user).expect("created");
        create_secret(&of_user.join(CREDENTIALS_FILE), "{}").expect("written");
        let secrets = [WorkerKeys::FILE, USERS_FILE, CREDENTIALS_FILE];
        for worker in [&live, &ended, &young] {
            fs::create_dir_all(file(worker, "logs")).expect("created");
            for name in secrets {
                create_secret(&file(worker, name), "{}").expect("written");
            }
        }
        let now = Timestamp::from_millis(2_000_000);
        remove_of_ended(dir.path(), &[live.clone()].into(), now).expect("removed");
        for (worker, stay) in [(&live, true), (&ended, false), (&young, true)] {
            let there = secrets.map(|name| file(worker, name).exists());
            assert_eq!((there, file(worker, "logs").exists()), ([stay; 3], true), "{worker}");
        }
        assert!(!of_user.join(CREDENTIALS_FILE).exists());
    }
}
