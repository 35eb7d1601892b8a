//! Workers that run as the owners of their topologies, with a ZooKeeper that demands certificates. The
//! test makes a user of this host and removes it.

use std::fs;

use serde_json::json;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    authority::{Authority, Issued},
    cluster::{Cluster, Shape, WAIT_MAX},
    locked::{Keys, stormkeeper},
    run_as::{User, is_root, only_entry, run_workers_as_owners, set_mode, submit},
    tree_tls::{certificates_dir, demand_certificates, issue, use_certificates},
};

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_another_user_gets_a_copy_of_the_key_for_zookeeper_and_of_its_replacement() {
    if !is_root() {
        eprintln!("did not run: only root starts other users' processes");
        return;
    }
    let (ann, keys) = (User::create("c"), Keys::new());
    let out = keys.path(&ann.name).display().to_string();
    let made = stormkeeper(&["token", "new", &ann.name, "--role", "operator", "--out", &out]);
    let printed = String::from_utf8(made.stdout).expect("text");
    let line = printed.lines().find_map(|line| line.strip_prefix("line:")).expect("a line").trim();
    let tokens = fs::read_to_string(keys.path("tokens")).expect("there");
    fs::write(keys.path("tokens"), format!("{tokens}{line}\n")).expect("written");
    let mut cluster = Cluster::with(Shape { supervisors: 1, ..Shape::SMALL }, &keys.settings()).await;

    let authority = Authority::new("of the test");
    let addresses = demand_certificates(&mut cluster, &authority).await;
    // As daemons and workers have it: a key that only root reads, and authorities that everybody reads.
    let dir = certificates_dir(&cluster, &authority);
    let first = issue(&authority, &dir, "worker");
    use_certificates(&cluster, "supervisor-1", &addresses, (&dir, "worker"));
    run_workers_as_owners(&mut cluster).await;

    cluster.set_token(Some(keys.path(&ann.name)));
    let outs = cluster.path("outs");
    fs::create_dir(&outs).expect("created");
    set_mode(&outs, 0o1777);
    submit(&cluster, "of-ann", &outs.join("ann"), &json!([]));
    cluster.wait_until_whole("of-ann").await;
    let data = cluster.path("supervisor-1/supervisor");
    let copied = |issued: &Issued| format!("{}\n{}", issued.certificate.trim_end(), issued.key);
    let copy = only_entry(&data.join("worker-files")).join("zookeeper.pem");
    assert_eq!(fs::read_to_string(&copy).expect("there"), copied(&first));

    let second = issue(&authority, &dir, "worker");
    wait_until("the worker has the new key", WAIT_MAX, async || {
        let there = fs::read_to_string(&copy).map_err(|error| format!("{error}\n{}", cluster.logs()))?;
        if there == copied(&second) { Ok(()) } else { Err("it has the old one".to_owned()) }
    })
    .await;
    let log = only_entry(&data.join("workers")).join("logs/worker.log");
    wait_until("the worker has read it", WAIT_MAX, async || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if text.contains("read changed certificates for ZooKeeper") { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.ok(&["kill", "of-ann", "-w", "0s", "-y"]);
    cluster.wait_until_nothing_is_left().await;
}
