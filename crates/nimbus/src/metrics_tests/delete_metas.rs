//! Deletion of metas at the request of an operator or a query client.

use super::*;
use stormkeeper_api_types::http;
use stormkeeper_metrics_service::query::QueryError;

#[tokio::test]
async fn metas_of_a_removed_topology_are_deleted_everywhere_and_of_a_running_topology_nowhere() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.start_leader_and_follower(INTERVALS).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    follower.until_caught_up_with(&leader).await;
    let (id, _) = emitted(&topology);
    let metrics = follower.handle().metrics.clone().expect("it has metrics");
    let client = metrics.query_client();
    wait_until("the topology runs in the view", LONG, || async {
        let view = leader.handle().observation().expect("read").view;
        if view.topologies.contains_key(&topology) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let refused = client.delete_metas(&topology, &[id]).await.expect_err("the topology runs");
    assert!(
        matches!(&refused, QueryError::Http(http::Error::Refused { status: 409, message, .. }) if message.contains("cannot be deleted")),
        "{refused}"
    );
    assert!(!refused.is_retryable(), "{refused}");
    assert_eq!(metas(&leader, &topology).await.len(), 1);

    let kill = Change::Kill(KillRequest { wait_secs: Some(0) });
    leader.handle().change(topology.as_str(), kill, None).await.expect("killed");
    wait_until("the topology is gone", LONG, || async {
        cluster.clock.advance(Duration::from_secs(1));
        let view = leader.handle().observation().expect("read").view;
        if view.topologies.contains_key(&topology) { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
    // The API of a follower forwards the request to the leader.
    let url =
        format!("http://{}/api/stormkeeper/v1/metrics/topology/{topology}/metas", follower.handle().api());
    let http = stormkeeper_api_types::http::client().build().expect("made");
    let answer = http.delete(url).json(&serde_json::json!({"ids": []})).send().await.expect("answered");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.text().await.expect("a body"), format!(r#"{{"topologyId":"{topology}","metas":1}}"#));

    client.delete_metas(&topology, &[id]).await.expect("deleted");
    assert_eq!(metas(&leader, &topology).await, []);
    follower.until_caught_up_with(&leader).await;
    assert_eq!(metas(&follower, &topology).await, []);
    client.delete_metas(&topology, &[id]).await.expect("a repeated request changes nothing");
    // A late report registers its metrics again: its counts are not lost.
    let answer = ingest(&leader, &batch(&topology, cluster.minute(), 1, 3)).await;
    assert!(matches!(answer, IngestResponse::UnknownMetrics { .. }), "{answer:?}");
}
