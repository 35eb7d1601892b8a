//! `stormkeeper zookeeper`

mod live;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};

use self::live::Change;
use crate::cli::{
    Global,
    confirm::confirm,
    error::{ErrorKind, Failure},
    new_file, output, zookeeper_users,
};
use stormkeeper_access::file::replace_secrets;
use stormkeeper_coordination::{
    cluster::users::{UserFiles, UserKind},
    tree::{TreePath, access::AccessRules, options::OnMissingRoot, zookeeper::access::Protected},
};
use stormkeeper_model::text::counted;

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
protect again. Daemons and workers read the files themselves. --remove-old asks ZooKeeper which users the \
daemons and the tree have, and needs the configuration of a nimbus; it asks for confirmation at a terminal.\n\
Example: stormkeeper zookeeper users /etc/stormkeeper"
)]
pub(super) struct UsersArgs {
    /// Directory of the two files
    dir: PathBuf,
    /// Add a new password beside the old one to the files that are there
    #[arg(long, value_name = "KIND", conflicts_with = "remove_old")]
    add: Option<Kind>,
    /// Remove all passwords but the newest from the files that are there, unless a process of the cluster
    /// still needs one
    #[arg(long, value_name = "KIND")]
    remove_old: Option<Kind>,
    /// Remove them although daemons run that do not say which users they have
    #[arg(long, requires = "remove_old")]
    even_if_unknown: bool,
    /// Let everything that daemons and workers create stay open, while a running cluster gets users; also in
    /// files that are there
    #[arg(long, conflicts_with_all = ["add", "remove_old", "close"])]
    open: bool,
    /// End that, in the files that are there
    #[arg(long, conflicts_with_all = ["add", "remove_old"])]
    close: bool,
    /// Do not ask for confirmation before --remove-old
    #[arg(short = 'y', long, requires = "remove_old")]
    yes: bool,
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
Asks for confirmation at a terminal; not in a script, and not with --yes.\n\
Example: stormkeeper zookeeper protect --config /etc/stormkeeper/storm.yaml"
)]
pub(super) struct ProtectArgs {
    /// Open every znode to whoever reaches ZooKeeper, as before
    #[arg(long)]
    open: bool,
    /// Protect it although daemons run that do not say which users they have, as builds before this check do
    #[arg(long, conflicts_with = "open")]
    even_if_unknown: bool,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Users(args) => users(global, args),
        Command::Protect(args) => protect(global, args),
    }
}

fn users(global: &Global, args: &UsersArgs) -> Result<(), Failure> {
    let paths = FILES.map(|name| args.dir.join(name));
    let files = match args {
        UsersArgs { add: Some(kind), .. } => with_another(read(&paths)?, (*kind).into())?,
        UsersArgs { remove_old: Some(kind), even_if_unknown, yes, .. } => {
            confirm(*yes, &format!("Remove the older passwords from the files in {}?", args.dir.display()))?;
            without_old(global, (read(&paths)?, &paths[0]), (*kind).into(), *even_if_unknown)?
        }
        UsersArgs { open, close, .. } if *close || (*open && paths.iter().all(|path| path.exists())) => {
            let mut files = read(&paths)?;
            files.set_open(*open);
            files
        }
        UsersArgs { open, .. } => return create(&paths, *open),
    };
    write(&paths, &files)?;
    said(&paths)
}

/// Replaces both files, or none if one cannot be written. A link stays one, and the file that it names is
/// replaced.
fn write(paths: &[PathBuf; 2], files: &UserFiles) -> Result<(), Failure> {
    let resolved = paths.each_ref().map(|path| path.canonicalize());
    let mut targets = Vec::with_capacity(paths.len());
    for (path, target) in paths.iter().zip(resolved) {
        let target = target.with_context(|| format!("finding the file of {}", path.display()));
        targets.push(target.map_err(Failure::internal)?);
    }
    let texts = [&files.nimbus, &files.supervisor].map(|users| users.to_string());
    let contents: Vec<(&Path, &str)> =
        targets.iter().zip(&texts).map(|(path, text)| (path.as_path(), text.as_str())).collect();
    replace_secrets(&contents).map_err(|(path, error)| {
        let error = anyhow!(error).context(format!("writing {}", path.display()));
        Failure::internal(error).with_hint("no file after this one was changed; run the command again")
    })
}

