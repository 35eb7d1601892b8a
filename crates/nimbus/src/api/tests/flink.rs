//! Flink's API: the shapes of answers, from a metric store that the test filled and from a view.

use super::{metrics::HistoryFixture, *};
use stormkeeper_flink_api::FlinkId;
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute,
    batch::SequenceRange,
    point::{Counter, Point},
    protocol::{RegisterRequest, Registration},
};

/// Id of the removed topology of the fixture as a job, and of its component as a vertex.
fn gone() -> (String, String) {
    let topology: TopologyId = "gone-1-1".parse().expect("valid");
    let vertex = FlinkId::of_vertex(&topology, &"split".parse().expect("valid"));
    (FlinkId::of_job(&topology).to_string(), vertex.to_string())
}

async fn get(router: &Router, uri: &str) -> Value {
    let (status, answer) = ask(router, Method::GET, uri, "").await;
    assert_eq!(status, StatusCode::OK, "{uri}: {answer}");
    answer
}

#[tokio::test]
async fn killed_topology_is_a_canceled_job_that_keeps_its_metrics() {
    let fixture = HistoryFixture::new().await;
    let router = &fixture.router;
    let (job, vertex) = gone();
    assert_eq!(get(router, "/jobs").await, json!({"jobs": [{"id": job, "status": "CANCELED"}]}));
    let details = get(router, &format!("/v1/jobs/{job}")).await;
    let n_tasks = &details["vertices"][0]["tasks"]["CANCELED"];
    assert_eq!((&details["vertices"][0]["id"], n_tasks), (&json!(vertex), &json!(12)), "{details}");
    let minutes = details["duration"].as_u64().expect("a number") / 60_000;
    assert_eq!((&details["name"], minutes), (&json!("gone"), 15), "{details}");
    // Totals, not the counts of the last minute: the points of the topology are 0 to 14.
    let values = get(router, &format!("/jobs/{job}/metrics?get=sys.Emitted,numRecordsOut,nothing")).await;
    let expected = json!([{"id": "sys.Emitted", "value": "105"}, {"id": "numRecordsOut", "value": "105"}]);
    assert_eq!(values, expected);
    let overview = get(router, "/overview").await;
    assert_eq!(
        (&overview["jobs-cancelled"], &overview["jobs-running"]),
        (&json!(1), &json!(0)),
        "{overview}"
    );
}

#[tokio::test]
async fn metrics_of_a_vertex_have_all_forms_of_flink() {
    let fixture = HistoryFixture::new().await;
    let (job, vertex) = gone();
    let at = |path: &str| format!("/jobs/{job}/vertices/{vertex}/{path}");
    let get = async |path: &str| get(&fixture.router, &at(path)).await;
    let names = get("metrics").await;
    assert_eq!(names[0], json!({"id": "0.numRecordsOut"}), "{names}");
    assert_eq!(names.as_array().map(Vec::len), Some(24), "two names of twelve subtasks: {names}");
    let first = json!([{"id": "0.sys.Emitted", "value": "7605"}]);
    assert_eq!(get("metrics?get=0.sys.Emitted%2C12.sys.Emitted").await, first);
    assert_eq!(
        get("subtasks/0/metrics?get=sys.Emitted").await,
        json!([{"id": "sys.Emitted", "value": "7605"}])
    );
    assert_eq!(get("subtasks/12/metrics").await, json!([]), "an unknown subtask");
    let sum = get("subtasks/metrics?get=sys.Emitted&agg=sum,max&subtasks=0-1").await;
    assert_eq!(sum, json!([{"id": "sys.Emitted", "max": 9105.0, "sum": 16710.0}]));
    let all = get("subtasks/metrics?get=sys.Emitted").await;
    let keys: Vec<&String> = all[0].as_object().expect("an element").keys().collect();
    assert_eq!(keys, ["id", "min", "max", "avg", "sum", "skew"]);
    let merged = get("jm-operator-metrics?get=sys.Capacity,sys.ProcessLatency_max").await;
    let expected =
        json!([{"id": "sys.Capacity", "value": "0.25"}, {"id": "sys.ProcessLatency_max", "value": "100"}]);
    assert_eq!(merged, expected);
}

