//! A metric store whose directory is deleted while its nimbus runs.

use super::*;

async fn problem(nimbus: &TestNimbus, expected: &str) {
    wait_until(&format!("its problem is {expected:?}"), LONG, || async {
        let problem = nimbus.handle().metrics_status().await.problem.unwrap_or_default();
        if problem.contains(expected) && problem.is_empty() == expected.is_empty() {
            Ok(())
        } else {
            Err(problem)
        }
    })
    .await;
}

#[tokio::test]
async fn follower_fetches_a_checkpoint_in_place_of_its_deleted_store_and_loses_nothing() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    let minute = cluster.minute();
    stored(&leader, &batch(&topology, minute, 1, 5)).await;
    follower.until_caught_up_with(&leader).await;
    let dir = cluster.dir.path().join("b/metrics");
    std::fs::remove_dir_all(&dir).expect("deleted");
    wait_until("the store is on disk again", LONG, || async {
        if dir.join("db/CURRENT").exists() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    problem(&follower, "").await;
    assert_eq!(follower.handle().metrics_status().await.counts.checkpoints, 1);
    // From here on it follows by the log, and its store survives its restart.
    stored(&leader, &batch(&topology, minute, 2, 3)).await;
    follower.until_caught_up_with(&leader).await;
    follower.stop().await;
    let follower = cluster.start("b").await;
    follower.until_open().await;
    assert_eq!(follower.count(&topology, minute).await, Some(8));
    assert!(dir.join("db/CURRENT").exists());
}

#[tokio::test]
async fn leader_keeps_its_deleted_store_open_and_says_what_to_do() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    let minute = cluster.minute();
    std::fs::remove_dir_all(cluster.dir.path().join("a/metrics")).expect("deleted");
    problem(&leader, "it leads, so it keeps them open").await;
    stored(&leader, &batch(&topology, minute, 1, 5)).await;
    follower.until_caught_up_with(&leader).await;
    leader.stop().await;
    follower.until_ingesting().await;
    assert_eq!(follower.count(&topology, minute).await, Some(5));
}
