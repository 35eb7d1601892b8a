//! A cluster of real processes on the loopback: ZooKeeper, nimbuses, supervisors, and the workers
//! that the supervisors launch. Each test has its own cluster.

mod process;
mod proxy;
mod reaper;
mod topologies;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use stormkeeper_coordination::{
    cluster::{layout, record},
    test_support::zookeeper::{Ensemble, ZooKeeperServer},
    tree::{self, Tree, TreePath, Version, zookeeper::ZooKeeperTree},
};
use stormkeeper_model::Term;
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

pub(crate) use process::{Daemon, Process, free_ports, kill9, processes_with, signal};
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use reaper::Reaper;
pub(crate) use topologies::copy_dir;
pub(crate) use waits::is_of_the_cluster;

/// Timeout of every wait, much longer than any expected delay. A test that reaches it has failed.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Root of the ZooKeeper tree in every test.
pub(crate) const ROOT: &str = "/stormkeeper";

/// Session timeout of every daemon. A server with a tick of two seconds accepts no shorter timeout,
/// so a killed leader is replaced after this time at the earliest.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Number of slots of each supervisor.
const N_SLOTS: usize = 4;

/// Number of processes of each kind in a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) zookeepers: usize,
    pub(crate) nimbuses: usize,
    pub(crate) supervisors: usize,
    pub(crate) network: Network,
}

/// Connection of the daemons to ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Direct,
    /// Each daemon has its own proxy, in the order nimbuses, supervisors.
    Proxied,
}

pub(crate) struct Cluster {
    pub(crate) zookeeper: Ensemble,
    pub(crate) nimbuses: Vec<Daemon>,
    pub(crate) supervisors: Vec<Daemon>,
    /// One per daemon, nimbuses first; empty for [`Network::Direct`].
    pub(crate) proxies: Vec<Proxy>,
    /// Direct access of the test to the tree, as with zkCli.
    pub(crate) tree: Arc<dyn Tree>,
    /// File with the token of the commands, as `ui.token.file` in the settings.
    token: Option<PathBuf>,
    /// Further arguments of the commands: `--ca` if the settings have a `storm.tls.ca.file`.
    arguments: Vec<String>,
    apis: Vec<String>,
    dir: tempfile::TempDir,
    _reaper: Reaper,
    _tasks: Tasks,
}

/// The nimbus that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leading {
    /// Index of the nimbus in the cluster.
    pub(crate) nimbus: usize,
    pub(crate) term: Term,
}

/// Version of each assignment, and the transaction that wrote it.
pub(crate) type Assignments = BTreeMap<String, (Version, i64)>;

/// State that a quiet failover must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    assignments: Assignments,
    /// All workers and components.
    processes: BTreeSet<Process>,
}

impl Shape {
    /// One ZooKeeper server, two nimbuses, two supervisors.
    pub(crate) const SMALL: Self =
        Self { zookeepers: 1, nimbuses: 2, supervisors: 2, network: Network::Direct };

    /// Three of each.
    pub(crate) const REPLICATED: Self = Self { zookeepers: 3, nimbuses: 3, supervisors: 3, ..Self::SMALL };
}

impl Cluster {
    /// Starts a cluster of one ZooKeeper server, two nimbuses and two supervisors.
    pub(crate) async fn start() -> Self {
        Self::of(Shape::SMALL).await
    }

    /// Starts a cluster of this shape.
    pub(crate) async fn of(shape: Shape) -> Self {
        Self::with(shape, "").await
    }