#[tokio::test]
async fn unknown_id_is_an_empty_list_on_metric_paths_and_404_elsewhere() {
    let fixture = HistoryFixture::new().await;
    let router = &fixture.router;
    let ((job, vertex), unknown) = (gone(), "0".repeat(32));
    for path in [
        format!("/jobs/{unknown}/metrics"),
        format!("/jobs/{unknown}/vertices/{vertex}/metrics"),
        format!("/jobs/{job}/vertices/{unknown}/metrics"),
        format!("/jobs/{job}/vertices/{unknown}/subtasks/metrics?get=x&agg=sum"),
        format!("/jobs/{job}/vertices/{vertex}/subtasks/99/metrics"),
        "/taskmanagers/nobody:1/metrics".to_owned(),
        "/taskmanagers/metrics".to_owned(),
        format!("/jobs/metrics?get=sys.Emitted&jobs={unknown}"),
        format!("/jobs/{job}/metrics?get="),
    ] {
        assert_eq!(get(router, &path).await, json!([]), "{path}");
    }
    let (ok, bad, missing) = (StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND);
    for (path, expected, text) in [
        (format!("/jobs/{unknown}"), missing, format!("Job {unknown} not found")),
        (format!("/jobs/{job}/vertices/{unknown}"), missing, format!("JobVertex {unknown} not found")),
        (
            "/jobs/zz/metrics".to_owned(),
            bad,
            "Cannot resolve path parameter (jobid) from value \"zz\"".to_owned(),
        ),
        (format!("/jobs/{job}/vertices/zz"), bad, "(vertexid) from value \"zz\"".to_owned()),
        (format!("/jobs/{job}/vertices/{vertex}/subtasks/x"), bad, "(subtaskindex)".to_owned()),
        (format!("/jobs/{job}/vertices/{vertex}/subtasks/12"), missing, "Subtask 12".to_owned()),
        (format!("/jobs/{job}/checkpoints/details/1"), missing, "Checkpoint 1".to_owned()),
        ("/jobs/metrics?get=a&agg=median".to_owned(), bad, "(agg) from value \"median\"".to_owned()),
        ("/jobs/%FF".to_owned(), bad, "Cannot resolve path parameter".to_owned()),
        ("/taskmanagers/nobody:1".to_owned(), missing, "TaskManager nobody:1".to_owned()),
        ("/v1/nosuch".to_owned(), missing, "/v1/nosuch".to_owned()),
        (format!("/jobs/{unknown}/jobmanager/config"), missing, format!("Job {unknown} not found")),
        (format!("/jobs/{job}/jobmanager/config"), ok, String::new()),
        (format!("/jobs/{job}/jobmanager/environment"), ok, String::new()),
        (format!("/jobs/{job}/checkpoints"), ok, String::new()),
    ] {
        let (status, answer) = ask(router, Method::GET, &path, "").await;
        let error = answer["errors"][0].as_str().unwrap_or_default();
        assert_eq!(status, expected, "{path}: {answer}");
        assert!(error.contains(&text), "{path}: {answer}");
        assert_eq!(answer["message"].as_str().unwrap_or_default(), error, "{path}");
    }
    for path in ["/jobs/overview", "/v1/jobs/overview", &format!("/jobs/{job}/vertices/{vertex}/metrics")] {
        let (status, answer) = ask(router, Method::POST, path, "").await;
        assert_eq!((status, &answer["errors"][0]), (missing, &json!(format!("Not found: {path}"))));
    }
}

#[tokio::test]
async fn answer_has_the_content_type_of_flink_and_no_header_for_other_sites() {
    let fixture = HistoryFixture::new().await;
    let request = Request::builder().uri("/overview").header("host", "localhost");
    let response = fixture
        .router
        .clone()
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("infallible");
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json; charset=UTF-8");
    assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");
}

async fn post(router: &Router, verb: &str, body: String) -> Value {
    let uri = format!("/api/stormkeeper/v1/topology/{verb}");
    let (status, answer) = ask(router, Method::POST, &uri, body).await;
    assert_eq!(status, StatusCode::OK, "{verb}: {answer}");
    answer
}

