//! Requests to the routes of an agent, without a port.

use axum::{
    body::{Body, Bytes, to_bytes},
    http::Request as HttpRequest,
};
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::{
    status::SlotStatus,
    worker_logs::tests::{Dir, TOPOLOGY},
};
use stormkeeper_access::{
    credentials::{Credentials, Signer},
    file::{WatchedFile, create_secret},
    locks::Settings,
    principal::{Person, Role},
    secret::{Secrets, WorkerKeys},
    signature::{BodyDigest, Head},
    token::Token,
};
use stormkeeper_model::Port;
use stormkeeper_runtime::tasks::Tasks;

const LOG: &str = "2026-01-01T00:00:00.0Z  INFO w: stderr: hello component=split task=3\n\
                   2026-01-01T00:00:01.0Z  INFO w: stderr: hello component=count task=4\n";

struct World {
    dir: Dir,
    routes: Router,
    _status: watch::Sender<Status>,
    _tasks: Tasks,
}

impl World {
    fn new() -> Self {
        Self::with(Locks::open())
    }

    fn with(locks: Locks) -> Self {
        let (dir, tasks) = (Dir::new(), Tasks::default());
        let logs = dir.launch("6700-2-00000a", TOPOLOGY, 6700, 2);
        std::fs::write(logs.join("worker.log"), LOG).expect("written");
        let slot = SlotStatus {
            state: "running",
            topology: TOPOLOGY.parse().ok(),
            worker: "6700-2-00000a".parse().ok(),
            process: None,
            reason: None,
        };
        let (sender, status) = watch::channel(Status {
            supervisor: "sup".parse().expect("valid"),
            has_assignments: true,
            slots: [(Port(6700), slot)].into(),
            problems: Vec::new(),
        });
        let api = AgentApi {
            supervisor: "sup".parse().expect("valid"),
            host: "h1".to_owned(),
            store: dir.store(),
            searches: Searches::default(),
            page: Page::new(dir.path(), Clock::new()),
            live: Live::new(dir.path(), status.clone(), Clock::new(), &tasks),
            status,
            clock: Clock::new(),
            refusals: Arc::default(),
        };
        let gate = Gate::new(locks, "h1:8000".to_owned(), api.clock.clone());
        let routes = routes(api, OwnNames::new(DaemonKind::Supervisor, ["h1"]), gate);
        Self { dir, routes, _status: sender, _tasks: tasks }
    }

    async fn send(&self, request: HttpRequest<Body>) -> (StatusCode, Bytes) {
        let response = self.routes.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.headers().get(SUPERVISOR).map(HeaderValue::as_bytes), Some(&b"sup"[..]));
        let status = response.status();
        (status, to_bytes(response.into_body(), 1 << 20).await.expect("a body"))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = HttpRequest::get(path).header("host", "h1:8000").body(Body::empty()).expect("valid");
        let (status, body) = self.send(request).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn logs(&self, rest: &str) -> (StatusCode, Value) {
        self.get(&format!("{PREFIX}/logs/{TOPOLOGY}{rest}")).await
    }
}

#[tokio::test]
async fn logs_are_listed_read_searched_and_downloaded() {
    let world = World::new();
    let (status, listed) = world.logs("").await;
    assert_eq!(status, StatusCode::OK, "{listed}");
    assert_eq!((&listed["supervisor"], &listed["host"]), (&"sup".into(), &"h1".into()));
    let worker = &listed["workers"][0];
    assert_eq!((&worker["port"], &worker["running"]), (&6700.into(), &true.into()));
    assert_eq!(worker["files"][0]["name"], "worker.log");
    assert_eq!(worker["files"][0]["size"], LOG.len());
    let (_, chunk) = world.logs("/6700/worker.log?offset=0&length=20").await;
    assert_eq!((&chunk["text"], &chunk["next"]["offset"]), (&LOG[..20].into(), &20.into()));
    let (_, found) = world.logs("/search?text=hello&component=count&last=10").await;
    let lines = found["workers"][0]["lines"].as_array().expect("lines").clone();
    assert_eq!(lines.len(), 1, "{found}");
    assert!(lines[0]["text"].as_str().is_some_and(|text| text.contains("component=count")), "{found}");
    let path = format!("{PREFIX}/logs/{TOPOLOGY}/6700/worker.log/download");
    let request = HttpRequest::get(path).header("host", "10.0.0.1").body(Body::empty()).expect("valid");
    assert_eq!(world.send(request).await, (StatusCode::OK, LOG.into()));
}

