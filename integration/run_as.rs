//! Workers that run as the owners of their topologies. The test makes two users of this host and
//! removes them.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Process, Shape, WAIT_MAX},
    locked::{Keys, stormkeeper},
};

/// A user of this host, for as long as this value lives.
pub(crate) struct User {
    pub(crate) name: String,
    uid: String,
}

impl User {
    pub(crate) fn create(name: &str) -> Self {
        let name = format!("sk{name}{}", std::process::id());
        let made = Command::new("useradd").args(["--no-create-home", "--user-group", &name]).output();
        let made = made.expect("useradd runs");
        assert!(made.status.success(), "{made:?}");
        let id = Command::new("id").args(["-u", &name]).output().expect("id runs");
        Self { uid: String::from_utf8_lossy(&id.stdout).trim().to_owned(), name }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Its processes have ended with the cluster, or end with its reaper.
        let _removed = Command::new("userdel").args(["--force", &self.name]).output();
    }
}

/// True if this test may start processes of other users.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().expect("id runs").stdout == b"0\n"
}

/// Topology whose spout tries to reach the files and processes in `targets` and says how it ended.
const TOPOLOGY: &str = r#"
name: NAME
config: {topology.workers: 1, out: OUT, targets: TARGETS}
spouts: [{id: spy, command: ["python3", "spy.py"], output: [n]}]
bolts: [{id: sink, command: ["python3", "sink.py"], output: []}]
streams: [{from: spy, to: sink, grouping: {type: SHUFFLE}}]
"#;

const SPY: &str = r#"
import json, os, time
from stormkeeper import Spout

def attempt(target, mode="r"):
    try:
        if mode == "chmod":
            os.chmod(target, 0o600)
        elif isinstance(target, int):
            os.kill(target, 0)
        elif os.path.isdir(target):
            os.listdir(target)
        else:
            open(target, mode).close()
        return "reached"
    except PermissionError:
        return "denied"
    except Exception as error:
        return repr(error)

class Spy(Spout):
    def next_tuple(self):
        targets = self.conf["targets"] + [os.environ["STORMKEEPER_CREDENTIALS_FILE"]]
        said = {str(target): attempt(target) for target in targets}
        spec = os.path.join(os.path.dirname(os.environ["STORMKEEPER_CREDENTIALS_FILE"]), "worker.json")
        said["spec"] = [attempt(spec, mode) for mode in ("r", "r+", "chmod")]
        said["home"] = os.environ["HOME"]
        said["uid"] = os.getuid()
        with open(self.conf["out"] + ".tmp", "w") as out:
            json.dump(said, out)
        os.replace(self.conf["out"] + ".tmp", self.conf["out"])
        time.sleep(0.1)

Spy().run()
"#;

const SINK: &str = "from stormkeeper import Bolt\n\nBolt().run()\n";

pub(crate) fn submit(cluster: &Cluster, name: &str, out: &Path, targets: &Value) {
    let dir = cluster.path(name);
    fs::create_dir_all(dir.join("resources")).expect("created");
    for (file, text) in [("spy.py", SPY), ("sink.py", SINK)] {
        fs::write(dir.join("resources").join(file), text).expect("written");
    }
    let topology = TOPOLOGY.replace("NAME", name).replace("TARGETS", &targets.to_string());
    let topology = topology.replace("OUT", &format!("{:?}", out.display().to_string()));
    fs::write(dir.join("topology.yaml"), topology).expect("written");
    cluster.ok(&["submit", &dir.join("topology.yaml").display().to_string()]);
}

async fn said(cluster: &Cluster, out: &Path) -> Value {
    wait_until("the component says what it reached", WAIT_MAX, async || {
        let text = fs::read_to_string(out).map_err(|error| format!("{error}\n{}", cluster.logs()))?;
        serde_json::from_str::<Value>(&text).map(drop).map_err(|error| error.to_string())
    })
    .await;
    serde_json::from_str(&fs::read_to_string(out).expect("there")).expect("JSON")
}

/// The user ids and the groups of a process.
fn ids(process: Process) -> (String, String) {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    (field("Uid:"), field("Groups:"))
}

pub(crate) fn only_entry(dir: &Path) -> PathBuf {
    let entries: Vec<PathBuf> =
        fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable").path()).collect();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    entry.clone()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it belongs to this test");
}

/// Paths of what the only worker has, and of what the supervisor has; the credentials alone as well.
fn places_of_the_worker(cluster: &Cluster, keys: &Keys) -> (Vec<PathBuf>, PathBuf) {
    let data = cluster.path("supervisor-1/supervisor");
    let (dir, files) = (only_entry(&data.join("workers")), only_entry(&data.join("worker-files")));
    let package = only_entry(&data.join("packages-of-users"));
    let places = [
        dir.clone(),
        dir.join("worker.json"),
        dir.join("logs"),
        dir.join("logs/worker.log"),
        files.clone(),
        files.join("worker.json"),
        files.join("access.keys"),
        files.join("credentials.json"),
        package.clone(),
        package.join("topology.json"),
        package.join("resources/spy.py"),
        data.clone(),
        data.join("workers"),
        data.join("blobs"),
        data.join("ledger"),
        data.join("supervisor-id"),
        keys.path("secret"),
    ];
    (places.into(), files.join("credentials.json"))
}

