//! Ingest, its replication to followers, and the published metas.

use super::*;

#[tokio::test]
async fn committed_metrics_survive_on_a_follower_that_leads_next() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    let first = batch(&topology, minute, 1, 5);
    assert!(
        matches!(ingest(&leader, &first).await, IngestResponse::UnknownMetrics { ids } if ids.len() == 1)
    );
    let (id, _) = emitted(&topology);
    assert_eq!(register(&leader, &topology).await.expect("accepted").results, [Registered::Accepted(id)]);
    let (at, _) = stored(&leader, &first).await;
    assert!(at > LogPosition::default());
    follower.until_caught_up_with(&leader).await;
    leader.until_committed(at).await;
    let (_, high_watermark) = stored(&leader, &first).await;
    assert!(high_watermark >= at, "{high_watermark:?}");
    assert_eq!(follower.count(&topology, minute).await, Some(5), "counted once, and on the follower");
    assert_eq!(leader.handle().metrics_status().await.counts.duplicates, 1);

    // The leader dies with its disk, without resigning.
    let dir = leader.handle().options().local_dir.clone();
    leader.stop().await;
    std::fs::remove_dir_all(dir).expect("removed");
    follower.until_ingesting().await;
    assert_eq!(follower.count(&topology, minute).await, Some(5));
    assert_eq!(metas(&follower, &topology).await.len(), 1);
    stored(&follower, &first).await;
    let next = batch(&topology, minute, 2, 7);
    let (next_at, _) = stored(&follower, &next).await;
    assert!(next_at > at, "{next_at:?}");
    wait_until("the new leader commits alone", LONG, || async {
        // A repeated batch changes nothing.
        let (_, high_watermark) = stored(&follower, &next).await;
        if high_watermark >= next_at { Ok(()) } else { Err(format!("{high_watermark:?}")) }
    })
    .await;
    assert_eq!(follower.count(&topology, minute).await, Some(12));

    // A nimbus with an empty disk fetches the whole log.
    let again = cluster.start("a").await;
    again.until_open().await;
    again.until_caught_up_with(&follower).await;
    assert_eq!(again.count(&topology, minute).await, Some(12));
    assert_eq!(metas(&again, &topology).await, metas(&follower, &topology).await);
}

#[tokio::test]
async fn metas_that_differ_in_content_only_are_replaced_by_the_leaders() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    follower.until_caught_up_with(&leader).await;
    wait_until("the fingerprints of the metas are published", LONG, || async {
        let view = follower.handle().observation().expect("read").view;
        let published = view.metric_fingerprints.get(&topology).map(|published| published.value.clone());
        if published.as_ref().is_some_and(|published| published.count == 1) {
            Ok(())
        } else {
            Err(format!("{published:?}"))
        }
    })
    .await;
    let good = metas(&follower, &topology).await;
    let bad = vec![MetricMeta { id: MetricId(77), name: good[0].name.clone() }];
    follower.metric_store().replace_metas(&topology, bad.clone()).await.expect("replaced");
    wait_until("the follower has the leader's metas again", LONG, || async {
        let now = metas(&follower, &topology).await;
        let n = follower.handle().metrics_status().await.counts.metas_repaired;
        if now == good && n >= 1 { Ok(()) } else { Err(format!("{now:?} {n}")) }
    })
    .await;
    let own = follower.metric_store().fingerprint(&topology).await.expect("known");
    assert_eq!(own, leader.metric_store().fingerprint(&topology).await.expect("known"));
}

