//! flink-rest-client, as it is on PyPI, against the nimbuses of a cluster: every call succeeds, and
//! the values are those that the components have counted themselves.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use stormkeeper_runtime::test_support::wait_until;

use crate::{cluster::Cluster, exact_counts::settled_cluster};

/// Timeout of values that a nimbus measures once a minute.
const MINUTES: std::time::Duration = std::time::Duration::from_secs(180);

/// Makes every read of the client to one nimbus, or cancels all jobs; returns the answers.
fn call(api: &str, verb: &[&str]) -> Result<Value, String> {
    #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of the client")]
    let library = std::env::var("STORMKEEPER_FLINK_CLIENT").expect(
        "STORMKEEPER_FLINK_CLIENT is not set: run scripts/test, which installs the client and sets it",
    );
    let (host, port) = api.rsplit_once(':').expect("an address");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/flink_client.py");
    let mut command = Command::new("python3");
    let output = command
        .arg(script)
        .args([host, port])
        .args(verb)
        .env("PYTHONPATH", library)
        .output()
        .expect("python3 runs");
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|error| error.to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Calls each nimbus until `is_expected` returns no reason against its answers.
async fn expect(cluster: &Cluster, what: &str, is_expected: impl Fn(&Value) -> Result<(), String>) {
    for api in cluster.apis() {
        wait_until(&format!("{what} at {api}"), MINUTES, async || {
            let answers = call(api, &[])?;
            is_expected(&answers).map_err(|reason| format!("{reason}\n{answers}\n{}", cluster.logs()))
        })
        .await;
    }
}

fn equal(what: &str, is: &Value, expected: &Value) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is}, not {expected}")) }
}

/// Returns the vertex of a component.
fn vertex<'a>(job: &'a Value, component: &str) -> Result<&'a Value, String> {
    let vertices = job["vertices"].as_object().ok_or("no vertices")?;
    let found = vertices.values().find(|vertex| vertex["details"]["name"] == json!(component));
    found.ok_or_else(|| format!("there is no vertex {component}"))
}

/// Checks the limit of the query, which is that of a URI: 65,534 bytes.
fn check_limit(answers: &Value) -> Result<(), String> {
    equal("status of a query below the limit", &answers["status_of_60000_bytes"], &json!(200))?;
    equal("status of a query beyond the limit", &answers["status_of_66000_bytes"], &json!(414))
}

/// Checks the counts of a job, from its topology down to its tasks.
fn check_counts(job: &Value, (emitted, acked): (u64, u64)) -> Result<(), String> {
    for (component, metric, total) in [("numbers", "sys.Emitted", emitted), ("sink", "sys.Acked", acked)] {
        let vertex = vertex(job, component)?;
        let of_subtasks = &vertex["subtask_metrics"][metric];
        equal(metric, &of_subtasks["sum"], &json!(total as f64))?;
        let of_each = |n: u32| vertex["metrics"][format!("{n}.{metric}")].as_str()?.parse::<u64>().ok();
        let sum = of_each(0).zip(of_each(1)).map(|(first, second)| first + second);
        equal(metric, &json!(sum), &json!(total))?;
        let names = vertex["metric_names"].as_array().map(Vec::len);
        let values = vertex["metrics"].as_object().map(serde_json::Map::len);
        equal("names of a vertex and their values", &json!(values), &json!(names))?;
    }
    let written = &vertex(job, "numbers")?["details"]["aggregated"]["metrics"]["write-records"]["sum"];
    equal("write-records", written, &json!(emitted))
}

/// Checks what is the same for a job that runs and one that is killed.
fn check_refused(job: &Value) -> Result<(), String> {
    let not_found = |call: &str| {
        let text = job[call].as_str().unwrap_or_default();
        if text.contains("(404): ") { Ok(()) } else { Err(format!("{call}: {text}")) }
    };
    equal("checkpoints", &job["checkpoint_ids"], &json!([]))?;
    ["no_checkpoint", "savepoint", "stop", "rescale"].into_iter().try_for_each(not_found)
}

