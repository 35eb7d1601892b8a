//! Bodies of a small cluster, compared as JSON: names and types of fields are the contract.

use serde_json::{Value, json};

use crate::{
    Cluster, Values, Window,
    test_world::{World, component, measured, to_json},
};
use stormkeeper_model::TopologyId;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn cluster_summary_sums_up_the_view() {
    let world = World::new();
    let totals = world.totals();
    let body = to_json(&world.cluster(&totals).summary());
    let expected = json!({
        "stormVersion": "2.8.0", "supervisors": 2, "topologies": 1, "slotsTotal": 4,
        "slotsUsed": 2, "slotsFree": 2, "executorsTotal": 5, "tasksTotal": 5, "totalMem": 5096.0,
        "totalCpu": 500.0, "availMem": 4776.0, "availCpu": 480.0, "fragmentedMem": 0.0,
        "memAssignedPercentUtil": "6.279", "cpuAssignedPercentUtil": "4.000", "nimbusUptime": "1h 2m 1s",
        "versionMatch": true,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&body[key], value, "{key}");
    }
    assert_eq!(body.get("error"), None, "clients take a field error for a failure");
    assert!(body["bugtracker-url"].is_null() && body["central-log-url"].is_null());
}

#[test]
fn daemons_of_two_versions_do_not_match() {
    let mut world = World::new();
    let supervisor = world.view.supervisors.values_mut().next().expect("one");
    supervisor.version = "0.2.0".to_owned();
    let totals = world.totals();
    assert_eq!(to_json(&world.cluster(&totals).summary())["versionMatch"], json!(false));
}

#[test]
fn memory_beside_no_free_slot_is_fragmented() {
    let mut world = World::new();
    for record in world.view.supervisors.values_mut() {
        record.ports.truncate(1);
    }
    let totals = world.totals();
    let body = to_json(&world.cluster(&totals).summary());
    assert_eq!((&body["slotsFree"], &body["fragmentedMem"]), (&json!(0), &json!(4776.0)));
}

#[test]
fn nimbus_is_the_leader_and_its_uptime_is_a_text() {
    let world = World::new();
    let totals = world.totals();
    let body = to_json(&world.cluster(&totals).nimbuses());
    let expected = json!([{
        "host": "h1", "port": 8080, "status": "Leader", "version": "0.1.0", "nimbusUpTime": "1h 2m 1s",
        "nimbusUpTimeSeconds": "3721", "nimbusLogLink": "",
    }]);
    assert_eq!(body["nimbuses"], expected);
    let history = vec!["b-2-2".parse().expect("valid"), "a-1-1".parse().expect("valid")];
    assert_eq!(to_json(&Cluster::history(history)), json!({"topo-history": ["b-2-2", "a-1-1"]}));
}

#[test]
fn supervisor_has_its_slots_resources_and_workers() {
    let mut world = World::new();
    let totals = world.totals();
    let cluster = world.cluster(&totals);
    let all = to_json(&cluster.supervisors());
    assert_eq!(all["supervisors"].as_array().map(Vec::len), Some(2));
    let page = to_json(&cluster.supervisor(Some("s2"), None).expect("a supervisor"));
    assert_eq!(page["supervisors"].as_array().map(Vec::len), Some(1));
    let expected = json!({
        "id": "s2", "host": "h2", "uptime": "1h 1m 1s", "uptimeSeconds": 3661, "slotsTotal": 2, "slotsUsed": 1,
        "slotsFree": 1, "totalMem": 1000.0, "totalCpu": 100.0, "usedMem": 192.0, "usedCpu": 10.0,
        "availMem": 808.0, "availCpu": 90.0, "totalGenericResources": "", "usedGenericResources": "",
        "availGenericResources": "", "version": "0.1.0", "blacklisted": false,
        "schedulerDisplayResource": true, "logLink": "",
    });
    assert_eq!(page["supervisors"][0], expected);
    assert_eq!(page["supervisors"][0], all["supervisors"][1]);
    let worker = json!({
        "supervisorId": "s2", "host": "h2", "port": 6701, "topologyId": "wc-1-1700000000",
        "topologyName": "wc", "owner": "ann", "executorsTotal": 2, "assignedMemOnHeap": 192.0,
        "assignedMemOffHeap": 0.0, "assignedCpu": 10.0, "componentNumTasks": {"count": 1, "split": 1},
        "uptime": "1h 0m 1s", "uptimeSeconds": 3601, "workerLogLink": "",
    });
    assert_eq!(page["workers"], json!([worker]));
    assert!(
        cluster.supervisor(None, Some("h1")).is_some()
            && cluster.supervisor(Some("s2"), Some("h1")).is_none()
    );

    world.view.assignments.clear();
    let totals = world.totals();
    let page = to_json(&world.cluster(&totals).supervisor(None, Some("h2")).expect("a supervisor"));
    assert_eq!(page["workers"], json!([]));
}

