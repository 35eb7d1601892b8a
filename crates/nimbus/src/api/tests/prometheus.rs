//! `/metrics`: the page of a nimbus.

use std::collections::BTreeSet;

use super::*;
use stormkeeper_exposition::{Format, cluster, measured};

/// Asks for the page; returns its content type and its bytes.
async fn page(running: &Running, accept: &str) -> (String, Vec<u8>) {
    let request = Request::builder().uri("/metrics").header("host", "localhost").header("accept", accept);
    let router = routes(running.handle().clone());
    let response = router.oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    let content_type = response.headers()["content-type"].to_str().expect("text").to_owned();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (content_type, bytes.to_vec())
}

async fn text(running: &Running) -> String {
    String::from_utf8(page(running, "").await.1).expect("text")
}

fn has(page: &str, line: &str) -> bool {
    page.lines().any(|of| of == line)
}

#[tokio::test]
async fn page_has_the_cluster_also_without_a_metric_store() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let page = wait_until("the view has the supervisor", LONG, async || {
        let page = text(&running).await;
        if has(&page, "stormkeeper_supervisors 1") { Ok(page) } else { Err(page) }
    })
    .await;
    for line in [
        "stormkeeper_leader_known 1",
        "stormkeeper_nimbus_leading 1",
        "stormkeeper_nimbus_ready 1",
        "stormkeeper_nimbus_metric_store_open 0",
        "stormkeeper_nimbuses 1",
        "stormkeeper_slots 2",
        "stormkeeper_slots_used 0",
        "stormkeeper_topologies{status=\"active\"} 0",
        "stormkeeper_series_omitted{level=\"component\"} 0",
        "stormkeeper_view_age_seconds 0.0",
        "stormkeeper_supervisor_problems{host=\"host\",supervisor=\"s0\"} 0",
    ] {
        assert!(has(&page, line), "no {line} in\n{page}");
    }
}

#[tokio::test]
async fn page_has_topologies_components_and_described_families_only() {
    let fixture = Fixture::new().await;
    let running = fixture.leader_with_metrics().await;
    let router = routes(running.handle().clone());
    let id = submitted_wc(&router).await;
    let labels = format!("topology=\"wc\",topology_id=\"{id}\"");
    let page = wait_until("it is placed, and the metric store is open", LONG, async || {
        let page = text(&running).await;
        let is_placed = has(&page, &format!("stormkeeper_topology_tasks_assigned{{{labels}}} 4"));
        let is_open = has(&page, "stormkeeper_nimbus_metric_store_open 1");
        if is_placed && is_open { Ok(page) } else { Err(page) }
    })
    .await;
    for line in [
        format!("stormkeeper_topology_tasks{{{labels}}} 4"),
        format!("stormkeeper_topology_tasks_alive{{{labels}}} 0"),
        format!("stormkeeper_component_tasks{{{labels},component=\"count\"}} 2"),
        format!("stormkeeper_component_tasks_alive{{{labels},component=\"count\"}} 0"),
        format!("stormkeeper_component_recent_restarts{{{labels},component=\"lines\"}} 0"),
        "stormkeeper_topologies{status=\"active\"} 1".to_owned(),
        "stormkeeper_slots_used 2".to_owned(),
    ] {
        assert!(has(&page, &line), "no {line} in\n{page}");
    }
    let measured = measured::Level::ALL.into_iter().flat_map(measured::catalog);
    let known: BTreeSet<String> = cluster::ALL
        .iter()
        .map(|about| about.name.to_string())
        .chain(measured.map(|about| about.name.to_string()))
        .collect();
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let unknown: Vec<&str> =
        heads.map(|(name, _)| name).filter(|name| !known.contains(name.trim_end_matches("_total"))).collect();
    assert!(unknown.is_empty(), "not described: {unknown:?}");
}

#[tokio::test]
async fn page_has_the_format_that_the_reader_prefers() {
    let fixture = Fixture::new().await;
    let running = fixture.start("follower").await;
    for format in Format::ALL {
        let (content_type, page) = page(&running, format.content_type()).await;
        assert_eq!(content_type, format.content_type());
        let text = String::from_utf8_lossy(&page);
        assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics, "{format:?}");
        assert_eq!(text.starts_with("# HELP"), format != Format::Protobuf, "{format:?}");
    }
    // Something else is no error: every reader understands text.
    assert_eq!(page(&running, "image/png").await.0, Format::Text.content_type());
}

#[tokio::test]
async fn levels_beyond_the_limit_are_left_out_and_counted() {
    let fixture = Fixture::new().await;
    let options = nimbus::Options {
        prometheus_series_max: 7,
        ..nimbus::Options::of_test(fixture.dir.path().join("leader"))
    };
    let started = start(options, fixture.server.connect(), Clock::new(), CancellationToken::new()).await;
    let running = fixture.leading(started.expect("started")).await;
    let router = routes(running.handle().clone());
    submitted_wc(&router).await;
    let page = wait_until("the topology is on the page", LONG, async || {
        let page = text(&running).await;
        if page.contains("stormkeeper_topology_tasks{") { Ok(page) } else { Err(page) }
    })
    .await;
    // Two components with three series each, and seven series of the topology.
    assert!(has(&page, "stormkeeper_series_omitted{level=\"component\"} 6"), "{page}");
    assert!(has(&page, "stormkeeper_series_omitted{level=\"topology\"} 0"), "{page}");
    assert!(!page.contains("stormkeeper_component_tasks{"), "{page}");
}