#[tokio::test]
async fn damaged_fingerprint_of_a_topology_is_written_again_and_a_newer_one_is_not() {
    let cluster = Cluster::new().await;
    let leader = cluster.start("a").await;
    leader.until_ingesting().await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    let path = layout::metrics(&topology);
    let until_published = async || {
        wait_until("the fingerprint of one meta is published", LONG, || async {
            let node = cluster.tree.get(&path).await.expect("read").expect("there");
            let read = record::decode::<MetaFingerprint>(&path, &node.data);
            if read.as_ref().is_ok_and(|it| it.count == 1) { Ok(()) } else { Err(format!("{read:?}")) }
        })
        .await;
    };
    until_published().await;
    let newer = br#"{"v":9,"count":"many"}"#;
    // No metric is registered from here on.
    for garbage in [&b"garbage"[..], b"", br#"{"v":1,"count":"many"}"#, br#"{"v":1,"count":7,"digest":"0"}"#]
    {
        cluster.tree.set(&path, garbage, None).await.expect("written");
        until_published().await;
    }
    cluster.tree.set(&path, newer, None).await.expect("written");
    let other = submit(&leader, "other").await;
    register(&leader, &other).await.expect("accepted");
    wait_until("the leader has published another fingerprint", LONG, || async {
        let view = leader.handle().observation().expect("read").view;
        let published = view.metric_fingerprints.get(&other).map(|it| it.value.count);
        if published == Some(1) { Ok(()) } else { Err(format!("{published:?}")) }
    })
    .await;
    let kept = cluster.tree.get(&path).await.expect("read").expect("there");
    assert_eq!(*kept.data, *newer);
}

#[tokio::test]
async fn published_metas_of_daemons_are_never_removed() {
    let cluster = Cluster::new().await;
    let leader = cluster.start("a").await;
    leader.until_ingesting().await;
    cluster.clock.advance(Duration::from_secs(61));
    let path = layout::metrics(&NIMBUS.parse().expect("valid"));
    wait_until("the metas of the self metrics are published", LONG, || async {
        let node = cluster.tree.get(&path).await.expect("read");
        if node.is_some() { Ok(()) } else { Err("there is no such znode".to_owned()) }
    })
    .await;
    // Much longer than the records of a removed topology are kept.
    cluster.clock.advance(Duration::from_secs(600));
    leader.handle().change("none", Change::Activate, None).await.expect_err("only wakes the leader");
    let topology = submit(&leader, "wc").await;
    let kill = Change::Kill(KillRequest { wait_secs: Some(0) });
    leader.handle().change(topology.as_str(), kill, None).await.expect("killed");
    wait_until("the topology and its last decision are gone", LONG, || async {
        cluster.clock.advance(Duration::from_secs(1));
        match cluster.tree.get(&layout::storm(&topology)).await.expect("read") {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    })
    .await;
    assert!(cluster.tree.get(&path).await.expect("read").is_some());
    let findings = leader.handle().status().findings;
    assert!(findings.is_empty(), "{findings:?}");
}

#[tokio::test]
async fn nimbus_without_a_metric_store_runs_and_reports_why() {
    let cluster = Cluster::new().await;
    let dir = cluster.dir.path().join("a");
    std::fs::create_dir_all(&dir).expect("made");
    // A file in place of the directory.
    std::fs::write(dir.join("metrics"), b"x").expect("written");
    let one = cluster.start("a").await;
    let handle = one.handle();
    wait_until("the nimbus leads", LONG, || async {
        if handle.takes_writes() && handle.leader().is_some() { Ok(()) } else { Err("no".to_owned()) }
    })
    .await;
    let topology = submit(&one, "wc").await;
    let closed = wait_until("the status has the reason", LONG, || async {
        let closed = handle.metrics_status().await.closed;
        closed.filter(|reason| reason.contains("metric store")).ok_or("nothing".to_owned())
    })
    .await;
    let answer = ingest(&one, &batch(&topology, cluster.minute(), 1, 1)).await;
    assert!(
        matches!(&answer, IngestResponse::RetryLater { reason } if reason.contains("metric store")),
        "{answer:?}"
    );
    let refused = register(&one, &topology).await.expect_err("the store is not open");
    assert_eq!(refused.code(), stormkeeper_api_types::message::Code::NotReady, "{closed}");
    std::fs::remove_file(dir.join("metrics")).expect("removed");
    one.until_ingesting().await;
    register(&one, &topology).await.expect("accepted");
    stored(&one, &batch(&topology, cluster.minute(), 1, 1)).await;
}

#[tokio::test]
async fn only_the_leader_ingests_metrics_and_only_of_known_topologies() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let post = async |one: &TestNimbus, route: &str, body: Vec<u8>| {
        let url = format!("http://{}/api/stormkeeper/v1/metrics/{route}", one.handle().api());
        let client = stormkeeper_api_types::http::client().build().expect("made");
        let response = client.post(url).body(body).send().await.expect("answered");
        (response.status().as_u16(), response.bytes().await.expect("a body").to_vec())
    };
    let unknown = batch(&"none-1-1".parse().expect("valid"), cluster.minute(), 1, 1);
    let body = rmp_serde::to_vec(&unknown).expect("a message");
    let (status, message) = post(&follower, "ingest", body.clone()).await;
    assert_eq!((status, String::from_utf8_lossy(&message).contains("no_leader")), (503, true));
    let (status, message) = post(&leader, "ingest", body).await;
    let answer: IngestResponse = rmp_serde::from_slice(&message).expect("a response");
    assert!(
        matches!(&answer, IngestResponse::RetryLater { reason } if reason.contains("none-1-1")),
        "{answer:?}"
    );
    assert_eq!(status, 200);
    let (status, message) = post(&leader, "ingest", b"garbage".to_vec()).await;
    assert_eq!((status, String::from_utf8_lossy(&message).contains("not the message expected")), (400, true));
    let counts = leader.handle().metrics_status().await.counts;
    assert_eq!((counts.undecodable, counts.retry_later, counts.batches), (1, 1, 0));

    // The last minutes of a killed topology are ingested after its removal.
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    wait_until("the start is recorded", LONG, || async {
        let history = leader.metric_store().history(None, 10).await.expect("read");
        let is_recorded = history.iter().any(|entry| entry.topology == topology);
        if is_recorded { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
    let kill = Change::Kill(KillRequest { wait_secs: Some(0) });
    leader.handle().change(topology.as_str(), kill, None).await.expect("killed");
    wait_until("the topology is gone", LONG, || async {
        cluster.clock.advance(Duration::from_secs(1));
        let view = leader.handle().observation().expect("read").view;
        if view.topologies.contains_key(&topology) { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
    stored(&leader, &batch(&topology, cluster.minute(), 1, 3)).await;
    let history = wait_until("the end is recorded", LONG, || async {
        let history = leader.metric_store().history(None, 10).await.expect("read");
        match history.iter().find(|entry| entry.topology == topology) {
            Some(entry) if entry.killed.is_some() => Ok(entry.clone()),
            entry => Err(format!("{entry:?}")),
        }
    })
    .await;
    assert_eq!((history.started_by.as_deref(), history.sample_rate), (Some("me"), 0.1));
    let track = leader.metric_store().track(&topology, None, 100).await.expect("read");
    assert!(!track.is_empty() && track.iter().all(|entry| entry.to.is_some()), "{track:?}");
    wait_until("the follower has the same track", LONG, || async {
        let its = follower.metric_store().track(&topology, None, 100).await.expect("read");
        if its == track { Ok(()) } else { Err(format!("{its:?}")) }
    })
    .await;
}
