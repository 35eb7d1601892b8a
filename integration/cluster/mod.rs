//! A cluster of real processes on the loopback: ZooKeeper, nimbuses, supervisors, and the
//! workers that these launch. Each test has its own.

mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use stormkeeper::{
    cluster::layout,
    daemon::tasks::Tasks,
    test_support::{wait_until, zookeeper::ZooKeeperServer},
    tree::{Tree, TreePath, zookeeper::ZooKeeperTree},
};

pub(crate) use process::{Daemon, free_ports, kill9, processes_with};

/// Long against anything that should happen; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the tree in every test.
const ROOT: &str = "/stormkeeper";

/// The slots of each supervisor.
const N_SLOTS: usize = 4;

pub(crate) struct Cluster {
    pub(crate) zookeeper: ZooKeeperServer,
    pub(crate) nimbuses: Vec<Daemon>,
    pub(crate) supervisors: Vec<Daemon>,
    apis: Vec<String>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Two nimbuses and two supervisors, ready.
    pub(crate) async fn start() -> Self {
        let zookeeper = ZooKeeperServer::start().await.expect("ZooKeeper starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self { zookeeper, nimbuses: vec![], supervisors: vec![], apis: vec![], dir };
        let ports = free_ports(2 + 2 * N_SLOTS);
        for (i, port) in ports[..2].iter().enumerate() {
            cluster.apis.push(format!("127.0.0.1:{port}"));
            let daemon = cluster.daemon("nimbus", i + 1, &format!("ui.host: 127.0.0.1\nui.port: {port}\n"));
            cluster.nimbuses.push(daemon);
        }
        for (i, ports) in ports[2..].chunks(N_SLOTS).enumerate() {
            let daemon = cluster.daemon("supervisor", i + 1, &format!("supervisor.slots.ports: {ports:?}\n"));
            cluster.supervisors.push(daemon);
        }
        cluster.wait_until_ready().await;
        cluster
    }

    fn daemon(&self, kind: &str, i: usize, extra: &str) -> Daemon {
        let name = format!("{kind}-{i}");
        let dir = self.path(&name);
        fs::create_dir_all(&dir).expect("a directory for the daemon");
        let config = format!(
            "storm.zookeeper.servers: [\"{}\"]\nstorm.zookeeper.root: {ROOT}\n\
             storm.zookeeper.session.timeout: 4000\nstorm.local.hostname: 127.0.0.1\n\
             storm.local.dir: {}\ntask.heartbeat.frequency.secs: 1\n{extra}",
            self.zookeeper.address(),
            dir.display()
        );
        fs::write(dir.join("storm.yaml"), config).expect("a configuration");
        Daemon::start(kind, &name, &dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until someone leads and both supervisors are seen.
    pub(crate) async fn wait_until_ready(&self) {
        wait_until("a leader and two supervisors", PATIENCE, async || {
            let cluster = self.try_json(&["cluster"]).ok_or("no nimbus answers".to_owned())?;
            let ready = cluster["cluster"]["leader"].is_object() && cluster["cluster"]["supervisors"] == 2;
            if ready { Ok(()) } else { Err(format!("{}\n{}", cluster["cluster"], self.logs())) }
        })
        .await;
    }

    /// Runs the binary against this cluster.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeeper"));
        for api in &self.apis {
            command.args(["--nimbus", api]);
        }
        command.args(args).env_remove("STORMKEEPER_CONF").output().expect("the binary runs")
    }

    /// Runs the binary, which must succeed; answers its standard output.
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

    /// The pids of the topology's workers by port, once every task beats.
    pub(crate) async fn wait_until_whole(&self, topology: &str) -> BTreeMap<u64, u32> {
        wait_until("every task beats", PATIENCE, async || {
            let shown = self.try_json(&["show", topology]).ok_or_else(|| "no nimbus answers".to_owned())?;
            let (alive, total) = (&shown["tasksAlive"], &shown["tasksTotal"]);
            if alive == total && total.as_u64() > Some(0) {
                Ok(())
            } else {
                Err(format!("{alive} of {total} tasks; {}\n{}", shown["workers"], self.logs()))
            }
        })
        .await;
        self.worker_pids()
    }

    /// The pids of all workers of this cluster, by port.
    pub(crate) fn worker_pids(&self) -> BTreeMap<u64, u32> {
        let mut pids = BTreeMap::new();
        for pid in self.worker_processes() {
            let args = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut args = args.split('\0');
            let Some(spec) = args.by_ref().skip_while(|arg| *arg != "--spec").nth(1) else { continue };
            let spec = fs::read(spec).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(port) = spec.and_then(|spec| spec["slot"]["port"].as_u64()) {
                pids.insert(port, pid);
            }
        }
        pids
    }

    /// Every process that a supervisor of this cluster launched, components included.
    pub(crate) fn worker_processes(&self) -> BTreeSet<u32> {
        let dirs = (1..=2).map(|i| self.path(&format!("supervisor-{i}")));
        dirs.flat_map(|dir| processes_with(&format!("STORMKEEPER_SUPERVISOR_DIR={}", dir.display())))
            .collect()
    }

    /// A connection to the tree of this cluster, as zkCli would have.
    pub(crate) fn tree(&self, tasks: &Tasks) -> std::sync::Arc<dyn Tree> {
        let root: TreePath = ROOT.parse().expect("valid path");
        ZooKeeperTree::connect(self.zookeeper.options(root), fastrand::Rng::new(), tasks)
    }

    /// Waits until nothing of any topology is left: no znode, no process.
    pub(crate) async fn wait_until_nothing_is_left(&self) {
        let tasks = Tasks::default();
        let tree = self.tree(&tasks);
        let roots = [
            layout::storms(),
            layout::tasks_root(),
            layout::assignments(),
            layout::taskbeats_root(),
            layout::taskerrors_root(),
            layout::metrics_root(),
        ];
        wait_until("nothing is left in the tree and no process", PATIENCE, async || {
            let mut left = Vec::new();
            for root in &roots {
                let children = tree.children(root).await.map_err(|error| error.to_string())?;
                left.extend(children.unwrap_or_default().iter().map(|child| format!("{root}/{child}")));
            }
            let processes = self.worker_processes();
            if left.is_empty() && processes.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}, processes {processes:?}\n{}", self.logs()))
            }
        })
        .await;
        tree.close().await;
    }

    /// Copies an example, with some of its lines replaced, and answers its topology file.
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

    /// The ends of all logs, for a failure's message.
    pub(crate) fn logs(&self) -> String {
        let daemons = self.nimbuses.iter().chain(&self.supervisors);
        daemons.map(|daemon| format!("--- {}\n{}\n", daemon.name, daemon.log_end())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for supervisor in &mut self.supervisors {
            supervisor.kill9();
        }
        for pid in self.worker_processes() {
            process::signal(pid, rustix::process::Signal::KILL);
        }
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
