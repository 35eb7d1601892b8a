//! What dies comes back: `kill -9` of a worker, a supervisor, the leader, and ZooKeeper.

use std::{collections::BTreeMap, time::Instant};

use serde_json::Value;
use stormkeeper::test_support::wait_until;

use crate::cluster::{Cluster, PATIENCE};

/// A word count that never ends, slowly.
async fn endless(cluster: &Cluster) -> BTreeMap<u64, u32> {
    let out = format!("word.count.out: {:?}", cluster.path("words").display().to_string());
    let file = cluster.example(
        "word-count",
        &[
            ("word.count.out: \"/tmp/stormkeeper-word-count\"", &out),
            ("word.count.repeat: 1", "word.count.repeat: 0"),
            ("word.count.rate: 0", "word.count.rate: 50"),
        ],
    );
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    cluster.wait_until_whole("word-count").await
}

async fn finish(cluster: &Cluster) {
    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

async fn wait_until_tuples_flow(cluster: &Cluster) {
    let emitted = |shown: &Value| {
        let components = shown["components"].as_array().cloned().unwrap_or_default();
        components.iter().filter_map(|component| component["emitted"].as_u64()).sum::<u64>()
    };
    let before = emitted(&cluster.json(&["show", "word-count"]));
    wait_until("more tuples are emitted", PATIENCE, async || {
        let now = emitted(&cluster.json(&["show", "word-count"]));
        if now > before { Ok(()) } else { Err(format!("{before} before, {now} now\n{}", cluster.logs())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_runs_again_in_its_slot_and_the_other_is_left_alone() {
    let cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    let (&port, &victim) = before.iter().next().expect("there are workers");
    #[expect(clippy::disallowed_methods, reason = "a measurement for the log, no decision")]
    let start = Instant::now();
    crate::cluster::kill9(victim);
    let after = wait_until("another process in the same slot", PATIENCE, async || {
        let now = cluster.worker_pids();
        match now.get(&port) {
            Some(pid) if *pid != victim && now.len() == before.len() => Ok(now),
            _ => Err(format!("{now:?}\n{}", cluster.logs())),
        }
    })
    .await;
    eprintln!("a worker killed with -9 ran again after {:?}", start.elapsed());
    for (other, pid) in before.iter().filter(|(other, _)| **other != port) {
        assert_eq!(after.get(other), Some(pid), "a healthy worker was restarted");
    }
    cluster.wait_until_whole("word-count").await;
    wait_until_tuples_flow(&cluster).await;
    finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_adopts_its_workers() {
    let mut cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    for supervisor in &mut cluster.supervisors {
        supervisor.kill9();
    }
    wait_until_tuples_flow(&cluster).await;
    assert_eq!(cluster.worker_pids(), before, "workers live on without their supervisors");
    for supervisor in &mut cluster.supervisors {
        supervisor.start_again();
    }
    cluster.wait_until_ready().await;
    // Proof that they serve again: a killed worker comes back, the other is the same.
    let (&port, &victim) = before.iter().next().expect("there are workers");
    crate::cluster::kill9(victim);
    wait_until("the adopted worker is launched again", PATIENCE, async || {
        let now = cluster.worker_pids();
        let others_stay = before.iter().filter(|(p, _)| **p != port).all(|(p, pid)| now.get(p) == Some(pid));
        assert!(others_stay, "a healthy worker was restarted: {before:?}, {now:?}");
        match now.get(&port) {
            Some(pid) if *pid != victim => Ok(()),
            _ => Err(format!("{now:?}\n{}", cluster.logs())),
        }
    })
    .await;
    finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_nimbus_takes_over_and_moves_nothing() {
    let mut cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    let leader = cluster.json(&["cluster"])["cluster"]["leader"]["api"].clone();
    let is_leading = |cluster: &Cluster, i: usize| leader == cluster.json(&["cluster"])["nimbuses"][i]["api"];
    let first_of_list = is_leading(&cluster, 0);
    let api = leader.as_str().expect("an address").to_owned();
    let leading = cluster
        .nimbuses
        .iter()
        .position(|nimbus| nimbus.log().contains("won the election"))
        .unwrap_or_else(|| panic!("nobody won ({first_of_list}): {}", cluster.logs()));
    #[expect(clippy::disallowed_methods, reason = "a measurement for the log, no decision")]
    let start = Instant::now();
    cluster.nimbuses[leading].kill9();
    wait_until("the other nimbus leads", PATIENCE, async || {
        let now = cluster.try_json(&["cluster"]).ok_or("no nimbus answers".to_owned())?;
        match now["cluster"]["leader"]["api"].as_str() {
            Some(other) if other != api => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eprintln!("another nimbus led {:?} after the leader was killed (session timeout 4 s)", start.elapsed());
    wait_until_tuples_flow(&cluster).await;
    assert_eq!(cluster.worker_pids(), before, "a failover restarts no worker");
    cluster.nimbuses[leading].start_again();
    finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_at_once() {
    let mut cluster = Cluster::start().await;
    let api = cluster.json(&["cluster"])["cluster"]["leader"]["api"].clone();
    let leading =
        cluster.nimbuses.iter().position(|n| n.log().contains("won the election")).expect("one leads");
    let status = cluster.nimbuses[leading].terminate();
    assert!(status.success(), "{status}");
    let now = wait_until("the other nimbus leads", PATIENCE, async || {
        let now = cluster.try_json(&["cluster"]).ok_or("no nimbus answers".to_owned())?;
        let leader = now["cluster"]["leader"]["api"].clone();
        if leader.is_string() && leader != api { Ok(leader) } else { Err(leader.to_string()) }
    })
    .await;
    assert_ne!(now, api);
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_killed_and_restarted_restarts_no_worker() {
    let mut cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    cluster.zookeeper.restart().await.expect("ZooKeeper comes back");
    cluster.wait_until_ready().await;
    cluster.wait_until_whole("word-count").await;
    wait_until_tuples_flow(&cluster).await;
    assert_eq!(cluster.worker_pids(), before, "an outage of ZooKeeper restarts no worker");
    finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_every_session_moves_nothing() {
    let mut cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    cluster.zookeeper.kill9();
    // A client calls its session over after 1.4 times its timeout.
    wait_until("every nimbus and supervisor lost its session", PATIENCE, async || {
        let mut daemons = cluster.nimbuses.iter().chain(&cluster.supervisors);
        let all = daemons.all(|daemon| daemon.log().contains("session ended"));
        if all { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    cluster.zookeeper.restart().await.expect("ZooKeeper comes back");
    cluster.wait_until_ready().await;
    cluster.wait_until_whole("word-count").await;
    wait_until_tuples_flow(&cluster).await;
    assert_eq!(cluster.worker_pids(), before, "the end of all sessions restarts no worker");
    finish(&cluster).await;
}
