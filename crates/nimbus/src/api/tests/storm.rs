//! Storm's API, from a nimbus with one topology whose metrics the test counts itself.

use super::*;
use axum::{http::HeaderMap, response::Response};
use stormkeeper_api_types::forward::USER;
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point,
    batch::SequenceRange,
    point::{Counter, Gauge},
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::TopologyId;

async fn send(
    router: &Router,
    method: Method,
    uri: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Response {
    let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    router.clone().oneshot(request).await.expect("infallible")
}

async fn get(router: &Router, uri: &str) -> Value {
    let (status, body) = ask(router, Method::GET, uri, "").await;
    assert_eq!(status, StatusCode::OK, "{uri}: {body}");
    assert_eq!(body.get("error"), None, "{uri}: clients take a field error for a failure");
    body
}

async fn text_of(response: Response) -> (HeaderMap, String) {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (head.headers, String::from_utf8(bytes.to_vec()).expect("text"))
}

/// Submits `wc` to the leader, and returns its id once its tasks are placed.
pub(super) async fn submitted(running: &Running) -> TopologyId {
    let client = Client::new(vec![running.address().to_string()], Timeouts::default()).expect("a client");
    replicas::submit(&client, blob("wc")).await.expect("accepted");
    let detail = wait_until("it is placed", LONG, || async {
        let detail = client.show("wc").await.map_err(|error| error.to_string())?;
        if detail.summary.tasks_assigned == 4 { Ok(detail) } else { Err(format!("{detail:?}")) }
    })
    .await;
    detail.summary.id
}

#[tokio::test]
async fn header_of_this_project_selects_the_own_api_at_every_path_that_both_have() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    submitted(&running).await;
    let router = routes(running.handle().clone());
    // A field that only one of the two answers has.
    let paths = [
        ("cluster/summary", "viewAgeMs", "stormVersion"),
        ("nimbus/summary", "term", "nimbuses/0/nimbusLogLink"),
        ("supervisor/summary", "drains", "supervisors/0/blacklisted"),
        ("topology/summary", "viewAgeMs", "topologies/0/encodedId"),
        ("topology/wc", "components", "topologyStats"),
        ("topology/wc/metrics", "enable", "spouts"),
    ];
    for (path, own, storm) in paths {
        let uri = format!("/api/v1/{path}");
        for (headers, has, lacks) in [
            (&[][..], storm, own),
            (&[("x-stormkeeper-request", "1")][..], storm, own),
            (&[(USER, "ann")][..], own, storm),
            (&[("x-stormkeeper-seen", "1")][..], own, storm),
        ] {
            let response = send(&router, Method::GET, &uri, headers, "").await;
            let body: Value = serde_json::from_str(&text_of(response).await.1).expect("JSON");
            let field = |name: &str| body.pointer(&format!("/{name}")).is_some();
            assert!(!field(lacks), "{path} {headers:?} has {lacks}: {body}");
            assert!(
                field(has) || path.ends_with("metrics") && has == own,
                "{path} {headers:?} lacks {has}: {body}"
            );
        }
    }
    for (verb, status) in [("deactivate", "inactive"), ("activate", "active")] {
        let uri = format!("/api/v1/topology/wc/{verb}");
        let own = send(&router, Method::POST, &uri, &[(USER, "ann")], "{}").await;
        let own: Value = serde_json::from_str(&text_of(own).await.1).expect("JSON");
        assert_eq!((&own["status"], &own["name"]), (&json!(status), &json!("wc")));
        let storm = ask(&router, Method::POST, &uri, "").await;
        assert_eq!((storm.0, &storm.1["status"]), (StatusCode::OK, &json!("success")), "{}", storm.1);
    }
}

