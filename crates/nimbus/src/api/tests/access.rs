//! Requests to locked nimbuses.

mod daemons;

use axum::http::HeaderMap;

use super::*;
use stormkeeper_access::{
    credentials::{Credentials, Signer},
    file::{WatchedFile, create_secret},
    locks::{Locks, Mode, Settings},
    principal::{Person, Principal, Role},
    secret::{Secrets, WorkerKeys},
    signature::{BodyDigest, Head},
    token::Token,
};
use stormkeeper_api_types::proof_check::DENIED;
use stormkeeper_flink_api::FlinkId;
use stormkeeper_metrics::{
    MetricBatch, Minute,
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::{TopologyId, status::TopologyStatus};

/// Address in the requests: that at which the nimbus is announced.
pub(super) fn host(running: &Running) -> String {
    running.handle().api().to_owned()
}

/// Files of a locked cluster, and tokens of its people.
pub(super) struct Keys {
    pub(super) dir: tempfile::TempDir,
    pub(super) admin: Token,
    pub(super) operator: Token,
    pub(super) of_team: Token,
    pub(super) reader: Token,
}

impl Keys {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut lines = String::new();
        let mut token = |name: &str, role, owner: Option<&str>| {
            let token = Token::generate().expect("random bytes");
            let person = Person { name: name.to_owned(), role, owner: owner.map(str::to_owned) };
            lines.push_str(&(token.line(&person) + "\n"));
            token
        };
        let admin = token("root", Role::Admin, None);
        let operator = token("bob", Role::Operator, None);
        let of_team = token("ci", Role::Operator, Some("team"));
        let reader = token("grafana", Role::Reader, None);
        create_secret(&dir.path().join("tokens"), &lines).expect("written");
        create_secret(&dir.path().join("secret"), &"k".repeat(32)).expect("written");
        Self { dir, admin, operator, of_team, reader }
    }

    fn settings(&self, mode: Mode) -> Settings {
        let path = |name: &str| Some(self.dir.path().join(name));
        Settings { mode: Some(mode), tokens: path("tokens"), secret: path("secret"), ..Settings::default() }
    }

    pub(super) fn locks(&self, mode: Mode) -> Locks {
        Locks::of_nimbus(&self.settings(mode)).expect("valid")
    }

    /// Credentials of a daemon with another secret, if given.
    pub(super) fn daemon(&self, secret: Option<&str>) -> Credentials {
        let path = self.dir.path().join(secret.map_or("secret", |_| "other"));
        if let Some(secret) = secret {
            let _there = create_secret(&path, secret);
        }
        let secrets = WatchedFile::open(&path, Secrets::read).expect("valid");
        Credentials::Signer(Signer::daemon("supervisor on h".to_owned(), secrets, Clock::new()))
    }

    /// Credentials of a worker of a topology.
    pub(super) fn worker(&self, topology: &TopologyId) -> Credentials {
        let path = self.dir.path().join(format!("keys of {topology}"));
        let keys = self.locks(Mode::Required).worker_keys(topology).expect("a secret");
        let _there = create_secret(&path, &keys.text());
        let keys = WatchedFile::open(&path, WorkerKeys::read).expect("valid");
        Credentials::Signer(Signer::worker(topology.clone(), keys, Clock::new()))
    }
}

impl Fixture {
    async fn start_locked(&self, name: &str, locks: Locks) -> Running {
        let options = nimbus::Options { locks, ..nimbus::Options::of_test(self.dir.path().join(name)) };
        let options = nimbus::Options { metrics: Some(MetricOptions::of_test()), ..options };
        let stop = CancellationToken::new();
        start(options, self.server.connect(), Clock::new(), stop).await.expect("started")
    }

    pub(super) async fn locked_leader(&self, keys: &Keys) -> Running {
        self.leading(self.start_locked("leader", keys.locks(Mode::Required)).await).await
    }
}

/// A request as it is sent: with the proof of `credentials`, made for `signed` if that is another body.
pub(super) struct Sent<'a> {
    pub(super) method: Method,
    pub(super) uri: &'a str,
    pub(super) body: Vec<u8>,
    pub(super) signed: Option<&'a [u8]>,
}

impl<'a> Sent<'a> {
    pub(super) fn new(method: Method, uri: &'a str, body: &str) -> Self {
        Self { method, uri, body: body.as_bytes().to_vec(), signed: None }
    }

