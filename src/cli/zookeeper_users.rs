//! The users of the tree that a daemon, a worker or a command reads from its file.

use std::{path::Path, sync::Arc};

use anyhow::anyhow;
use tracing::warn;

use crate::{
    cli::error::{ErrorKind, Failure},
    config::Config,
};
use stormkeeper_access::{
    file::{FileError, WatchedFile},
    locks::ZooKeeperProblems,
};
use stormkeeper_coordination::{
    cluster::users::{HeldUsers, Users},
    tree::zookeeper::ZooKeeperTree,
};
use stormkeeper_runtime::{tasks::Tasks, watch};
pub(super) use stormkeeper_zookeeper_session::users::access;
use stormkeeper_zookeeper_session::{
    tls::TlsFiles,
    users::{self, keep_fresh},
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
        let file = users::open_checked(path).map_err(failure)?;
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

/// Reads a file of users, which nobody but its owner may read.
pub(super) fn read(path: &Path) -> Result<Users, Failure> {
    users::read(path).map_err(failure)
}

fn failure(error: FileError) -> Failure {
    Failure::new(ErrorKind::Config, error.into())
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
