//! Submit of a topology in parts.

use super::*;

const FILE: &str = "\
name: parts
config: {topology.workers: 1}
spouts:
  - {id: lines, command: [\"./lines.sh\"], output: [line]}
bolts:
  - {id: count, command: [python3, lib/count.py], output: []}
streams:
  - {from: lines, to: count, grouping: {type: SHUFFLE}}
";

/// A part: its name, the name of its file if it has one, and its content.
type Part<'a> = (&'a str, Option<&'a str>, &'a str);

async fn submit(
    router: &Router,
    parts: &[Part<'_>],
    headers: &[(&'static str, &str)],
) -> (StatusCode, Value) {
    let mut body = String::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body +=
            &format!("--x-y\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n");
    }
    body += "--x-y--\r\n";
    let mut request =
        Request::builder().method(Method::POST).uri("/api/v1/topology").header("host", "localhost");
    request = request.header("content-type", "multipart/form-data; boundary=x-y");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::from(body)).expect("a request")).await;
    let (head, body) = response.expect("infallible").into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (head.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

const RESOURCES: [Part<'static>; 2] =
    [("resource", Some("lines.sh"), "#!/bin/sh\necho x\n"), ("resource", Some("lib/count.py"), "print(1)\n")];

#[tokio::test]
async fn topology_in_parts_runs_and_its_package_is_that_of_the_command() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let parts =
        [&[("topology", Some("topology.yaml"), FILE), ("owner", None, "ann")], &RESOURCES[..]].concat();
    let (status, answer) = submit(&router, &parts, &[]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["topologyOperation"], &answer["status"]), (&json!("submit"), &json!("success")));
    let id = answer["topologyId"].as_str().expect("an id");
    assert!(id.starts_with("parts-"), "{id}");
    let (_, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/parts", "").await;
    assert_eq!((&shown["owner"], &shown["tasksTotal"]), (&json!("ann"), &json!(2)));

    // The same topology, packed from files as the command does it.
    let dir = tempfile::tempdir().expect("a directory");
    let resources = dir.path().join("resources/lib");
    std::fs::create_dir_all(&resources).expect("made");
    std::fs::write(dir.path().join("topology.yaml"), FILE).expect("written");
    std::fs::write(resources.join("count.py"), RESOURCES[1].2).expect("written");
    let script = dir.path().join("resources/lines.sh");
    std::fs::write(&script, RESOURCES[0].2).expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let source = stormkeeper_topology_package::flux::load(&dir.path().join("topology.yaml")).expect("loads");
    let package = stormkeeper_topology_package::flux::bundle(&source, 20_000).expect("packs");
    assert_eq!(shown["blob"], json!(package.key));

    let again = submit(&router, &parts, &[]).await;
    assert_eq!((again.0, &again.1["code"]), (StatusCode::CONFLICT, &json!("name_in_use")));
    let renamed = [&parts[..], &[("name", None, "other"), ("status", None, "inactive")]].concat();
    let (status, answer) = submit(&router, &renamed, &[]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (_, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/other", "").await;
    assert_eq!(shown["status"], json!("inactive"));
}

#[tokio::test]
async fn submit_with_a_fault_stores_nothing() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let topology = ("topology", None, FILE);
    let large = "x".repeat(20_000);
    let bad = StatusCode::BAD_REQUEST;
    let cases: [(&[Part<'_>], StatusCode, &str); 10] = [
        (&[], bad, "the part `topology` is missing"),
        (&[topology, topology], bad, "given twice"),
        (&[topology, ("resources", None, "x")], bad, "is not known"),
        (&[topology, ("resource", None, "x")], bad, "has no filename"),
        (&[topology, ("resource", Some("../x"), "x")], bad, "no path below resources/"),
        (&[topology, ("resource", Some("/etc/x"), "x")], bad, "no path below resources/"),
        (&[topology, ("resource", Some("a"), "x"), ("resource", Some("a"), "y")], bad, "given twice"),
        (&[topology, ("name", None, "a b")], bad, "name:"),
        (&[topology, ("resource", Some("a"), &large)], StatusCode::PAYLOAD_TOO_LARGE, "20000 bytes"),
        (&[("topology", None, "name: x\nspouts: 3\n")], StatusCode::UNPROCESSABLE_ENTITY, "2:9: spouts"),
    ];
    for (parts, status, text) in cases {
        let (was, body) = submit(&router, parts, &[]).await;
        assert_eq!(was, status, "{text}: {body}");
        assert!(
            body["errorMessage"].as_str().is_some_and(|message| message.contains(text)),
            "{text}: {body}"
        );
    }
    let (a_file, under) = (("resource", Some("a"), "x"), ("resource", Some("a/b"), "x"));
    let (was, body) = submit(&router, &[topology, a_file, under], &[]).await;
    assert_eq!(
        (was, &body["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("invalid_topology")),
        "{body}"
    );
    let no_parts = ask(&router, Method::POST, "/api/v1/topology", "{}").await;
    assert_eq!((no_parts.0, &no_parts.1["code"]), (bad, &json!("invalid_request")));
    let page = submit(&router, &[topology], &[("origin", "http://localhost")]).await;
    assert_eq!(page.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "the form of a page");
    let view = running.handle().observation().expect("read").view;
    assert!(view.topologies.is_empty() && view.blobs.is_empty(), "{:?}", view.blobs);
    let blobs = std::fs::read_dir(fixture.dir.path().join("leader/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "files in the directory of blobs");
}

#[tokio::test]
async fn follower_forwards_package_and_submit_to_the_leader() {
    let fixture = Fixture::new().await;
    let (leader, follower, _client) = fixture.two().await;
    let router = routes(follower.handle().clone());
    let parts = [&[("topology", None, FILE)], &RESOURCES[..]].concat();
    let (status, answer) = submit(&router, &parts, &[]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let view = leader.handle().observation().expect("read").view;
    let record = view.topologies.values().next().expect("a topology");
    assert!(leader.handle().blobs().holds(&record.value.blob));
    assert_eq!(record.value.owner, "anonymous");
    let (status, again) = submit(&router, &parts, &[]).await;
    assert_eq!((status, &again["error"]), (StatusCode::CONFLICT, &json!("409 Conflict")), "{again}");
}