    /// Starts a cluster of this shape whose daemons have `settings`, as lines of `storm.yaml`.
    pub(crate) async fn with(shape: Shape, settings: &str) -> Self {
        let zookeeper = Ensemble::start(shape.zookeepers).await.expect("ZooKeeper starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Workers may run as other users, who must reach their files.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("it belongs to this test");
        let tasks = Tasks::default();
        let root: TreePath = ROOT.parse().expect("valid path");
        let tree = ZooKeeperTree::connect(zookeeper.options(root), fastrand::Rng::new(), &tasks);
        let (nimbuses, supervisors, proxies, apis) = (vec![], vec![], vec![], vec![]);
        let _reaper = Reaper::start(dir.path());
        let token = settings.lines().find_map(|line| line.strip_prefix("ui.token.file: ")).map(PathBuf::from);
        let ca = settings.lines().find_map(|line| line.strip_prefix("storm.tls.ca.file: "));
        let arguments = ca.iter().flat_map(|file| ["--ca", file]).map(str::to_owned).collect();
        let mut cluster = Self {
            zookeeper,
            nimbuses,
            supervisors,
            proxies,
            tree,
            token,
            arguments,
            apis,
            dir,
            _reaper,
            _tasks: tasks,
        };
        let ports = free_ports(shape.nimbuses + shape.supervisors * N_SLOTS);
        let (apis, slots) = ports.split_at(shape.nimbuses);
        for (i, port) in apis.iter().enumerate() {
            cluster.apis.push(format!("127.0.0.1:{port}"));
            let extra = format!("ui.host: 127.0.0.1\nui.port: {port}\n{settings}");
            let daemon = cluster.daemon("nimbus", i + 1, &extra, shape.network).await;
            cluster.nimbuses.push(daemon);
        }
        for (i, ports) in slots.chunks(N_SLOTS).enumerate() {
            let agent = match settings.contains("supervisor.agent.port:") {
                true => "",
                false => "supervisor.agent.port: 0\n",
            };
            let extra = format!("supervisor.slots.ports: {ports:?}\n{agent}{settings}");
            let daemon = cluster.daemon("supervisor", i + 1, &extra, shape.network).await;
            cluster.supervisors.push(daemon);
        }
        cluster.wait_until_ready().await;
        cluster
    }

    async fn daemon(&mut self, kind: &'static str, i: usize, extra: &str, network: Network) -> Daemon {
        let name = format!("{kind}-{i}");
        let dir = self.path(&name);
        fs::create_dir_all(&dir).expect("a directory for the daemon");
        let mut servers: Vec<String> = self.zookeeper.servers.iter().map(ZooKeeperServer::address).collect();
        if network == Network::Proxied {
            let proxy = Proxy::start(&servers).await;
            servers = proxy.addresses().to_vec();
            self.proxies.push(proxy);
        }
        let local_dir = match extra.contains("storm.local.dir:") {
            true => String::new(),
            false => format!("storm.local.dir: {}\n", dir.display()),
        };
        let config = format!(
            "storm.zookeeper.servers: {servers:?}\nstorm.zookeeper.root: {ROOT}\n\
             storm.zookeeper.session.timeout: {}\nstorm.local.hostname: 127.0.0.1\n\
             {local_dir}task.heartbeat.frequency.secs: 1\n{extra}",
            SESSION_TIMEOUT.as_millis(),
        );
        fs::write(dir.join("storm.yaml"), config).expect("a configuration");
        Daemon::start(kind, &name, &dir)
    }

    /// Kills the nimbuses, the supervisors and all workers with `kill -9`.
    pub(crate) fn kill_everything_but_zookeeper(&mut self) {
        for daemon in self.nimbuses.iter_mut().chain(&mut self.supervisors) {
            daemon.kill9();
        }
        for process in self.worker_processes() {
            kill9(process.pid);
        }
    }

    /// Address of the API of a nimbus.
    pub(crate) fn api(&self, nimbus: usize) -> &str {
        &self.apis[nimbus]
    }

    pub(crate) fn apis(&self) -> &[String] {
        &self.apis
    }

    /// Returns the leader, as recorded in the tree. After an outage of ZooKeeper, the connection of the test
    /// may be the last one that comes back: it is waited for.
    pub(crate) async fn leading(&self) -> Result<Leading, String> {
        let read = wait_until("the test is connected to ZooKeeper", WAIT_MAX, async || {
            match self.tree.get(&layout::leader()).await {
                Err(error @ tree::Error::Disconnected) => Err(error.to_string()),
                read => Ok(read),
            }
        });
        let node = read.await.map_err(|error| error.to_string())?;
        let node = node.ok_or("there is no /leader")?;
        let leader: record::Leader =
            record::decode(&layout::leader(), &node.data).map_err(|error| error.to_string())?;
        let nimbus = self.apis.iter().position(|api| *api == leader.api);
        let nimbus = nimbus.ok_or_else(|| format!("{} is not a nimbus of this cluster", leader.api))?;
        Ok(Leading { nimbus, term: leader.term })
    }

    /// Waits for a leader in a term after `before`.
    pub(crate) async fn wait_for_leader_after(&self, before: Term) -> Leading {
        wait_until("another term begins", WAIT_MAX, async || match self.leading().await {
            Ok(leading) if leading.term > before => Ok(leading),
            seen => Err(format!("{seen:?}, {before:?} before\n{}", self.logs())),
        })
        .await
    }

    /// Role of a nimbus in `/nimbuses`.
    pub(crate) async fn role(&self, nimbus: usize) -> Result<record::Role, String> {
        let parent = layout::nimbuses();
        let names = self.tree.children(&parent).await.map_err(|error| error.to_string())?;
        for name in names.unwrap_or_default() {
            let path = parent.child(&name).map_err(|error| error.to_string())?;
            let node = self.tree.get(&path).await.map_err(|error| error.to_string())?;
            let found = node.map(|node| record::decode::<record::NimbusRecord>(&path, &node.data));
            if let Some(Ok(found)) =
                found.filter(|found| found.as_ref().is_ok_and(|found| found.api == self.apis[nimbus]))
            {
                return Ok(found.role);
            }
        }
        Err(format!("{} is not in /nimbuses", self.nimbuses[nimbus].name))
    }

    /// Current assignments and processes.
    pub(crate) async fn placement(&self) -> Placement {
        Placement { assignments: self.assignments().await, processes: self.worker_processes() }
    }

    /// Current assignments.
    pub(crate) async fn assignments(&self) -> Assignments {
        wait_until("the assignments are read", WAIT_MAX, async || {
            self.read_assignments().await.map_err(|error| error.to_string())
        })
        .await
    }

    async fn read_assignments(&self) -> Result<Assignments, stormkeeper_coordination::tree::Error> {
        let parent = layout::assignments();
        let names = self.tree.children(&parent).await?.unwrap_or_default();
        let mut assignments = BTreeMap::new();
        for name in names {
            let path = parent.child(&name).expect("it was read");
            if let Some(node) = self.tree.get(&path).await? {
                assignments.insert(name, (node.stat.version, node.stat.modified));
            }
        }
        Ok(assignments)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Number of occurrences of `text` in the log of each daemon.
    pub(crate) fn count_in_logs(&self, text: &str) -> Vec<usize> {
        let daemons = self.nimbuses.iter().chain(&self.supervisors);
        daemons.map(|daemon| daemon.log().matches(text).count()).collect()
    }

    /// Runs the binary with the addresses of all running nimbuses that are not frozen.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeeper"));
        for (api, _) in self.apis.iter().zip(&self.nimbuses).filter(|(_, nimbus)| nimbus.answers()) {
            command.args(["--nimbus", api]);
        }
        command
            .args(self.token.iter().flat_map(|token| ["--token-file".as_ref(), token.as_os_str()]))
            .args(&self.arguments)
            .args(args)
            .env_remove("STORMKEEPER_CONF")
            .env_remove("STORMKEEPER_CA")
            .env("XDG_STATE_HOME", self.path("state"))
            .output()
            .expect("the binary runs")
    }

    /// Runs further commands with the token in this file, or with none.
    pub(crate) fn set_token(&mut self, token: Option<PathBuf>) {
        self.token = token;
    }

    /// Runs further commands with these arguments.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Runs the binary, which must succeed; returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "stormkeeper {args:?}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the binary with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).expect("JSON")
    }

