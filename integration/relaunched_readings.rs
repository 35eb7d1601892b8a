//! Gauges and rates of workers that are killed several times within a minute: only the last launch
//! of each slot and task is shown.

use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX, kill9},
    exact_counts::{SETTINGS, counted, submit, totals, wait_until_counted},
};

/// Launches of each worker before the last one. Of five launches within a minute at least three are in
/// the same minute of the clock.
const KILLS: usize = 4;

/// Number of workers, and of tasks of each component.
const WORKERS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn readings_of_launches_within_a_minute_are_not_added() {
    let cluster = Cluster::with(Shape { nimbuses: 1, ..Shape::SMALL }, SETTINGS).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    for round in 0..=KILLS {
        let workers = cluster.wait_until_whole("exact").await;
        wait_until_counted(&cluster, &counts).await;
        let (_, done) = counted(&counts, "numbers");
        wait_until("the launch has reported", WAIT_MAX, async || {
            let stored = totals(&cluster, &id, "Emitted")?.get("component numbers").copied();
            if stored >= Some(done) { Ok(()) } else { Err(format!("{done} done, {stored:?} stored")) }
        })
        .await;
        if round < KILLS {
            workers.values().for_each(|worker| kill9(worker.pid));
        }
    }
    for (metric, level, most) in [
        ("Threads", "topology", WORKERS),
        ("Threads", "worker", 1),
        ("Capacity", "component", WORKERS),
        ("Capacity", "task", 1),
    ] {
        let n_most = readings(&cluster, &id, metric, level).into_iter().max();
        assert_eq!(n_most, Some(most), "readings of {metric} on level {level} in a minute");
    }

    let stderr = |args: &[&str]| String::from_utf8_lossy(&cluster.run(args).stderr).into_owned();
    let misspelt = stderr(&["metrics", "exact", "snik"]);
    assert!(misspelt.contains("has no component") && misspelt.contains("did you mean `sink`?"), "{misspelt}");
    let typo = stderr(&["metrics-control", "exact", "--enable", "EmitTimes"]);
    assert!(typo.contains("did you mean `EmitTime`?"), "{typo}");
    let known = stderr(&["metrics-control", "exact", "--enable", "EmitTime"]);
    assert!(!known.contains("Warning"), "{known}");
    wait_until("the supervisor has reported", 2 * WAIT_MAX, async || {
        let shown = cluster.run(&["metrics", "__SUPERVISOR__"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let is_headed = text.contains("\nSupervisors\n") && !text.contains(":0 ");
        if is_headed { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Numbers of readings of a gauge, of each subject and minute.
fn readings(cluster: &Cluster, topology: &str, metric: &str, level: &str) -> Vec<u64> {
    let asked = ["metrics", topology, "--history", metric, "--level", level, "--from", "-1h"];
    let found = cluster.json(&asked);
    let series = found["series"].as_array().expect("a list");
    let points = series.iter().flat_map(|series| series["points"].as_array().into_iter().flatten());
    points.map(|point: &Value| point["value"]["gauge"]["n"].as_u64().expect("a number")).collect()
}
