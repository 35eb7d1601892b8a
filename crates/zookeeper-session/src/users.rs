//! Users of the tree that a process reads from its file.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use stormkeeper_access::file::{self, FileError, PERIOD, Protection, WatchedFile};
use stormkeeper_coordination::{
    cluster::users::Users,
    tree::{
        access::{Access, AccessRules},
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Opens a file of users whose later contents must follow the ones before. Blocks.
///
/// # Errors
/// [`FileError`].
pub fn open_checked(path: &Path) -> Result<WatchedFile<Users>, FileError> {
    let (owned, in_force) = (path.to_owned(), Mutex::new(None::<Users>));
    WatchedFile::open_all(vec![path.to_owned()], move || {
        let users = read(&owned)?;
        let mut in_force = in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(fault)) = in_force.as_ref().map(|before| before.check_successor(&users)) {
            return Err(FileError::Content { path: owned.clone(), fault: fault.to_string() });
        }
        *in_force = Some(users.clone());
        Ok(users)
    })
}

/// Opens the file of the users of a worker, which its supervisor may write later. Blocks.
///
/// # Errors
/// [`FileError`] if there is a file that cannot be used.
pub fn of_worker(path: &Path) -> Result<WatchedFile<Option<Users>>, FileError> {
    WatchedFile::open(path, read_optional)
}

/// Reads a file of users, which nobody but its owner may read. Blocks.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<Users, FileError> {
    let text = file::read(path, Protection::Secret)?;
    Users::parse(&text)
        .map_err(|fault| FileError::Content { path: path.to_owned(), fault: fault.to_string() })
}

fn read_optional(path: &Path) -> Result<Option<Users>, FileError> {
    match read(path) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Returns how a process with these users, of the file at `path`, connects to the tree.
pub fn access(users: &Users, path: &Path) -> Access {
    access_with(users, format!("`sasl NAME:PASSWORD` in {}", path.display()))
}

/// Returns how a worker with these users connects to the tree.
pub fn access_of_worker(users: &Users) -> Access {
    let line = "`sasl-workers NAME:PASSWORD` in the storm.zookeeper.users.file of its supervisor";
    access_with(users, line.to_owned())
}

fn access_with(users: &Users, sasl_line: String) -> Access {
    let rules = (!users.is_open()).then(|| Arc::new(users.clone()) as Arc<dyn AccessRules>);
    Access { credentials: users.own().to_vec(), rules, sasl: users.sasl().cloned(), sasl_line }
}

/// Reads a file of users again when it changes, lets the tree have them, and then calls `announce`.
pub fn keep_fresh<T: PartialEq + Send + Sync + 'static>(
    file: WatchedFile<T>,
    tree: Arc<ZooKeeperTree>,
    tasks: &Tasks,
    access: impl Fn(&T) -> Option<Access> + Send + 'static,
    announce: impl Fn(&T) + Send + 'static,
) {
    tasks.start("users of the tree", OnExit::Ignore, async move {
        let mut in_force = file.get();
        loop {
            tokio::time::sleep(PERIOD).await;
            let changed = file.clone();
            blocking::run(move || changed.refresh()).await;
            let now = file.get();
            if *now != *in_force {
                tree.replace_access(access(&now)).await;
                announce(&now);
                in_force = now;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use stormkeeper_coordination::cluster::users::UserFiles;

    #[test]
    fn file_of_another_cluster_is_named_and_does_not_come_into_force() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("zookeeper-users-nimbus");
        let write = |users: &Users| {
            let new = dir.path().join("new");
            fs::write(&new, users.to_string()).expect("written");
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("set");
            fs::rename(&new, &path).expect("renamed");
        };
        let of = |seed: u8| UserFiles::generate([seed, seed + 1, seed + 2].map(|byte| [byte; 32]));
        let (ours, theirs) = (of(1), of(11));
        write(&ours.nimbus);
        let file = open_checked(&path).expect("opened");
        let problem = file.problem();
        for (wrong, reason) in [(&theirs.nimbus, "of another cluster"), (&ours.supervisor, "of a supervisor")]
        {
            write(wrong);
            file.refresh();
            assert_eq!(*file.get(), ours.nimbus);
            let text = problem.borrow().clone().expect("a problem");
            assert!(text.contains(reason) && text.contains("zookeeper-users-nimbus"), "{text}");
            write(&ours.nimbus);
            file.refresh();
            assert_eq!(*problem.borrow(), None);
        }
    }
}
