//! Invalid input at every entry point of a running cluster: a clear error, and the cluster
//! continues.

use std::{fs, path::PathBuf, process::Command};

use stormkeeper_coordination::{
    cluster::layout,
    tree::{CreateMode, TreePath},
};
use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, WAIT_MAX, free_ports};

fn topology_file(cluster: &Cluster, name: &str, text: &str) -> String {
    let dir = cluster.path(&format!("topology-{name}"));
    fs::create_dir_all(&dir).expect("a directory");
    let file: PathBuf = dir.join("topology.yaml");
    fs::write(&file, text).expect("written");
    file.display().to_string()
}

fn one_spout(name: &str, command: &str) -> String {
    format!("name: {name}\nspouts:\n  - id: s\n    parallelism: 1\n    command: {command}\n    output: [x]\n")
}

/// Waits for an error of component `s`; returns its message.
async fn error_of(cluster: &Cluster, topology: &str) -> String {
    wait_until("an error of the spout", WAIT_MAX, async || {
        let errors = cluster.json(&["get-errors", topology]);
        match errors["last"]["s"]["error"].as_str() {
            Some(message) => Ok(message.to_owned()),
            None => Err(format!("{errors}\n{}", cluster.logs())),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_components_are_reported_and_affect_no_other_topology() {
    let cluster = Cluster::start().await;
    let cases = [
        ("no-command", r#"["no-such-command-anywhere"]"#, "no-such-command-anywhere"),
        ("garbage", r#"["sh", "-c", "echo this is not JSON; echo end; sleep 100"]"#, "this is not JSON"),
        ("exits", r#"["sh", "-c", "echo out of coffee >&2; exit 7"]"#, "7"),
    ];
    for (name, command, _) in cases {
        cluster.ok(&["submit", &topology_file(&cluster, name, &one_spout(name, command))]);
    }
    for (name, _, expected) in cases {
        let message = error_of(&cluster, name).await;
        assert!(message.contains(expected), "{name}: {message:?} does not contain {expected:?}");
    }
    for (name, ..) in cases {
        cluster.ok(&["kill", name, "-w", "0s"]);
    }
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_znode_is_reported_and_the_cluster_continues() {
    let cluster = Cluster::start().await;
    let tree = &cluster.tree;
    let by_hand: TreePath = "/storms/by-hand-1-1".parse().expect("valid path");
    wait_until("the znode is written", WAIT_MAX, async || {
        let created = tree.create(&by_hand, b"hello", CreateMode::Persistent).await;
        created.map(drop).map_err(|error| error.to_string())
    })
    .await;
    wait_until("the znode is reported", WAIT_MAX, async || {
        let unreadable = cluster.json(&["cluster"])["cluster"]["unreadable"].clone();
        let named =
            unreadable.as_array().is_some_and(|all| all.iter().any(|one| one["path"] == by_hand.as_str()));
        if named { Ok(()) } else { Err(unreadable.to_string()) }
    })
    .await;
    let list = cluster.ok(&["list"]);
    assert!(list.contains("! /storms/by-hand-1-1 cannot be read: "), "{list}");
    let file = topology_file(&cluster, "fine", &one_spout("fine", r#"["python3", "spout.py"]"#));
    let resources = PathBuf::from(&file).with_file_name("resources");
    fs::create_dir_all(&resources).expect("a directory");
    let spout = "import stormkeeper\nclass S(stormkeeper.Spout):\n    def next_tuple(self):\n        pass\nS().run()\n";
    fs::write(resources.join("spout.py"), spout).expect("written");
    cluster.ok(&["submit", &file, "--wait"]);

    // A corrupt assignment does not stop the worker that it describes.
    let before = cluster.wait_until_whole("fine").await;
    let id = cluster.json(&["show", "fine"])["id"].as_str().expect("an id").to_owned();
    let path = layout::assignment(&id.parse().expect("valid id"));
    let good = tree.get(&path).await.expect("readable").expect("there").data;
    tree.set(&path, b"{}", None).await.expect("written");
    wait_until("the assignment is reported", WAIT_MAX, async || {
        let unreadable = cluster.json(&["cluster"])["cluster"]["unreadable"].to_string();
        if unreadable.contains(path.as_str()) { Ok(()) } else { Err(unreadable) }
    })
    .await;
    assert_eq!(cluster.workers(), before);
    tree.set(&path, &good, None).await.expect("mended");
    tree.delete(&by_hand, None).await.expect("deleted");
    cluster.ok(&["kill", "fine", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

fn stormkeeper(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
        .args(args)
        .env_remove("STORMKEEPER_CONF")
        .output()
        .expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn command_line_errors_say_what_is_wrong_where_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let check = |args: &[&str], code: i32, parts: &[&str]| {
        let (status, message) = stormkeeper(args);
        assert_eq!(status, Some(code), "{args:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{args:?} does not print {part:?}: {message}");
        }
    };
    let broken = write("broken.yaml", "name: [\n");
    check(&["submit", &broken], 3, &["broken.yaml"]);
    let unknown = write(
        "unknown.yaml",
        &format!(
            "{}bolts:\n  - id: b\n    parallelism: 1\n    command: [\"cat\"]\nstreams:\n  - from: sentenses\n    to: b\n    grouping: {{type: SHUFFLE}}\n",
            one_spout("t", "[\"cat\"]")
        ),
    );
    check(&["submit", &unknown], 3, &["unknown.yaml", "sentenses", "streams[0]"]);
    let missing = write("missing.yaml", "name: t\nspouts:\n  - id: s\n    parallelism: 1\n    output: [x]\n");
    check(&["submit", &missing], 3, &["spouts[0]", "command"]);
    let java = write(
        "java.yaml",
        "name: t\nspouts:\n  - id: s\n    className: com.example.KafkaSpout\n    parallelism: 1\n",
    );
    check(&["submit", &java], 3, &["com.example.KafkaSpout", "command"]);
    let wrong_key = write("storm.yaml", "nimbus.monitor.freq.secs: soon\n");
    check(&["--config", &wrong_key, "config", "show"], 3, &["storm.yaml:1", "nimbus.monitor.freq.secs"]);
    let typo = write("typo.yaml", "nimbus.monitor.freq.sec: 5\n");
    check(&["--config", &typo, "config", "show"], 0, &["nimbus.monitor.freq.secs"]);
    check(&["submit", "/no/such/file.yaml"], 3, &["/no/such/file.yaml"]);
    let nobody = format!("127.0.0.1:{}", free_ports(1)[0]);
    check(&["--nimbus", &nobody, "list"], 5, &[&nobody, "hint:"]);
    check(&["rebalance", "x", "-e", "split"], 2, &["COMPONENT=N"]);
}

#[test]
fn oversized_topology_package_is_rejected_before_it_is_sent() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("resources")).expect("a directory");
    fs::write(dir.path().join("resources/big"), vec![b'x'; 3 << 20]).expect("written");
    let file = dir.path().join("topology.yaml");
    fs::write(&file, one_spout("t", "[\"cat\"]")).expect("written");
    let (status, message) =
        stormkeeper(&["-c", "nimbus.max.blob.bytes=1MiB", "submit", &file.display().to_string()]);
    assert_eq!(status, Some(3), "{message}");
    assert!(
        message.contains("1048576") || message.contains("1 MiB") || message.contains("1MiB"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nimbus_without_zookeeper_waits_and_logs_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ports = free_ports(2);
    let config = format!(
        "storm.zookeeper.servers: [\"127.0.0.1:{}\"]\nstorm.local.dir: {}\nui.host: 127.0.0.1\nui.port: {}\n",
        ports[0],
        dir.path().display(),
        ports[1]
    );
    fs::write(dir.path().join("storm.yaml"), config).expect("written");
    let nimbus = crate::cluster::Daemon::start("nimbus", "nimbus", dir.path());
    wait_until("the log names the missing server", WAIT_MAX, async || {
        let log = nimbus.log();
        if log.contains(&format!("127.0.0.1:{}", ports[0])) { Ok(()) } else { Err(log) }
    })
    .await;
    let api = format!("127.0.0.1:{}", ports[1]);
    let (status, message) = stormkeeper(&["--nimbus", &api, "list"]);
    assert_eq!(status, Some(5), "{message}");
}