/// Switches the supervisor over, with a copy of the program that other users may start: that of the test
/// may be in a directory of one user.
pub(crate) async fn run_workers_as_owners(cluster: &mut Cluster) {
    let file = cluster.path("supervisor-1/storm.yaml");
    let before = fs::read_to_string(&file).expect("its configuration");
    fs::write(&file, format!("{before}supervisor.run.worker.as.user: true\n")).expect("written");
    let program = cluster.path("stormkeeper");
    fs::copy(env!("CARGO_BIN_EXE_stormkeeper"), &program).expect("copied");
    set_mode(&program, 0o755);
    cluster.supervisors[0].terminate();
    cluster.supervisors[0].program = program;
    cluster.supervisors[0].start_again();
    cluster.wait_until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_one_owner_reaches_nothing_of_another() {
    if !is_root() {
        eprintln!(
            "worker_of_one_owner_reaches_nothing_of_another did not run: only root starts other users' processes"
        );
        return;
    }
    let (ann, bob) = (User::create("a"), User::create("b"));
    let keys = Keys::new();
    let mut tokens = fs::read_to_string(keys.path("tokens")).expect("there");
    for user in [&ann, &bob] {
        let out = keys.path(&user.name).display().to_string();
        let args = ["token", "new", &user.name, "--role", "operator", "--out", &out];
        let printed = String::from_utf8(stormkeeper(&args).stdout).expect("text");
        let line = printed.lines().find_map(|line| line.strip_prefix("line:")).expect("a line").trim();
        tokens.push_str(&format!("{line}\n"));
    }
    fs::write(keys.path("tokens"), tokens).expect("written");
    let mut cluster = Cluster::with(Shape { supervisors: 1, ..Shape::SMALL }, &keys.settings()).await;
    run_workers_as_owners(&mut cluster).await;
    let outs = cluster.path("outs");
    fs::create_dir(&outs).expect("created");
    set_mode(&outs, 0o1777);

    cluster.set_token(Some(keys.path(&bob.name)));
    submit(&cluster, "of-bob", &outs.join("bob"), &json!([]));
    cluster.ok(&["credentials", "of-bob", "db=s3cr3t"]);
    let of_bob = cluster.wait_until_whole("of-bob").await;
    let by_bob = said(&cluster, &outs.join("bob")).await;
    assert_eq!(by_bob["uid"].to_string(), bob.uid, "{by_bob}");
    assert_eq!(by_bob["spec"], json!(["reached", "denied", "denied"]), "only root says whose launch it is");
    let process = *of_bob.values().next().expect("a worker");
    let uids = [&*bob.uid; 4].join(" ");
    assert_eq!(ids(process), (uids, String::new()), "the worker has the user and no group of root");

    let (places, credentials) = places_of_the_worker(&cluster, &keys);
    assert!(by_bob[credentials.display().to_string()] == "reached", "{by_bob}");
    let mut targets: Vec<Value> = places.iter().map(|path| json!(path.display().to_string())).collect();
    targets.push(json!(process.pid));
    targets.push(json!(cluster.supervisors[0].process().pid));

    cluster.set_token(Some(keys.path(&ann.name)));
    submit(&cluster, "of-ann", &outs.join("ann"), &json!(targets));
    cluster.wait_until_whole("of-ann").await;
    let by_ann = said(&cluster, &outs.join("ann")).await;
    assert_eq!(by_ann["uid"].to_string(), ann.uid, "{by_ann}");
    for target in &targets {
        let name = target.as_str().map_or_else(|| target.to_string(), str::to_owned);
        assert_eq!(by_ann[&name], "denied", "{name}: {by_ann:#}");
    }

    // Nobody gets a worker as root.
    cluster.set_token(Some(keys.path("root")));
    submit(&cluster, "of-root", &outs.join("root"), &json!([]));
    wait_until("the error names the owner", WAIT_MAX, async || {
        let errors = cluster.ok(&["get-errors", "of-root"]);
        let is_named =
            errors.contains("\"root\"") && errors.contains("supervisor.run.worker.as.user.min.uid");
        if is_named { Ok(()) } else { Err(format!("{errors}\n{}", cluster.logs())) }
    })
    .await;
    assert!(!outs.join("root").exists(), "it did not run");
    // That is no fault of the host.
    let list = wait_until("the topology is in list", WAIT_MAX, async || {
        let list = cluster.ok(&["list"]);
        if list.contains("may be in the topology or its owner") { Ok(list) } else { Err(list) }
    })
    .await;
    assert!(!list.contains("could not bring workers up"), "{list}");

    // Killing works as before: root signals the processes of every user.
    for name in ["of-ann", "of-bob", "of-root"] {
        cluster.ok(&["kill", name, "-w", "0s", "-y"]);
    }
    cluster.wait_until_nothing_is_left().await;
}

#[test]
fn supervisor_that_is_not_root_does_not_start_with_workers_as_owners_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    set_mode(dir.path(), 0o777);
    let program = dir.path().join("stormkeeper");
    fs::copy(env!("CARGO_BIN_EXE_stormkeeper"), &program).expect("copied");
    set_mode(&program, 0o755);
    let mut command = Command::new(&program);
    if is_root() {
        // The ids of `nobody` in every Linux.
        command.uid(65_534).gid(65_534);
    }
    let local_dir = format!("storm.local.dir={}", dir.path().join("local").display());
    let output = command
        .args(["supervisor", "-c", &local_dir, "-c", "supervisor.run.worker.as.user=true"])
        .current_dir(dir.path())
        .env_remove("STORMKEEPER_CONF")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("supervisor.run.worker.as.user is set") && said.contains("not as root"), "{said}");
}