#[tokio::test]
async fn download_has_its_length_and_a_range_of_it_is_a_part() {
    let world = World::new();
    let path = format!("{PREFIX}/logs/{TOPOLOGY}/6700/worker.log/download");
    let size = LOG.len();
    for (method, range, status, content_range, body) in [
        (Method::GET, None, StatusCode::OK, None, LOG),
        (Method::HEAD, None, StatusCode::OK, None, ""),
        (Method::HEAD, Some("bytes=0-1"), StatusCode::OK, None, ""),
        (Method::GET, Some("bytes=5-9"), StatusCode::PARTIAL_CONTENT, Some("bytes 5-9/"), &LOG[5..10]),
        (Method::GET, Some("bytes=70-"), StatusCode::PARTIAL_CONTENT, Some("bytes 70-"), &LOG[70..]),
        (Method::GET, Some("bytes=0-1,3-4"), StatusCode::OK, None, LOG),
    ] {
        let request = HttpRequest::builder().method(method.clone()).uri(&path).header("host", "h1");
        let request = match range {
            Some(range) => request.header("range", range),
            None => request,
        };
        let response = world.routes.clone().oneshot(request.body(Body::empty()).expect("valid")).await;
        let response = response.expect("infallible");
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text"));
        assert_eq!((response.status(), header("accept-ranges")), (status, Some("bytes")), "{range:?}");
        let length = if method == Method::HEAD { size } else { body.len() };
        assert_eq!(header("content-length"), Some(length.to_string().as_str()), "{method} {range:?}");
        let is_as_expected = header("content-range").is_some_and(|is| {
            content_range.is_some_and(|begin| is.starts_with(begin) && is.ends_with(&format!("/{size}")))
        });
        assert_eq!(is_as_expected, content_range.is_some(), "{range:?}: {:?}", header("content-range"));
        assert_eq!(header("content-type"), Some("application/octet-stream"), "{range:?}");
        assert_eq!(to_bytes(response.into_body(), 1 << 20).await.expect("a body"), body, "{range:?}");
    }
    let request = HttpRequest::get(&path).header("host", "h1").header("range", format!("bytes={size}-"));
    let (status, body) = world.send(request.body(Body::empty()).expect("valid")).await;
    let body: Value = serde_json::from_slice(&body).expect("an error");
    assert_eq!((status, &body["code"]), (StatusCode::RANGE_NOT_SATISFIABLE, &"invalid_request".into()));
}

