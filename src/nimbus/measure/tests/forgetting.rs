//! Metas that somebody wants to be forgotten.

use super::*;
use crate::plugin::QueryError;

#[tokio::test]
async fn metas_of_a_topology_that_is_gone_are_forgotten_everywhere_and_of_one_that_runs_nowhere() {
    let cluster = Cluster::new().await;
    let (leader, follower) = cluster.two(PACE).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("taken");
    follower.has_all_of(&leader).await;
    let (id, _) = emitted(&topology);
    let measure = follower.handle().measure.clone().expect("it measures");
    let client = Arc::clone(&measure.shared.query);
    wait_until("it is seen to run", LONG, || async {
        let view = leader.handle().observation().expect("read").view;
        if view.storms.contains_key(&topology) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let refused = client.delete_metas(&topology, &[id]).await.expect_err("it runs");
    assert!(
        matches!(&refused, QueryError::Answered { status: 409, said, .. } if said.contains("still measured")),
        "{refused}"
    );
    assert!(!refused.is_worth_a_retry(), "{refused}");
    assert_eq!(metas(&leader, &topology).await.len(), 1);

    let kill = Change::Kill(KillRequest { wait_secs: Some(0) });
    leader.handle().change(topology.as_str(), kill, None).await.expect("killed");
    wait_until("it is gone", LONG, || async {
        cluster.clock.turn(Duration::from_secs(1));
        let view = leader.handle().observation().expect("read").view;
        if view.storms.contains_key(&topology) { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
    // The door of a follower leads to the leader.
    let url = format!("http://{}/api/v1/metrics/topology/{topology}/metas", follower.handle().api());
    let http = reqwest::Client::builder().no_proxy().build().expect("made");
    let answer = http.delete(url).json(&serde_json::json!({"ids": []})).send().await.expect("answered");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.text().await.expect("a body"), format!(r#"{{"topologyId":"{topology}","metas":1}}"#));

    client.delete_metas(&topology, &[id]).await.expect("forgotten");
    assert_eq!(metas(&leader, &topology).await, []);
    follower.has_all_of(&leader).await;
    assert_eq!(metas(&follower, &topology).await, []);
    client.delete_metas(&topology, &[id]).await.expect("again changes nothing");
    let answer = contribute(&leader, &contribution(&topology, cluster.minute(), 1, 3)).await;
    assert!(matches!(answer, ContributeAnswer::NotNow { .. }), "{answer:?}");
}
