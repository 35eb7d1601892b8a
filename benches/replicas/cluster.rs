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
        record::{self, Leader, SupervisorAssignments},
        store::Store,
    },
    test_support::zookeeper::{Ensemble, ZooKeeperServer},
    tree::{
        CreateMode, Tree, TreePath, Version,
        options::{OnMissingRoot, Options},
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_model::{
    SupervisorId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

use crate::{
    process::Process,
    watching::{WAIT_MAX, until, until_gone},
};

/// Root of the ZooKeeper tree.
const ROOT: &str = "/stormkeeper";

/// Settings in the `storm.yaml` of each nimbus, in addition to addresses and directories.
pub(crate) struct Settings {
    pub(crate) session_timeout: Duration,
    /// Further lines.
    pub(crate) extra: &'static str,
}

pub(crate) struct Cluster {
    pub(crate) zookeeper: Ensemble,
    pub(crate) clock: Clock,
    /// Connection of the benchmark itself.
    pub(crate) tree: Arc<dyn Tree>,
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
    nimbuses: Vec<Option<Process>>,
    _tasks: Tasks,
}

impl Cluster {
    /// Starts ZooKeeper and `n` nimbuses, and waits for a leader and the registration of all.
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

    /// Connection options of the benchmark.
    pub(crate) fn options(&self) -> Options {
        options(addresses(&self.zookeeper))
    }

    fn nimbus_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("nimbus-{i}"))
    }

    /// Writes the configuration of a nimbus. Each has its own loopback address, with which its id
    /// and its API address begin.
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
        assert!(self.nimbuses[i].replace(nimbus).is_none(), "the nimbus is running already");
    }

    /// Removes a nimbus from the cluster and returns its process, which the caller ends.
    pub(crate) fn take_nimbus(&mut self, i: usize) -> Process {
        self.nimbuses[i].take().expect("it runs")
    }

    pub(crate) fn nimbus(&self, i: usize) -> &Process {
        self.nimbuses[i].as_ref().expect("it runs")
    }

    /// Waits for a leader and for `n` registered nimbuses.
    pub(crate) async fn ready(&self, n: usize) {
        wait_until("the nimbuses are ready", WAIT_MAX, async || {
            let leader = self.store.leader().await.map_err(|error| error.to_string())?;
            let listed = self.tree.children(&layout::nimbuses()).await.map_err(|error| error.to_string())?;
            let n_listed = listed.map_or(0, |names| names.len());
            if leader.is_some() && n_listed == n { Ok(()) } else { Err(format!("{leader:?}, {n_listed}")) }
        })
        .await;
    }

    /// Returns the index of the leader.
    pub(crate) async fn leader(&self) -> usize {
        let (leader, _) = until(&*self.tree, &self.clock, &layout::leader(), |node| {
            record::decode::<Leader>(&layout::leader(), &node?.data).ok()
        })
        .await;
        let leads = |i: &usize| leader.api.starts_with(&format!("{}:", host(*i)));
        (0..self.nimbuses.len()).find(leads).expect("the leader is a nimbus of this cluster")
    }

    /// Returns a client of the leader.
    pub(crate) async fn client(&self) -> Client {
        let leader = self.store.leader().await.expect("a response of the tree").expect("there is a leader");
        Client::new(vec![leader.api], Timeouts::default()).expect("a client")
    }

    /// Waits until the term is greater than `term`.
    pub(crate) async fn led_after(&self, term: Version) -> Monotonic {
        let path = layout::term();
        until(&*self.tree, &self.clock, &path, |node| (node?.stat.version > term).then_some(())).await.1
    }

    /// Returns the data version of `/term`.
    pub(crate) async fn term(&self) -> Version {
        let node = self.tree.get(&layout::term()).await.expect("a response of the tree");
        node.expect("there was an election").stat.version
    }

    /// Creates a task for the leader: assignments of a supervisor that does not exist, which the
    /// leader deletes in a transaction of its own term.
    pub(crate) async fn request_write(&self) {
        let assignments = record::encode(&SupervisorAssignments::default());
        self.tree.create(&write_request(), &assignments, CreateMode::Persistent).await.expect("created");
    }

    /// Waits until the leader has deleted these assignments; returns the time.
    pub(crate) async fn write_done(&self) -> Monotonic {
        until_gone(&*self.tree, &self.clock, &write_request()).await
    }
}

fn write_request() -> TreePath {
    layout::supervisor_assignments(&"nobody".parse::<SupervisorId>().expect("a valid id"))
}

fn host(i: usize) -> String {
    format!("127.0.0.{}", i + 1)
}

fn addresses(zookeeper: &Ensemble) -> Vec<String> {
    zookeeper.servers.iter().map(ZooKeeperServer::address).collect()
}

/// Connection options for `servers`. The session outlives pauses of a busy machine.
pub(crate) fn options(servers: Vec<String>) -> Options {
    Options {
        servers,
        root: ROOT.parse().expect("a valid path"),
        on_missing_root: OnMissingRoot::Wait,
        cluster_znodes: &[],
        access: None,
        tls: None,
        session_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(30),
    }
}