#[tokio::test]
async fn pages_have_storms_headers_and_unknown_ids_are_404_with_both_forms_of_the_error() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let id = submitted(&running).await;
    let router = routes(running.handle().clone());
    let response = send(&router, Method::GET, "/api/v1/cluster/summary", &[], "").await;
    let (headers, _) = text_of(response).await;
    assert_eq!(headers["content-type"], "application/json;charset=utf-8");
    assert_eq!(headers["cache-control"], "no-cache, no-store");
    assert_eq!(headers.get("access-control-allow-origin"), None);
    for path in [
        "cluster/configuration".to_owned(),
        "owner-resources".to_owned(),
        "owner-resources/ann".to_owned(),
        "supervisor?id=s0".to_owned(),
        "supervisor?host=host&sys=1&_=17".to_owned(),
        format!("topology/{id}"),
        format!("topology/{id}?window=60&sys=true"),
        format!("topology-workers/{id}"),
        format!("topology/{id}/metrics?window=600"),
        format!("topology/{id}/lag"),
        format!("topology/{id}/logconfig"),
        format!("topology/{id}/visualization"),
        format!("topology/{id}/visualization-init"),
        format!("topology/{id}/component/lines"),
        format!("topology/{id}/component/count?window=86400"),
    ] {
        get(&router, &format!("/api/v1/{path}")).await;
    }
    let page = get(&router, &format!("/api/v1/topology/{id}")).await;
    // A nimbus of this fixture keeps no metrics: numbers are not known, and not 0.
    assert!(page["topologyStats"][0]["emitted"].is_null());
    assert!(
        page["windowHint"].as_str().is_some_and(|hint| hint.starts_with("All time: no numbers")),
        "{page}"
    );
    assert_eq!(
        (&page["spouts"][0]["spoutId"], &page["bolts"][0]["boltId"]),
        (&json!("lines"), &json!("count"))
    );
    let missing = StatusCode::NOT_FOUND;
    for (path, status, code) in [
        ("topology/nothing", missing, "unknown_topology"),
        ("topology/nothing/metrics", missing, "unknown_topology"),
        ("topology-workers/nothing", missing, "unknown_topology"),
        ("topology/wc/component/nothing", missing, "unknown_topology"),
        ("supervisor?id=nothing", missing, "unknown_host"),
        ("supervisor", StatusCode::BAD_REQUEST, "invalid_request"),
        ("topology/wc?window=x", StatusCode::BAD_REQUEST, "invalid_request"),
        ("topology/%FF", StatusCode::BAD_REQUEST, "invalid_request"),
        ("nothing", missing, "no_such_route"),
        ("topology/wc/kill/0", StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
    ] {
        let (was, body) = ask(&router, Method::GET, &format!("/api/v1/{path}"), "").await;
        assert_eq!(
            (was, &body["code"], &body["error"]),
            (status, &json!(code), &json!(status.to_string())),
            "{path}"
        );
        let text = body["errorMessage"].as_str().unwrap_or_default();
        assert!(text.starts_with(body["message"].as_str().expect("a message")), "{path}: {body}");
    }
}

