//! `scripts/cluster up --secure`: one command starts a cluster that is locked.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use stormkeeper_runtime::test_support::wait_until;
use tokio::sync::Mutex;

use crate::cluster::WAIT_MAX;

const ONE: &str = "
name: one
spouts: [{id: s, parallelism: 1, command: [\"python3\", \"s.py\"], output: [x]}]
";

const SPOUT: &str = "
import time
from stormkeeper import Spout

class Slow(Spout):
    def next_tuple(self):
        time.sleep(0.1)

Slow().run()
";

/// Held by each test: the slots of clusters that end and start at once could be the same ones.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A cluster of the script, which is stopped at the end.
struct Scripted {
    dir: tempfile::TempDir,
}

impl Scripted {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn script(&self, name: &str, args: &[&str]) -> Output {
        self.command(name, args).output().expect("the script runs")
    }

    /// Runs the script with a program in the place of another one, and returns what it says.
    fn fails_with(&self, program: &str, text: &str, args: &[&str]) -> String {
        let dir = self.dir.path().join("programs");
        fs::create_dir_all(&dir).expect("created");
        let file = dir.join(program);
        fs::write(&file, text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
        #[expect(clippy::disallowed_methods, reason = "the script finds the other programs as the test does")]
        let others = std::env::var("PATH").expect("a path");
        let path = format!("{}:{others}", dir.display());
        let output = self.command("cluster", args).env("PATH", path).output().expect("the script runs");
        fs::remove_file(&file).expect("removed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        said
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
        let mut command = Command::new(script);
        command
            .args(args)
            .env("STORMKEEPER_BINARY", env!("CARGO_BIN_EXE_stormkeeper"))
            .env("STORMKEEPER_CLUSTER_DIR", self.path(""))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("STORMKEEPER_CONF")
            .env_remove("STORMKEEPER_TOKEN");
        command
    }

    fn ok(&self, name: &str, args: &[&str]) -> String {
        let output = self.script(name, args);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "scripts/{name} {args:?}: {}\n{stdout}\n{stderr}", output.status);
        stdout.into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("cluster").join(name)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _stopped = self.script("cluster", &["down", "--purge"]);
    }
}

/// Asserts that nobody but its owner may read a directory and what is below it.
fn expect_private(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_symlink() {
        return;
    }
    assert_eq!(metadata.mode() & 0o077, 0, "{} has the mode {:o}", path.display(), metadata.mode());
    if metadata.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().for_each(|entry| expect_private(&entry.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secure_cluster_of_the_script_is_locked_and_runs_a_topology() {
    let _alone = ALONE.lock().await;
    let cluster = Scripted::new();
    cluster.ok("cluster", &["up", "--secure", "--nimbus", "1", "--supervisors", "1"]);
    let status = cluster.script("cluster", &["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(String::from_utf8_lossy(&status.stderr).contains("locked; the tokens are in"), "{status:?}");

    let secrets = cluster.path("secrets");
    assert_eq!(fs::metadata(&secrets).expect("there").mode() & 0o777, 0o700);
    for file in fs::read_dir(&secrets).expect("readable") {
        let file = file.expect("readable");
        let metadata = file.metadata().expect("there");
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o777, mode, "{file:?}");
    }

    for daemon in ["nimbus-1/local", "supervisor-1/local"] {
        expect_private(&cluster.path(daemon));
    }

    let listed = cluster.ok("sk", &["list", "--json"]);
    assert!(!listed.contains("problems"), "{listed}");
    let config = fs::read_to_string(cluster.path("storm.yaml")).expect("a configuration");
    let without_token = config.lines().filter(|line| !line.starts_with("ui.token.file"));
    let stranger = cluster.path("stranger.yaml");
    fs::write(&stranger, without_token.clone().map(|line| format!("{line}\n")).collect::<String>())
        .expect("written");
    let refused = cluster.script("sk", &["--config", stranger.to_str().expect("text"), "list"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && message.contains("no token"), "{message}");

    let plain = config.lines().filter(|line| !line.starts_with("storm.tls.ca.file"));
    fs::write(&stranger, plain.map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    let refused = cluster.script("sk", &["--config", stranger.to_str().expect("text"), "list"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && message.contains("TLS"), "{message}");
    fs::write(&stranger, without_token.map(|line| format!("{line}\n")).collect::<String>()).expect("written");

    let lists = cluster.ok("zkcli", &["getAcl", "/stormkeeper/storms"]);
    assert!(lists.contains("digest") && lists.contains("'world,'anyone\n: r"), "{lists}");

    let topology = cluster.path("one").join("topology.yaml");
    fs::create_dir_all(cluster.path("one").join("resources")).expect("a directory");
    fs::write(&topology, ONE).expect("written");
    fs::write(cluster.path("one").join("resources/s.py"), SPOUT).expect("written");
    cluster.ok("sk", &["submit", topology.to_str().expect("text")]);
    wait_until("its task runs", WAIT_MAX, async || {
        let listed = cluster.ok("sk", &["list"]);
        if listed.contains("1/1") { Ok(()) } else { Err(listed) }
    })
    .await;

    cluster.ok("cluster", &["down"]);
    let again = cluster.ok("cluster", &["up"]);
    let refused = cluster.script("sk", &["--config", stranger.to_str().expect("text"), "list"]);
    assert!(!refused.status.success(), "it stays locked: {again}");
    cluster.ok("cluster", &["down", "--purge"]);
    assert!(!secrets.exists(), "purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_have_slots_of_their_own_and_what_cannot_become_ready_is_named_at_once() {
    let _alone = ALONE.lock().await;
    let (one, other) = (Scripted::new(), Scripted::new());
    let up = ["up", "--nimbus", "1", "--supervisors", "2"];
    let slots = |cluster: &Scripted| {
        cluster.ok("cluster", &up);
        let status = cluster.ok("cluster", &["status"]);
        let ports = status.lines().filter_map(|line| line.split_once("slots ")).map(|(_, ports)| ports);
        ports.flat_map(|ports| ports.trim().split(',')).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (first, second) = (slots(&one), slots(&other));
    assert_eq!((first.len(), second.len()), (8, 8));
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");

    other.ok("cluster", &["down"]);
    let said = other.fails_with("java", "#!/bin/sh\necho 'no java here' >&2\nexit 3\n", &up);
    assert!(said.contains("zookeeper-1 has ended") && said.contains("no java here"), "{said}");
    let curl = "#!/bin/sh\necho 'curl: (60) a certificate is not believed' >&2\nexit 60\n";
    let said = other.fails_with("curl", curl, &up);
    assert!(said.contains("requests cannot succeed: curl: (60)"), "{said}");
}

/// Stands for `java`, and ends after another process answers as ZooKeeper on the port.
const USURPED: &str = r#"#!/usr/bin/env python3
import os, re, socket, sys, time

config = [argument for argument in sys.argv if argument.endswith("zoo.cfg")]
if not config:
    sys.exit(0)
port = int(re.search(r"clientPort=(\d+)", open(config[0]).read()).group(1))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen()
if os.fork() == 0:
    listener.settimeout(10)
    for _ in range(3):
        connection, _ = listener.accept()
        connection.sendall(b"Mode: standalone\n")
        connection.close()
    sys.exit(0)
listener.close()
time.sleep(2)
print("another process has the port", file=sys.stderr)
sys.exit(3)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn clusters_started_at_once_have_ports_of_their_own_and_a_stranger_on_a_port_is_none_of_them() {
    let _alone = ALONE.lock().await;
    let (one, other) = (Scripted::new(), Scripted::new());
    let up = ["up", "--nimbus", "1", "--supervisors", "1"];
    let started: Vec<Output> = std::thread::scope(|scope| {
        let running = [&one, &other].map(|cluster| scope.spawn(|| cluster.script("cluster", &up)));
        running.map(|thread| thread.join().expect("it does not panic")).into()
    });
    for output in started {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let [first, second] = [&one, &other].map(|cluster| cluster.ok("cluster", &["status"]));
    let ports = |status: &str| -> BTreeSet<String> {
        status.split_whitespace().filter(|word| word.starts_with("127.0.0.1:")).map(str::to_owned).collect()
    };
    assert_eq!((ports(&first).len(), ports(&second).len()), (2, 2), "{first}\n{second}");
    assert!(ports(&first).is_disjoint(&ports(&second)), "{first}\n{second}");
    for cluster in [&one, &other] {
        let listed = cluster.ok("sk", &["cluster", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed["supervisors"].as_array().map(Vec::len), Some(1), "{listed}");
    }
    other.ok("cluster", &["down"]);
    let said = other.fails_with("java", USURPED, &up);
    assert!(said.contains("zookeeper-1 has ended"), "{said}");
}
