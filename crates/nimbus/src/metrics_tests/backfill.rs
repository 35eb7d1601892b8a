//! Topologies that are submitted and removed between two views of the history recorder.

use super::*;
use stormkeeper_api_types::client::{Client, Timeouts};
use stormkeeper_metric_store::HistoryEntry;

/// Pause of the recorder between two views; a life takes some milliseconds.
const GATHER: Duration = Duration::from_secs(3);

async fn recorded(one: &TestNimbus, topology: &TopologyId) -> HistoryEntry {
    wait_until("the start is recorded", LONG, || async {
        let entry = one.metric_store().topology(topology).await.expect("read");
        entry.ok_or_else(|| format!("{topology} is not known"))
    })
    .await
}

/// Submits a topology, waits for its placement, and removes it.
async fn live(cluster: &Cluster, one: &TestNimbus, name: &str) -> TopologyId {
    let topology = submit(one, name).await;
    wait_until("the topology is placed", LONG, || async {
        let view = one.handle().observation().expect("read").view;
        if view.assignments.contains_key(&topology) { Ok(()) } else { Err("not assigned".to_owned()) }
    })
    .await;
    let kill = Change::Kill(KillRequest { wait_secs: Some(0) });
    one.handle().change(topology.as_str(), kill, Some("bob".to_owned())).await.expect("killed");
    wait_until("the topology is gone", LONG, || async {
        cluster.clock.advance(Duration::from_secs(1));
        let view = one.handle().observation().expect("read").view;
        let is_removed = view.events.values().any(|event| {
            event.topology.as_ref() == Some(&topology)
                && event.event == stormkeeper_model::event::EventKind::Removed
        });
        if is_removed { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
    topology
}

#[tokio::test]
async fn topology_that_lived_between_two_views_is_recorded_once() {
    let cluster = Cluster::new().await;
    let leader =
        cluster.start_with(cluster.options("a", Intervals { record_pause: GATHER, ..INTERVALS })).await;
    leader.until_ingesting().await;
    let mut n = 0;
    let topology = loop {
        // After the marker is recorded, the next view is a while away.
        n += 1;
        let marker = submit(&leader, &format!("marker-{n}")).await;
        recorded(&leader, &marker).await;
        let topology = live(&cluster, &leader, "brief").await;
        let is_seen = leader.metric_store().topology(&topology).await.expect("read").is_some();
        assert!(n < 10, "each of {n} topologies was seen while it existed");
        if !is_seen {
            break topology;
        }
    };
    let entry = recorded(&leader, &topology).await;
    // Its workers' last reports arrive after its removal, and no metric of it was registered before.
    let registered = register(&leader, &topology).await.expect("accepted");
    assert_eq!(registered.results, [Registered::Accepted(emitted(&topology).0)]);
    assert_eq!(entry.name.as_str(), "brief");
    assert!(entry.killed.is_some_and(|killed| killed >= entry.started), "{entry:?}");
    assert_eq!((entry.started_by.as_deref(), entry.killed_by.as_deref()), (Some("me"), Some("bob")));
    assert!(entry.reason.starts_with("an operator asked for it"), "{entry:?}");
    let track = leader.metric_store().track(&topology, None, 100).await.expect("read");
    assert!(!track.is_empty() && track.iter().all(|place| place.to == entry.killed), "{track:?}");
    assert!(track.iter().all(|place| place.host.as_str() == "host"), "{track:?}");

    let client =
        Client::new(vec![leader.running.address().to_string()], Timeouts::default()).expect("a client");
    let shown = client.topology_history(Some("brief"), None).await.expect("answered");
    let last = shown.topologies.first().expect("it is in the history");
    assert_eq!((&last.id, last.killed_ms), (&topology, entry.killed));

    // The next leader finds the same events, and a metric store that has recorded them already.
    let next = cluster.start("b").await;
    next.until_open().await;
    next.until_caught_up_with(&leader).await;
    leader.stop().await;
    next.until_ingesting().await;
    let another = live(&cluster, &next, "another").await;
    recorded(&next, &another).await;
    assert_eq!(next.metric_store().topology(&topology).await.expect("read"), Some(entry));
    assert_eq!(next.metric_store().track(&topology, None, 100).await.expect("read"), track);
}
