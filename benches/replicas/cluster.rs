//! A ZooKeeper server and nimbus processes on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stormkeeper_api_types::client::{Client, Timeouts};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, Leader, Orders},
        store::Store,
    },
    test_support::zookeeper::{Ensemble, ZooKeeperServer},
    tree::{CreateMode, Tree, TreePath, Version, options::Options, zookeeper::ZooKeeperTree},
};
use stormkeeper_model::{
    SupervisorId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

use crate::{
    process::Process,
    watching::{PATIENCE, until, until_gone},
};

/// The root of the tree.
const ROOT: &str = "/stormkeeper";

/// What stands in each nimbus' `storm.yaml` besides addresses and directories.
pub(crate) struct Settings {
    pub(crate) session_timeout: Duration,
    /// More lines.
    pub(crate) extra: &'static str,
}

pub(crate) struct Cluster {
    pub(crate) zookeeper: Ensemble,
    pub(crate) clock: Clock,
    /// A connection of the measuring program's own.
    pub(crate) tree: Arc<dyn Tree>,
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
    nimbuses: Vec<Option<Process>>,
    _tasks: Tasks,
}

impl Cluster {
    /// Starts ZooKeeper and `n` nimbuses, and waits until one leads and all are registered.
    pub(crate) async fn start(n_servers: usize, n: usize, settings: &Settings) -> Self {
        let zookeeper = Ensemble::start_as_deployed(n_servers).await.expect("ZooKeeper starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tasks = Tasks::default();
        let tree: Arc<dyn Tree> =
            ZooKeeperTree::connect(options(addresses(&zookeeper)), fastrand::Rng::new(), &tasks);
        let store = Store::new(Arc::clone(&tree));
        let clock = Clock::new();
        let nimbuses = (0..n).map(|_| None).collect();
        let mut cluster = Self { zookeeper, clock, tree, store, dir, nimbuses, _tasks: tasks };
        for i in 0..n {
            cluster.write_config(i, settings);
            cluster.start_nimbus(i);
        }
        cluster.ready(n).await;
        cluster
    }

    /// How the measuring program connects to the tree.
    pub(crate) fn options(&self) -> Options {
        options(addresses(&self.zookeeper))
    }

    fn nimbus_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("nimbus-{i}"))
    }

    /// Each has a loopback address of its own, which its id and its API address begin with.
    fn write_config(&self, i: usize, settings: &Settings) {
        let dir = self.nimbus_dir(i);
        fs::create_dir_all(&dir).expect("a directory");
        let (host, servers) = (host(i), addresses(&self.zookeeper));
        let config = format!(
            "storm.zookeeper.servers: {servers:?}\nstorm.zookeeper.root: {ROOT}\n\
             storm.zookeeper.session.timeout: {}\nstorm.local.hostname: {host}\nstorm.local.dir: {}\n\
             ui.host: {host}\nui.port: 0\n{}",
            settings.session_timeout.as_millis(),
            dir.display(),
            settings.extra
        );
        fs::write(dir.join("storm.yaml"), config).expect("a configuration");
    }

    /// Starts a nimbus that is not running.
    pub(crate) fn start_nimbus(&mut self, i: usize) {
        let dir = self.nimbus_dir(i);
        let config = dir.join("storm.yaml");
        let args = ["nimbus", "--config", config.to_str().expect("a plain path")];
        let nimbus = Process::start(Path::new(env!("CARGO_BIN_EXE_stormkeeper")), &args, &dir.join("log"));
        assert!(self.nimbuses[i].replace(nimbus).is_none(), "it runs already");
    }

    /// Takes a nimbus out, to be ended in some way.
    pub(crate) fn take_nimbus(&mut self, i: usize) -> Process {
        self.nimbuses[i].take().expect("it runs")
    }

    pub(crate) fn nimbus(&self, i: usize) -> &Process {
        self.nimbuses[i].as_ref().expect("it runs")
    }

    /// Waits until one leads and `n` are registered.
    pub(crate) async fn ready(&self, n: usize) {
        wait_until("the nimbuses are ready", PATIENCE, async || {
            let leader = self.store.leader().await.map_err(|error| error.to_string())?;
            let listed = self.tree.children(&layout::nimbuses()).await.map_err(|error| error.to_string())?;
            let n_listed = listed.map_or(0, |names| names.len());
            if leader.is_some() && n_listed == n { Ok(()) } else { Err(format!("{leader:?}, {n_listed}")) }
        })
        .await;
    }

    /// Which nimbus leads.
    pub(crate) async fn leader(&self) -> usize {
        let (leader, _) = until(&*self.tree, &self.clock, &layout::leader(), |node| {
            record::decode::<Leader>(&layout::leader(), &node?.data).ok()
        })
        .await;
        let leads = |i: &usize| leader.api.starts_with(&format!("{}:", host(*i)));
        (0..self.nimbuses.len()).find(leads).expect("one of ours leads")
    }

    /// A client of the nimbus that leads.
    pub(crate) async fn client(&self) -> Client {
        let leader = self.store.leader().await.expect("the tree answers").expect("one leads");
        Client::new(vec![leader.api], Timeouts::default()).expect("a client")
    }

    /// Waits until `/leader` is another one than that of `term`.
    pub(crate) async fn led_after(&self, term: Version) -> Monotonic {
        let path = layout::term();
        until(&*self.tree, &self.clock, &path, |node| (node?.stat.version > term).then_some(())).await.1
    }

    /// The data version of `/term`.
    pub(crate) async fn term(&self) -> Version {
        let node = self.tree.get(&layout::term()).await.expect("the tree answers");
        node.expect("there was an election").stat.version
    }

    /// Gives the leader something to write: orders of a supervisor that does not exist,
    /// which it deletes in a transaction of its own term.
    pub(crate) async fn leave_work(&self) {
        let orders = record::encode(&Orders::default());
        self.tree.create(&work(), &orders, CreateMode::Persistent).await.expect("created");
    }

    /// When that was done.
    pub(crate) async fn work_done(&self) -> Monotonic {
        until_gone(&*self.tree, &self.clock, &work()).await
    }
}

fn work() -> TreePath {
    layout::orders(&"nobody".parse::<SupervisorId>().expect("a valid id"))
}

fn host(i: usize) -> String {
    format!("127.0.0.{}", i + 1)
}

fn addresses(zookeeper: &Ensemble) -> Vec<String> {
    zookeeper.servers.iter().map(ZooKeeperServer::address).collect()
}

/// How to reach the tree on `servers`. The session outlives a busy machine.
pub(crate) fn options(servers: Vec<String>) -> Options {
    Options {
        servers,
        root: ROOT.parse().expect("a valid path"),
        session_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(30),
    }
}
