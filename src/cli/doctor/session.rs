//! Tree of the cluster, as a session with ZooKeeper shows it.

use std::{sync::Arc, time::Duration};

use super::facts::{Known, Tree};
use crate::{
    cli::{
        zookeeper_tls::{self, Process},
        zookeeper_users,
    },
    config::Config,
};
use stormkeeper_coordination::{
    cluster::{
        layout_version::{self, TreeState},
        tree_id::FoundTree,
    },
    tree::{
        ReadTree as _, Tree as _, TreePath, access::Access, options::OnMissingRoot, zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::tasks::Tasks;

/// Longest time for all of it.
const LIMIT: Duration = Duration::from_secs(10);

/// Number of reads that are measured.
const N_READS: usize = 5;

/// Opens a session, reads what identifies the tree, and ends the session.
pub(super) async fn tree(config: &Config, clock: &Clock) -> Known<Tree> {
    let mut options = config.tree_options(OnMissingRoot::Wait);
    let root = options.root.clone();
    if let Some(path) = config.zookeeper_users_file() {
        let users = zookeeper_users::read(&path).map_err(|failure| failure.text())?;
        options.access = Some(Access { rules: None, ..zookeeper_users::access(&users, &path) });
    }
    let tls = zookeeper_tls::open(config, Process::Daemon).map_err(|failure| failure.text())?;
    options.tls = tls.map(|files| files.tls());
    let tasks = Tasks::default();
    let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
    let looked = tokio::time::timeout(LIMIT, look(&tree, root.clone(), clock)).await;
    let problem = tree.problem();
    // It has a limit of its own.
    tree.close().await;
    looked.unwrap_or_else(|_elapsed| {
        let reason = problem.map(|reason| format!(": {reason}")).unwrap_or_default();
        Err(format!("no session, or no tree at {root}, within {LIMIT:?}{reason}"))
    })
}

async fn look(tree: &Arc<ZooKeeperTree>, root: TreePath, clock: &Clock) -> Known<Tree> {
    let mut session = tree.session();
    session.wait_for(|state| state.connected().is_some()).await.map_err(|error| error.to_string())?;
    let mut times = Vec::with_capacity(N_READS);
    for _ in 0..N_READS {
        let began = clock.monotonic();
        tree.get(&TreePath::root()).await.map_err(|error| error.to_string())?;
        times.push(clock.monotonic().since(began));
    }
    times.sort_unstable();
    let is_empty = layout_version::check(&**tree).await.map(|state| state == TreeState::Empty);
    Ok(Tree {
        root,
        is_empty: is_empty.map_err(|error| error.to_string()),
        found: FoundTree::read(&**tree).await.map_err(|error| error.to_string()),
        latency: times[N_READS / 2],
    })
}
