//! Counters are exact: the history equals the counts of the components themselves, while workers
//! are killed, a leader is lost with its disk, and the topology is removed. An external store that
//! is slow, then unreachable, then back receives the same values, and delays nothing.
//!
//! The components count in files, one byte per operation, so that a `kill -9` does not change their
//! counts. A component writes one byte before each operation and one byte after the worker's
//! response. The worker's count lies between the two counts, which differ by at most one for each
//! time that the task was killed.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX, kill9},
    victoria_metrics::{Labels, VictoriaMetrics},
};

const TOPOLOGY: &str = r#"
name: exact
config: {topology.workers: 2, counts: COUNTS}
spouts: [{id: numbers, parallelism: 2, command: ["python3", "numbers.py"], output: [n]}]
bolts: [{id: sink, parallelism: 2, command: ["python3", "sink.py"], output: []}]
streams: [{from: numbers, to: sink, grouping: {type: SHUFFLE}}]
"#;

const COUNTS: &str = r#"
import os

class Count:
    """Number of operations: one byte per operation in a file."""

    def __init__(self, component, what):
        name = "%s-%d.%s" % (component.component_id, component.task_id, what)
        path = os.path.join(component.conf["counts"], name)
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def one(self):
        os.write(self.file, b".")
"#;

const NUMBERS: &str = r#"
import time
from counts import Count
from stormkeeper import Spout

class Numbers(Spout):
    def initialize(self, conf, context):
        self.begun, self.done = Count(self, "begun"), Count(self, "done")

    def next_tuple(self):
        time.sleep(0.002)
        self.begun.one()
        self.emit([1], need_task_ids=True)
        self.done.one()

Numbers().run()
"#;

const SINK: &str = r#"
from counts import Count
from stormkeeper import Bolt

class Sink(Bolt):
    def initialize(self, conf, context):
        self.begun, self.done = Count(self, "begun"), Count(self, "done")

    def process(self, tup):
        self.begun.one()
        self.ack(tup)
        # A response to the emit implies that the worker has received the ack before it.
        self.emit([], need_task_ids=True)
        self.done.one()

Sink().run()
"#;

/// One report per second, so that the test takes seconds and not minutes.
pub(crate) const SETTINGS: &str =
    "worker.metric.report.frequency.secs: 1\nnimbus.metric.close.delay.secs: 1\n";

/// Settings of the exporter; the address follows.
const STORE: &str = "\
nimbus.metric.uploader.class: opentsdb
nimbus.metrics.plugin.opentsdb.timeout.secs: 1
nimbus.metrics.plugin.opentsdb.batch: 1000
nimbus.metrics.plugin.opentsdb.url: ";

/// Timeout of an export: a minute is exported after its end, and a failed export is delayed.
const EXPORT_PATIENCE: Duration = Duration::from_secs(180);

/// Number of times that each worker is killed.
const KILLS: usize = 3;

/// Number of tasks of one worker.
const TASKS_PER_WORKER: usize = 2;

/// Levels, lowest first.
const LEVELS: [&str; 5] = ["stream", "task", "component-stream", "component", "topology"];

/// Sums of counters by level and component, such as `component numbers`.
pub(crate) type Totals = BTreeMap<String, u64>;

