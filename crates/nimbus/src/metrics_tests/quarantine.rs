//! Quarantine: committed metrics that an unclean takeover discarded, on a nimbus that returns with
//! them.

use super::{
    takeover::{alone, quarantined, received_in, record, replaced, waits},
    *,
};
use stormkeeper_model::event::EventKind;

#[tokio::test]
async fn discarded_metrics_that_return_too_late_are_quarantined_and_reported() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.advance(Duration::from_secs(601));
    second.until_ingesting().await;
    register(&second, &topology).await.expect("accepted");
    stored(&second, &batch(&topology, minute, 2, 2)).await;
    let record = record(&cluster).await;
    let unclean_takeover = record.unclean_takeover.expect("the unclean takeover is recorded");
    assert_eq!(unclean_takeover.log_end, LogPosition::default());
    assert!(unclean_takeover.discarded_through >= at && record.may_hold_discarded(at), "{record:?}");
    let events = wait_until("the event is there", LONG, || async {
        let view = second.handle().observation().expect("read").view;
        let unclean = view.events.values().filter(|event| event.event == EventKind::UncleanMetricTakeover);
        let reasons: Vec<String> = unclean.map(|event| event.reason.clone()).collect();
        if reasons.is_empty() { Err("no such event".to_owned()) } else { Ok(reasons) }
    })
    .await;
    assert!(matches!(&events[..], [reason] if reason.contains("unclean takeover")), "{events:?}");

    let first = cluster.start("a").await;
    first.until_open().await;
    first.until_caught_up_with(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    replaced(&first).await;
    let quarantined = self::quarantined(&first).await;
    assert!(matches!(&quarantined[..], [dir] if dir.join("CURRENT").exists()), "{quarantined:?}");
    // From here on the first nimbus follows by the log.
    stored(&second, &batch(&topology, minute, 3, 1)).await;
    first.until_caught_up_with(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(3));
    assert_eq!(first.handle().metrics_status().await.counts.checkpoints, 1);
    assert_eq!(received_in(&cluster, "a"), Vec::<String>::new());
    // A leader that has fetched the log keeps the record of the unclean takeover.
    second.stop().await;
    first.until_ingesting().await;
    assert_eq!(self::record(&cluster).await.unclean_takeover, record.unclean_takeover);
}

#[tokio::test]
async fn new_leader_quarantines_its_discarded_metrics_when_it_fetches_committed_ones() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.advance(Duration::from_secs(601));
    second.until_ingesting().await;
    register(&second, &topology).await.expect("accepted");
    let (next, _) = stored(&second, &batch(&topology, minute, 2, 2)).await;
    second.until_committed(next).await;
    second.stop().await;
    // The second log is committed since; but the quarantine of the first nimbus is full.
    let dir = cluster.dir.path().join("a/metrics");
    let full = [dir.join("quarantine-0-1"), dir.join("quarantine-0-2")];
    full.iter().for_each(|dir| std::fs::create_dir(dir).expect("made"));
    let first = cluster.start("a").await;
    assert!(waits(&first).await.contains("waiting for"));
    let second = cluster.start("b").await;
    wait_until("it says what is the matter", LONG, || async {
        let message = waits(&first).await;
        if message.contains("could not be fetched") && message.contains("the quarantine is full") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
    // Entries of a reachable replica are never discarded.
    cluster.clock.advance(Duration::from_secs(10_000));
    waits(&first).await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    std::fs::remove_dir(&full[0]).expect("removed");
    first.until_ingesting().await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    assert_eq!(
        quarantined(&first).await,
        [full[1].clone(), dir.join(format!("quarantine-{}-{}", at.term, last_of(&dir)))]
    );
    second.until_caught_up_with(&first).await;
    assert_eq!(quarantined(&second).await, Vec::<PathBuf>::new());
    assert_eq!(
        record(&cluster).await.unclean_takeover.map(|it| it.term),
        Some(Term(2)),
        "no further takeover is unclean"
    );
}

/// Returns the log end in the name of the latest quarantined database.
fn last_of(dir: &std::path::Path) -> u64 {
    let names = std::fs::read_dir(dir).expect("listed").flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_prefix("quarantine-1-")?.parse().ok());
    numbers.max().expect("a database is quarantined")
}

#[tokio::test]
async fn follower_with_a_full_quarantine_keeps_its_database_and_reports_why() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.advance(Duration::from_secs(601));
    second.until_ingesting().await;
    let dir = cluster.dir.path().join("a/metrics");
    let full = [dir.join("quarantine-0-1"), dir.join("quarantine-0-2")];
    full.iter().for_each(|dir| std::fs::create_dir(dir).expect("made"));
    let first = cluster.start("a").await;
    first.until_open().await;
    wait_until("it says why it does not follow", LONG, || async {
        let problem = first.handle().metrics_problem();
        let is_full = problem.as_ref().is_some_and(|text| text.contains("the quarantine is full"));
        if is_full { Ok(()) } else { Err(format!("{problem:?}")) }
    })
    .await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    assert_eq!(quarantined(&first).await, full);
    std::fs::remove_dir(&full[1]).expect("removed");
    first.until_caught_up_with(&second).await;
    assert_eq!(quarantined(&first).await.len(), 2);
}
