//! Check of what runs before rights are taken away: the users of the live daemons, and the lists of the tree.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::anyhow;

use crate::{
    cli::{
        client_runtime,
        error::{ErrorKind, Failure},
        output,
        zookeeper_tls::{self, Process},
        zookeeper_users,
    },
    config::Config,
};
use stormkeeper_coordination::{
    cluster::{
        layout_version,
        store::Store,
        users::{Lack, LiveDaemon, Users},
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
pub(super) const NAMED_MAX: usize = 50;

/// Change that takes rights away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The lists name the users, and nobody else.
    Protect,
    /// The files lose all passwords of a kind but the newest.
    RemoveOld,
}

impl Change {
    /// Returns what keeps a daemon from going on after this change.
    fn obstacle(self, lack: Lack) -> Option<String> {
        match (self, lack) {
            // It may go on; `protect` names it again.
            (Self::RemoveOld, Lack::Open) => None,
            (Self::RemoveOld, Lack::OtherUsers) => Some(
                "does not have the new password yet: copy its file there, and wait until it has read it"
                    .to_owned(),
            ),
            (_, lack) => Some(lack.to_string()),
        }
    }
}

/// Runs `action` with a session of `users` in the tree of a cluster, and returns its result.
pub(super) fn with_tree<T>(
    config: &Config,
    (users, path): (&Users, &Path),
    action: impl AsyncFnOnce(Arc<ZooKeeperTree>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut options = config.tree_options(OnMissingRoot::Wait);
    let root = options.root.clone();
    options.access = Some(Access { rules: None, ..zookeeper_users::access(users, path) });
    options.tls = zookeeper_tls::open(config, Process::Daemon)?.map(|files| files.tls());
    client_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
        let mut session = tree.session();
        let connected = session.wait_for(|state| state.connected().is_some());
        if tokio::time::timeout(SESSION_WAIT, connected).await.is_err() {
            let reason = tree.problem().map(|reason| format!(": {reason}")).unwrap_or_default();
            let error =
                anyhow!("no session with ZooKeeper, or no tree at {root}, within {SESSION_WAIT:?}{reason}");
            let hint = "nothing was changed; name the configuration of a nimbus with --config";
            return Err(Failure::new(ErrorKind::Unavailable, error).with_hint(hint));
        }
        let done = async {
            // The lists of another program are none of ours.
            layout_version::check(&*tree).await.map_err(|error| refused(error.into()))?;
            action(Arc::clone(&tree)).await
        };
        let done = done.await;
        tree.close().await;
        done
    })
}

/// Returns the daemons that run in the tree, and the workers that are left without one.
pub(super) async fn daemons(tree: &Arc<ZooKeeperTree>) -> Result<Vec<LiveDaemon>, Failure> {
    let daemons = Store::new(Arc::clone(tree) as _).live_daemons().await;
    daemons.map_err(|error| refused(error.into()))
}

/// Returns the supervisors that have announced their stop, with their hosts.
pub(super) async fn stopped_supervisors(tree: &Arc<ZooKeeperTree>) -> Result<Vec<String>, Failure> {
    let stopped = Store::new(Arc::clone(tree) as _).stopped_supervisors().await;
    let stopped = stopped.map_err(|error| refused(error.into()))?;
    Ok(stopped.into_iter().map(|(id, host)| format!("{id} at {host}")).collect())
}

/// Says which supervisors do not run, and so have not shown whether they have the new password.
pub(super) fn of_stopped(names: &[String]) -> Option<String> {
    let (first, more) = (names.iter().take(NAMED_MAX), names.len().saturating_sub(NAMED_MAX));
    let named: String = first.map(|name| format!("\n  {name}")).collect();
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    let n = counted(names.len(), "supervisor");
    (!names.is_empty()).then(|| {
        format!(
            "warning: {n} that stopped cannot be asked; copy the new file there before it starts \
             again:{named}{more}"
        )
    })
}

/// Refuses to go on while a list of the tree does not name all of `users`.
pub(super) async fn check_lists(tree: &ZooKeeperTree, users: &Users) -> Result<(), Failure> {
    let rules: Arc<dyn AccessRules> = Arc::new(users.clone());
    let others = tree.with_other_lists(&rules).await.map_err(|error| refused(error.into()))?;
    let Some(first) = others.first() else { return Ok(()) };
    let n = counted(others.len(), "znode");
    let error = anyhow!("the lists of {n} are not those of these files, as that of {first}");
    let hint = "nothing was changed; run `stormkeeper zookeeper protect` with the file of a nimbus that has both \
                passwords first";
    Err(refused(error).with_hint(hint))
}

fn refused(error: anyhow::Error) -> Failure {
    Failure::new(ErrorKind::Refused, error)
}