#[tokio::test(flavor = "multi_thread")]
async fn history_equals_the_counts_of_the_components() {
    let mut store = VictoriaMetrics::start().await.expect("VictoriaMetrics starts");
    let settings = format!("{SETTINGS}{STORE}{}\n", store.url());
    let mut cluster = Cluster::with(Shape { nimbuses: 3, ..Shape::SMALL }, &settings).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    for round in 0..KILLS {
        let workers = cluster.wait_until_whole("exact").await;
        wait_until_counted(&cluster, &counts).await;
        if round == 0 {
            store.freeze().await.expect("VictoriaMetrics answers");
        }
        for worker in workers.values() {
            kill9(worker.pid);
        }
    }
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    wait_until_export_failed(&cluster, "did not answer within").await;
    store.kill9();
    lose_the_leader(&mut cluster).await;
    wait_until_counted(&cluster, &counts).await;
    wait_until_export_failed(&cluster, "no response from").await;
    store.start_again().await.expect("VictoriaMetrics starts");

    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    let n_ambiguous = KILLS * 2 * TASKS_PER_WORKER;
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(&cluster, (&id, component, metric), &counts).await;
        let (begun, done) = counted(&counts, component);
        assert!(begun - done <= n_ambiguous as u64, "{component}: {begun} begun, {done} done");
        assert!(done > 200, "{component} did only {done}");
        let of_component = stored[&format!("component {component}")];
        assert!((done..=begun).contains(&of_component), "{component}: {done} to {begun}, not {stored:?}");
    }
    expect_levels_to_add_up(&cluster, &id).await;

    let before = totals(&cluster, &id, "Emitted").expect("a response, as before");
    cluster.ok(&["kill", "exact", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
    let after = totals(&cluster, &id, "Emitted").expect("the history outlives its topology");
    let emitted = |totals: &Totals| totals["component numbers"];
    assert_eq!(emitted(&after), emitted(&before), "the removal changed the counts");
    for metric in ["Emitted", "Acked", "Executed"] {
        expect_store_to_show(&store, &cluster, &id, metric).await;
    }
    wait_until_requests_and_decisions_are_timed(&cluster).await;
}

pub(crate) async fn submit(cluster: &Cluster, counts: &Path) {
    let dir = cluster.path("exact");
    fs::create_dir_all(dir.join("resources")).expect("a directory");
    fs::create_dir_all(counts).expect("a directory");
    for (name, text) in [("counts.py", COUNTS), ("numbers.py", NUMBERS), ("sink.py", SINK)] {
        fs::write(dir.join("resources").join(name), text).expect("written");
    }
    let file = dir.join("topology.yaml");
    let counts = format!("{:?}", counts.display().to_string());
    fs::write(&file, TOPOLOGY.replace("COUNTS", &counts)).expect("written");
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
}

/// Number of operations that the tasks of a component have begun and done, from their files.
pub(crate) fn counted(counts: &Path, component: &str) -> (u64, u64) {
    let of = |what: &str| {
        let files = fs::read_dir(counts).expect("readable").map(|entry| entry.expect("readable"));
        let mine = files.filter(|file| {
            let name = file.file_name().into_string().expect("text");
            name.starts_with(&format!("{component}-")) && name.ends_with(what)
        });
        mine.map(|file| file.metadata().expect("readable").len()).sum::<u64>()
    };
    (of(".begun"), of(".done"))
}

/// Waits until both components have done more operations.
pub(crate) async fn wait_until_counted(cluster: &Cluster, counts: &Path) {
    let before = ["numbers", "sink"].map(|component| counted(counts, component).1);
    wait_until("the components continue to count", WAIT_MAX, async || {
        let now = ["numbers", "sink"].map(|component| counted(counts, component).1);
        let all_went_on = before.iter().zip(now).all(|(before, now)| now > before + 100);
        if all_went_on { Ok(()) } else { Err(format!("{before:?}, then {now:?}\n{}", cluster.logs())) }
    })
    .await;
}

/// A cluster whose topology `exact` has stopped: the counts of its two components, both settled.
pub(crate) async fn settled_cluster() -> (Cluster, String, u64, u64) {
    let cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    settled(&cluster, (&id, "numbers", "Emitted"), &counts).await;
    settled(&cluster, (&id, "sink", "Acked"), &counts).await;
    let (emitted, acked) = (counted(&counts, "numbers").1, counted(&counts, "sink").1);
    assert!(emitted > 100 && acked > 100, "{emitted} emitted, {acked} acked");
    (cluster, id, emitted, acked)
}

/// Kills the leader and deletes all of its data on disk.
async fn lose_the_leader(cluster: &mut Cluster) {
    let leading = cluster.leading().await.expect("there is a leader");
    let nimbus = &mut cluster.nimbuses[leading.nimbus];
    nimbus.kill9();
    let dir = cluster.path(&format!("nimbus-{}", leading.nimbus + 1));
    for entry in fs::read_dir(&dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            fs::remove_dir_all(&path).expect("deleted");
        } else if !path.ends_with("storm.yaml") && !path.ends_with("log") {
            fs::remove_file(&path).expect("deleted");
        }
    }
    assert!(!dir.join("metrics").exists());
    cluster.wait_for_leader_after(leading.term).await;
    cluster.nimbuses[leading.nimbus].start_again();
}

/// Waits until the stored totals include all operations done and no longer change; returns them.
pub(crate) async fn settled(
    cluster: &Cluster,
    (topology, component, metric): (&str, &str, &str),
    counts: &Path,
) -> Totals {
    let key = format!("component {component}");
    let last = std::sync::Mutex::new(None);
    wait_until("the history includes all operations", WAIT_MAX, async || {
        let now = totals(cluster, topology, metric)?;
        let (begun, done) = counted(counts, component);
        let stored = now.get(&key).copied().unwrap_or_default();
        let seen = (begun, done, now.clone());
        let stays = last.lock().expect("no panic").replace(seen.clone()) == Some(seen);
        if stays && stored >= done {
            Ok(now)
        } else {
            Err(format!("{begun} begun, {done} done, {stored} stored\n{}", cluster.logs()))
        }
    })
    .await
}

