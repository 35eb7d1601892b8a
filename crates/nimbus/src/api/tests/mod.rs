//! Routes: called directly if one nimbus is enough, over HTTP if a test needs two.

mod access;
mod bodies;
mod clocks;
mod exposed;
mod flink;
mod live;
mod logs;
mod methods;
mod metrics;
mod openapi;
mod own_writes;
mod owners;
mod peers;
mod prefix;
mod prometheus;
mod replicas;
mod reported;
mod storm;
mod storm_submit;
mod switched_off;
mod tree;
mod twins;
mod web_page;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::options::MetricOptions;
use stormkeeper_api_types::{
    client::{Client, Error, Timeouts},
    forward::BEHIND,
    message::{
        Code, InitialStatus, KillRequest, LogLevelRequest, RebalanceRequest, SampleRequest, SubmitRequest,
        TaskLiveness,
    },
};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, Resources, SupervisorRecord},
        store::Store,
    },
    tree::{CreateMode, memory::MemoryTree},
};
use stormkeeper_model::{
    BlobKey, ComponentId, Port, Timestamp, TopologyId, log_control::LogLevel, test_support::lines_and_count,
};
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_topology_package::package::{self, TopologyPackage};

const LONG: Duration = Duration::from_secs(60);

struct Fixture {
    server: MemoryTree,
    /// Session of the supervisor, which ends with the test.
    tree: Arc<dyn Tree>,
    dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let server = MemoryTree::new();
        let tree: Arc<dyn Tree> = server.connect();
        let supervisor = SupervisorRecord {
            host: "host".to_owned(),
            ports: vec![Port(6700), Port(6701)],
            resources: Resources { cpu_percent: 400, memory_mb: 4096 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            announces_stop: false,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        Store::new(Arc::clone(&tree)).ensure_layout().await.expect("made");
        let path = layout::supervisor(&"s0".parse().expect("valid"));
        tree.create(&path, &record::encode(&supervisor), CreateMode::Ephemeral).await.expect("created");
        Self { server, tree, dir: tempfile::tempdir().expect("a directory") }
    }

    async fn start(&self, name: &str) -> Running {
        self.start_with(name, None).await
    }

    async fn start_with(&self, name: &str, metrics: Option<MetricOptions>) -> Running {
        let options = nimbus::Options { metrics, ..nimbus::Options::of_test(self.dir.path().join(name)) };
        let stop = CancellationToken::new();
        start(options, self.server.connect(), Clock::new(), stop).await.expect("started")
    }

    async fn leader(&self) -> Running {
        self.leading(self.start("leader").await).await
    }

    /// Starts a leader with a metric store.
    async fn leader_with_metrics(&self) -> Running {
        self.leading(self.start_with("leader", Some(MetricOptions::of_test())).await).await
    }

    async fn leading(&self, running: Running) -> Running {
        let handle = running.handle();
        wait_until("it leads", LONG, || async {
            let seen = handle.observation().is_ok_and(|seen| seen.view.nimbuses.contains_key(handle.id()));
            let sees = handle.leader().is_some() && seen;
            if handle.takes_writes() && sees { Ok(()) } else { Err("it follows".to_owned()) }
        })
        .await;
        running
    }
}

async fn ask(router: &Router, method: Method, uri: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .body(body.into())
        .expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn blob(name: &str) -> TopologyPackage {
    package::pack(&lines_and_count(name), None, Vec::new(), 1 << 20).expect("packed")
}

/// Submits the topology `wc` of `ann`, and returns its id.
async fn submitted_wc(router: &Router) -> TopologyId {
    let TopologyPackage { key, bytes } = blob("wc");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    assert_eq!(ask(router, Method::PUT, &uri, bytes).await.0, StatusCode::CREATED);
    let submit = json!({"blob": key, "owner": "ann"}).to_string();
    let (status, answer) = ask(router, Method::POST, "/api/stormkeeper/v1/topology/submit", submit).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["topologyId"].as_str().expect("an id").parse().expect("valid")
}

#[tokio::test]
async fn topology_is_submitted_changed_and_killed() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let TopologyPackage { key, bytes } = blob("wc");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    assert_eq!(ask(&router, Method::PUT, &uri, bytes.clone()).await.0, StatusCode::CREATED);
    let submit = json!({"blob": key, "owner": "ann"}).to_string();
    let (status, answer) =
        ask(&router, Method::POST, "/api/stormkeeper/v1/topology/submit", submit.clone()).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("active")), "{answer}");
    let id = answer["topologyId"].as_str().expect("an id").to_owned();
    let (status, again) = ask(&router, Method::POST, "/api/stormkeeper/v1/topology/submit", submit).await;
    assert_eq!((status, &again["code"]), (StatusCode::CONFLICT, &json!("name_in_use")));
    assert!(again["hint"].as_str().expect("a hint").contains("stormkeeper kill wc"), "{again}");

    let shown = wait_until("it is placed", LONG, || async {
        let (_, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/wc", "").await;
        if shown["tasksAssigned"] == json!(4) { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(shown["components"][0]["kind"], json!("bolt"));
    assert_eq!(shown["tasks"][3]["liveness"], json!("silent"));
    assert_eq!(shown["workers"].as_array().expect("a list").len(), 2);
    assert_eq!(
        ask(&router, Method::GET, &format!("/api/stormkeeper/v1/topology/{id}"), "").await.1["name"],
        json!("wc")
    );
    let (_, summary) = ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/summary", "").await;
    assert_eq!((&summary["slotsUsed"], &summary["tasksTotal"]), (&json!(2), &json!(4)), "{summary}");
    let (_, supervisors) = ask(&router, Method::GET, "/api/stormkeeper/v1/supervisor/summary", "").await;
    assert_eq!(supervisors["supervisors"][0]["slotsUsed"], json!(2));
    let (_, nimbuses) = ask(&router, Method::GET, "/api/stormkeeper/v1/nimbus/summary", "").await;
    assert_eq!(nimbuses["nimbuses"][0]["status"], json!("Leader"), "{nimbuses}");

    let post = |verb: &'static str, body: &'static str| {
        let (router, uri) = (router.clone(), format!("/api/stormkeeper/v1/topology/wc/{verb}"));
        async move { ask(&router, Method::POST, &uri, body).await }
    };
    assert_eq!(post("deactivate", "").await.1["status"], json!("inactive"));
    let (status, refused) = post("rebalance", r#"{"parallelism":{"cuont":2}}"#).await;
    assert_eq!(
        (status, &refused["hint"]),
        (StatusCode::BAD_REQUEST, &json!("its components are count, lines"))
    );
    let (_, answer) = post("rebalance", r#"{"waitSecs":30,"workers":1}"#).await;
    assert_eq!(
        (&answer["status"], &answer["pending"]["workers"]),
        (&json!("rebalancing"), &json!(1)),
        "{answer}"
    );
    let (status, refused) = post("activate", "{}").await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("illegal_transition")));
    assert_eq!(post("kill", r#"{"waitSecs":0}"#).await.1["status"], json!("killed"));
    wait_until("it is gone", LONG, || async {
        let (status, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/wc", "").await;
        if status == StatusCode::NOT_FOUND { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(running.handle().status().findings, []);
    drop(fixture.tree);
}

/// A bad request, and the response that it must get.
struct Bad<'a> {
    method: Method,
    uri: &'a str,
    body: Vec<u8>,
    status: StatusCode,
    code: Code,
    /// A part of the message.
    names: &'a str,
}

async fn check(router: &Router, bad: Bad<'_>) {
    let Bad { method, uri, body, status, code, names } = bad;
    let (was, answer) = ask(router, method.clone(), uri, body).await;
    assert_eq!((was, &answer["code"]), (status, &json!(code)), "{method} {uri}: {answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.contains(names), "{method} {uri}: {answer}");
}

#[tokio::test]
async fn bad_request_is_answered_with_the_reason() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let get =
        |uri, status, code, names| Bad { method: Method::GET, uri, body: Vec::new(), status, code, names };
    let post = |uri, body: &[u8], status, code, names| Bad {
        method: Method::POST,
        uri,
        body: body.to_vec(),
        status,
        code,
        names,
    };
    let submit = "/api/stormkeeper/v1/topology/submit";
    let (bad, missing) = (StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND);
    let large = vec![b' '; JSON_BYTES_MAX + 1];
    let cases = [
        get("/nowhere", missing, Code::NoSuchRoute, "/nowhere"),
        get("/api/stormkeeper/v1/topology/x", missing, Code::UnknownTopology, "\"x\""),
        get("/api/stormkeeper/v1/topology/%FF", bad, Code::InvalidRequest, "UTF-8"),
        post(
            "/api/stormkeeper/v1/cluster/summary",
            b"",
            StatusCode::METHOD_NOT_ALLOWED,
            Code::WrongMethod,
            "POST",
        ),
        post("/api/stormkeeper/v1/topology/x/kill", b"", missing, Code::UnknownTopology, "\"x\""),
        post("/api/stormkeeper/v1/topology/x/kill", b"{", bad, Code::InvalidRequest, "line 1 column 1"),
        post(
            "/api/stormkeeper/v1/topology/x/kill",
            br#"{"wait":1}"#,
            bad,
            Code::InvalidRequest,
            "unknown field `wait`",
        ),
        post(submit, b"", bad, Code::InvalidRequest, "JSON object"),
        post(submit, br#"{"blob":"x","owner":"a"}"#, bad, Code::InvalidRequest, "blob key"),
        post(submit, &large, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "1048576"),
    ];
    for case in cases {
        check(&router, case).await;
    }
    assert_eq!(ask(&router, Method::GET, "/live", "").await.0, StatusCode::OK);
    assert_eq!(ask(&router, Method::GET, "/ready", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn bad_blob_is_answered_with_the_reason() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let key = BlobKey::of(b"x");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    let get =
        |uri, status, code, names| Bad { method: Method::GET, uri, body: Vec::new(), status, code, names };
    let put = |body: &[u8], status, code, names| Bad {
        method: Method::PUT,
        uri: &uri,
        body: body.to_vec(),
        status,
        code,
        names,
    };
    let bad = StatusCode::BAD_REQUEST;
    check(&router, get("/api/stormkeeper/v1/blobs/x", bad, Code::InvalidRequest, "blob key")).await;
    check(&router, get(&uri, StatusCode::NOT_FOUND, Code::BlobMissing, key.as_str())).await;
    check(&router, put(b"y", bad, Code::BlobMismatch, key.as_str())).await;
    let large = [b'x'; 20_001];
    check(&router, put(&large, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "20000")).await;
    assert_eq!(ask(&router, Method::PUT, &uri, "x").await.0, StatusCode::CREATED);
    let body = json!({"blob": key, "owner": "ann"}).to_string();
    let no_bundle = Bad {
        method: Method::POST,
        uri: "/api/stormkeeper/v1/topology/submit",
        body: body.into_bytes(),
        status: StatusCode::UNPROCESSABLE_ENTITY,
        code: Code::InvalidTopology,
        names: key.as_str(),
    };
    check(&router, no_bundle).await;
}

#[tokio::test]
async fn nimbus_without_zookeeper_is_live_and_not_ready() {
    let fixture = Fixture::new().await;
    fixture.server.set_online(false);
    let running = fixture.start("alone").await;
    let router = routes(running.handle().clone());
    assert_eq!(ask(&router, Method::GET, "/live", "").await.0, StatusCode::OK);
    let (status, answer) = ask(&router, Method::GET, "/ready", "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_ready")));
    let (status, answer) = ask(&router, Method::POST, "/api/stormkeeper/v1/topology/x/kill", "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("no_leader")));
    let client = Client::new(
        vec![running.address().to_string(), "127.0.0.1:1".to_owned()],
        Timeouts { leader: Duration::ZERO, recovery: Duration::ZERO, ..Timeouts::default() },
    );
    let error = client.expect("a client").kill("x", &KillRequest::default()).await.expect_err("no leader");
    let text = error.to_string();
    assert!(text.contains(&running.address().to_string()) && text.contains("127.0.0.1:1 ("), "{text}");
}

#[tokio::test]
async fn nimbus_whose_view_is_older_than_its_session_is_not_ready() {
    let fixture = Fixture::new().await;
    let options = nimbus::Options {
        session_timeout: Duration::from_millis(200),
        ..nimbus::Options::of_test(fixture.dir.path().join("cut-off"))
    };
    let stop = CancellationToken::new();
    let running = start(options, fixture.server.connect(), Clock::new(), stop).await.expect("started");
    let router = routes(running.handle().clone());
    let becomes = async |expected: StatusCode| {
        wait_until("its readiness", LONG, || async {
            let (status, body) = ask(&router, Method::GET, "/ready", "").await;
            if status == expected { Ok(body) } else { Err(body.to_string()) }
        })
        .await
    };
    becomes(StatusCode::OK).await;
    // On a busy host such a short session may end before the first read is complete.
    wait_until("it has read its own record", LONG, || async {
        let seen = running.handle().observation();
        let is_read = seen.is_ok_and(|seen| seen.view.nimbuses.contains_key(running.handle().id()));
        if is_read { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    fixture.server.set_online(false);
    let error = becomes(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(error["code"], json!("not_ready"));
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("no connection to ZooKeeper")),
        "{error}"
    );
    assert_eq!(ask(&router, Method::GET, "/live", "").await.0, StatusCode::OK);
    let age_of_list = async || {
        let request =
            Request::builder().uri("/api/stormkeeper/v1/topology/summary").header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        response
            .headers()
            .get(BEHIND)
            .map(|age| age.to_str().expect("text").parse::<u64>().expect("a number"))
    };
    wait_until("a list that says how old it is", LONG, async || {
        age_of_list().await.filter(|age_ms| *age_ms >= 2_000).ok_or_else(|| "it says nothing".to_owned())
    })
    .await;
    fixture.server.set_online(true);
    becomes(StatusCode::OK).await;
    assert_eq!(age_of_list().await, None);
}

/// Sends writes of routes that are at the prefix of the own API only.
async fn set_log_level_and_sample(client: &Client, topology: &str, component: ComponentId) {
    let level = Some(LogLevel::Debug);
    let request = LogLevelRequest { component: Some(component.clone()), level, for_secs: None };
    client.set_log_level(topology, &request).await.expect("set");
    let request = SampleRequest {
        component: component.clone(),
        one_in: None,
        per_sec: None,
        for_secs: None,
        stop: false,
    };
    client.sample(topology, &request).await.expect("begun");
    assert!(client.samples(topology).await.expect("listed").components.contains_key(&component));
}

#[tokio::test]
async fn follower_answers_reads_and_forwards_writes() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let follower = fixture.start("follower").await;
    wait_until("the follower sees the leader and itself", LONG, || async {
        let n_seen = follower.handle().observation().map_or(0, |seen| seen.view.nimbuses.len());
        let sees = follower.handle().leader().is_some() && n_seen == 2;
        if sees { Ok(()) } else { Err(format!("{n_seen} nimbuses")) }
    })
    .await;
    let router = routes(follower.handle().clone());
    let TopologyPackage { key, bytes } = blob("wc");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    assert_eq!(ask(&router, Method::PUT, &uri, bytes.clone()).await.0, StatusCode::CREATED);
    assert!(leader.handle().blobs().holds(&key));
    let submit = json!({"blob": key, "owner": "ann"}).to_string();
    let (status, answer) = ask(&router, Method::POST, "/api/stormkeeper/v1/topology/submit", submit).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    wait_until("the follower has fetched the blob", LONG, || async {
        if follower.handle().blobs().holds(&key) { Ok(()) } else { Err("it has not".to_owned()) }
    })
    .await;
    let (status, refused) =
        ask(&router, Method::POST, "/api/stormkeeper/v1/topology/nothing/kill", "{}").await;
    assert_eq!((status, &refused["code"]), (StatusCode::NOT_FOUND, &json!("unknown_topology")));

    // A client that has only the address of the follower.
    let client = Client::new(vec![follower.address().to_string()], Timeouts::default()).expect("a client");
    let detail = wait_until("it is placed", LONG, || async {
        let detail = client.show("wc").await.map_err(|error| error.to_string())?;
        if detail.summary.tasks_assigned == 4 { Ok(detail) } else { Err(format!("{detail:?}")) }
    })
    .await;
    assert_eq!(detail.tasks[0].liveness, TaskLiveness::Silent);
    assert_eq!(client.list().await.expect("listed").topologies.len(), 1);
    assert_eq!(client.nimbuses().await.expect("listed").nimbuses.len(), 2);
    assert_eq!(client.supervisors().await.expect("listed").supervisors.len(), 1);
    assert_eq!(client.cluster().await.expect("summed up").topologies, 1);
    assert_eq!(client.errors("wc").await.expect("listed").errors, []);
    let TopologyPackage { key, bytes } = blob("other");
    client.put_blob(&key, Bytes::from(bytes)).await.expect("stored");
    let request = SubmitRequest {
        name: Some("renamed".parse().expect("valid")),
        blob: key,
        owner: "bob".to_owned(),
        status: InitialStatus::Inactive,
    };
    assert_eq!(client.submit(&request).await.expect("accepted").name.as_str(), "renamed");
    client.activate("renamed").await.expect("activated");
    client.deactivate("renamed").await.expect("deactivated");
    set_log_level_and_sample(&client, "renamed", detail.components[0].id.clone()).await;
    let rebalance = RebalanceRequest { wait_secs: Some(60), ..RebalanceRequest::default() };
    let answer = client.rebalance("renamed", &rebalance).await.expect("to be rebalanced");
    assert!((1..=60_000).contains(&answer.pending.expect("it waits").remaining_ms));
    client.kill("renamed", &KillRequest { wait_secs: Some(0) }).await.expect("killed");
    let refused = client.kill("no-such", &KillRequest::default()).await.expect_err("unknown");
    assert!(
        matches!(&refused, Error::Refused { body, .. } if body.code == Code::UnknownTopology),
        "{refused}"
    );
}