#[test]
fn topologies_are_listed_with_what_they_request_and_have() {
    let mut world = World::new();
    world.problems.insert(crate::test_world::id(), "no free slots".to_owned());
    let totals = world.totals();
    let body = to_json(&world.cluster(&totals).topologies());
    let expected = json!([{
        "id": "wc-1-1700000000", "encodedId": "wc-1-1700000000", "name": "wc", "owner": "ann",
        "status": "ACTIVE", "uptime": "1h 0m 1s", "uptimeSeconds": 3601, "tasksTotal": 5, "workersTotal": 2,
        "executorsTotal": 5, "replicationCount": 1, "schedulerInfo": "no free slots",
        "requestedMemOnHeap": 320.0, "requestedMemOffHeap": 0.0, "requestedTotalMem": 320.0,
        "requestedCpu": 20.0, "assignedMemOnHeap": 320.0, "assignedMemOffHeap": 0.0, "assignedTotalMem": 320.0,
        "assignedCpu": 20.0, "topologyVersion": null, "stormVersion": "2.8.0",
    }]);
    assert_eq!(body["topologies"], expected);
    let workers = to_json(&world.cluster(&totals).topology_workers(&crate::test_world::id()));
    let places = json!([{"host": "h1", "port": 6700}, {"host": "h2", "port": 6701}]);
    assert_eq!(workers["hostPortList"], places);
    let gone: TopologyId = "gone-1-1".parse().expect("valid");
    assert_eq!(to_json(&world.cluster(&totals).topology_workers(&gone))["hostPortList"], json!([]));
}

#[test]
fn owners_have_the_sums_of_their_topologies() {
    let world = World::new();
    let totals = world.totals();
    let all = to_json(&world.cluster(&totals).owners());
    assert_eq!(all["owners"].as_array().map(Vec::len), Some(1));
    let expected = json!({
        "owner": "ann", "totalTopologies": 1, "totalWorkers": 2, "totalTasks": 5, "totalMemoryUsage": 320.0,
        "memoryGuarantee": "N/A", "isolatedNodes": -1, "totalReqCpu": 20.0,
    });
    let one = to_json(&world.cluster(&totals).owner("ann"));
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!((&all["owners"][0][key], &one[key]), (value, value), "{key}");
    }
    assert_eq!(one["topologies"][0]["name"], json!("wc"));
    let nobody = to_json(&world.cluster(&totals).owner("bob"));
    assert_eq!((&nobody["totalTopologies"], &nobody["topologies"]), (&json!(0), &json!([])));
}

#[test]
fn topology_page_has_each_window_with_its_own_numbers() {
    let world = World::new();
    let body = world.page(Window::AllTime, false, |page| page.page(&measured(page.wanted())));
    // Three components emit; only the spout's acks and fails count.
    let row = |pretty: &str, window: &str, n: u64| {
        json!({
            "windowPretty": pretty, "window": window, "emitted": 3 * n, "transferred": 6 * n,
            "completeLatency": format!("{:.3}", n as f64 / 2000.0), "acked": 3 * n, "failed": 4 * n,
        })
    };
    let expected = json!([
        row("10m 0s", "600", 600),
        row("3h 0m 0s", "10800", 10_800),
        row("1d 0h 0m 0s", "86400", 86_400),
        row("All time", ":all-time", 1_000_000),
    ]);
    assert_eq!(body["topologyStats"], expected);
    assert_eq!((&body["window"], &body["windowHint"]), (&json!(":all-time"), &json!("All time")));
    let spout = json!({
        "spoutId": "lines", "encodedSpoutId": "lines", "executors": 2, "tasks": 2, "emitted": 1_000_000,
        "transferred": 2_000_000, "acked": 3_000_000, "failed": 4_000_000, "requestedMemOnHeap": 0.0,
        "requestedMemOffHeap": 0.0, "requestedCpu": 0.0, "lastError": "", "errorHost": "", "errorPort": null,
        "errorTime": null, "errorLapsedSecs": null, "errorWorkerLogLink": "", "completeLatency": "500.000",
    });
    assert_eq!(body["spouts"], json!([spout]));
    assert_eq!(
        (&body["bolts"][0]["boltId"], &body["bolts"][1]["boltId"]),
        (&json!("count"), &json!("split"))
    );
    let split = &body["bolts"][1];
    assert_eq!(split["executed"], json!(5_000_000));
    // Half of a second, in ms; the capacity is always that of ten minutes.
    assert_eq!((&split["processLatency"], &split["executeLatency"]), (&json!("500.000"), &json!("1500.000")));
    assert_eq!(split["capacity"], json!("0.600"));
    assert_eq!(split["lastError"], json!("e".repeat(200)));
    assert_eq!((&split["errorPort"], &split["errorLapsedSecs"]), (&json!(6700), &json!(9)));
    assert_eq!(body["configuration"], json!({"db.password": "*****", "topology.workers": 2}));
    assert_eq!(
        (&body["workers"][0]["uptimeSeconds"], &body["workers"][1]["uptimeSeconds"]),
        (&json!(100), &json!(3601))
    );
    assert_eq!(body.get("error"), None);
}