fn check_running(answers: &Value, counts: (u64, u64)) -> Result<(), String> {
    let jobs = &answers["jobs"];
    let id = jobs["ids"][0].as_str().ok_or("no job")?;
    equal("state", &jobs["all"], &json!([{"id": id, "status": "RUNNING"}]))?;
    equal("running tasks", &jobs["overview"][0]["tasks"]["running"], &json!(4))?;
    let job = &jobs["each"][id];
    check_counts(job, counts)?;
    check_refused(job)?;
    check_limit(answers)?;
    let input = job["plan"]["nodes"].as_array().into_iter().flatten().find_map(|node| node.get("inputs"));
    let strategy = input.map(|inputs| &inputs[0]["ship_strategy"]);
    equal("plan", &json!(strategy), &json!("default SHUFFLE"))?;
    equal("backpressure", &vertex(job, "numbers")?["backpressure"]["status"], &json!("ok"))?;
    let workers = &answers["taskmanagers"];
    equal("workers", &json!(workers["all"].as_array().map(Vec::len)), &json!(2))?;
    equal("workers in the overview", &answers["overview"]["taskmanagers"], &json!(2))?;
    for (worker, details) in workers["each"].as_object().into_iter().flatten() {
        let memory = details["metrics"]["sys.MemoryUsed"].as_str().and_then(|text| text.parse::<f64>().ok());
        if !memory.is_some_and(|bytes| bytes > 1e6) {
            return Err(format!("{worker} uses {memory:?} bytes"));
        }
        let mut files = details["logs"].as_array().into_iter().flatten();
        let listed = files.find(|file| file["name"] == json!("worker.log"));
        let (listed, read) = (listed.and_then(|file| file["size"].as_u64()), details["log"].as_u64());
        // It may have grown in between.
        if listed.is_none_or(|listed| listed == 0 || read < Some(listed)) {
            return Err(format!("{read:?} bytes of the log of {worker}: {}", details["logs"]));
        }
        equal("an unknown log", &details["no_log"], &json!(404))?;
        equal("job of a worker", &details["details"]["allocatedSlots"][0]["jobId"], &json!(id))?;
    }
    let memory = &answers["jobmanager"]["metrics"]["sys.MemoryUsed"];
    if memory.is_string() { Ok(()) } else { Err("the job manager has no metrics yet".to_owned()) }
}

fn check_killed(answers: &Value, counts: (u64, u64)) -> Result<(), String> {
    let jobs = &answers["jobs"];
    let id = jobs["ids"][0].as_str().ok_or("no job")?;
    equal("state", &jobs["all"], &json!([{"id": id, "status": "CANCELED"}]))?;
    equal("result", &jobs["each"][id]["execution_result"]["status"]["id"], &json!("COMPLETED"))?;
    check_counts(&jobs["each"][id], counts)?;
    check_refused(&jobs["each"][id])?;
    equal("workers", &answers["taskmanagers"]["ids"], &json!([]))?;
    equal("metrics of workers", &answers["taskmanagers"]["metric_names"], &json!([]))
}

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_client_reads_the_counts_of_the_components_from_each_nimbus() {
    let (cluster, _, emitted, acked) = settled_cluster().await;
    let expected = (emitted, acked);
    expect(&cluster, "the running topology", |answers| check_running(answers, expected)).await;
    let answers = call(&cluster.apis()[0], &["cancel"]).expect("cancelled");
    let states: Vec<&Value> =
        answers["after"].as_array().expect("a list").iter().map(|job| &job["status"]).collect();
    assert_eq!((&answers["cancelled"], states), (&json!([true]), vec![&json!("CANCELLING")]), "{answers}");
    // The default wait is longer than this test needs.
    cluster.ok(&["kill", "exact", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
    expect(&cluster, "the killed topology", |answers| check_killed(answers, expected)).await;
}
