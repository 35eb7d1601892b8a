//! The users of the tree that a daemon, a worker or a command reads from its file.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::anyhow;
use tracing::warn;

use crate::{
    cli::{
        error::{ErrorKind, Failure},
        zookeeper_tls::TlsFiles,
    },
    config::Config,
};
use stormkeeper_access::{
    file::{self, FileError, PERIOD, Protection, WatchedFile},
    locks::ZooKeeperProblems,
};
use stormkeeper_coordination::{
    cluster::users::{HeldUsers, Users},
    tree::{
        access::{Access, AccessRules},
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
    watch,
};

/// Kind of a daemon, which has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DaemonKind {
    Nimbus,
    Supervisor,
}

/// Opens the file of the users of a daemon, if it has one.
pub(super) fn of_daemon(config: &Config, kind: DaemonKind) -> Result<Option<WatchedFile<Users>>, Failure> {
    let open = |path: &Path| {
        let file = open_checked(path).map_err(failure)?;
        if kind == DaemonKind::Supervisor && file.get().lacks_sasl_of_workers() {
            warn!(
                "{} has a line `sasl` and no line `sasl-workers`: servers that demand SASL refuse the sessions of \
                 workers",
                path.display()
            );
        }
        let (is, wanted) = (file.get().is_nimbus(), kind == DaemonKind::Nimbus);
        let [has, wants] = [is, wanted].map(|is| if is { "nimbus" } else { "supervisor" });
        match is == wanted {
            true => Ok(file),
            false => {
                let error = anyhow!("{} is the file of a {has}, and this is a {wants}", path.display());
                let hint =
                    format!("use zookeeper-users-{wants}; each kind of daemon has passwords of its own");
                Err(Failure::new(ErrorKind::Config, error).with_hint(hint))
            }
        }
    };
    config.zookeeper_users_file().map(|path| open(&path)).transpose()
}

/// Opens a file of users whose later contents must follow the ones before.
fn open_checked(path: &Path) -> Result<WatchedFile<Users>, FileError> {
    let (owned, in_force) = (path.to_owned(), Mutex::new(None::<Users>));
    WatchedFile::open_all(vec![path.to_owned()], move || {
        let users = read_file(&owned)?;
        let mut in_force = in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(fault)) = in_force.as_ref().map(|before| before.check_successor(&users)) {
            return Err(FileError::Content { path: owned.clone(), fault: fault.to_string() });
        }
        *in_force = Some(users.clone());
        Ok(users)
    })
}

/// Opens the file of the users of a worker, which its supervisor may write later.
pub(super) fn of_worker(path: &Path) -> Result<WatchedFile<Option<Users>>, Failure> {
    WatchedFile::open(path, read_optional).map_err(failure)
}

/// Reads a file of users, which nobody but its owner may read.
pub(super) fn read(path: &Path) -> Result<Users, Failure> {
    read_file(path).map_err(failure)
}

fn failure(error: FileError) -> Failure {
    Failure::new(ErrorKind::Config, error.into())
}

fn read_file(path: &Path) -> Result<Users, FileError> {
    let text = file::read(path, Protection::Secret)?;
    Users::parse(&text)
        .map_err(|fault| FileError::Content { path: path.to_owned(), fault: fault.to_string() })
}

fn read_optional(path: &Path) -> Result<Option<Users>, FileError> {
    match read_file(path) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Returns how a process with these users, of the file at `path`, connects to the tree.
pub(super) fn access(users: &Users, path: &Path) -> Access {
    access_with(users, format!("`sasl NAME:PASSWORD` in {}", path.display()))
}

/// Returns how a worker with these users connects to the tree.
pub(super) fn access_of_worker(users: &Users) -> Access {
    let line = "`sasl-workers NAME:PASSWORD` in the storm.zookeeper.users.file of its supervisor";
    access_with(users, line.to_owned())
}

fn access_with(users: &Users, sasl_line: String) -> Access {
    let rules = (!users.is_open()).then(|| Arc::new(users.clone()) as Arc<dyn AccessRules>);
    Access { credentials: users.own().to_vec(), rules, sasl: users.sasl().cloned(), sasl_line }
}

/// Users of a daemon that runs.
pub(super) struct Fresh {
    /// The users that its sessions have, as its record says them.
    pub(super) held: watch::Receiver<HeldUsers>,
    /// Reason why the file on the disk is not in force; `None` without a file.
    pub(super) problem: Option<watch::Receiver<Option<String>>>,
}

impl Fresh {
    /// Reads the files of TLS again too when they change. Returns why files for ZooKeeper are not in force.
    pub(super) fn problems(
        &self,
        tls: Option<TlsFiles>,
        tree: &Arc<ZooKeeperTree>,
        tasks: &Tasks,
    ) -> ZooKeeperProblems {
        let mut problems = ZooKeeperProblems::default();
        if let Some(problem) = &self.problem {
            problems.users = problem.clone();
        }
        if let Some(files) = tls {
            problems.tls = files.keep_fresh(Arc::clone(tree), tasks);
        }
        problems
    }
}

/// Reads the file of the users of a daemon again when it changes, and lets the tree have them.
pub(super) fn keep_fresh_of_daemon(
    config: &Config,
    file: Option<WatchedFile<Users>>,
    tree: &Arc<ZooKeeperTree>,
    tasks: &Tasks,
) -> Fresh {
    let Some((file, path)) = file.zip(config.zookeeper_users_file()) else {
        return Fresh { held: HeldUsers::none(), problem: None };
    };
    let (sender, held) = watch::channel(file.get().held());
    let problem = Some(file.problem());
    let access = move |users: &Users| Some(access(users, &path));
    let announce = move |users: &Users| drop(sender.send_replace(users.held()));
    keep_fresh(file, Arc::clone(tree), tasks, access, announce);
    Fresh { held, problem }
}

/// Reads a file of users again when it changes, lets the tree have them, and then calls `announce`.
pub(super) fn keep_fresh<T: PartialEq + Send + Sync + 'static>(
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