/// Waits until a nimbus has logged an export failure with the text `how`.
async fn wait_until_export_failed(cluster: &Cluster, how: &str) {
    wait_until(&format!("an export fails: {how}"), EXPORT_PATIENCE, async || {
        let failed =
            |line: &str| line.contains("an exporter failed to export a minute") && line.contains(how);
        let is_logged = cluster.nimbuses.iter().any(|nimbus| nimbus.log().lines().any(failed));
        if is_logged { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
}

/// Waits until the external store has the same sums as the history, on each level.
async fn expect_store_to_show(store: &VictoriaMetrics, cluster: &Cluster, topology: &str, metric: &str) {
    // A correction has the same time as the value that it replaces, and the external store keeps
    // both: the greatest value is the last one, as counts only grow.
    let each_minute =
        format!("max_over_time({{__name__=\"storm.sys.{metric}\",topology=\"{topology}\"}}[1m])");
    let query = format!("sum(sum_over_time({each_minute}[1d:1m])) by (level, component)");
    wait_until("the external store has the sums of the history", EXPORT_PATIENCE, async || {
        let found = store.query(&query).await.map_err(|error| format!("{error:#}"))?;
        let label = |labels: &Labels, label: &str| labels.get(label).cloned().unwrap_or_default();
        let shown: Totals = found
            .iter()
            .map(|(labels, sum)| {
                (format!("{} {}", label(labels, "level"), label(labels, "component")), *sum as u64)
            })
            .collect();
        let mut stored = totals(cluster, topology, metric)?;
        // Counters that were never incremented have no points to export.
        stored.retain(|_, total| *total > 0);
        if shown == stored && !stored.is_empty() {
            Ok(())
        } else {
            Err(format!("{metric}: {shown:?}, not {stored:?}\n{}", cluster.logs()))
        }
    })
    .await;
}

/// Waits until the nimbuses have reported the times of their requests; they report once a minute.
async fn wait_until_requests_and_decisions_are_timed(cluster: &Cluster) {
    wait_until("the requests and decisions of the nimbuses are timed", EXPORT_PATIENCE, async || {
        for metric in ["RequestTime", "DecisionTime"] {
            let series = history(cluster, "__NIMBUS__", (metric, "nimbus"))?;
            let points = series.iter().flat_map(|series| series["points"].as_array().into_iter().flatten());
            let counts = points.filter_map(|point| point["value"]["histogram"]["count"].as_u64());
            if counts.sum::<u64>() == 0 {
                return Err(format!("{metric}: {series:?}\n{}", cluster.logs()));
            }
        }
        Ok(())
    })
    .await;
}

/// Asserts that each level is the sum of the level below.
async fn expect_levels_to_add_up(cluster: &Cluster, topology: &str) {
    for metric in ["Emitted", "Acked", "Executed"] {
        let totals = totals(cluster, topology, metric).expect("a response, as before");
        let sum = |level: &str| {
            let of_level = totals.iter().filter(|(key, _)| key.split(' ').next() == Some(level));
            of_level.map(|(_, total)| total).sum::<u64>()
        };
        let sums = LEVELS.map(sum);
        assert!(sums.iter().all(|one| *one == sums[0] && *one > 0), "{metric}: {sums:?} of {totals:?}");
        let of_cluster =
            history(cluster, "__CLUSTER__", (metric, "topology")).expect("the cluster is measured");
        let of_cluster: u64 = of_cluster.iter().map(total).sum();
        assert_eq!(of_cluster, sums[0], "{metric} of the cluster");
    }
}

pub(crate) fn totals(cluster: &Cluster, topology: &str, metric: &str) -> Result<Totals, String> {
    let mut totals = Totals::new();
    for level in LEVELS {
        for series in history(cluster, topology, (metric, level))? {
            let component = series["component"].as_str().unwrap_or_default();
            *totals.entry(format!("{level} {component}")).or_default() += total(&series);
        }
    }
    Ok(totals)
}

fn total(series: &Value) -> u64 {
    let points = series["points"].as_array().into_iter().flatten();
    points.map(|point| point["value"]["counter"]["count"].as_u64().expect("a count")).sum()
}

/// Fetches a metric by days: a test that runs at midnight has two of them.
fn history(cluster: &Cluster, topology: &str, (metric, level): (&str, &str)) -> Result<Vec<Value>, String> {
    let day = ["--window", "1d", "--from", "-2d", "--level", level];
    let asked = [&["metrics", topology, "--history", metric][..], &day].concat();
    let found = cluster.try_json(&asked).ok_or_else(|| format!("no response to {asked:?}"))?;
    Ok(found["series"].as_array().cloned().unwrap_or_default())
}