fn create(paths: &[PathBuf; 2], open: bool) -> Result<(), Failure> {
    let mut files = UserFiles::generate([random()?, random()?, random()?]);
    files.set_open(open);
    let remedy = "choose another directory; to replace a password in these files, use --add KIND, and then \
                  --remove-old KIND: docs/operations/zookeeper-access.md";
    // Neither is made if one is there, as they are one content.
    if let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(new_file::exists(path, remedy));
    }
    let [nimbus, supervisor] = paths;
    new_file::create(nimbus, &files.nimbus.to_string(), remedy)?;
    if let Err(failure) = new_file::create(supervisor, &files.supervisor.to_string(), remedy) {
        // As on a full disk: the next try must not find a half.
        let _gone = std::fs::remove_file(nimbus);
        return Err(failure);
    }
    said(paths)
}

fn with_another(mut files: UserFiles, kind: UserKind) -> Result<UserFiles, Failure> {
    if files.n_of(kind) > 1 {
        let error = anyhow!("there are two passwords of this kind already");
        let hint = "end that replacement first: protect the tree, then --remove-old, then protect it again";
        return Err(Failure::new(ErrorKind::Usage, error).with_hint(hint));
    }
    files.add(kind, random()?);
    Ok(files)
}

/// Returns the files with the newest password of a kind only, if no process needs another one.
fn without_old(
    global: &Global,
    (before, path): (UserFiles, &Path),
    kind: UserKind,
    even_if_unknown: bool,
) -> Result<UserFiles, Failure> {
    let mut after = before.clone();
    if !after.remove_old(kind) {
        return Err(Failure::usage("there is one password of this kind only: add the next one first"));
    }
    let config = global.load()?;
    let stopped = live::with_tree(&config, (&before.nimbus, path), async |tree| {
        live::check(&after.nimbus, &live::daemons(&tree).await?, Change::RemoveOld, even_if_unknown)?;
        // An open tree has lists that name nobody.
        if !before.nimbus.is_open() {
            live::check_lists(&tree, &before.nimbus).await?;
        }
        live::stopped_supervisors(&tree).await
    })?;
    if let Some(text) = live::of_stopped(&stopped) {
        output::note(&text);
    }
    Ok(after)
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

/// Reads the two files, which must be those of one cluster.
fn read(paths: &[PathBuf; 2]) -> Result<UserFiles, Failure> {
    let [nimbus, supervisor] = paths;
    let files =
        UserFiles { nimbus: zookeeper_users::read(nimbus)?, supervisor: zookeeper_users::read(supervisor)? };
    files.check().map_err(|mismatch| {
        let [nimbus, supervisor] = paths.each_ref().map(|path| path.display());
        let error = anyhow!("{nimbus} and {supervisor} do not belong together: {mismatch}");
        let hint = "nothing was changed; put the two files of one cluster and of one change there: each host \
                    of its kind has a copy";
        Failure::new(ErrorKind::Usage, error).with_hint(hint)
    })?;
    Ok(files)
}

fn protect(global: &Global, ProtectArgs { open, even_if_unknown, yes }: &ProtectArgs) -> Result<(), Failure> {
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
    let rules: Arc<dyn AccessRules> = Arc::new(users.clone());
    let root = config.tree_options(OnMissingRoot::Wait).root;
    // Before there is a session, which would end while it waits for an answer.
    confirm(
        *yes,
        &match open {
            true => format!("Open every znode below {root} to whoever reaches ZooKeeper?"),
            false => format!("Let only the users of {} write the znodes below {root}?", path.display()),
        },
    )?;
    let done = live::with_tree(&config, (&users, &path), async |tree| {
        if !open {
            live::check(&users, &live::daemons(&tree).await?, Change::Protect, *even_if_unknown)?;
        }
        let changed = tree.protect((!open).then_some(&rules)).await;
        changed.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))
    })?;
    match done.denied.is_empty() {
        true => output::print(&format!("{root} {}\n", outcome(*open, done.n_changed))),
        false => Err(incomplete(&root, *open, &done)),
    }
}