#[tokio::test]
async fn scripts_and_other_origins_are_answered_only_if_the_configuration_says_so() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let foreign = [("origin", "https://ui.example.com"), ("sec-fetch-site", "cross-site")];
    let uri = "/api/v1/cluster/summary";
    let refused = send(&router, Method::GET, uri, &foreign, "").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let (status, refused) = ask(&router, Method::GET, &format!("{uri}?callback=f"), "").await;
    assert_eq!((status, &refused["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("ui.jsonp.enabled")));

    let storm_api = crate::options::StormApiOptions {
        jsonp: true,
        origins: vec!["https://ui.example.com".to_owned()],
        ..Default::default()
    };
    let options = nimbus::Options { storm_api, ..nimbus::Options::of_test(fixture.dir.path().join("open")) };
    let open = start(options, fixture.server.connect(), Clock::new(), CancellationToken::new()).await;
    let open = open.expect("started");
    wait_until("it has read the cluster", LONG, || async {
        open.handle().observation().map(drop).map_err(|error| error.to_string())
    })
    .await;
    let router = routes(open.handle().clone());
    let allowed = send(&router, Method::GET, uri, &foreign, "").await;
    assert_eq!(allowed.status(), StatusCode::OK);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://ui.example.com");
    let other = [("origin", "https://evil.example")];
    assert_eq!(send(&router, Method::GET, uri, &other, "").await.status(), StatusCode::FORBIDDEN);
    // A page that sends a token asks before.
    let before =
        [("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
    let asked = send(&router, Method::OPTIONS, uri, &[&foreign[..], &before[..]].concat(), "").await;
    assert_eq!(asked.status(), StatusCode::NO_CONTENT);
    for (name, value) in [("origin", foreign[0].1), ("methods", "GET"), ("headers", "authorization")] {
        assert_eq!(asked.headers()[format!("access-control-allow-{name}")], value);
    }
    let asked = send(&router, Method::OPTIONS, uri, &[&other[..], &before[..]].concat(), "").await;
    assert_eq!(asked.status(), StatusCode::FORBIDDEN);
    let write = [("access-control-request-method", "POST")];
    let asked = send(&router, Method::OPTIONS, uri, &[&foreign[..], &write[..]].concat(), "").await;
    assert_eq!(asked.status(), StatusCode::FORBIDDEN);
    // Only reads of Storm's API.
    let own = send(&router, Method::GET, "/api/stormkeeper/v1/cluster/summary", &foreign, "").await;
    let write = send(&router, Method::POST, "/api/v1/topology/x/kill/0", &foreign, "").await;
    assert_eq!((own.status(), write.status()), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));

    let script = [("sec-fetch-site", "cross-site")];
    let called = send(&router, Method::GET, &format!("{uri}?callback=jQuery.f"), &script, "").await;
    let (headers, text) = text_of(called).await;
    assert_eq!(headers["content-type"], "application/javascript;charset=utf-8");
    assert!(text.starts_with("jQuery.f({") && text.ends_with("});"), "{text}");
    let bad = send(&router, Method::GET, &format!("{uri}?callback=alert(1)"), &script, "").await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn writes_have_storms_bodies_and_change_the_topology() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let id = submitted(&running).await;
    let router = routes(running.handle().clone());
    let post = |path: &'static str, body: &'static str| {
        let (router, uri) = (router.clone(), format!("/api/v1/topology/{id}/{path}"));
        async move { ask(&router, Method::POST, &uri, body).await }
    };
    let accepted = |verb: &str| {
        let body = json!({"topologyOperation": verb, "topologyId": id.as_str(), "status": "success"});
        (StatusCode::OK, body)
    };
    let status = async || get(&router, "/api/v1/topology/summary").await["topologies"][0]["status"].clone();
    assert_eq!(post("deactivate", "").await, accepted("deactivate"));
    assert_eq!(status().await, json!("INACTIVE"));
    assert_eq!(post("activate", "{}").await, accepted("activate"));
    let options = r#"{"rebalanceOptions":{"numWorkers":"1","executors":{"count":3}},"callback":"f"}"#;
    assert_eq!(post("rebalance/600", options).await, accepted("rebalance"));
    let (_, own) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/wc", "").await;
    assert_eq!((&own["status"], &own["pending"]["workers"]), (&json!("rebalancing"), &json!(1)), "{own}");
    assert_eq!(own["pending"]["parallelism"], json!({"count": 3}), "{own}");

    let (refused, body) = post("activate", "").await;
    assert_eq!((refused, &body["error"]), (StatusCode::CONFLICT, &json!("409 Conflict")));
    let (refused, body) = post("rebalance/600", r#"{"rebalanceOptions":{"executors":{"nothing":1}}}"#).await;
    assert_eq!(refused, StatusCode::BAD_REQUEST, "{body}");
    for (path, body) in [("kill/soon", ""), ("kill/-1", ""), ("rebalance/1", "[]"), ("rebalance/1", "{")] {
        let (refused, body) = post(path, body).await;
        assert_eq!((refused, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{path}");
    }
    assert_eq!(post("kill/0", "").await, accepted("kill"));
    wait_until("it is gone", LONG, || async {
        let all = get(&router, "/api/v1/topology/summary").await;
        if all["topologies"] == json!([]) { Ok(()) } else { Err(all.to_string()) }
    })
    .await;
    let (refused, body) = post("kill/0", "").await;
    assert_eq!((refused, &body["code"]), (StatusCode::NOT_FOUND, &json!("unknown_topology")));
}

#[tokio::test]
async fn write_without_a_body_from_a_page_needs_a_header_that_no_form_can_send() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    submitted(&running).await;
    let router = routes(running.handle().clone());
    let page = [("origin", "http://localhost"), ("sec-fetch-site", "same-origin")];
    let uri = "/api/v1/topology/wc/deactivate";
    let refused = send(&router, Method::POST, uri, &page, "").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let meant = [&page[..], &[("x-stormkeeper-request", "1")]].concat();
    assert_eq!(send(&router, Method::POST, uri, &meant, "").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn follower_forwards_writes_as_requests_of_the_own_api() {
    let fixture = Fixture::new().await;
    let (leader, follower, _client) = fixture.two().await;
    submitted(&leader).await;
    let router = routes(follower.handle().clone());
    for (path, status) in
        [("deactivate", "INACTIVE"), ("activate", "ACTIVE"), ("rebalance/600", "REBALANCING")]
    {
        let (code, body) = ask(&router, Method::POST, &format!("/api/v1/topology/wc/{path}"), "").await;
        assert_eq!((code, &body["status"]), (StatusCode::OK, &json!("success")), "{path}: {body}");
        // The follower shows it at once.
        let all = get(&router, "/api/v1/topology/summary").await;
        assert_eq!(all["topologies"][0]["status"], json!(status));
    }
    let (code, body) = ask(&router, Method::POST, "/api/v1/topology/nothing/kill/0", "").await;
    assert_eq!((code, &body["error"]), (StatusCode::NOT_FOUND, &json!("404 Not Found")), "{body}");
    let (code, body) = ask(&router, Method::POST, "/api/v1/topology/wc/activate", "").await;
    assert_eq!((code, &body["error"]), (StatusCode::CONFLICT, &json!("409 Conflict")), "{body}");
}

/// Minutes ago, and what a component emitted then.
const EMITTED: [(u32, u64); 5] = [(3, 10), (7, 200), (100, 3000), (500, 40_000), (2000, 500_000)];

/// Ingests what `EMITTED` says for both components, a task and a stream. Returns the current minute.
async fn count_emitted(running: &Running, id: &TopologyId) -> Minute {
    let store = wait_until("its metric store is open", LONG, || async {
        running.handle().metrics().map_err(|refusal| refusal.to_string())
    })
    .await;
    let term = running.handle().term().expect("it leads");
    let names: Vec<String> = ["lines", "count"]
        .iter()
        .map(|component| format!("2@1@{id}@{component}@0@@sys@Emitted"))
        .chain([format!("1@1@{id}@lines@3@@sys@Emitted"), format!("8@1@{id}@lines@0@default@sys@Emitted")])
        .collect();
    // Every worker measures it in each minute.
    let memory = format!("5@2@{id}@@0@sys@MemoryUsed");
    let registrations = (names.iter().chain([&memory]))
        .map(|name| Registration { id: MetricId::of(name, 0), name: name.clone() })
        .collect();
    store.register(term, RegisterRequest { topology: id.clone(), registrations }).await.expect("registered");
    let now = Minute::of(running.handle().clock().now());
    for (place, (ago, count)) in EMITTED.iter().rev().enumerate() {
        let sequence = place as u64 + 1;
        let batch = MetricBatch {
            topology: id.clone(),
            minute: now.minus(*ago),
            reports: vec![SequenceRange {
                worker: "w1".parse().expect("valid"),
                first: sequence,
                last: sequence,
            }],
            points: (names.iter())
                .map(|name| (MetricId::of(name, 0), Point::Counter(Counter { count: *count })))
                .chain([(
                    MetricId::of(&memory, 0),
                    Point::Gauge(Gauge { at: now.minus(*ago), sum: 1.0, n: 1, min: 1.0, max: 1.0 }),
                )])
                .collect(),
            readings: Vec::new(),
        };
        store.ingest(term, batch).await.expect("accepted");
    }
    // A report of a part of the current minute, so that windows end now.
    let (n, point) = (EMITTED.len() as u64 + 1, Gauge { at: now, sum: 1.0, n: 1, min: 1.0, max: 1.0 });
    let batch = MetricBatch {
        topology: id.clone(),
        minute: now,
        reports: vec![SequenceRange { worker: "w1".parse().expect("valid"), first: n, last: n }],
        points: vec![(MetricId::of(&memory, 0), Point::Gauge(point))],
        readings: Vec::new(),
    };
    store.ingest(term, batch).await.expect("accepted");
    now
}

#[tokio::test]
async fn windows_are_sums_over_exactly_their_time() {
    let fixture = Fixture::new().await;
    let running = fixture.leader_with_metrics().await;
    let id = submitted(&running).await;
    let now = count_emitted(&running, &id).await;
    let router = routes(running.handle().clone());
    // The topology was submitted just now, so that each window is its whole life; and these minutes,
    // which cannot be in its life, are on the day of its submit at most in part.
    let page = get(&router, &format!("/api/v1/topology/{id}")).await;
    let all: u64 = EMITTED
        .iter()
        .filter(|(ago, _)| {
            stormkeeper_metrics::Window::D1.bucket(now.minus(*ago))
                == stormkeeper_metrics::Window::D1.bucket(now)
        })
        .map(|(_, count)| count)
        .sum();
    for row in page["topologyStats"].as_array().expect("rows") {
        assert_eq!(row["emitted"], json!(2 * all), "{row}");
    }
    let path = layout::storm(&id);
    // As if it had been submitted two days ago.
    let node = fixture.tree.get(&path).await.expect("read").expect("there");
    let mut record: record::TopologyRecord = record::decode(&path, &node.data).expect("valid");
    record.launched = now.minus(2880).start();
    fixture.tree.set(&path, &record::encode(&record), None).await.expect("written");
    let uri = format!("/api/v1/topology/{id}?window=300");
    let page = wait_until("the view has it", LONG, || async {
        let page = get(&router, &uri).await;
        if page["uptimeSeconds"].as_u64() > Some(100_000) {
            Ok(page)
        } else {
            Err(page["uptime"].to_string())
        }
    })
    .await;
    let rows: Vec<(&str, u64)> = (page["topologyStats"].as_array().expect("rows").iter())
        .map(|row| (row["window"].as_str().expect("text"), row["emitted"].as_u64().expect("a number")))
        .collect();
    let expected = [("300", 20), ("600", 420), ("10800", 6420), ("86400", 86_420), (":all-time", 1_086_420)];
    assert_eq!(rows, expected);
    assert_eq!((&page["spouts"][0]["emitted"], &page["window"]), (&json!(10), &json!("300")));
    // Nothing was measured before and after the seventh minute before the current one.
    let ten = get(&router, &format!("/api/v1/topology/{id}?window=600")).await;
    let hint = ten["windowHint"].as_str().expect("text");
    assert!(hint.starts_with("10m 0s: nothing was measured from ") && hint.contains(", from "), "{hint}");
    let day = get(&router, &format!("/api/v1/topology/{id}?window=86400")).await;
    let hint = day["windowHint"].as_str().expect("text");
    assert!(hint.starts_with("1d 0h 0m 0s: nothing was measured from "), "{hint}");
    let component = get(&router, &format!("/api/v1/topology/{id}/component/lines?window=600")).await;
    assert_eq!(component["spoutSummary"][3]["emitted"], json!(543_210));
    assert_eq!(component["outputStats"][0]["emitted"], json!(210));
    let executors = component["executorStats"].as_array().expect("rows");
    let emitted: Vec<_> = executors.iter().map(|row| (&row["id"], &row["emitted"])).collect();
    assert_eq!(emitted, [(&json!("[3-3]"), &json!(210)), (&json!("[4-4]"), &json!(0))]);
    let streams = get(&router, &format!("/api/v1/topology/{id}/metrics?window=10800")).await;
    assert_eq!(streams["spouts"][0]["emitted"], json!([{"stream_id": "default", "value": 3210}]));
    let history = get(&router, "/api/v1/history/summary").await;
    assert!(history["topo-history"].is_array(), "{history}");
}
