//! Metrics that a leader went on without, on the nimbus that comes back with them.

use super::{
    taking_over::{alone, aside, received_in, record, replaced, waits},
    *,
};
use crate::model::event::EventKind;

#[tokio::test]
async fn metrics_that_come_back_too_late_are_put_aside_and_told_of() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.turn(Duration::from_secs(601));
    second.takes_metrics().await;
    register(&second, &topology).await.expect("taken");
    stored(&second, &contribution(&topology, minute, 2, 2)).await;
    let record = record(&cluster).await;
    let given_up = record.given_up.expect("it is written down");
    assert_eq!(given_up.after, Position::default());
    assert!(given_up.through >= at && record.lacks(at), "{record:?}");
    let events = wait_until("it is told", LONG, || async {
        let view = second.handle().observation().expect("read").view;
        let told = view.events.values().filter(|event| event.event == EventKind::MetricsLost);
        let told: Vec<String> = told.map(|event| event.reason.clone()).collect();
        if told.is_empty() { Err("it is not".to_owned()) } else { Ok(told) }
    })
    .await;
    assert!(matches!(&events[..], [told] if told.contains("goes on without")), "{events:?}");

    let first = cluster.start("a").await;
    first.open().await;
    first.has_all_of(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    replaced(&first).await;
    let aside = self::aside(&first).await;
    assert!(matches!(&aside[..], [dir] if dir.join("CURRENT").exists()), "{aside:?}");
    // And on it goes by the log.
    stored(&second, &contribution(&topology, minute, 3, 1)).await;
    first.has_all_of(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(3));
    assert_eq!(first.handle().measure_status().await.counts.checkpoints, 1);
    assert_eq!(received_in(&cluster, "a"), Vec::<String>::new());
    // One that comes to lead with the others' log knows of it, too.
    second.stop().await;
    first.takes_metrics().await;
    assert_eq!(self::record(&cluster).await.given_up, record.given_up);
}

#[tokio::test]
async fn what_a_new_leader_has_more_is_put_aside_when_it_takes_what_it_lacks() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.turn(Duration::from_secs(601));
    second.takes_metrics().await;
    register(&second, &topology).await.expect("taken");
    let (next, _) = stored(&second, &contribution(&topology, minute, 2, 2)).await;
    second.calls_safe(next).await;
    second.stop().await;
    // What the second one has is safe since; but there is no room to put the first one's aside.
    let dir = cluster.dir.path().join("a/metrics");
    let full = [dir.join("aside-0-1"), dir.join("aside-0-2")];
    full.iter().for_each(|dir| std::fs::create_dir(dir).expect("made"));
    let first = cluster.start("a").await;
    assert!(waits(&first).await.contains("waiting for"));
    let second = cluster.start("b").await;
    wait_until("it says what is the matter", LONG, || async {
        let said = waits(&first).await;
        if said.contains("could not be fetched") && said.contains("no more can be put aside") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    // What can be reached is not given up.
    cluster.clock.turn(Duration::from_secs(10_000));
    waits(&first).await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    std::fs::remove_dir(&full[0]).expect("removed");
    first.takes_metrics().await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    assert_eq!(
        aside(&first).await,
        [full[1].clone(), dir.join(format!("aside-{}-{}", at.term, last_of(&dir)))]
    );
    second.has_all_of(&first).await;
    assert_eq!(aside(&second).await, Vec::<PathBuf>::new());
    assert_eq!(record(&cluster).await.given_up.map(|it| it.term), Some(Term(2)), "nothing more");
}

/// The number of the entry that the archive which was put aside last goes up to.
fn last_of(dir: &std::path::Path) -> u64 {
    let names = std::fs::read_dir(dir).expect("listed").flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_prefix("aside-1-")?.parse().ok());
    numbers.max().expect("there is one")
}

#[tokio::test]
async fn a_follower_without_room_keeps_what_it_has_and_says_so() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.turn(Duration::from_secs(601));
    second.takes_metrics().await;
    let dir = cluster.dir.path().join("a/metrics");
    let full = [dir.join("aside-0-1"), dir.join("aside-0-2")];
    full.iter().for_each(|dir| std::fs::create_dir(dir).expect("made"));
    let first = cluster.start("a").await;
    first.open().await;
    wait_until("it says why it does not follow", LONG, || async {
        let trouble = first.handle().metrics_trouble();
        let is_so = trouble.as_ref().is_some_and(|text| text.contains("no more can be put aside"));
        if is_so { Ok(()) } else { Err(format!("{trouble:?}")) }
    })
    .await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    assert_eq!(aside(&first).await, full);
    std::fs::remove_dir(&full[1]).expect("removed");
    first.has_all_of(&second).await;
    assert_eq!(aside(&first).await.len(), 2);
}