    pub(super) fn request(&self, host: &str, credentials: &Credentials) -> Request<Body> {
        let head = Head { to: host, method: self.method.as_str(), path: self.uri };
        let digest = BodyDigest::of(self.signed.unwrap_or(&self.body));
        let mut request = Request::builder().method(self.method.clone()).uri(self.uri).header("host", host);
        if let Some(proof) = credentials.header(head, digest, None) {
            request = request.header("authorization", proof);
        }
        request.body(Body::from(self.body.clone())).expect("a request")
    }
}

pub(super) async fn answer(running: &Running, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    answer_of(&routes(running.handle().clone()), request).await
}

pub(super) async fn answer_of(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (head.status, head.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub(super) async fn send(
    running: &Running,
    credentials: &Credentials,
    sent: &Sent<'_>,
) -> (StatusCode, Value) {
    let (status, _, body) = answer(running, sent.request(&host(running), credentials)).await;
    (status, body)
}

pub(super) fn token(token: &Token) -> Credentials {
    Credentials::Token(token.clone())
}

#[tokio::test]
async fn path_at_which_nothing_is_is_404_for_everybody_who_is_known() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let known = [token(&keys.reader), token(&keys.of_team), token(&keys.admin), keys.daemon(None)];
    let worker = keys.worker(&"wc-1-1".parse().expect("valid"));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        for uri in [
            "/anything",
            "/api/stormkeeper/v1/topology/none/explode",
            "/api/stormkeeper/v1/metrics/sync/everything",
            "/api/v1/nimbus/nothing",
            "/v1/jobs/nothing/here",
        ] {
            let sent = Sent::new(method.clone(), uri, "");
            assert_eq!(send(&leader, &Credentials::None, &sent).await.0, StatusCode::UNAUTHORIZED, "{uri}");
            for credentials in known.iter().chain([&worker]) {
                let (status, body) = send(&leader, credentials, &sent).await;
                assert_eq!(status, StatusCode::NOT_FOUND, "{credentials:?}: {method} {uri}: {body}");
            }
        }
    }
    let drain = Sent::new(Method::POST, "/api/stormkeeper/v1/host/none/drain", "");
    assert_eq!(send(&leader, &token(&keys.of_team), &drain).await.0, StatusCode::FORBIDDEN, "a route");
}

#[tokio::test]
async fn each_kind_of_request_is_refused_to_everybody_below_its_role() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let v1 = |route: &str| format!("/api/stormkeeper/v1{route}");
    let blob = v1(&format!("/blobs/{}", "0".repeat(64)));
    let (read, write, admin) = (0, 1, 2);
    for (method, uri, least) in [
        (Method::GET, v1("/cluster/summary"), read),
        (Method::GET, v1("/metrics/topologies"), read),
        (Method::GET, "/api/v1/nimbus/summary".to_owned(), read),
        (Method::GET, "/metrics".to_owned(), read),
        (Method::GET, "/jobs/overview".to_owned(), read),
        (Method::POST, v1("/topology/submit"), write),
        (Method::POST, v1("/topology/none/kill"), write),
        (Method::POST, v1("/host/none/drain"), write),
        (Method::DELETE, v1("/metrics/topology/none/metas"), write),
        (Method::PUT, blob.clone(), write),
        (Method::POST, "/api/v1/topology/none/deactivate".to_owned(), write),
        (Method::POST, v1("/recovery"), admin),
        (Method::GET, v1("/tree"), admin),
        (Method::GET, blob, admin),
        (Method::POST, v1(&format!("/blobs/{}/copy", "0".repeat(64))), 3),
        (Method::GET, v1("/metrics/sync/checkpoint"), 3),
        (Method::POST, v1("/metrics/ingest"), 3),
    ] {
        let sent = Sent::new(method.clone(), &uri, "");
        let (status, headers, body) = answer(&leader, sent.request(&host(&leader), &Credentials::None)).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::UNAUTHORIZED, &json!("unauthenticated")),
            "{method} {uri}"
        );
        assert!(headers.contains_key("www-authenticate") && body["hint"].is_string(), "{body}");
        for (rank, (name, own)) in [("grafana", &keys.reader), ("bob", &keys.operator), ("root", &keys.admin)]
            .into_iter()
            .enumerate()
        {
            let (status, body) = send(&leader, &token(own), &sent).await;
            let may = rank >= least;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
            assert_eq!(refused, !may, "{name}: {method} {uri}: {status} {body}");
            if !may {
                assert_eq!(body["code"], json!("forbidden"));
                let message = body["message"].as_str().expect("a text");
                assert!(message.contains(name) && message.contains("needs"), "{message}");
                let hint = body["hint"].as_str().expect("a hint");
                assert_eq!(hint.contains("another role"), least < 3, "{method} {uri}: {hint}");
                assert_eq!(hint.contains("only daemons"), least == 3, "{method} {uri}: {hint}");
            }
        }
    }
    for probe in ["/live", "/ready"] {
        let sent = Sent::new(Method::GET, probe, "");
        assert_eq!(send(&leader, &Credentials::None, &sent).await.0, StatusCode::OK, "{probe}");
    }
    assert!(leader.handle().gate().refusals().total() > 30, "they are counted");
}

