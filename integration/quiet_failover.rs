//! Failovers with healthy workers, on three servers of each kind: no task moves, no worker
//! restarts, and tuples continue to flow.
//!
//! Each comparison covers the versions of the assignments with the transactions that wrote them,
//! and the pids of all workers and components with their start times. So a late move that an
//! earlier event caused is detected as well.

use std::time::{Duration, Instant};

use stormkeeper_model::Term;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Placement, SESSION_TIMEOUT, Shape, WAIT_MAX},
    history::History,
    recovery::{endless, finish},
};

const TOPOLOGY: &str = "word-count";

/// Observation time after the last event. A nimbus with a wrong view acts sooner: it settles for
/// one and a half session timeouts, and moves tasks that were lost for `LOSS_TIMEOUT`.
const QUIET: Duration = SESSION_TIMEOUT.saturating_mul(3).saturating_add(LOSS_TIMEOUT);

/// Timeout of supervisors and tasks: shorter than the default, to observe its effects.
const LOSS_TIMEOUT: Duration = Duration::from_secs(10);

async fn start() -> (Cluster, Placement) {
    let secs = LOSS_TIMEOUT.as_secs();
    let settings = format!("nimbus.supervisor.timeout.secs: {secs}\nnimbus.task.timeout.secs: {secs}\n");
    let cluster = Cluster::with(Shape::REPLICATED, &settings).await;
    endless(&cluster).await;
    cluster.wait_until_tuples_flow(TOPOLOGY).await;
    let placement = cluster.placement().await;
    (cluster, placement)
}

/// Waits until the cluster is healthy, and compares the placement.
async fn expect_quiet(cluster: &Cluster, before: &Placement, after: &str) {
    cluster.wait_until_ready().await;
    cluster.wait_until_whole(TOPOLOGY).await;
    cluster.wait_until_tuples_flow(TOPOLOGY).await;
    assert_eq!(cluster.placement().await, *before, "after {after}:\n{}", cluster.logs());
}

/// Observes the cluster until no event can have an effect any more, and stops the topology.
async fn expect_quiet_to_the_end(mut cluster: Cluster, before: &Placement) {
    let end = now() + QUIET;
    wait_until("the observation time is over", QUIET + WAIT_MAX, async || {
        assert_eq!(cluster.placement().await, *before, "in the end:\n{}", cluster.logs());
        let left = end.saturating_duration_since(now());
        if left.is_zero() { Ok(()) } else { Err(format!("{left:?} are left")) }
    })
    .await;
    expect_quiet(&cluster, before, "all events").await;
    finish(&cluster).await;
    History::of(&mut cluster).assert_valid();
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "measurements for the log, and the end of an observation")]
    Instant::now()
}

/// Waits for another leader; returns the duration.
async fn wait_for_successor(cluster: &Cluster, before: Term) -> Duration {
    let start = now();
    cluster.wait_for_leader_after(before).await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn nimbus_failovers_move_no_task() {
    let (mut cluster, before) = start().await;

    let first = cluster.leading().await.expect("there is a leader");
    let status = cluster.nimbuses[first.nimbus].terminate();
    assert!(status.success(), "{status}");
    eprintln!("stopped: another nimbus led {:?} later", wait_for_successor(&cluster, first.term).await);
    expect_quiet(&cluster, &before, "a stop of the leader").await;
    cluster.nimbuses[first.nimbus].start_again();

    let second = cluster.leading().await.expect("there is a leader");
    cluster.nimbuses[second.nimbus].kill9();
    eprintln!("kill -9: another nimbus led {:?} later", wait_for_successor(&cluster, second.term).await);
    expect_quiet(&cluster, &before, "kill -9 of the leader").await;
    cluster.nimbuses[second.nimbus].start_again();
    cluster.wait_until_nimbuses_registered().await;

    let third = cluster.leading().await.expect("there is a leader");
    for nimbus in &mut cluster.nimbuses {
        nimbus.kill9();
    }
    for nimbus in &mut cluster.nimbuses {
        nimbus.start_again();
    }
    eprintln!("all killed and started: one led {:?} later", wait_for_successor(&cluster, third.term).await);
    expect_quiet(&cluster, &before, "kill -9 of every nimbus").await;
    expect_quiet_to_the_end(cluster, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_outages_move_no_task() {
    let (mut cluster, before) = start().await;

    let leading = wait_until("a server leads", WAIT_MAX, async || {
        cluster.zookeeper.leading().await.ok_or("no server leads".to_owned())
    })
    .await;
    cluster.zookeeper.servers[leading].kill9();
    let start = now();
    wait_until("another server leads", WAIT_MAX, async || match cluster.zookeeper.leading().await {
        Some(other) if other != leading => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    eprintln!("another ZooKeeper server led {:?} after the leading one was killed", start.elapsed());
    expect_quiet(&cluster, &before, "kill -9 of the leading ZooKeeper server").await;
    cluster.zookeeper.servers[leading].restart().await.expect("the server starts again");

    cluster.zookeeper.restart().await.expect("ZooKeeper starts again");
    expect_quiet(&cluster, &before, "kill -9 and restart of every ZooKeeper server").await;

    let ended = cluster.count_in_logs("session ended");
    cluster.wait_until_in_session().await;
    let start = now();
    cluster.zookeeper.kill9();
    // A client considers its session expired after 1.4 session timeouts.
    cluster.wait_until_logged_since("session ended", &ended).await;
    eprintln!("every session ended within {:?} of the outage", start.elapsed());
    cluster.zookeeper.restart().await.expect("ZooKeeper starts again");
    expect_quiet(&cluster, &before, "an outage longer than every session").await;
    expect_quiet_to_the_end(cluster, &before).await;
}