/// Waits until a follower has the job in its view.
async fn until_known(router: &Router, job: FlinkId) {
    wait_until("the follower knows the job", LONG, || async {
        let (status, answer) = ask(router, Method::GET, &format!("/jobs/{job}/status"), "").await;
        if status == StatusCode::OK { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn cancelled_job_is_killed_by_the_leader_with_the_default_wait() {
    let fixture = Fixture::new().await;
    let (leader, follower, _client) = fixture.two().await;
    let topology = submitted_wc(&routes(leader.handle().clone())).await;
    let (router, job) = (routes(follower.handle().clone()), FlinkId::of_job(&topology));
    until_known(&router, job).await;
    for mode in ["?mode=stop", "?mode="] {
        let (status, answer) = ask(&router, Method::PATCH, &format!("/jobs/{job}{mode}"), "").await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{mode}");
    }
    assert_ne!(get(&router, &format!("/jobs/{job}/status")).await["status"], json!("CANCELLING"));
    let cancel = format!("/v1/jobs/{job}?mode=cancel");
    assert_eq!(ask(&router, Method::PATCH, &cancel, "").await, (StatusCode::ACCEPTED, json!({})));
    assert_eq!(get(&router, &format!("/jobs/{job}/status")).await, json!({"status": "CANCELLING"}));
    let own = get(&router, &format!("/api/stormkeeper/v1/topology/{topology}")).await;
    let left = own["pending"]["remainingMs"].as_u64().unwrap_or_else(|| panic!("a wait: {own}"));
    assert!(left > 20_000, "the wait is that of the topology, 30 s: {own}");
}

#[tokio::test]
async fn job_that_has_ended_or_never_was_cannot_be_cancelled() {
    let fixture = HistoryFixture::new().await;
    let unknown = "0".repeat(32);
    for (job, expected) in [(&gone().0, StatusCode::CONFLICT), (&unknown, StatusCode::NOT_FOUND)] {
        let (status, answer) = ask(&fixture.router, Method::PATCH, &format!("/jobs/{job}"), "").await;
        assert_eq!(status, expected, "{answer}");
        assert!(answer["errors"][0].as_str().is_some_and(|text| text.contains(job)), "{answer}");
    }
}

#[tokio::test]
async fn cancelling_that_is_switched_off_changes_nothing_and_the_features_say_so() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let job = FlinkId::of_job(&submitted_wc(&routes(leader.handle().clone())).await);
    let storm_api = crate::options::StormApiOptions { actions: false, ..Default::default() };
    let options = nimbus::Options { storm_api, ..nimbus::Options::of_test(fixture.dir.path().join("shut")) };
    let running = start(options, fixture.server.connect(), Clock::new(), CancellationToken::new()).await;
    let running = running.expect("started");
    let router = routes(running.handle().clone());
    until_known(&router, job).await;
    let (status, answer) = ask(&router, Method::PATCH, &format!("/jobs/{job}"), "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("switched_off")), "{answer}");
    assert_ne!(get(&router, &format!("/jobs/{job}/status")).await["status"], json!("CANCELLING"));
    assert_eq!(get(&router, "/config").await["features"]["web-cancel"], json!(false));
}

#[tokio::test]
async fn live_topology_is_a_job_in_the_state_of_its_lifecycle() {
    let fixture = Fixture::new().await;
    let running = fixture.leader_with_metrics().await;
    let router = routes(running.handle().clone());
    let topology = submitted_wc(&router).await;
    let job = FlinkId::of_job(&topology);
    let post = async |verb: &str, body: String| post(&router, verb, body).await;
    let details = wait_until("it is placed", LONG, || async {
        let details = get(&router, &format!("/jobs/{job}")).await;
        if details["state"] == json!("RUNNING") { Ok(details) } else { Err(details.to_string()) }
    })
    .await;
    let lines = FlinkId::of_vertex(&topology, &"lines".parse().expect("valid")).to_string();
    let nodes = details["plan"]["nodes"].as_array().expect("a list");
    let inputs: Vec<&Value> =
        nodes.iter().flat_map(|node| node["inputs"].as_array().into_iter().flatten()).collect();
    assert_eq!(inputs.iter().map(|input| &input["id"]).collect::<Vec<_>>(), [&json!(lines)], "{details}");
    let overview = get(&router, "/jobs/overview").await["jobs"][0].clone();
    assert_eq!(
        (&overview["tasks"]["deploying"], &overview["tasks"]["total"]),
        (&json!(4), &json!(4)),
        "{overview}"
    );
    assert_eq!(get(&router, "/taskmanagers").await["taskmanagers"], json!([]), "no worker has a heartbeat");
    post("wc/deactivate", String::new()).await;
    assert_eq!(get(&router, &format!("/jobs/{job}/status")).await, json!({"status": "RUNNING"}), "inactive");
    post("wc/rebalance", r#"{"waitSecs":60}"#.to_owned()).await;
    assert_eq!(get(&router, &format!("/jobs/{job}/status")).await, json!({"status": "RESTARTING"}));
    post("wc/kill", r#"{"waitSecs":60}"#.to_owned()).await;
    assert_eq!(get(&router, &format!("/jobs/{job}/status")).await, json!({"status": "CANCELLING"}));
    assert_eq!(
        get(&router, &format!("/jobs/{job}/execution-result")).await["status"]["id"],
        json!("IN_PROGRESS")
    );
    let exceptions = get(&router, &format!("/jobs/{job}/exceptions?maxExceptions=1")).await;
    assert_eq!(exceptions["exceptionHistory"], json!({"entries": [], "truncated": false}));
}

#[tokio::test]
async fn worker_has_metrics_while_it_is_registered_and_its_topology_keeps_its_own_after_that() {
    let fixture = Fixture::new().await;
    let running = fixture.leader_with_metrics().await;
    let (router, handle) = (routes(running.handle().clone()), running.handle());
    let topology = submitted_wc(&router).await;
    let (port, task) = wait_until("it is placed", LONG, || async {
        let view = handle.observation().map_err(|error| error.to_string())?.view;
        let assignment = view.assignments.get(&topology).ok_or("no assignment")?;
        let (slot, worker) = assignment.value.workers.iter().next().ok_or("no worker")?;
        Ok((slot.port.0, worker.tasks.iter().next().ok_or("no task")?))
    })
    .await;

    let names = [format!("4@1@{topology}@host@{port}@udf@x"), format!("2@1@{topology}@lines@0@@udf@x")];
    let registrations: Vec<_> = names.map(|name| Registration { id: MetricId::of(&name, 0), name }).into();
    let points = registrations.iter().map(|of| (of.id, Point::Counter(Counter { count: 3 }))).collect();
    let reports = vec![SequenceRange { worker: "w1".parse().expect("valid"), first: 1, last: 1 }];
    let minute = Minute::of(handle.clock().now());
    let batch = MetricBatch { topology: topology.clone(), minute, reports, points, readings: Vec::new() };
    let register = rmp_serde::to_vec(&RegisterRequest { topology: topology.clone(), registrations });
    let (register, ingest) =
        (register.expect("plain values"), rmp_serde::to_vec(&batch).expect("plain values"));
    let send = async |what: &str, body: Vec<u8>| {
        let uri = format!("/api/stormkeeper/v1/metrics/{what}");
        ask(&router, Method::POST, &uri, body).await
    };
    // A new leader takes metrics a moment after it takes writes.
    wait_until("the metrics are registered", LONG, || async {
        let (status, answer) = send("register", register.clone()).await;
        if status == StatusCode::OK { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    let (status, answer) = send("ingest", ingest).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    let n_workers = async || get(&router, "/taskmanagers").await["taskmanagers"].as_array().map(Vec::len);
    let wait_for_workers = async |n| {
        wait_until("workers are registered", LONG, || async {
            let found = n_workers().await;
            if found == Some(n) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    let heartbeat = layout::taskbeat(&topology, task);
    fixture.tree.create(&heartbeat, b"{}", CreateMode::Ephemeral).await.expect("created");
    wait_for_workers(1).await;
    let of_worker = format!("/taskmanagers/host:{port}/metrics?get=udf.x");
    let lines = FlinkId::of_vertex(&topology, &"lines".parse().expect("valid"));
    let job = FlinkId::of_job(&topology);
    let of_component = format!("/jobs/{job}/vertices/{lines}/jm-operator-metrics?get=udf.x");
    let measured = json!([{"id": "udf.x", "value": "3"}]);
    assert_eq!(get(&router, &of_worker).await, measured);
    fixture.tree.delete(&heartbeat, None).await.expect("deleted");
    wait_for_workers(0).await;
    assert_eq!(get(&router, &of_worker).await, json!([]), "it is not registered any more");
    assert_eq!(get(&router, "/taskmanagers/metrics?get=udf.x").await, json!([]));
    assert_eq!(get(&router, &of_component).await, measured, "its topology runs");
}
