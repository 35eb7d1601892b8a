//! Writes to the local directory of a nimbus that fail.

use super::*;

async fn disk_problem(cluster: &Cluster, expected: impl Fn(Option<&str>) -> bool) {
    wait_until("the nimbus reports its disk", LONG, || async {
        let names = cluster.tree.children(&layout::nimbuses()).await.expect("read").unwrap_or_default();
        let name = names.first().ok_or("not registered")?;
        let path = layout::nimbuses().child(name).expect("valid");
        let node = cluster.tree.get(&path).await.expect("read").ok_or("not registered")?;
        let record: record::NimbusRecord = record::decode(&path, &node.data).expect("readable");
        if expected(record.disk_problem.as_deref()) { Ok(()) } else { Err(format!("{record:?}")) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn failed_write_is_in_the_record_of_the_nimbus_until_it_succeeds() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    cluster.leading(&running).await;
    disk_problem(&cluster, |problem| problem.is_none()).await;
    let dir = cluster.dir.path().join("a");
    // A directory in the way of the file, also for root.
    std::fs::create_dir(dir.join("write-probe")).expect("created");
    let failing = cluster.clock.now();
    let text = format!("cannot write {} since", dir.display());
    disk_problem(&cluster, |problem| problem.is_some_and(|problem| problem.starts_with(&text))).await;
    assert!(cluster.clock.now().since(failing) < Duration::from_secs(10));
    std::fs::remove_dir(dir.join("write-probe")).expect("removed");
    disk_problem(&cluster, |problem| problem.is_none()).await;
}