/// Refuses a change that would lock out a live daemon. One of which nobody knows the users is only named, if
/// `even_if_unknown`.
pub(super) fn check(
    users: &Users,
    daemons: &[LiveDaemon],
    change: Change,
    even_if_unknown: bool,
) -> Result<(), Failure> {
    let lacking = daemons.iter().filter_map(|daemon| {
        let lack = users.lack_of(daemon)?;
        Some((&*daemon.name, lack, change.obstacle(lack)?))
    });
    let lacking: Vec<(&str, Lack, String)> = lacking.collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let named = lacking.iter().take(NAMED_MAX).map(|(name, _, obstacle)| format!("\n  {name} {obstacle}"));
    let mut text: String = named.collect();
    if lacking.len() > NAMED_MAX {
        text.push_str(&format!("\n  and {} more", lacking.len() - NAMED_MAX));
    }
    let n = format!("{} of {}", lacking.len(), counted(daemons.len(), "live daemon"));
    let are_unknown = lacking.iter().all(|(_, lack, _)| lack.is_unknown());
    if are_unknown && even_if_unknown {
        output::note(&format!("warning: {n} may be locked out:{text}"));
        return Ok(());
    }
    let after = match change {
        Change::Protect => "in the protected tree",
        Change::RemoveOld => "without the old password",
    };
    let n_left = lacking.iter().filter(|(_, lack, _)| *lack == Lack::NoSupervisor).count();
    let hint = match (are_unknown, n_left) {
        (true, 0) => "upgrade them, or make sure that each has its file, and add --even-if-unknown",
        (true, n) if n == lacking.len() => {
            "start the supervisors of these workers, which give them the new users, and try again; or stop the \
             workers on their hosts; --even-if-unknown goes on without them, and their heartbeats end with their \
             sessions"
        }
        (true, _) => {
            "start the supervisors of the workers, upgrade the others or make sure that each has its file, and try \
             again; --even-if-unknown goes on without them"
        }
        (false, _) => "repair or stop them, wait half a minute, and try again",
    };
    let error = anyhow!("{n} could not go on {after}, so nothing was changed:{text}");
    Err(refused(error).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::users::{HeldUsers, UserFiles, UserKind};

    fn daemon(n: usize, users: Option<HeldUsers>) -> LiveDaemon {
        LiveDaemon { kind: UserKind::Nimbus, name: format!("nimbus n{n} at h{n}"), users }
    }

    #[test]
    fn each_daemon_that_would_be_locked_out_is_named_with_what_it_lacks() {
        let users = UserFiles::generate([1, 2, 3].map(|byte| [byte; 32])).nimbus;
        let held = || Some(users.held());
        let text = |daemons: &[LiveDaemon], even_if_unknown| {
            check(&users, daemons, Change::Protect, even_if_unknown).map_err(|failure| format!("{failure:?}"))
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

    #[test]
    fn supervisors_that_stopped_are_named_with_what_they_need() {
        assert_eq!(of_stopped(&[]), None);
        let names: Vec<String> = (0..NAMED_MAX + 2).map(|n| format!("s{n} at h")).collect();
        let said = of_stopped(&names).expect("some");
        assert!(
            said.contains("52 supervisors") && said.contains("s0 at h") && said.contains("and 2 more"),
            "{said}"
        );
    }

    #[test]
    fn old_password_is_kept_while_a_daemon_lacks_the_new_one_or_nobody_gives_it_to_a_worker() {
        let before = UserFiles::generate([1, 2, 3].map(|byte| [byte; 32]));
        let mut both = before.clone();
        both.add(UserKind::Supervisor, [9; 32]);
        both.set_open(true);
        let mut after = both.clone();
        after.remove_old(UserKind::Supervisor);
        after.set_open(false);
        let supervisor = |files: &UserFiles| LiveDaemon {
            kind: UserKind::Supervisor,
            name: "supervisor s at h".to_owned(),
            users: Some(files.supervisor.held()),
        };
        let worker =
            LiveDaemon { kind: UserKind::Workers, name: "worker of t at h, port 1".to_owned(), users: None };
        let text = |daemons: &[LiveDaemon], even_if_unknown| {
            let checked = check(&after.nimbus, daemons, Change::RemoveOld, even_if_unknown);
            checked.map_err(|failure| format!("{failure:?}"))
        };
        assert_eq!(text(&[supervisor(&both)], false), Ok(()), "its znodes may be open, but it may go on");
        for even_if_unknown in [false, true] {
            let refused = text(&[supervisor(&before)], even_if_unknown).expect_err("refused");
            assert!(refused.contains("supervisor s at h does not have the new password yet"), "{refused}");
            let refused = text(&[worker.clone(), supervisor(&before)], even_if_unknown).expect_err("refused");
            assert!(refused.contains("2 of 2") && refused.contains("worker of t at h, port 1"), "{refused}");
        }
        let refused = text(&[worker.clone(), supervisor(&both)], false).expect_err("refused");
        assert!(refused.contains("its supervisor does not run"), "{refused}");
        assert!(refused.contains("start the supervisors of these workers"), "{refused}");
        assert!(!refused.contains("upgrade"), "{refused}");
        let unknown = LiveDaemon { users: None, ..supervisor(&both) };
        let refused = text(&[worker.clone(), unknown], false).expect_err("refused");
        assert!(refused.contains("start the supervisors") && refused.contains("upgrade"), "{refused}");
        assert_eq!(text(&[worker], true), Ok(()));
    }
}
