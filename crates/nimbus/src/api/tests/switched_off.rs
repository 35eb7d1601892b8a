//! Changes by people that `ui.actions.enabled` switches off, in every API.

use super::{storm::submitted, *};
use crate::options::StormApiOptions;

/// A nimbus that takes no changes by people.
async fn switched_off(f: &Fixture) -> Running {
    let storm_api = StormApiOptions { actions: false, ..Default::default() };
    let options = nimbus::Options { storm_api, ..nimbus::Options::of_test(f.dir.path().join("off")) };
    start(options, f.server.connect(), Clock::new(), CancellationToken::new()).await.expect("started")
}

#[tokio::test]
async fn changes_that_are_switched_off_change_nothing_in_any_api_and_daemons_do_their_work() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    submitted(&leader).await;
    let off = switched_off(&f).await;
    let router = routes(off.handle().clone());
    wait_until("it sees the topology", LONG, async || {
        let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/summary", "").await;
        if list["topologies"][0]["name"] == "wc" { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    for (method, uri) in [
        (Method::POST, "/api/stormkeeper/v1/topology/submit"),
        (Method::POST, "/api/stormkeeper/v1/topology/wc/activate"),
        (Method::POST, "/api/stormkeeper/v1/topology/wc/deactivate"),
        (Method::POST, "/api/stormkeeper/v1/topology/wc/rebalance"),
        (Method::POST, "/api/stormkeeper/v1/topology/wc/kill"),
        (Method::POST, "/api/stormkeeper/v1/topology/wc/metrics"),
        (Method::DELETE, "/api/stormkeeper/v1/metrics/topology/wc/metas"),
        (Method::POST, "/api/stormkeeper/v1/host/host/drain"),
        (Method::POST, "/api/stormkeeper/v1/host/host/undrain"),
        (Method::POST, "/api/stormkeeper/v1/recovery"),
        (Method::POST, "/api/v1/topology"),
        (Method::POST, "/api/v1/topology/submit"),
        (Method::POST, "/api/v1/topology/wc/deactivate"),
        (Method::POST, "/api/v1/topology/wc/kill"),
        (Method::POST, "/api/v1/topology/wc/kill/0"),
        (Method::POST, "/api/v1/topology/wc/rebalance/0"),
        (Method::POST, "/api/v1/host/host/drain"),
        (Method::PATCH, "/jobs/00000000000000000000000000000000"),
    ] {
        let (status, body) = ask(&router, method.clone(), uri, "{}").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {uri}: {body}");
        let text = body.to_string();
        assert!(text.contains("ui.actions.enabled"), "{method} {uri}: {text}");
    }
    let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/summary", "").await;
    assert_eq!(list["topologies"][0]["status"], "active", "{list}");
    let (_, session) = ask(&router, Method::GET, "/api/stormkeeper/v1/session", "").await;
    assert_eq!(session["actions"], false, "the web page offers nothing: {session}");
    for uri in ["metrics/register", "metrics/ingest"] {
        let (_, body) = ask(&router, Method::POST, &format!("/api/stormkeeper/v1/{uri}"), "{}").await;
        assert_ne!(body["code"], "switched_off", "{uri}: {body}");
    }
}

#[tokio::test]
async fn leader_whose_changes_are_switched_off_refuses_what_a_follower_forwards() {
    let f = Fixture::new().await;
    let off = f.leading(switched_off(&f).await).await;
    let follower = f.start("follower").await;
    let router = routes(follower.handle().clone());
    wait_until("the follower forwards, and the leader refuses", LONG, async || {
        let (status, body) =
            ask(&router, Method::POST, "/api/stormkeeper/v1/host/host/drain", "{\"waitSecs\":0}").await;
        match (status, body["code"].as_str()) {
            (StatusCode::FORBIDDEN, Some("switched_off")) => Ok(()),
            _ => Err(format!("{status}: {body}")),
        }
    })
    .await;
    assert!(off.handle().observation().expect("seen").view.drains.is_empty());
}
