//! Recovery after `kill -9` of a worker and of supervisors.

use std::{collections::BTreeMap, time::Instant};

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Process, WAIT_MAX};

/// Submits a slow word count that never ends.
pub(crate) async fn endless(cluster: &Cluster) -> BTreeMap<u64, Process> {
    let out = format!("word.count.out: {:?}", cluster.path("words").display().to_string());
    let file = cluster.example(
        "word-count",
        &[
            ("word.count.out: \"/tmp/stormkeeper-word-count-{user}\"", &out),
            ("word.count.repeat: 1", "word.count.repeat: 0"),
            ("word.count.rate: 0", "word.count.rate: 50"),
        ],
    );
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    cluster.wait_until_whole("word-count").await
}

/// Kills the word count, and waits until nothing of it is left.
pub(crate) async fn finish(cluster: &Cluster) {
    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_restarts_in_its_slot_and_the_other_worker_keeps_running() {
    let cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    let (&port, &victim) = before.iter().next().expect("there are workers");
    #[expect(clippy::disallowed_methods, reason = "a measurement for the log, no decision")]
    let start = Instant::now();
    crate::cluster::kill9(victim.pid);
    let after = wait_until("another process in the same slot", WAIT_MAX, async || {
        let now = cluster.workers();
        match now.get(&port) {
            Some(now_there) if *now_there != victim && now.len() == before.len() => Ok(now),
            _ => Err(format!("{now:?}\n{}", cluster.logs())),
        }
    })
    .await;
    eprintln!("a worker killed with -9 was restarted after {:?}", start.elapsed());
    for (other, pid) in before.iter().filter(|(other, _)| **other != port) {
        assert_eq!(after.get(other), Some(pid), "a healthy worker was restarted");
    }
    cluster.wait_until_whole("word-count").await;
    cluster.wait_until_tuples_flow("word-count").await;
    finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_supervisor_adopts_its_workers() {
    let mut cluster = Cluster::start().await;
    let before = endless(&cluster).await;
    for supervisor in &mut cluster.supervisors {
        supervisor.kill9();
    }
    cluster.wait_until_tuples_flow("word-count").await;
    assert_eq!(cluster.workers(), before, "workers must keep running without their supervisors");
    for supervisor in &mut cluster.supervisors {
        supervisor.start_again();
    }
    cluster.wait_until_ready().await;
    // Proof that the supervisors work again: a killed worker is restarted, the other one is not.
    let (&port, &victim) = before.iter().next().expect("there are workers");
    crate::cluster::kill9(victim.pid);
    wait_until("the adopted worker is launched again", WAIT_MAX, async || {
        let now = cluster.workers();
        let others_stay = before.iter().filter(|(p, _)| **p != port).all(|(p, pid)| now.get(p) == Some(pid));
        assert!(others_stay, "a healthy worker was restarted: {before:?}, {now:?}");
        match now.get(&port) {
            Some(now_there) if *now_there != victim => Ok(()),
            _ => Err(format!("{now:?}\n{}", cluster.logs())),
        }
    })
    .await;
    finish(&cluster).await;
}