#[tokio::test]
async fn wrong_token_is_refused_and_the_answer_does_not_contain_it() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let wrong = Token::generate().expect("random bytes");
    let sent = Sent::new(Method::GET, "/api/stormkeeper/v1/cluster/summary", "");
    let (status, body) = send(&leader, &token(&wrong), &sent).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    assert!(!body.to_string().contains(wrong.secret_text()), "{body}");
    let mut twice = sent.request(&host(&leader), &token(&keys.reader));
    let second = format!("Bearer {}", keys.admin.secret_text()).parse().expect("a value");
    twice.headers_mut().append("authorization", second);
    assert_eq!(answer(&leader, twice).await.0, StatusCode::UNAUTHORIZED, "two proofs are none");
}

#[tokio::test]
async fn token_with_an_owner_changes_topologies_of_that_owner_only() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let submit = async |name: &str, own: &Token, owner: &str| {
        let TopologyPackage { key, bytes } = blob(name);
        let uri = format!("/api/stormkeeper/v1/blobs/{key}");
        let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
        assert_eq!(send(&leader, &token(own), &put).await.0, StatusCode::CREATED);
        let body = json!({"blob": key, "owner": owner}).to_string();
        let (status, answer) = send(
            &leader,
            &token(own),
            &Sent::new(Method::POST, "/api/stormkeeper/v1/topology/submit", &body),
        )
        .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["topologyId"].as_str().expect("an id").parse::<TopologyId>().expect("valid")
    };
    let of_bob = submit("of-bob", &keys.operator, "ann").await;
    let of_team = submit("of-team", &keys.of_team, "ann").await;
    let view = leader.handle().observation().expect("read").view;
    assert_eq!(view.topologies[&of_bob].value.owner, "bob", "the name of a token without an owner");
    assert_eq!(view.topologies[&of_team].value.owner, "team", "the owner of the token");

    let change =
        async |uri: &str| send(&leader, &token(&keys.of_team), &Sent::new(Method::POST, uri, "")).await;
    for foreign in ["of-bob", of_bob.as_str()] {
        for verb in ["kill", "deactivate", "rebalance", "metrics"] {
            let (status, body) = change(&format!("/api/stormkeeper/v1/topology/{foreign}/{verb}")).await;
            assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{verb}");
        }
    }
    assert_eq!(change("/api/stormkeeper/v1/host/host/drain").await.0, StatusCode::FORBIDDEN);
    assert_eq!(change("/api/stormkeeper/v1/topology/none/kill").await.0, StatusCode::NOT_FOUND);
    assert_eq!(change("/api/stormkeeper/v1/topology/of-team/deactivate").await.0, StatusCode::OK);

    refuse_samples_of_others(&leader, &keys).await;

    // The same by Flink's API; an unknown job and a method that is not served are such for everybody.
    let ask_flink = async |method: Method, path: &str, own: &Token| {
        let (status, body) = send(&leader, &token(own), &Sent::new(method, path, "")).await;
        (status, body["code"].clone())
    };
    let [foreign, own] = [&of_bob, &of_team].map(|id| format!("/v1/jobs/{}", FlinkId::of_job(id)));
    let unknown = format!("/v1/jobs/{}", "0".repeat(32));
    let refused = (StatusCode::FORBIDDEN, json!("forbidden"));
    assert_eq!(ask_flink(Method::PATCH, &foreign, &keys.of_team).await, refused);
    assert_eq!(ask_flink(Method::PATCH, &own, &keys.reader).await, refused);
    for token in [&keys.of_team, &keys.operator] {
        let answer = ask_flink(Method::PATCH, &unknown, token).await;
        assert_eq!(answer, (StatusCode::NOT_FOUND, json!("not_found")));
    }
    for token in [&keys.reader, &keys.of_team, &keys.operator, &keys.admin] {
        for path in ["/v1/jobs", &own, "/jars"] {
            let answer = ask_flink(Method::DELETE, path, token).await;
            assert_eq!(answer, (StatusCode::NOT_FOUND, json!("no_such_route")), "{path}");
        }
    }
    assert_eq!(ask_flink(Method::PATCH, &own, &keys.of_team).await.0, StatusCode::ACCEPTED);
    let view = leader.handle().observation().expect("read").view;
    let status = |id| view.topologies.get(id).map(|topology| topology.value.status);
    assert_eq!(status(&of_bob), Some(TopologyStatus::Active));
    // It runs nowhere, so it is removed at once.
    assert!(matches!(status(&of_team), None | Some(TopologyStatus::Killed)), "{:?}", status(&of_team));
}