#[test]
fn window_of_the_request_is_the_first_row_and_that_of_the_components() {
    let world = World::new();
    let body = world.page(Window::Secs(60), false, |page| page.page(&measured(page.wanted())));
    assert_eq!(body["topologyStats"][0]["emitted"], json!(180));
    assert_eq!(body["topologyStats"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        (&body["bolts"][1]["executed"], &body["bolts"][1]["capacity"]),
        (&json!(300), &json!("0.060"))
    );
    assert_eq!((&body["window"], &body["windowHint"]), (&json!("60"), &json!("1m 0s")));
}

#[test]
fn numbers_that_are_not_known_are_null_and_the_hint_says_why() {
    let world = World::new();
    let unknown = Values::unknown("the metric store is not open".to_owned());
    let body = world.page(Window::AllTime, false, |page| page.page(&unknown));
    assert_eq!(body["windowHint"], json!("All time: no numbers, the metric store is not open"));
    assert!(body["topologyStats"][0]["emitted"].is_null() && body["spouts"][0]["emitted"].is_null());
    assert_eq!((&body["status"], &body["bolts"][0]["capacity"]), (&json!("ACTIVE"), &json!("0.000")));
    let hole = Values::default().with_hole(Some("nothing was measured from A to B".to_owned()));
    let body = world.page(Window::Secs(600), false, |page| page.page(&hole));
    assert_eq!(body["windowHint"], json!("10m 0s: nothing was measured from A to B"));
    assert_eq!(body["topologyStats"][0]["emitted"], json!(0));
}

#[test]
fn component_page_of_a_bolt_has_its_inputs_by_source() {
    let world = World::new();
    let count = component("count");
    let body = world.page(Window::Secs(600), false, |page| {
        page.component(&count, Vec::new(), &measured(page.wanted_of_component(&count)))
    });
    assert_eq!(
        (&body["componentType"], &body["name"], &body["tasks"]),
        (&json!("bolt"), &json!("wc"), &json!(1))
    );
    let windows: Vec<&Value> =
        body["boltStats"].as_array().expect("rows").iter().map(|row| &row["window"]).collect();
    assert_eq!(windows, ["600", "10800", "86400", ":all-time"]);
    assert_eq!(body["boltStats"][2]["executed"], json!(5 * 86_400));
    // 3,000 tuples were executed; three of four were received from `split`.
    let input = |from: &str, executed: u64, acked: u64, failed: u64| {
        json!({
            "component": from, "encodedComponentId": from, "stream": "default", "executeLatency": "0.900",
            "processLatency": "0.300", "executed": executed, "acked": acked, "failed": failed,
        })
    };
    assert_eq!(body["inputStats"], json!([input("split", 2250, 1350, 1800), input("lines", 750, 450, 600)]));
    assert_eq!(body["outputStats"], json!([]));
    let executor = json!({
        "id": "[5-5]", "encodedId": "%5B5-5%5D", "uptime": "1h 0m 1s", "uptimeSeconds": 3601, "host": "h2",
        "port": 6701, "workerLogLink": "", "emitted": 600, "transferred": 1200, "acked": 1800, "failed": 2400,
        "capacity": "0.600", "executeLatency": "0.900", "executed": 3000, "processLatency": "0.300",
    });
    assert_eq!(body["executorStats"], json!([executor]));
    assert_eq!(body.get("spoutSummary"), None);
}

#[test]
fn component_page_of_a_spout_ends_with_all_time_and_lists_errors() {
    let world = World::new();
    let lines = component("lines");
    let mut older = world.errors[&component("split")].clone();
    older.time = stormkeeper_model::Timestamp::from_millis(5000);
    let errors = vec![older, world.errors[&component("split")].clone()];
    let body = world.page(Window::Secs(60), false, |page| {
        page.component(&lines, errors, &measured(page.wanted_of_component(&lines)))
    });
    let rows = body["spoutSummary"].as_array().expect("rows");
    assert_eq!((&rows[0]["window"], &rows[4]["window"]), (&json!("60"), &json!(":all-time")));
    assert_eq!(keys(&rows[0]).len(), 7, "no numbers of bolts: {:?}", keys(&rows[0]));
    let output = json!([{
        "stream": "default", "emitted": 60, "transferred": 120, "completeLatency": "0.030", "acked": 180, "failed": 240,
    }]);
    assert_eq!(body["outputStats"], output);
    assert_eq!(body["executorStats"].as_array().map(Vec::len), Some(2));
    let errors = &body["componentErrors"];
    assert_eq!((&errors[0]["errorLapsedSecs"], &errors[1]["errorTime"]), (&json!(9), &json!(5000)));
    assert!(errors[0]["error"].as_str().is_some_and(|text| text.ends_with("e\nat line 1")));
    assert!(body.get("boltStats").is_none() && body.get("inputStats").is_none());
}

#[test]
fn streams_of_the_system_are_shown_on_request() {
    let world = World::new();
    let streams = |sys| {
        let body = world.page(Window::AllTime, sys, |page| page.metrics(&measured(page.wanted_by_stream())));
        body["spouts"][0]["emitted"].as_array().expect("streams").len()
    };
    assert_eq!((streams(false), streams(true)), (1, 2));
}

#[test]
fn metrics_are_by_stream_and_by_source() {
    let world = World::new();
    let body = world.page(Window::Secs(600), false, |page| page.metrics(&measured(page.wanted_by_stream())));
    assert_eq!((&body["windowHint"], &body["window-hint"]), (&json!("10m 0s"), &json!("10m 0s")));
    let stream = |value: Value| json!([{"stream_id": "default", "value": value}]);
    let spout = json!({
        "id": "lines", "emitted": stream(json!(600)), "transferred": stream(json!(1200)),
        "acked": stream(json!(1800)), "failed": stream(json!(2400)), "complete_ms_avg": stream(json!("0.300")),
    });
    assert_eq!(body["spouts"], json!([spout]));
    let input = |value: Value| json!([{"component_id": "lines", "stream_id": "default", "value": value}]);
    let split = json!({
        "id": "split", "emitted": stream(json!(600)), "transferred": stream(json!(1200)),
        "acked": input(json!(1800)), "failed": input(json!(2400)), "executed": input(json!(3000)),
        "process_ms_avg": input(json!("0.300")), "executed_ms_avg": input(json!("0.900")),
    });
    assert_eq!(body["bolts"][1], split);
}

#[test]
fn graph_has_nodes_with_their_places_and_inputs() {
    let world = World::new();
    let body =
        world.page(Window::Secs(600), false, |page| page.visualization(&measured(page.wanted_of_graph())));
    assert_eq!(keys(&body), ["count", "lines", "split"]);
    let node = json!({
        ":type": "bolt", ":capacity": 0.6, ":latency": "0.300", ":transferred": {},
        ":stats": [{":host": "h2", ":port": 6701, ":uptime_secs": 3601, ":transferred": null}],
        ":link": "/component.html?id=count&topology_id=wc-1-1700000000",
        ":inputs": [
            {":component": "split", ":stream": "default", ":sani-stream": "default", ":grouping": "fields"},
            {":component": "lines", ":stream": "default", ":sani-stream": "default", ":grouping": "fields"},
        ],
    });
    assert_eq!(body["count"], node);
    assert_eq!(body["lines"][":transferred"], json!({"default": 1200}));
    let init = world.page(Window::AllTime, false, |page| page.visualization_init());
    let expected = json!([[{"stream": "default", "sani-stream": "default", "checked": true}]]);
    assert_eq!(init["visualizationTable"], expected);
    assert_eq!(world.page(Window::AllTime, false, |page| page.lag()), json!({}));
    let levels = world.page(Window::AllTime, false, |page| page.log_config());
    assert_eq!(levels, json!({"namedLoggerLevels": {}}));
}
