//! A cluster of real processes on the loopback: ZooKeeper, nimbuses, supervisors, and the workers
//! that the supervisors launch. Each test has its own cluster.

mod process;
mod proxy;
mod reaper;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use stormkeeper_coordination::{
    cluster::{layout, record},
    test_support::zookeeper::{Ensemble, ZooKeeperServer},
    tree::{Tree, TreePath, Version, zookeeper::ZooKeeperTree},
};
use stormkeeper_model::Term;
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

pub(crate) use process::{Daemon, Process, free_ports, kill9, processes_with, signal};
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use reaper::Reaper;

/// Timeout of every wait, much longer than any expected delay. A test that reaches it has failed.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Root of the ZooKeeper tree in every test.
pub(crate) const ROOT: &str = "/stormkeeper";

/// Session timeout of every daemon. A server with a tick of two seconds accepts no shorter timeout,
/// so a killed leader is replaced after this time at the earliest.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Number of slots of each supervisor.
const N_SLOTS: usize = 4;

const TICKER: &str = r#"
name: ticker
config: {topology.workers: 2}
spouts: [{id: ticks, parallelism: 1, command: ["python3", "ticks.py"], output: [n]}]
bolts: [{id: sink, parallelism: 2, command: ["python3", "sink.py"], output: []}]
streams: [{from: ticks, to: sink, grouping: {type: SHUFFLE}}]
"#;

const TICKS: &str = "
import time
from stormkeeper import Spout

class Ticks(Spout):
    def next_tuple(self):
        time.sleep(0.05)
        self.emit([1])

Ticks().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        pass