/// Names the znodes that somebody else keeps from this user.
fn incomplete(root: &TreePath, open: bool, Protected { n_changed, denied }: &Protected) -> Failure {
    let named: String = denied.iter().take(live::NAMED_MAX).map(|path| format!("\n  {path}")).collect();
    let more = match denied.len().saturating_sub(live::NAMED_MAX) {
        0 => String::new(),
        n => format!("\n  and {n} more"),
    };
    let (done, n) = (if open { "open" } else { "protected" }, counted(denied.len(), "znode"));
    let changed = counted(*n_changed, "znode");
    let error = anyhow!(
        "ZooKeeper does not let this user read or change {n} below {root}, and so what is below them; the \
         lists of {changed} were changed, and all others are as wanted:{named}{more}"
    );
    let hint = format!(
        "as ZooKeeper's superuser, delete these or give this user all rights (`setAcl`), and run this again: the \
         rest of the tree is {done}"
    );
    Failure::new(ErrorKind::Refused, error).with_hint(hint)
}

/// Says what `protect` has found and done, with the number of znodes that had another list.
fn outcome(open: bool, n: usize) -> String {
    match (open, n) {
        (false, 0) => "was protected by these users already; no list was changed".to_owned(),
        (true, 0) => "was open to everybody already; no list was changed".to_owned(),
        (false, _) => {
            let n = counted(n, "znode");
            format!("is protected; changed the lists of {n}, which were open or had other users")
        }
        (true, _) => format!("is open to everybody; changed the lists of {}", counted(n, "znode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_znode_that_could_not_be_protected_is_named() {
        let path = |n: usize| format!("/blobs/{n:03}").parse::<TreePath>().expect("valid");
        let (root, denied) = ("/stormkeeper".parse().expect("valid"), (1..=2).map(path).collect());
        let text = format!("{:?}", incomplete(&root, false, &Protected { n_changed: 7, denied }));
        for part in ["2 znodes below /stormkeeper", "7 znodes", "/blobs/001", "/blobs/002", "superuser"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let many = Protected { n_changed: 0, denied: (0..live::NAMED_MAX + 3).map(path).collect() };
        assert!(format!("{:?}", incomplete(&root, true, &many)).contains("and 3 more"));
    }

    #[test]
    fn users_files_are_made_together_and_written_through_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = FILES.map(|name| dir.path().join(name));
        // Stands for a full disk: the directory of the second file is missing.
        let lacking = [paths[0].clone(), dir.path().join("missing").join(FILES[1])];
        create(&lacking, false).expect_err("the second cannot be made");
        assert!(!paths[0].exists(), "no half is left");
        create(&paths, false).expect("made");
        let real = dir.path().join("real");
        std::fs::rename(&paths[1], &real).expect("moved");
        std::os::unix::fs::symlink(&real, &paths[1]).expect("linked");
        let files = with_another(read(&paths).expect("read"), UserKind::Supervisor).expect("added");
        write(&paths, &files).expect("written");
        assert!(paths[1].is_symlink(), "the link stays");
        assert_eq!(std::fs::read_to_string(&real).expect("read"), files.supervisor.to_string());
        assert_eq!(read(&paths).expect("they belong together").n_of(UserKind::Supervisor), 2);
    }

    #[test]
    fn tree_that_was_protected_before_is_told_from_one_whose_lists_were_changed() {
        let said = [(false, 0), (false, 2), (true, 0), (true, 1)].map(|(open, n)| outcome(open, n));
        assert_eq!(
            said,
            [
                "was protected by these users already; no list was changed",
                "is protected; changed the lists of 2 znodes, which were open or had other users",
                "was open to everybody already; no list was changed",
                "is open to everybody; changed the lists of 1 znode",
            ]
        );
    }
}
