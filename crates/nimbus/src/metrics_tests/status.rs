//! State of the metric stores in the list of nimbuses.

use super::*;
use stormkeeper_api_types::{
    client::{Client, Timeouts},
    message::NimbusSummary,
};

/// Returns the entry of nimbus `of` in the response of nimbus `asked`.
async fn shown(asked: &TestNimbus, of: &TestNimbus) -> NimbusSummary {
    let client = Client::new(Vec::from([asked.handle().api().to_owned()]), Timeouts::default());
    let list = client.expect("a client").nimbuses_seen_by(asked.handle().api()).await.expect("answered");
    let found = list.nimbuses.into_iter().find(|summary| summary.id == *of.handle().id());
    found.expect("it is in the list")
}

#[tokio::test]
async fn every_nimbus_shows_an_unopened_metric_store_and_the_lag_it_knows() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let dir = cluster.dir.path().join("c");
    std::fs::create_dir_all(&dir).expect("made");
    // A file in place of the directory.
    std::fs::write(dir.join("metrics"), b"x").expect("written");
    let broken = cluster.start("c").await;
    for asked in [&leader, &follower, &broken] {
        wait_until("the nimbus shows the reason", LONG, || async {
            let view = asked.handle().observation().expect("read").view;
            let is_listed = view.nimbuses.contains_key(broken.handle().id());
            let summary = if is_listed { Some(shown(asked, &broken).await) } else { None };
            match summary.as_ref().and_then(|summary| summary.metric_store_error.as_ref()) {
                Some(reason) if reason.contains("c/metrics") => Ok(()),
                _ => Err(format!("{summary:?}")),
            }
        })
        .await;
    }
    assert_eq!(shown(&leader, &broken).await.metrics_lag_entries, None);

    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    follower.until_caught_up_with(&leader).await;
    for (asked, of) in [(&leader, &leader), (&leader, &follower), (&follower, &follower)] {
        wait_until("the nimbus is shown as caught up", LONG, || async {
            let summary = shown(asked, of).await;
            let is_caught_up = summary.metrics_lag_entries == Some(0) && summary.metric_store_error.is_none();
            if is_caught_up { Ok(()) } else { Err(format!("{summary:?}")) }
        })
        .await;
    }
    assert_eq!(
        shown(&follower, &leader).await.metrics_lag_entries,
        None,
        "a follower knows only its own lag"
    );

    std::fs::remove_file(dir.join("metrics")).expect("removed");
    wait_until("the store is shown as open", LONG, || async {
        let summary = shown(&follower, &broken).await;
        if summary.metric_store_error.is_none() { Ok(()) } else { Err(format!("{summary:?}")) }
    })
    .await;
}

#[tokio::test]
async fn follower_with_missing_entries_is_shown_as_lagging() {
    let cluster = Cluster::new().await;
    let slow = Intervals { fetch_idle: LONG * 60, fetch_lagging: LONG * 60, ..INTERVALS };
    let (leader, follower) = cluster.start_leader_and_follower(slow).await;
    wait_until("the leader has a fetch of the follower", LONG, || async {
        let summary = shown(&leader, &follower).await;
        summary.metrics_lag_entries.map(drop).ok_or_else(|| format!("{summary:?}"))
    })
    .await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    let summary = shown(&leader, &follower).await;
    assert!(summary.metrics_lag_entries >= Some(1), "{summary:?}");
}
