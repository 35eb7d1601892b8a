//! The OpenAPI documents are valid. Requests that schemathesis generates from them, to a live cluster: every
//! answer is as the documents say, every error says what is wrong, and no process panics.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Map, Value, json};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::SETTINGS,
    logs::agents,
};

/// Requests of each kind for each operation, so that all of them take a minute or two.
const EXAMPLES_MAX: &str = "10";

/// Checks of schemathesis that hold for every API here.
const CHECKS: &str = "error_says_what_is_wrong,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Paths of the responses without an end, of a nimbus and of an agent.
const STREAMS: &str = "/live/(events|\\{topology\\})$";

/// Prints the places of a document that are no OpenAPI 3.1, a line each.
const VALIDATE: &str = "
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator

for error in OpenAPIV31SpecValidator(json.load(sys.stdin)).iter_errors():
    print('/'.join(map(str, error.absolute_path)) + ': ' + error.message[:200].replace('\\n', ' '))
";

/// Returns what is no OpenAPI in a document, a line each.
fn defects(document: &Value) -> String {
    #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of the validator")]
    let library = std::env::var("STORMKEEPER_OPENAPI_VALIDATOR").expect(
        "STORMKEEPER_OPENAPI_VALIDATOR is not set: run scripts/test, which installs the validator and sets it",
    );
    let mut validator = Command::new("python3")
        .args(["-W", "ignore", "-c", VALIDATE])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = validator.stdin.take().expect("piped");
    stdin.write_all(document.to_string().as_bytes()).expect("written");
    drop(stdin);
    let output = validator.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the validator ends: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The copies are those that the daemons serve: a test of each crate compares them.
#[test]
fn documents_are_valid_openapi_and_a_broken_one_is_found() {
    for copy in ["docs/openapi.json", "docs/openapi-agent.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(copy);
        let text = std::fs::read_to_string(path).expect("the copy in the repository");
        let mut document: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(defects(&document), "", "{copy}");
        document["paths"]["/live"]["get"]["responses"]["200"] = json!({ "describes": "nothing" });
        document["info"].as_object_mut().expect("an object").remove("title");
        let found = defects(&document);
        assert!(found.contains("paths//live/get") && found.contains("title"), "{copy}: {found}");
    }
}

/// Runs schemathesis against `api` with the operations that `selection` leaves.
fn generate(cluster: &Cluster, api: &str, known: &Value, selection: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of schemathesis")]
    let library = std::env::var("STORMKEEPER_SCHEMATHESIS").expect(
        "STORMKEEPER_SCHEMATHESIS is not set: run scripts/test, which installs schemathesis and sets it",
    );
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration");
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(format!("http://{api}/api/openapi.json"))
        .args(["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES_MAX, "--seed", "7", "--no-shrink"])
        // One worker: with several, a run cannot be repeated.
        .args(["--continue-on-failure", "--checks", CHECKS, "--workers", "1", "--no-color"])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none"])
        .args(selection)
        .current_dir(cluster.path(""))
        .env("PYTHONPATH", format!("{library}:{}", hooks.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "openapi_hooks")
        .env("KNOWN", known.to_string())
        .env("NO_PROXY", "127.0.0.1,localhost")
        .output()
        .expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{api} {selection:?}: {}\n{text}\n{errors}", output.status);
    let cases = text.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    assert!(cases.is_some_and(|n| n > 20), "too few requests: {cases:?}\n{text}");
}

/// Values of parameters that exist in the cluster, by name.
async fn known(cluster: &Cluster, topology: &str) -> Map<String, Value> {
    let id = cluster.json(&["show", topology])["id"].as_str().expect("an id").to_owned();
    let get = async |path: &str| {
        let url = format!("http://{}{path}", cluster.api(0));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        client.get(url).send().await.expect("an answer").json::<Value>().await.expect("JSON")
    };
    let job = get("/jobs").await["jobs"][0]["id"].clone();
    let vertex = get(&format!("/jobs/{}", job.as_str().expect("an id"))).await["vertices"][0]["id"].clone();
    let worker = wait_until("a worker is registered", WAIT_MAX, async || {
        let worker = get("/taskmanagers").await["taskmanagers"][0]["id"].clone();
        if worker.is_string() { Ok(worker) } else { Err("there is none".to_owned()) }
    })
    .await;
    let worker_details = get(&format!("/api/stormkeeper/v1/topology/{id}")).await["workers"][0].clone();
    let known = json!({
        "topology": [id, topology],
        "component": ["ticks", "sink"],
        "job": [job],
        "vertex": [vertex],
        "worker": [worker],
        "subtask": ["0"],
        "attempt": ["0"],
        "checkpoint": ["1"],
        "supervisor": [worker_details["supervisorId"]],
        "port": [worker_details["port"].to_string()],
        "file": ["worker.log"],
        "host": ["127.0.0.1"],
        "wait": ["0", "100000"],
        "window": ["60", "600", ":all-time"],
        "level": ["component", "task"],
        "pattern": ["*"],
        "get": ["sys.Emitted", "0.sys.Emitted"],
        "agg": ["sum,max"],
    });
    let Value::Object(known) = known else { unreachable!("it is an object") };
    known
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_are_answered_as_the_documents_say() {
    let cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    cluster.ok(&["submit", cluster.ticker().to_str().expect("UTF-8")]);
    cluster.wait_until_whole("ticker").await;
    cluster.wait_until_tuples_flow("ticker").await;
    let known = Value::from(known(&cluster, "ticker").await);
    let leader = cluster.leading().await.expect("a leader").nimbus;
    // A stream of live numbers has no end.
    let reads = ["--include-method", "GET", "--exclude-path-regex", STREAMS];
    generate(&cluster, cluster.api(leader), &known, &reads);
    for agent in agents(&cluster).await.iter().take(1) {
        generate(&cluster, agent, &known, &reads);
    }
    // The host is drained by them, and the topology is changed; then it is killed.
    let kill = "/kill";
    generate(
        &cluster,
        cluster.api(leader),
        &known,
        &["--exclude-method", "GET", "--exclude-path-regex", kill],
    );
    generate(&cluster, cluster.api(leader), &known, &["--include-path-regex", kill]);
    let logs = cluster.logs();
    assert!(!logs.contains("panicked"), "{logs}");
    assert!(!logs.contains("internal error"), "{logs}");
}
