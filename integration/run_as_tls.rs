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
    tree_tls::write_secret,
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
    let server = &mut cluster.zookeeper.servers[0];
    let plain = server.address();
    let secure = server.add_tls(&authority.pem, &authority.issue(&["127.0.0.1"]).both()).expect("written");
    server.restart().await.expect("started");
    // As daemons and workers have it: a key that only root reads, and authorities that everybody reads.
    let dir = cluster.path("tls");
    fs::create_dir(&dir).expect("created");
    fs::write(dir.join("ca.pem"), &authority.pem).expect("written");
    let issue = || {
        let issued = authority.issue(&["worker"]);
        fs::write(dir.join("worker.pem"), &issued.certificate).expect("written");
        write_secret(&dir.join("worker.key"), &issued.key);
        issued
    };
    let first = issue();
    let place = dir.display();
    let settings = format!(
        "storm.zookeeper.tls.ca.file: {place}/ca.pem\n\
         storm.zookeeper.tls.cert.file: {place}/worker.pem\nstorm.zookeeper.tls.key.file: {place}/worker.key\n\
         storm.zookeeper.tls.workers.cert.file: {place}/worker.pem\n\
         storm.zookeeper.tls.workers.key.file: {place}/worker.key\n"
    );
    let file = cluster.path("supervisor-1/storm.yaml");
    let before = fs::read_to_string(&file).expect("its configuration");
    assert!(before.contains(&plain), "{before}");
    fs::write(&file, before.replace(&plain, &secure) + &settings).expect("written");
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

    let second = issue();
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