/// Tuples of samples are for those who may change the topology, and are no files to download.
async fn refuse_samples_of_others(leader: &Running, keys: &Keys) {
    let read = async |own: &Token, topology: &str, rest: &str| {
        let uri = format!("/api/stormkeeper/v1/topology/{topology}/logs/none/6700/worker.samples{rest}");
        send(leader, &token(own), &Sent::new(Method::GET, &uri, "")).await.0
    };
    // Whoever may read gets to know that there is no such supervisor.
    for (own, topology, expected) in [
        (&keys.reader, "of-team", StatusCode::FORBIDDEN),
        (&keys.of_team, "of-bob", StatusCode::FORBIDDEN),
        (&keys.of_team, "of-team", StatusCode::NOT_FOUND),
        (&keys.operator, "of-bob", StatusCode::NOT_FOUND),
    ] {
        for rest in ["", "?offset=0", ".1", "/download"] {
            assert_eq!(read(own, topology, rest).await, expected, "{topology}{rest}");
        }
    }
    let begin = Sent::new(
        Method::POST,
        "/api/stormkeeper/v1/topology/of-bob/samples",
        r#"{"component":"x","stop":true}"#,
    );
    assert_eq!(send(leader, &token(&keys.of_team), &begin).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn change_is_in_the_events_under_the_name_of_its_token_whatever_the_client_claims() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let sent = Sent::new(Method::POST, "/api/stormkeeper/v1/host/host/drain", "");
    let mut request = sent.request(&host(&leader), &token(&keys.operator));
    for (name, value) in [
        ("x-stormkeeper-user", "mallory"),
        ("x-stormkeeper-forwarded-by", "n9"),
        ("x-stormkeeper-term", "999999"),
        ("x-forwarded-for", "10.9.9.9"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let (status, _, body) = answer(&leader, request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let events = Sent::new(Method::GET, "/api/stormkeeper/v1/cluster/events", "");
    let events = send(&leader, &token(&keys.reader), &events).await.1.to_string();
    assert!(
        events.contains("bob") && !events.contains("mallory") && !events.contains("10.9.9.9"),
        "{events}"
    );
}

#[tokio::test]
async fn refusal_says_whether_all_requests_of_the_sender_are_refused_and_why() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let proofs = [
        (keys.daemon(None), None),
        (keys.daemon(Some(&"z".repeat(32))), Some("other-secret")),
        (Credentials::None, Some("no-proof")),
    ];
    for (credentials, word) in proofs {
        let sent = Sent::new(Method::HEAD, "/api/openapi.json", "");
        let (status, headers, _) = answer(&leader, sent.request(&host(&leader), &credentials)).await;
        let denied = headers.get(DENIED).map(|value| value.to_str().expect("text"));
        assert_eq!((denied, status.is_success()), (word, word.is_none()), "{status}");
    }
}

#[tokio::test]
async fn write_through_a_follower_is_that_of_the_person_and_an_open_follower_opens_nothing() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let follower = fixture.start_locked("follower", keys.locks(Mode::Required)).await;
    let open = fixture.start_locked("open", Locks::open()).await;
    let optional = fixture.start_locked("optional", keys.locks(Mode::Optional)).await;
    wait_until("the followers see the leader", LONG, || async {
        let all = [&follower, &open, &optional].iter().all(|one| one.handle().leader().is_some());
        if all { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let drain = Sent::new(Method::POST, "/api/stormkeeper/v1/host/host/drain", "");
    assert_eq!(send(&follower, &Credentials::None, &drain).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&follower, &token(&keys.reader), &drain).await.0, StatusCode::FORBIDDEN);
    for hole in [&open, &optional] {
        let (status, body) = send(hole, &Credentials::None, &drain).await;
        assert!(!status.is_success(), "{body}");
    }
    let view = leader.handle().observation().expect("read").view;
    assert!(view.drains.is_empty(), "nothing was drained");
    let (status, body) = send(&follower, &token(&keys.operator), &drain).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let events = Sent::new(Method::GET, "/api/stormkeeper/v1/cluster/events", "");
    let events = send(&leader, &token(&keys.reader), &events).await.1.to_string();
    assert!(events.contains("bob"), "{events}");
    let mut claiming = drain.request(&host(&follower), &token(&keys.operator));
    claiming.headers_mut().insert("x-stormkeeper-forwarded-by", "n9".parse().expect("a value"));
    let (status, _, body) = answer(&follower, claiming).await;
    assert_eq!(status, StatusCode::OK, "the header of a person is no sign of a loop: {body}");
    let by_nimbus = |by: &Credentials| {
        let head = Head { to: &host(&follower), method: "POST", path: drain.uri };
        let person = Principal::Person(Person { name: "bob".to_owned(), role: Role::Operator, owner: None });
        let proof = by.header(head, BodyDigest::of(&[]), Some(person)).expect("a signature");
        let request = Request::builder().method("POST").uri(drain.uri).header("host", host(&follower));
        let request = request.header("authorization", proof).header("x-stormkeeper-forwarded-by", "n9");
        request.body(Body::empty()).expect("a request")
    };
    let (status, _, body) = answer(&follower, by_nimbus(&keys.daemon(None))).await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("no_leader")), "{body}");
    let TopologyPackage { key, bytes } = blob("wc");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
    let (status, body) = send(&follower, &token(&keys.operator), &put).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert!(leader.handle().blobs().holds(&key));
}

#[tokio::test]
async fn bad_token_file_is_shown_and_the_last_good_one_stays_in_force() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let list = Sent::new(Method::GET, "/api/stormkeeper/v1/nimbus/summary", "");
    std::fs::write(keys.dir.path().join("tokens"), "ann adm sha256:00\n").expect("written");
    let problem = wait_until("the problem is shown", LONG, || async {
        let (status, body) = send(&leader, &token(&keys.reader), &list).await;
        assert_eq!(status, StatusCode::OK, "the token of the last good file: {body}");
        body["nimbuses"][0]["accessProblem"].as_str().map(str::to_owned).ok_or_else(|| body.to_string())
    })
    .await;
    assert!(problem.contains("tokens:1") && problem.contains("\"adm\" is no role"), "{problem}");
    let line = keys.admin.line(&Person { name: "root".to_owned(), role: Role::Admin, owner: None });
    std::fs::write(keys.dir.path().join("tokens"), line).expect("written");
    wait_until("the new file is in force", LONG, || async {
        let (status, _) = send(&leader, &token(&keys.reader), &list).await;
        if status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    wait_until("the problem is gone", LONG, || async {
        let (_, body) = send(&leader, &token(&keys.admin), &list).await;
        match body["nimbuses"][0]["accessProblem"].is_null() {
            true => Ok(()),
            false => Err(body.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn refused_requests_are_counted_by_kind_on_the_page_for_prometheus() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let kill = "/api/stormkeeper/v1/topology/wc/kill";
    for _ in 0..3 {
        let (status, _) = send(&leader, &Credentials::None, &Sent::new(Method::POST, kill, "{}")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let reader = token(&keys.reader);
    let (status, _) = send(&leader, &reader, &Sent::new(Method::POST, kill, "{}")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let mut foreign =
        Sent::new(Method::GET, "/api/stormkeeper/v1/topology/summary", "").request(&host(&leader), &reader);
    foreign.headers_mut().insert("origin", "http://elsewhere.example".parse().expect("a value"));
    assert_eq!(answer(&leader, foreign).await.0, StatusCode::FORBIDDEN);
    let page = Sent::new(Method::GET, "/metrics", "").request(&host(&leader), &reader);
    let response = routes(leader.handle().clone()).oneshot(page).await.expect("infallible");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let page = String::from_utf8(bytes.to_vec()).expect("text");
    for (kind, n) in [("unauthenticated", 3), ("forbidden", 1), ("foreign", 1), ("stale", 0), ("too_many", 0)]
    {
        let line = format!("stormkeeper_refused_requests_total{{kind=\"{kind}\"}} {n}");
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }
    assert!(page.lines().any(|found| found == "stormkeeper_nimbus_exposed 0"), "{page}");
}