#[tokio::test]
async fn names_that_are_no_logs_are_refused_before_a_file_is_touched() {
    let world = World::new();
    std::fs::write(world.dir.path().join("secret"), "secret").expect("written");
    let long = "x".repeat(10_000);
    for file in [
        "..%2f..%2f..%2fsecret",
        "%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret",
        "%2fetc%2fpasswd",
        "worker.log%00",
        "worker.log%2f..%2fworker.log",
        "worker.json",
        "worker.log.01",
        "worker.log.99999999999999999999",
        "%ff%fe",
        "%",
        &long,
    ] {
        for rest in [format!("/6700/{file}"), format!("/6700/{file}/download")] {
            let (status, body) = world.logs(&rest).await;
            let is_refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
            assert!(is_refused && body["message"].is_string(), "{rest}: {status} {body}");
            assert!(!body.to_string().contains("root:"), "{body}");
        }
    }
    for (rest, expected) in [
        ("/6700/worker.log?worker=..%2f..", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?worker=%2fetc", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?worker=none", StatusCode::NOT_FOUND),
        ("/6701/worker.log", StatusCode::NOT_FOUND),
        ("/70000/worker.log", StatusCode::BAD_REQUEST),
        ("/-1/worker.log", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?offset=-1", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?length=18446744073709551616", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?path=x", StatusCode::BAD_REQUEST),
        ("/6700/worker.log?offset=18446744073709551615&length=18446744073709551615", StatusCode::OK),
        ("/search?text=", StatusCode::BAD_REQUEST),
        ("/search?text=a%0ab", StatusCode::BAD_REQUEST),
        ("/search?component=a%2fb", StatusCode::BAD_REQUEST),
        ("/search?last=10001", StatusCode::BAD_REQUEST),
        ("?all=true", StatusCode::BAD_REQUEST),
    ] {
        let (status, body) = world.logs(rest).await;
        assert_eq!(status, expected, "{rest}: {body}");
    }
    for path in [
        "/api/stormkeeper/v1/logs/..%2f..",
        "/api/stormkeeper/v1/logs/%2e%2e/6700/worker.log",
        "/logs",
        "/..",
    ] {
        let (status, body) = world.get(path).await;
        let is_refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
        assert!(is_refused && body["message"].is_string(), "{path}: {status} {body}");
    }
}

#[tokio::test]
async fn topology_worker_and_port_without_logs_are_unknown_with_a_message_that_names_them() {
    let world = World::new();
    let at = |path: &str| format!("{PREFIX}/logs/{path}");
    for (path, code, message) in [
        ("gone-1-1".to_owned(), "unknown_topology", "h1 has no logs of workers of gone-1-1"),
        (
            "gone-1-1/search?text=hello".to_owned(),
            "unknown_topology",
            "h1 has no logs of workers of gone-1-1",
        ),
        (format!("{TOPOLOGY}/search?port=6701"), "unknown_log", "of a worker of wc-1-100 at port 6701"),
        (format!("{TOPOLOGY}/search?worker=none"), "unknown_log", "of a worker none of wc-1-100"),
        (format!("{TOPOLOGY}/6701/worker.log"), "unknown_log", "of a worker of wc-1-100 at port 6701"),
        (format!("{TOPOLOGY}/6700/worker.out"), "unknown_log", "the log worker.out of the worker"),
    ] {
        let (status, body) = world.get(&at(&path)).await;
        assert_eq!((status, body["code"].as_str()), (StatusCode::NOT_FOUND, Some(code)), "{path}: {body}");
        assert!(body["message"].as_str().is_some_and(|text| text.contains(message)), "{path}: {body}");
    }
    let (status, found) = world.logs("/search?text=no%20line").await;
    assert_eq!(status, StatusCode::OK, "a log without such a line is searched: {found}");
    assert_eq!(found["workers"][0]["lines"], serde_json::json!([]));
}

#[tokio::test]
async fn requests_of_pages_of_other_sites_and_writes_are_refused() {
    let world = World::new();
    let path = format!("{PREFIX}/logs/{TOPOLOGY}");
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let request = HttpRequest::get(&path).header(name, value);
        let request = if name == "host" { request } else { request.header("host", "h1") };
        let response = world.routes.clone().oneshot(request.body(Body::empty()).expect("valid")).await;
        assert_eq!(response.expect("infallible").status(), StatusCode::FORBIDDEN, "{name}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        let request = HttpRequest::builder().method(method).uri(&path).header("host", "h1");
        let (status, _) = world.send(request.body(Body::empty()).expect("valid")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn locked_agent_answers_signatures_of_nimbuses_and_tokens_and_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secret, tokens) = (dir.path().join("secret"), dir.path().join("tokens"));
    create_secret(&secret, &Secrets::generate().expect("random bytes")).expect("written");
    let token = Token::generate().expect("random bytes");
    let reader = Person { name: "prometheus".to_owned(), role: Role::Reader, owner: None };
    create_secret(&tokens, &token.line(&reader)).expect("written");
    let settings = Settings { tokens: Some(tokens), secret: Some(secret), ..Settings::default() };
    let locks = Locks::of_supervisor(&settings).expect("valid");
    let clock = Clock::new();
    let world = World::with(locks.clone());
    let path = format!("{PREFIX}/logs/{TOPOLOGY}");
    let ask = async |authorization: Option<String>, path: &str| {
        let request = HttpRequest::get(path).header("host", "h1:8000");
        let request = match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        world.send(request.body(Body::empty()).expect("valid")).await.0
    };
    let signed = |credentials: &Credentials, path: &str| {
        let head = Head { to: "h1:8000", method: "GET", path };
        credentials.header(head, BodyDigest::of(&[]), None)
    };
    let nimbus = locks.credentials("nimbus", &clock);
    assert_eq!(ask(signed(&nimbus, &path), &path).await, StatusCode::OK);
    assert_eq!(ask(Some(format!("Bearer {}", token.secret_text())), "/metrics").await, StatusCode::OK);
    assert_eq!(ask(None, "/live").await, StatusCode::OK);
    let unknown = Token::generate().expect("random bytes").secret_text().to_owned();
    for (authorization, path) in [
        (None, path.as_str()),
        (None, "/metrics"),
        (Some(format!("Bearer {unknown}")), &path),
        (signed(&nimbus, "/metrics"), &path),
        (Some("Basic YTpi".to_owned()), &path),
    ] {
        assert_eq!(ask(authorization.clone(), path).await, StatusCode::UNAUTHORIZED, "{authorization:?}");
    }
    let topology = TOPOLOGY.parse().expect("valid");
    let keys = locks.worker_keys(&topology).expect("a secret");
    let file = dir.path().join(WorkerKeys::FILE);
    create_secret(&file, &keys.text()).expect("written");
    let keys = WatchedFile::open(&file, WorkerKeys::read).expect("read");
    let worker = Credentials::Signer(Signer::worker(topology, keys, clock));
    assert_eq!(ask(signed(&worker, &path), &path).await, StatusCode::FORBIDDEN, "a component has this key");
}

#[tokio::test]
async fn samples_are_for_nimbuses_and_operators_of_all_topologies_and_not_among_the_other_logs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secret, tokens) = (dir.path().join("secret"), dir.path().join("tokens"));
    create_secret(&secret, &Secrets::generate().expect("random bytes")).expect("written");
    let people = [(Role::Reader, None), (Role::Operator, Some("team")), (Role::Operator, None)];
    let people = people.map(|(role, owner)| {
        let name = format!("{role}-{owner:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let person = Person { name, role, owner: owner.map(str::to_owned) };
        (Token::generate().expect("random bytes"), person)
    });
    let lines: String = people.iter().map(|(token, person)| token.line(person) + "\n").collect();
    create_secret(&tokens, &lines).expect("written");
    let settings = Settings { tokens: Some(tokens), secret: Some(secret), ..Settings::default() };
    let locks = Locks::of_supervisor(&settings).expect("valid");
    let world = World::with(locks.clone());
    let logs = world.dir.path().join("workers/6700-2-00000a/logs");
    std::fs::write(logs.join("worker.samples"), "{}\n").expect("written");
    let ask = async |authorization: &str, path: &str| {
        let request = HttpRequest::get(path).header("host", "h1:8000").header("authorization", authorization);
        world.send(request.body(Body::empty()).expect("valid")).await
    };
    let samples = [
        format!("{PREFIX}/logs/{TOPOLOGY}/6700/worker.samples"),
        format!("{PREFIX}/logs/{TOPOLOGY}/6700/worker%2Esamples"),
        format!("{PREFIX}/logs/{TOPOLOGY}/6700/worker.samples/download"),
    ];
    let expected = [StatusCode::FORBIDDEN, StatusCode::FORBIDDEN, StatusCode::OK];
    for ((token, person), expected) in people.iter().zip(expected) {
        let bearer = format!("Bearer {}", token.secret_text());
        for path in &samples {
            assert_eq!(ask(&bearer, path).await.0, expected, "{person:?} {path}");
        }
        let (status, body) = ask(&bearer, &format!("{PREFIX}/logs/{TOPOLOGY}")).await;
        let listed = String::from_utf8_lossy(&body).into_owned();
        assert!(status == StatusCode::OK && listed.contains("worker.log"), "{listed}");
        assert!(!listed.contains("worker.samples"), "{listed}");
    }
    let nimbus = locks.credentials("nimbus", &Clock::new());
    let head = Head { to: "h1:8000", method: "GET", path: &samples[0] };
    let signature = nimbus.header(head, BodyDigest::of(&[]), None).expect("signed");
    assert_eq!(ask(&signature, &samples[0]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn second_agent_of_a_host_takes_another_port_unless_one_is_set() {
    let first = listen("127.0.0.1:0".parse().expect("valid"), false).expect("a free port");
    let taken = first.local_addr().expect("bound");
    let refused = listen(taken, false).expect_err("the port is set, and taken");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    let second = listen(taken, true).expect("another port");
    assert_ne!(second.local_addr().expect("bound").port(), taken.port());
}

#[test]
fn generated_document_of_the_agent() {
    let document = describe::document(described().into_parts().1);
    let text = serde_json::to_string_pretty(&document).expect("JSON");
    stormkeeper_runtime::test_support::assert_generated_file("docs/openapi-agent.json", &format!("{text}\n"));
}

#[tokio::test]
async fn document_is_served_and_names_every_route() {
    let world = World::new();
    let request = HttpRequest::get("/api/openapi.json").header("host", "localhost").body(Body::empty());
    let (status, body) = world.send(request.expect("valid")).await;
    assert_eq!(status, StatusCode::OK);
    let document: Value = serde_json::from_slice(&body).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 8, "{:?}", paths.keys());
    assert_eq!(paths["/live"]["get"]["security"], serde_json::json!([]), "a probe needs no token");
}
