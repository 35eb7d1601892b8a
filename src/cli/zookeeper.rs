//! `stormkeeper zookeeper`

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    output,
    zookeeper_tls::{Process, TlsFiles},
    zookeeper_users,
};
use stormkeeper_access::file::{create_secret, replace_secret};
use stormkeeper_coordination::{
    cluster::{
        layout_version,
        store::Store,
        users::{Lack, LiveDaemon, UserFiles, UserKind, Users},
    },
    tree::{
        ReadTree as _, Tree as _,
        access::{Access, AccessRules},
        options::OnMissingRoot,
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_model::text::counted;
use stormkeeper_runtime::tasks::Tasks;

/// Longest wait for a session.
const SESSION_WAIT: Duration = Duration::from_secs(30);

/// Most daemons that one message names.
const NAMED_MAX: usize = 50;

/// Names of the files of one cluster.
const FILES: [&str; 2] = ["zookeeper-users-nimbus", "zookeeper-users-supervisor"];

/// Make users for ZooKeeper, and protect the tree by access control lists.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make the two files for storm.zookeeper.users.file, or replace a password in them
    Users(UsersArgs),
    /// Set the access control list of every znode of the cluster
    Protect(ProtectArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Copy zookeeper-users-nimbus to every host of a nimbus and zookeeper-users-supervisor to \
every host of a supervisor. Each has the password of its own daemons only.\n\
To replace a password: --add KIND, copy, `stormkeeper zookeeper protect`, --remove-old KIND, copy, and \
protect again. Daemons and workers read the files themselves.\n\
Example: stormkeeper zookeeper users /etc/stormkeeper"
)]
pub(super) struct UsersArgs {
    /// Directory of the two files
    dir: PathBuf,
    /// Add a new password beside the old one to the files that are there
    #[arg(long, value_name = "KIND", conflicts_with = "remove_old")]
    add: Option<Kind>,
    /// Remove all passwords but the newest from the files that are there
    #[arg(long, value_name = "KIND")]
    remove_old: Option<Kind>,
    /// Let everything that daemons and workers create stay open, while a running cluster gets users; also in
    /// files that are there
    #[arg(long, conflicts_with_all = ["add", "remove_old", "close"])]
    open: bool,
    /// End that, in the files that are there
    #[arg(long, conflicts_with_all = ["add", "remove_old"])]
    close: bool,
}

/// Kind of users.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Nimbus,
    Supervisor,
    Workers,
}

impl From<Kind> for UserKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Nimbus => Self::Nimbus,
            Kind::Supervisor => Self::Supervisor,
            Kind::Workers => Self::Workers,
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads storm.zookeeper.users.file, which must be that of a nimbus. Can be repeated at any \
time; an interrupted run is completed by the next one. Nothing is changed while a daemon runs that does \
not have these users, which could not write any more: see docs/operations/zookeeper-access.md.\n\
Example: stormkeeper zookeeper protect --config /etc/stormkeeper/storm.yaml"
)]
pub(super) struct ProtectArgs {
    /// Open every znode to whoever reaches ZooKeeper, as before
    #[arg(long)]
    open: bool,
    /// Protect it although daemons run that do not say which users they have, as builds before this check do
    #[arg(long, conflicts_with = "open")]
    even_if_unknown: bool,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Users(args) => users(args),
        Command::Protect(args) => protect(global, args),
    }
}

fn users(UsersArgs { dir, add, remove_old, open, close }: &UsersArgs) -> Result<(), Failure> {
    let paths = FILES.map(|name| dir.join(name));
    let files = match (add, remove_old) {
        (None, None) if *close || (*open && paths.iter().all(|path| path.exists())) => {
            let mut files = read(&paths)?;
            files.set_open(*open);
            files
        }
        (None, None) => {
            let mut files = UserFiles::generate([random()?, random()?, random()?]);
            files.set_open(*open);
            for (path, users) in paths.iter().zip([&files.nimbus, &files.supervisor]) {
                let written = create_secret(path, &users.to_string());
                let written = written.with_context(|| format!("creating {}", path.display()));
                written.map_err(|error| Failure::new(ErrorKind::Usage, error))?;
            }
            return said(&paths);
        }
        (Some(kind), _) => {
            let mut files = read(&paths)?;
            if files.n_of((*kind).into()) > 1 {
                let error = anyhow!("there are two passwords of this kind already");
                let hint =
                    "end that replacement first: protect the tree, then --remove-old, then protect it again";
                return Err(Failure::new(ErrorKind::Usage, error).with_hint(hint));
            }
            files.add((*kind).into(), random()?);
            files
        }
        (None, Some(kind)) => {
            let mut files = read(&paths)?;
            if !files.remove_old((*kind).into()) {
                return Err(Failure::usage(
                    "there is one password of this kind only: add the next one first",
                ));
            }
            files
        }
    };
    for (path, users) in paths.iter().zip([&files.nimbus, &files.supervisor]) {
        let written = replace_secret(path, &users.to_string());
        let written = written.with_context(|| format!("writing {}", path.display()));
        written.map_err(Failure::internal)?;
    }
    said(&paths)
}

fn said(paths: &[PathBuf; 2]) -> Result<(), Failure> {
    let [nimbus, supervisor] = paths.each_ref().map(|path| path.display());
    output::print(&format!("{nimbus}\n{supervisor}\n"))
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::internal(anyhow!("no random bytes: {error}")))?;
    Ok(bytes)
}

fn read([nimbus, supervisor]: &[PathBuf; 2]) -> Result<UserFiles, Failure> {
    Ok(UserFiles { nimbus: zookeeper_users::read(nimbus)?, supervisor: zookeeper_users::read(supervisor)? })
}

