//! Requests of daemons and workers, which are signed.

use super::*;

#[tokio::test]
async fn daemon_reads_the_metric_log_and_blobs_and_changes_no_topology() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let log = "/api/stormkeeper/v1/metrics/sync/log?nimbus=n2&term=0&index=0&max_bytes=1000";
    let log = Sent::new(Method::GET, log, "");
    let (status, body) = send(&leader, &keys.daemon(None), &log).await;
    assert_ne!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")), "{body}");
    assert_ne!(status, StatusCode::FORBIDDEN, "{body}");
    let (status, body) = send(&leader, &keys.daemon(Some(&"z".repeat(32))), &log).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    for uri in ["/topology/none/kill", "/recovery", "/host/host/drain", "/topology/submit"] {
        let uri = format!("/api/stormkeeper/v1{uri}");
        let (status, body) = send(&leader, &keys.daemon(None), &Sent::new(Method::POST, &uri, "")).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{uri}");
    }
}

#[tokio::test]
async fn signed_request_counts_once_and_only_with_its_body() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let register = "/api/stormkeeper/v1/metrics/register";
    let body = rmp_serde::to_vec(&RegisterRequest {
        topology: "__CLUSTER__".parse().expect("valid"),
        registrations: Vec::new(),
    })
    .expect("plain values");
    let sent = Sent { body, ..Sent::new(Method::POST, register, "") };
    let credentials = keys.daemon(None);
    let first = sent.request(&host(&leader), &credentials);
    let mut second = sent.request(&host(&leader), &credentials);
    *second.headers_mut() = first.headers().clone();
    let (status, _, body) = answer(&leader, first).await;
    assert!(![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status), "{status} {body}");
    let (status, _, body) = answer(&leader, second).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    assert!(body["message"].as_str().is_some_and(|text| text.contains("received before")), "{body}");

    let other = Sent { signed: Some(b"another body"), ..sent };
    let (status, body) = send(&leader, &credentials, &other).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    assert!(
        body["message"].as_str().is_some_and(|text| text.contains("not the one that was signed")),
        "{body}"
    );
}

#[tokio::test]
async fn worker_sends_metrics_of_its_topology_reads_its_package_and_nothing_else() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let seeds = vec![host(&leader)];
    let client = Client::new(seeds, Timeouts::default()).expect("made");
    let client = client.with_token(Some(keys.operator.clone()));
    let own_key = replicas::submit(&client, blob("own")).await.expect("accepted");
    let other_key = replicas::submit(&client, blob("other")).await.expect("accepted");
    let view = leader.handle().observation().expect("read").view;
    let id = |name: &str| {
        let found = view.topologies.iter().find(|(_, record)| record.value.name.as_str() == name);
        found.expect("submitted").0.clone()
    };
    let (own, other) = (id("own"), id("other"));
    let worker = keys.worker(&own);

    let get = |key: &BlobKey| format!("/api/stormkeeper/v1/blobs/{key}");
    assert_eq!(send(&leader, &worker, &Sent::new(Method::GET, &get(&own_key), "")).await.0, StatusCode::OK);
    let (status, body) = send(&leader, &worker, &Sent::new(Method::GET, &get(&other_key), "")).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));

    let registration = |topology: &TopologyId| {
        let name = format!("1@1@{topology}@lines@1@@sys@Emitted");
        let registrations = vec![Registration { name, id: stormkeeper_metrics::MetricId(7) }];
        rmp_serde::to_vec(&RegisterRequest { topology: topology.clone(), registrations })
            .expect("plain values")
    };
    let batch = |topology: &TopologyId| {
        let batch = MetricBatch {
            topology: topology.clone(),
            minute: Minute(1),
            reports: Vec::new(),
            points: Vec::new(),
            readings: Vec::new(),
        };
        rmp_serde::to_vec(&batch).expect("plain values")
    };
    // A new leader takes metrics a moment after it takes writes.
    let register = "/api/stormkeeper/v1/metrics/register";
    wait_until("its own metrics are registered", LONG, || async {
        let sent = Sent { body: registration(&own), ..Sent::new(Method::POST, register, "") };
        let (status, answer) = send(&leader, &worker, &sent).await;
        if status == StatusCode::OK { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    for (uri, body) in [
        (register, registration as fn(&TopologyId) -> Vec<u8>),
        ("/api/stormkeeper/v1/metrics/ingest", batch as fn(&TopologyId) -> Vec<u8>),
    ] {
        let sent = |topology| Sent { body: body(topology), ..Sent::new(Method::POST, uri, "") };
        let (status, answer) = send(&leader, &worker, &sent(&own)).await;
        assert_eq!(status, StatusCode::OK, "{uri}: {answer}");
        let (status, answer) = send(&leader, &worker, &sent(&other)).await;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{uri}");
    }
    for (method, uri) in [
        (Method::POST, "/topology/submit"),
        (Method::POST, "/topology/own/kill"),
        (Method::GET, "/topology/summary"),
        (Method::GET, "/topology/other"),
        (Method::GET, "/metrics/sync/log"),
        (Method::POST, "/recovery"),
        (Method::POST, "/host/host/drain"),
    ] {
        let uri = format!("/api/stormkeeper/v1{uri}");
        let (status, body) = send(&leader, &worker, &Sent::new(method, &uri, "")).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{uri}");
    }
}
