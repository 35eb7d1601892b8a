//! Logs of the daemons: a normal start has no warning, and what is lost is said to be back.

use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    recovery::{endless, finish},
};

#[tokio::test(flavor = "multi_thread")]
async fn log_that_says_something_is_lost_says_when_it_is_back() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    assert_eq!(cluster.count_in_logs(" WARN "), [0; 4], "in a normal start:\n{}", cluster.logs());

    let lost = cluster.count_in_logs("connection to ZooKeeper lost");
    let back = connections(&cluster);
    cluster.zookeeper.servers[0].restart().await.expect("the server starts again");
    cluster.wait_until_logged_since("connection to ZooKeeper lost", &lost).await;
    wait_until("every daemon logs that it is connected again", WAIT_MAX, async || {
        let now = connections(&cluster);
        let have_all = now.iter().zip(&back).all(|(now, before)| now > before);
        if have_all { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    cluster.wait_until_ready().await;

    let leading = cluster.leading().await.expect("there is a leader");
    cluster.nimbuses[leading.nimbus].kill9();
    let next = cluster.wait_for_leader_after(leading.term).await;
    // It may not see that the leader is gone before it leads itself.
    wait_until("the other nimbus logs the next leader", WAIT_MAX, async || {
        let log = cluster.nimbuses[next.nimbus].log();
        if log.contains(&format!("a nimbus leads term={}", next.term)) { Ok(()) } else { Err(log) }
    })
    .await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_ready().await;
    finish(&cluster).await;
}

/// Number of times that each daemon has logged that it is connected.
fn connections(cluster: &Cluster) -> Vec<usize> {
    let again = cluster.count_in_logs("connected to ZooKeeper again");
    again.iter().zip(cluster.count_in_logs("session opened")).map(|(again, opened)| again + opened).collect()
}
