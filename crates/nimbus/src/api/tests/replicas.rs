//! Several nimbuses together, and operations on hosts.

use super::*;
use stormkeeper_coordination::tree::faulty::{FaultPlan, FaultRates, FaultyTree};
use stormkeeper_model::Term;

/// Returns the package of a topology that requires `copies` replicas of its blob.
pub(super) fn blob_with_copies(name: &str, copies: u32, wait_secs: u32) -> TopologyPackage {
    let mut topology = lines_and_count(name);
    topology.settings.insert("topology.min.replication.count".to_owned(), copies.into());
    topology.settings.insert("topology.max.replication.wait.time.sec".to_owned(), wait_secs.into());
    package::pack(&topology, None, Vec::new(), 1 << 20).expect("packed")
}

pub(super) async fn submit(
    client: &Client,
    TopologyPackage { key, bytes }: TopologyPackage,
) -> Result<BlobKey, Error> {
    client.put_blob(&key, Bytes::from(bytes)).await.expect("stored");
    let request = SubmitRequest {
        name: None,
        blob: key.clone(),
        owner: "ann".to_owned(),
        status: InitialStatus::Active,
    };
    client.submit(&request).await.map(|_accepted| key)
}

impl Fixture {
    /// Starts a leader and a follower that see each other, and a client of both.
    pub(super) async fn two(&self) -> (Running, Running, Client) {
        let (leader, follower) = (self.leader().await, self.start("follower").await);
        wait_until("both nimbuses see both nimbuses", LONG, || async {
            let known = |running: &Running| {
                running
                    .handle()
                    .observation()
                    .is_ok_and(|seen| seen.view.nimbuses.len() == 2 && seen.view.leader.is_some())
            };
            if known(&leader) && known(&follower) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let seeds = vec![follower.handle().api().to_owned(), leader.handle().api().to_owned()];
        let client = Client::new(seeds, Timeouts::default()).expect("made").as_user("ann".to_owned());
        (leader, follower, client)
    }

    /// Starts a follower that gets no event of any change.
    pub(super) async fn deaf_follower(&self) -> Running {
        let deaf = FaultPlan::seeded(1, FaultRates { lost_event: 1.0, ..FaultRates::default() });
        let tree = FaultyTree::new(self.server.connect(), deaf);
        let options = nimbus::Options::of_test(self.dir.path().join("deaf"));
        let follower = start(options, tree, Clock::new(), CancellationToken::new()).await.expect("started");
        wait_until("the follower has read the cluster", LONG, || async {
            if follower.handle().leader().is_some() { Ok(()) } else { Err("it has not".to_owned()) }
        })
        .await;
        follower
    }
}

#[tokio::test]
async fn submit_waits_for_the_required_copies() {
    let fixture = Fixture::new().await;
    let (leader, follower, client) = fixture.two().await;
    let key = submit(&client, blob("default")).await.expect("accepted");
    assert!(follower.handle().blobs().holds(&key), "two have it by default");
    let key = submit(&client, blob_with_copies("two", 2, 45)).await.expect("accepted");
    assert!(follower.handle().blobs().holds(&key));

    let refused = submit(&client, blob_with_copies("three", 3, 1)).await.expect_err("there are two");
    let body = refused.refusal().expect("refused");
    assert_eq!(body.code, Code::NotReplicated);
    assert!(
        body.message.contains("on 2 of the 3 nimbuses required after 1s; 2 are live"),
        "{}",
        body.message
    );
    assert!(body.hint.as_deref().is_some_and(|hint| hint.contains("start more nimbuses")), "{body:?}");
    let view = leader.handle().observation().expect("read").view;
    assert!(!view.topologies.values().any(|topology_record| topology_record.value.name.as_str() == "three"));
}

#[tokio::test]
async fn request_of_a_deposed_leader_is_rejected() {
    let fixture = Fixture::new().await;
    let (leader, follower, client) = fixture.two().await;
    let key = submit(&client, blob("wc")).await.expect("accepted");
    let term = leader.handle().term().expect("it leads");
    let copy = |term, router: Router, uri: String| async move {
        let request =
            Request::builder().method(Method::POST).uri(uri).header("host", "localhost").header(TERM, term);
        let request =
            request.body(Body::from(json!({"from": "127.0.0.1:1"}).to_string())).expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        let term = response.headers().get(TERM).and_then(|value| value.to_str().ok()?.parse().ok());
        (response.status(), term.map(Term))
    };
    let router = routes(follower.handle().clone());
    let uri = format!("/api/stormkeeper/v1/blobs/{key}/copy");
    assert_eq!(copy(term.0, router.clone(), uri.clone()).await, (StatusCode::OK, Some(term)));
    assert_eq!(copy(term.0 - 1, router.clone(), uri.clone()).await, (StatusCode::CONFLICT, Some(term)));
    let without = ask(&router, Method::POST, &uri, r#"{"from":"x:1"}"#).await;
    assert_eq!((without.0, &without.1["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));

    // A write for the leader of a later term.
    let router = routes(leader.handle().clone());
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/stormkeeper/v1/topology/wc/kill")
        .header("host", "localhost");
    let request = request.header(TERM, term.0 + 1).body(Body::empty()).expect("a request");
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let shown = client.show("wc").await.expect("there");
    assert_eq!(shown.summary.status, stormkeeper_model::status::TopologyStatus::Active);
}

#[tokio::test]
async fn drain_and_undrain_of_a_host_are_events_with_the_caller() {
    let fixture = Fixture::new().await;
    let (_leader, follower, client) = fixture.two().await;
    submit(&client, blob("wc")).await.expect("accepted");
    let router = routes(follower.handle().clone());
    let drain = async |host: &str, body: &'static str| {
        ask(&router, Method::POST, &format!("/api/stormkeeper/v1/host/{host}/drain"), body).await
    };
    let (status, refused) = drain("hots", "").await;
    assert_eq!(
        (status, &refused["hint"]),
        (StatusCode::NOT_FOUND, &json!("the hosts are host")),
        "{refused}"
    );
    let (status, refused) = drain("host", r#"{"waitSecs":1000000}"#).await;
    assert_eq!((status, &refused["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{refused}");
    let host = "host".parse().expect("valid");
    let refused = client.undrain(&host).await.expect_err("it is not drained");
    assert_eq!(refused.refusal().map(|body| body.code), Some(Code::UnknownHost));

    let (status, answer) = drain("host", r#"{"waitSecs":5}"#).await;
    assert_eq!((status, &answer["hostOperation"]), (StatusCode::OK, &json!("drain")), "{answer}");
    assert_eq!(drain("host", r#"{"waitSecs":5}"#).await.0, StatusCode::OK, "again changes nothing");
    wait_until("the follower shows the drain", LONG, || async {
        let seen = client.supervisors().await.map_err(|error| error.to_string())?;
        match seen.drains.first() {
            Some(drain) if drain.wait_secs == Some(5) && seen.supervisors[0].drained => Ok(()),
            drain => Err(format!("{drain:?}")),
        }
    })
    .await;
    client.undrain(&host).await.expect("used again");
    let events = wait_until("the follower has the events", LONG, || async {
        let list =
            client.nimbuses_seen_by(follower.handle().api()).await.map_err(|error| error.to_string())?;
        assert_eq!(list.nimbuses.len(), 2);
        let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/events?limit=3", "").await;
        let events: Vec<Value> = list["events"].as_array().expect("a list").clone();
        let kind = |n: usize| events.get(n).map(|event| event["event"].clone());
        match (kind(0), kind(1)) {
            (Some(last), Some(before)) if last == "undrained" && before == "drained" => Ok(events),
            _ => Err(list.to_string()),
        }
    })
    .await;
    assert_eq!(events[0]["by"], json!("ann from 127.0.0.1"));
    let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/events?topology=wc", "").await;
    let kinds: Vec<&Value> =
        list["events"].as_array().expect("a list").iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, [&json!("placed"), &json!("submitted")], "{list}");
    assert_eq!(list["events"][0]["moves"][0]["to"], json!("s0:6700"));
    assert_eq!((&list["truncated"], &list["omitted"]), (&json!(false), &json!(0)), "{list}");
    let newest = "/api/stormkeeper/v1/cluster/events?topology=wc&limit=1";
    let (_, list) = ask(&router, Method::GET, newest, "").await;
    assert_eq!(list["events"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!((&list["truncated"], &list["omitted"]), (&json!(true), &json!(1)), "{list}");
    let (status, refused) =
        ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/events?topology=nosuch", "").await;
    assert_eq!((status, &refused["code"]), (StatusCode::NOT_FOUND, &json!("unknown_topology")), "{refused}");
    let (status, _) = ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/events?limit=x", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn follower_reports_the_same_problems_as_the_leader() {
    let fixture = Fixture::new().await;
    let (leader, follower, client) = fixture.two().await;
    submit(&client, blob("first")).await.expect("accepted");
    submit(&client, blob("second")).await.expect("accepted");
    let problem = async |running: &Running| {
        let router = routes(running.handle().clone());
        let (_, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/second", "").await;
        shown["problem"].as_str().map(str::to_owned).ok_or_else(|| shown.to_string())
    };
    let reason = wait_until("the leader finds no slot", LONG, || problem(&leader)).await;
    assert!(reason.contains("all 2 slots are in use"), "{reason}");
    wait_until("so does the follower", LONG, || async {
        let seen = problem(&follower).await?;
        if seen == reason { Ok(()) } else { Err(seen) }
    })
    .await;
}

#[tokio::test]
async fn follower_shows_a_forwarded_write_at_once() {
    let fixture = Fixture::new().await;
    let _leader = fixture.leader().await;
    let follower = fixture.deaf_follower().await;
    let router = routes(follower.handle().clone());
    let post = async |path: &str, body: &str| {
        let (status, answer) =
            ask(&router, Method::POST, &format!("/api/stormkeeper/v1/{path}"), body.to_owned()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    };
    let get =
        async |path: &str| ask(&router, Method::GET, &format!("/api/stormkeeper/v1/{path}"), "").await.1;
    let TopologyPackage { key, bytes } = blob_with_copies("wc", 1, 1);
    let put = ask(&router, Method::PUT, &format!("/api/stormkeeper/v1/blobs/{key}"), bytes).await;
    assert_eq!(put.0, StatusCode::CREATED, "{}", put.1);
    let answer = post("topology/submit", &json!({"blob": key, "owner": "ann"}).to_string()).await;
    let id = answer["topologyId"].as_str().expect("an id").to_owned();
    for (verb, status) in [("deactivate", "inactive"), ("activate", "active"), ("deactivate", "inactive")] {
        post(&format!("topology/wc/{verb}"), "{}").await;
        assert_eq!(get(&format!("topology/{id}")).await["status"], status, "after {verb}");
    }
    post("host/host/drain", "{}").await;
    assert_eq!(get("supervisor/summary").await["supervisors"][0]["drained"], true);
}

#[tokio::test]
async fn a_blob_is_copied_only_from_a_nimbus_and_within_the_limit() {
    let fixture = Fixture::new().await;
    let (leader, follower, _client) = fixture.two().await;
    let router = routes(follower.handle().clone());
    let bytes = vec![b'x'; 10_000];
    let key = BlobKey::of(&bytes);
    let uri = format!("/api/stormkeeper/v1/blobs/{key}/copy");
    let copy = async |from: &str| {
        let request = Request::builder().method(Method::POST).uri(&uri).header("host", "localhost");
        let request = request.header(TERM, 999).body(Body::from(json!({"from": from}).to_string()));
        let response = router.clone().oneshot(request.expect("a request")).await.expect("infallible");
        response.status()
    };
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = stranger.local_addr().expect("bound");
    let leader_api = leader.handle().api();
    for from in [format!("{address}"), format!("{leader_api}@{address}"), format!("{address}/x?y=")] {
        assert_eq!(copy(&from).await, StatusCode::BAD_REQUEST, "{from}");
    }
    let reached = tokio::time::timeout(Duration::ZERO, stranger.accept()).await;
    assert!(reached.is_err(), "the address of the caller was reached");

    let body = |bytes: &[u8]| {
        futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(bytes))])
    };
    let blobs = leader.handle().blobs();
    blobs.put(&key, body(&bytes)).await.expect("stored");
    assert_eq!(copy(leader_api).await, StatusCode::OK);
    assert!(follower.handle().blobs().holds(&key));
}

#[tokio::test]
async fn a_blob_beyond_the_limit_of_a_nimbus_is_not_copied_to_it() {
    let fixture = Fixture::new().await;
    let generous = nimbus::Options {
        max_blob_bytes: 100_000,
        ..nimbus::Options::of_test(fixture.dir.path().join("generous"))
    };
    let stop = CancellationToken::new();
    let leader = start(generous, fixture.server.connect(), Clock::new(), stop).await.expect("started");
    let leader = fixture.leading(leader).await;
    let follower = fixture.start("follower").await;
    wait_until("the follower sees the leader", LONG, || async {
        if follower.handle().leader().is_some() { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
    let bytes = vec![b'x'; 20_001];
    let key = BlobKey::of(&bytes);
    let body = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]);
    leader.handle().blobs().put(&key, body).await.expect("stored");
    let (term, api) = (leader.handle().term().expect("it leads"), leader.handle().api().to_owned());
    let refused = follower.handle().copy_blob(&key, api, term).await.expect_err("too large");
    assert!(matches!(refused, crate::refusal::Refusal::BlobMissing { .. }), "{refused}");
    assert!(!follower.handle().blobs().holds(&key));
}