Sink().run()
";

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

    /// Returns the leader, as recorded in the tree.
    pub(crate) async fn leading(&self) -> Result<Leading, String> {
        let node = self.tree.get(&layout::leader()).await.map_err(|error| error.to_string())?;
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

    /// Waits for a leader that has all supervisors in its view.
    pub(crate) async fn wait_until_ready(&self) {
        wait_until("a leader and every supervisor", WAIT_MAX, async || {
            let cluster = self.try_json(&["cluster"]).ok_or("no nimbus responds".to_owned())?;
            let n_supervisors = self.supervisors.len();
            let ready = cluster["cluster"]["leader"].is_object()
                && cluster["cluster"]["supervisors"] == n_supervisors;
            if ready { Ok(()) } else { Err(format!("{}\n{}", cluster["cluster"], self.logs())) }
        })
        .await;
    }

    /// Waits until every running nimbus is in `/nimbuses`.
    pub(crate) async fn wait_until_nimbuses_registered(&self) {
        for nimbus in (0..self.nimbuses.len()).filter(|nimbus| self.nimbuses[*nimbus].answers()) {
            wait_until("a nimbus is registered", WAIT_MAX, async || {
                self.role(nimbus).await.map(drop).map_err(|error| format!("{error}\n{}", self.logs()))
            })
            .await;
        }
    }

    /// Number of occurrences of `text` in the log of each daemon.
    pub(crate) fn count_in_logs(&self, text: &str) -> Vec<usize> {
        let daemons = self.nimbuses.iter().chain(&self.supervisors);
        daemons.map(|daemon| daemon.log().matches(text).count()).collect()
    }

    /// Waits until every daemon has an open session, whatever happened before.
    pub(crate) async fn wait_until_in_session(&self) {
        wait_until("every daemon has a session", WAIT_MAX, async || {
            let (opened, ended) = (self.count_in_logs("session opened"), self.count_in_logs("session ended"));
            // A daemon that was killed has logged the start of its session only.
            let have_all = opened.iter().zip(&ended).all(|(opened, ended)| opened > ended);
            if have_all { Ok(()) } else { Err(format!("{opened:?}, {ended:?} ended\n{}", self.logs())) }
        })
        .await;
    }

    /// Waits until every daemon has logged `text` more often than `before`.
    pub(crate) async fn wait_until_logged_since(&self, text: &str, before: &[usize]) {
        wait_until(&format!("every daemon logs {text:?}"), WAIT_MAX, async || {
            let now = self.count_in_logs(text);
            let have_all = now.iter().zip(before).all(|(now, before)| now > before);
            if have_all { Ok(()) } else { Err(format!("{now:?}, {before:?} before\n{}", self.logs())) }
        })
        .await;
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

    /// Waits until every task of the topology sends heartbeats; returns the cluster's workers by
    /// port.
    pub(crate) async fn wait_until_whole(&self, topology: &str) -> BTreeMap<u64, Process> {
        wait_until("every task sends heartbeats", WAIT_MAX, async || {
            let shown = self.try_json(&["show", topology]).ok_or_else(|| "no nimbus responds".to_owned())?;
            let (alive, total) = (&shown["tasksAlive"], &shown["tasksTotal"]);
            if alive == total && total.as_u64() > Some(0) {
                Ok(())
            } else {
                Err(format!("{alive} of {total} tasks; {}\n{}", shown["workers"], self.logs()))
            }
        })
        .await;
        self.workers()
    }

    /// Waits until the components of the topology emit more tuples.
    pub(crate) async fn wait_until_tuples_flow(&self, topology: &str) {
        let emitted = || {
            let shown = self.try_json(&["show", topology]).ok_or_else(|| "no nimbus responds".to_owned())?;
            let components = shown["components"].as_array().cloned().unwrap_or_default();
            Ok::<_, String>(components.iter().filter_map(|one| one["emitted"].as_u64()).sum::<u64>())
        };
        let before = AtomicU64::new(u64::MAX);
        wait_until("more tuples are emitted", WAIT_MAX, async || {
            let now = emitted()?;
            // A count that decreased belongs to a worker that was restarted.
            let least = before.fetch_min(now, Ordering::Relaxed).min(now);
            if now > least { Ok(()) } else { Err(format!("{least} before, {now} now\n{}", self.logs())) }
        })
        .await;
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

    /// Waits until no znode and no process of any topology is left.
    pub(crate) async fn wait_until_nothing_is_left(&self) {
        let roots = layout::topology_parents();
        wait_until("no znode and no process of a topology is left", WAIT_MAX, async || {
            let mut left = Vec::new();
            for root in &roots {
                let children = self.tree.children(root).await.map_err(|error| error.to_string())?;
                let children = children.unwrap_or_default().into_iter();
                let of_topologies = children.filter(|child| !is_of_the_cluster(child));
                left.extend(of_topologies.map(|child| format!("{root}/{child}")));
            }
            let processes = self.worker_processes();
            if left.is_empty() && processes.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}, processes {processes:?}\n{}", self.logs()))
            }
        })
        .await;
    }

    /// Writes a small topology that never ends: one spout and two tasks of a bolt, in two workers.
    /// Returns the path of its topology file.
    pub(crate) fn ticker(&self) -> PathBuf {
        let dir = self.path("ticker");
        let component = |name: &str, text: &str| {
            fs::write(dir.join("resources").join(name), text).expect("written");
        };
        fs::create_dir_all(dir.join("resources")).expect("a directory");
        component("ticks.py", TICKS);
        component("sink.py", SINK);
        let file = dir.join("topology.yaml");
        fs::write(&file, TICKER).expect("written");
        file
    }

    /// Copies an example, with some of its lines replaced; returns the path of its topology file.
    pub(crate) fn example(&self, name: &str, replace: &[(&str, &str)]) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let to = self.path(&format!("example-{name}"));
        copy_dir(&from, &to);
        let file = to.join("topology.yaml");
        let mut text = fs::read_to_string(&file).expect("the topology file");
        for (before, after) in replace {
            assert!(text.contains(before), "{name} has no {before:?}");
            text = text.replace(before, after);
        }
        fs::write(&file, text).expect("written");
        file
    }

    /// Ends of all logs, for failure messages.
    pub(crate) fn logs(&self) -> String {
        let daemons = self.nimbuses.iter().chain(&self.supervisors);
        daemons.map(|daemon| format!("--- {}\n{}\n", daemon.name, daemon.log_end())).collect()
    }
}

/// True for a znode below `/metrics` that belongs to the cluster itself, its nimbuses or its
/// supervisors. These znodes are permanent.
pub(crate) fn is_of_the_cluster(name: &str) -> bool {
    ["__CLUSTER__", "__NIMBUS__", "__SUPERVISOR__"].contains(&name)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_everything_but_zookeeper();
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_dir(&path, &target)
        } else {
            fs::copy(&path, &target).map(drop).expect("copied")
        }
    }
}
