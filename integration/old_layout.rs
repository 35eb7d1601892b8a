//! Daemons on a tree and on data directories of an earlier build: they end with an error that says
//! what was found and what to do, and change nothing.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use stormkeeper_coordination::{
    test_support::zookeeper::Ensemble,
    tree::{CreateMode, ReadTree as _, Tree as _, TreePath, zookeeper::ZooKeeperTree},
};
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

use crate::cluster::{ROOT, WAIT_MAX, free_ports};

const KINDS: [&str; 2] = ["nimbus", "supervisor"];

/// Runs a daemon until it ends by itself with this exit status; returns what it wrote to stderr.
async fn refusal_of(kind: &str, zookeeper: &Ensemble, local_dir: &Path, status: i32) -> String {
    let servers: Vec<String> = zookeeper.servers.iter().map(|server| server.address()).collect();
    let ports = free_ports(2);
    let home = tempfile::tempdir().expect("a temporary directory");
    let config = format!(
        "storm.zookeeper.servers: {servers:?}\nstorm.zookeeper.root: {ROOT}\nstorm.local.hostname: 127.0.0.1\n\
         storm.local.dir: {}\nui.host: 127.0.0.1\nui.port: {}\nsupervisor.slots.ports: [{}]\n\
         supervisor.agent.port: 0\n",
        local_dir.display(),
        ports[0],
        ports[1]
    );
    let file = home.path().join("storm.yaml");
    fs::write(&file, config).expect("a configuration");
    let mut daemon = tokio::process::Command::new(env!("CARGO_BIN_EXE_stormkeeper"));
    daemon.arg(kind).arg("--config").arg(&file).kill_on_drop(true);
    let ended = tokio::time::timeout(WAIT_MAX, daemon.output()).await;
    let ended = ended.unwrap_or_else(|_| panic!("the {kind} was not refused")).expect("the daemon starts");
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(status), "{text}");
    text
}

fn expect(text: &str, expected: &[&str]) {
    let error = text.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
    assert!(!error.is_empty(), "no error: {text}");
    for expected in expected {
        assert!(error.contains(expected), "{expected:?} is not in the error: {text}");
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path());
    entries
        .map(|path| {
            (path.display().to_string(), if path.is_dir() { vec![] } else { fs::read(path).expect("read") })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_refuse_a_tree_of_an_earlier_build_and_do_not_change_it() {
    let zookeeper = Ensemble::start(1).await.expect("ZooKeeper starts");
    let (tasks, root) = (Tasks::default(), ROOT.parse().expect("valid path"));
    let tree = ZooKeeperTree::connect(zookeeper.options(root), fastrand::Rng::new(), &tasks);
    let old = ["/archive", "/orders", "/storms"];
    for path in old {
        let path: TreePath = path.parse().expect("valid path");
        wait_until("the znode is written", WAIT_MAX, || async {
            tree.ensure(&path).await.map_err(|error| error.to_string())
        })
        .await;
    }
    for kind in KINDS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = refusal_of(kind, &zookeeper, dir.path(), 1).await;
        let expected = [
            "the ZooKeeper tree at /stormkeeper has no /layout",
            "holds /archive, /orders, /storms",
            "layout 1",
            "this build needs layout 2",
            "storm.zookeeper.root",
            "deleteall /stormkeeper",
        ];
        expect(&text, &expected);
    }
    let found = tree.children(&TreePath::root()).await.expect("read").expect("there");
    assert_eq!(found, old.map(|path| path.trim_start_matches('/').to_owned()));

    // A tree of a later layout.
    let layout: TreePath = "/layout".parse().expect("valid path");
    let created = tree.create(&layout, br#"{"v":1,"layout":3}"#, CreateMode::Persistent).await;
    created.expect("created");
    for kind in KINDS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = refusal_of(kind, &zookeeper, dir.path(), 1).await;
        expect(&text, &["has layout 3, and this build has layout 2: this build is too old"]);
    }
    Arc::clone(&tree).close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_refuse_a_directory_of_an_earlier_build_and_do_not_change_it() {
    let zookeeper = Ensemble::start(1).await.expect("ZooKeeper starts");
    for (kind, trace) in [("nimbus", "nimbus-id"), ("supervisor", "supervisor-id")] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(trace), "host-12345678\n").expect("written");
        let before = files(dir.path());
        let text = refusal_of(kind, &zookeeper, dir.path(), 3).await;
        let path = dir.path().display().to_string();
        let says = format!("the {kind} directory {path} has no file `layout`, and contains {trace}");
        let expected = [&*says, "layout 1", "this build needs layout 2", "set another storm.local.dir"];
        expect(&text, &expected);
        assert_eq!(files(dir.path()), before);
    }
}