fn protect(global: &Global, ProtectArgs { open, even_if_unknown }: &ProtectArgs) -> Result<(), Failure> {
    let config = global.load()?;
    let unset = || {
        let error = anyhow!("storm.zookeeper.users.file is not set, so there is no user who may write");
        let hint = "make the files with `stormkeeper zookeeper users DIR`, and name the one of a nimbus";
        Failure::new(ErrorKind::Config, error).with_hint(hint)
    };
    let path = config.zookeeper_users_file().ok_or_else(unset)?;
    let users = zookeeper_users::read(&path)?;
    if !users.is_nimbus() {
        let error =
            anyhow!("{} is not the file of a nimbus, which alone may write every znode", path.display());
        return Err(Failure::new(ErrorKind::Config, error));
    }
    if users.is_open() != *open {
        let (state, verb) = if *open { ("no line", "--open") } else { ("a line", "--close") };
        let error = anyhow!(
            "{} has {state} `open`, so what the daemons create would not be as the tree is then",
            path.display()
        );
        let hint =
            format!("first `stormkeeper zookeeper users DIR {verb}`, copy the files, and wait half a minute");
        return Err(Failure::new(ErrorKind::Usage, error).with_hint(hint));
    }
    let mut options = config.tree_options(OnMissingRoot::Wait);
    let root = options.root.clone();
    options.access = Some(Access { rules: None, ..zookeeper_users::access(&users) });
    options.tls = TlsFiles::open(&config, Process::Daemon)?.map(|files| files.tls());
    let rules: Arc<dyn AccessRules> = Arc::new(users.clone());
    client_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
        let mut session = tree.session();
        let connected = session.wait_for(|state| state.connected().is_some());
        if tokio::time::timeout(SESSION_WAIT, connected).await.is_err() {
            let error = anyhow!("no session with ZooKeeper, or no tree at {root}, within {SESSION_WAIT:?}");
            return Err(Failure::new(ErrorKind::Unavailable, error));
        }
        let done = async {
            // The lists of another program are none of ours.
            let layout = layout_version::check(&*tree).await;
            layout.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))?;
            if !open {
                let daemons = Store::new(Arc::clone(&tree) as _).live_daemons().await;
                let daemons = daemons.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))?;
                check(&users, &daemons, *even_if_unknown)?;
            }
            let changed = tree.protect((!open).then_some(&rules)).await;
            changed.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))
        };
        let done = done.await;
        tree.close().await;
        let n = done?;
        let state = if *open { "open to everybody" } else { "protected" };
        output::print(&format!("{root} is {state}; changed the lists of {}\n", counted(n, "znode")))
    })
}

/// Refuses lists that would lock out a live daemon. One that does not say its users is only named, if
/// `even_if_unknown`.
fn check(users: &Users, daemons: &[LiveDaemon], even_if_unknown: bool) -> Result<(), Failure> {
    let lacking: Vec<(&str, Lack)> =
        daemons.iter().filter_map(|daemon| Some((&*daemon.name, users.lack_of(daemon)?))).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let named = lacking.iter().take(NAMED_MAX).map(|(name, lack)| format!("\n  {name} {lack}"));
    let mut text: String = named.collect();
    if lacking.len() > NAMED_MAX {
        text.push_str(&format!("\n  and {} more", lacking.len() - NAMED_MAX));
    }
    let n = format!("{} of {}", lacking.len(), counted(daemons.len(), "live daemon"));
    let are_unknown = lacking.iter().all(|(_, lack)| *lack == Lack::Unknown);
    if are_unknown && even_if_unknown {
        output::note(&format!("warning: {n} may be locked out:{text}"));
        return Ok(());
    }
    let error = anyhow!("{n} could not go on in the protected tree, so nothing was changed:{text}");
    let hint = match are_unknown {
        true => "upgrade them, or make sure that each has its file, and add --even-if-unknown",
        false => "repair or stop them, wait half a minute, and try again",
    };
    Err(Failure::new(ErrorKind::Refused, error).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::users::HeldUsers;

    fn daemon(n: usize, users: Option<HeldUsers>) -> LiveDaemon {
        LiveDaemon { kind: UserKind::Nimbus, name: format!("nimbus n{n} at h{n}"), users }
    }

    #[test]
    fn each_daemon_that_would_be_locked_out_is_named_with_what_it_lacks() {
        let users = UserFiles::generate([1, 2, 3].map(|byte| [byte; 32])).nimbus;
        let held = || Some(users.held());
        let text = |daemons: &[LiveDaemon], even_if_unknown| {
            check(&users, daemons, even_if_unknown).map_err(|failure| format!("{failure:?}"))
        };
        assert_eq!(text(&[daemon(1, held()), daemon(2, held())], false), Ok(()));
        let without = [daemon(1, held()), daemon(2, Some(HeldUsers::default())), daemon(3, None)];
        for even_if_unknown in [false, true] {
            let refused = text(&without, even_if_unknown).expect_err("refused");
            assert!(refused.contains("2 of 3 live daemons") && !refused.contains("n1"), "{refused}");
            assert!(refused.contains("nimbus n2 at h2 has no users"), "{refused}");
            assert!(refused.contains("nimbus n3 at h3 does not say"), "{refused}");
        }
        let unknown = [daemon(1, held()), daemon(3, None)];
        assert!(text(&unknown, false).expect_err("refused").contains("--even-if-unknown"));
        assert_eq!(text(&unknown, true), Ok(()));
        let many: Vec<LiveDaemon> = (0..NAMED_MAX + 7).map(|n| daemon(n, None)).collect();
        assert!(text(&many, false).expect_err("refused").contains("and 7 more"));
    }
}