    pub(crate) fn try_json(&self, args: &[&str]) -> Option<Value> {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// All workers of this cluster, by port.
    pub(crate) fn workers(&self) -> BTreeMap<u64, Process> {
        let mut workers = BTreeMap::new();
        for process in self.worker_processes() {
            let pid = process.pid;
            let args = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut args = args.split('\0');
            let Some(spec) = args.by_ref().skip_while(|arg| *arg != "--spec").nth(1) else { continue };
            let spec = fs::read(spec).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(port) = spec.and_then(|spec| spec["slot"]["port"].as_u64()) {
                workers.insert(port, process);
            }
        }
        workers
    }

    /// Every process that a supervisor of this cluster launched, including components.
    pub(crate) fn worker_processes(&self) -> BTreeSet<Process> {
        let dirs = (1..=self.supervisors.len()).map(|i| self.path(&format!("supervisor-{i}")));
        dirs.flat_map(|dir| processes_with(&format!("STORMKEEPER_SUPERVISOR_DIR={}", dir.display())))
            .collect()
    }

    /// Ends of all logs, for failure messages.
    pub(crate) fn logs(&self) -> String {
        let daemons = self.nimbuses.iter().chain(&self.supervisors);
        daemons.map(|daemon| format!("--- {}\n{}\n", daemon.name, daemon.log_end())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_everything_but_zookeeper();
    }
}
