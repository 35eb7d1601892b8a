//! Live control: changes to the metrics of a topology take effect in running workers, and metrics
//! that were not changed are counted exactly all the time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::{self, counted, settled, totals, wait_until_counted},
};

/// With this setting and two workers, single connections are measured only if enabled by name.
const SETTINGS: &str = "topology.max.worker.num.for.netty.metrics: 1\n";

/// Number of acks to wait for before the growth of another counter is checked.
const MANY: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn metric_changes_take_effect_in_running_workers() {
    let cluster = Cluster::with(Shape::SMALL, &format!("{}{SETTINGS}", exact_counts::SETTINGS)).await;
    let counts = cluster.path("counts");
    exact_counts::submit(&cluster, &counts).await;
    let workers = cluster.wait_until_whole("exact").await;
    assert_eq!(workers.len(), 2, "{workers:?}");
    let processes = cluster.worker_processes();
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    wait_until_counted(&cluster, &counts).await;

    // A disabled counter stops while another counter continues.
    wait_until_growth_of_executed(&cluster, &id, Growth::AlongWithAcked).await;
    let shown = control(&cluster, &["--disable", "Executed"]);
    assert_eq!(shown["disabled"], serde_json::json!(["Executed"]));
    wait_until_growth_of_executed(&cluster, &id, Growth::None).await;

    // The log of each worker contains every report of a metric with `--debug`, and with it the
    // number of sampled values.
    assert_eq!(reports_in_logs(&cluster), Vec::new());
    control(&cluster, &["--debug", "ExecutorTime", "--sample-rate", "0"]);
    wait_until_sampled(&cluster, |report| report.sampled == 0).await;
    control(&cluster, &["--sample-rate", "1"]);
    wait_until_sampled(&cluster, |report| report.sampled == report.count).await;
    wait_until_rate_is_recorded(&cluster, 1.0).await;

    // Single connections, of which no metric was registered before.
    assert_eq!(connections(&cluster).await, Vec::<String>::new());
    control(&cluster, &["--enable", "NettyCliSendTime"]);
    wait_until("connections are timed", WAIT_MAX, async || {
        let found = connections(&cluster).await;
        let are_both = found.len() >= 2 && found.iter().all(|name| name.ends_with(".NettyCliSendTime"));
        if are_both { Ok(()) } else { Err(format!("{found:?}\n{}", cluster.logs())) }
    })
    .await;

    // All changes are reverted.
    let shown = control(&cluster, &["--enable", "Executed"]);
    assert_eq!(shown["disabled"], Value::Null, "{shown}");
    wait_until_growth_of_executed(&cluster, &id, Growth::AlongWithAcked).await;
    control(&cluster, &["--reset"]);
    wait_until_rate_is_recorded(&cluster, 0.1).await;
    wait_until("no metric is logged any more", WAIT_MAX, async || {
        let before = reports_in_logs(&cluster).len();
        let acked = acked(&cluster, &id)?;
        wait_until_acked(&cluster, &id, acked + MANY).await;
        let after = reports_in_logs(&cluster).len();
        if after == before { Ok(()) } else { Err(format!("{before}, then {after} reports in the logs")) }
    })
    .await;

    assert_eq!(cluster.worker_processes(), processes, "a worker or component was restarted");
    cluster.ok(&["deactivate", "exact"]);
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(&cluster, (&id, component, metric), &counts).await;
        let (begun, done) = counted(&counts, component);
        assert_eq!(begun, done, "{component} has not finished its last operation");
        assert_eq!(stored[&format!("component {component}")], done, "{metric}: {stored:?}");
    }
}

/// Changes the metrics of the topology; returns all changes in effect.
fn control(cluster: &Cluster, options: &[&str]) -> Value {
    cluster.json(&[&["metrics-control", "exact"], options].concat())
}

/// Growth of `Executed` while many tuples are acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    None,
    AlongWithAcked,
}

fn of_sink(cluster: &Cluster, id: &str, metric: &str) -> Result<u64, String> {
    Ok(totals(cluster, id, metric)?.get("component sink").copied().unwrap_or_default())
}

fn acked(cluster: &Cluster, id: &str) -> Result<u64, String> {
    of_sink(cluster, id, "Acked")
}

async fn wait_until_acked(cluster: &Cluster, id: &str, n: u64) {
    wait_until("more is acked", WAIT_MAX, async || {
        let now = acked(cluster, id)?;
        if now >= n { Ok(()) } else { Err(format!("{now} of {n}\n{}", cluster.logs())) }
    })
    .await;
}

async fn wait_until_growth_of_executed(cluster: &Cluster, id: &str, wanted: Growth) {
    wait_until(&format!("the growth of Executed is {wanted:?}"), WAIT_MAX, async || {
        let before = (of_sink(cluster, id, "Executed")?, acked(cluster, id)?);
        wait_until_acked(cluster, id, before.1 + MANY).await;
        let after = of_sink(cluster, id, "Executed")?;
        let is_there = match wanted {
            Growth::None => after == before.0,
            // The last one or two reports of the other counter may still be in flight.
            Growth::AlongWithAcked => after >= before.0 + MANY / 2,
        };
        if is_there { Ok(()) } else { Err(format!("{} to {after}\n{}", before.0, cluster.logs())) }
    })
    .await;
}

/// Metrics of single connections.
async fn connections(cluster: &Cluster) -> Vec<String> {
    let url =
        format!("http://{}/api/stormkeeper/v1/metrics/topology/exact/metas?level=netty", cluster.api(0));
    let client = stormkeeper_api_types::http::client().build().expect("a client");
    let answer = client.get(url).send().await.expect("answered");
    let answer: Value = answer.json().await.expect("JSON");
    let metas = answer["metas"].as_array().unwrap_or_else(|| panic!("no metas: {answer}"));
    let of_connections = metas.iter().filter_map(|meta| meta["metric"].as_str()).map(str::to_owned);
    of_connections.collect()
}

/// A report of a histogram, as written to a worker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LoggedReport {
    count: u64,
    sampled: u64,
}

/// Log files of all workers.
pub(crate) fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        // `workers` of earlier builds is a link to the directory of the supervisor.
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => logs(&path),
            false => Vec::from_iter(path.ends_with("worker.log").then_some(path)),
        }
    });
    found.collect()
}

fn reports_in_log(log: &Path) -> Vec<LoggedReport> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The worker may be writing the last line.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = complete.lines().filter(|line| line.contains("@sys@ExecutorTime point="));
    lines
        .map(|line| parse_report(line).unwrap_or_else(|| panic!("not a report of a histogram: {line}")))
        .collect()
}

fn reports_in_logs(cluster: &Cluster) -> Vec<LoggedReport> {
    let dirs = (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}")));
    dirs.flat_map(|dir| logs(&dir)).flat_map(|log| reports_in_log(&log)).collect()
}

/// Parses `… Histogram { count: 7, …, zeros: 0, buckets: {212: 3, 215: 4} }) …`.
fn parse_report(line: &str) -> Option<LoggedReport> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    let (buckets, _) = after("buckets: {")?.split_once('}')?;
    let in_buckets = buckets.split(',').filter_map(|bucket| number(bucket.split_once(": ")?.1));
    let sampled = number(after("zeros: ")?)? + in_buckets.sum::<u64>();
    Some(LoggedReport { count: number(after("count: ")?)?, sampled })
}

/// Waits until the last reports in the log of each worker satisfy `is_wanted`.
async fn wait_until_sampled(cluster: &Cluster, is_wanted: impl Fn(&LoggedReport) -> bool) {
    wait_until("each worker samples at the new rate", WAIT_MAX, async || {
        let dirs = (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}")));
        let reports: Vec<Vec<LoggedReport>> =
            dirs.flat_map(|dir| logs(&dir)).map(|log| reports_in_log(&log)).collect();
        let matches = |reports: &Vec<LoggedReport>| {
            let last: Vec<&LoggedReport> = reports.iter().rev().take(4).collect();
            last.len() == 4 && last.iter().all(|report| report.count > 0 && is_wanted(report))
        };
        if reports.len() == 2 && reports.iter().all(matches) {
            return Ok(());
        }
        let last: Vec<_> =
            reports.iter().map(|reports| reports.iter().rev().take(4).collect::<Vec<_>>()).collect();
        Err(format!("{last:?}\n{}", cluster.logs()))
    })
    .await;
}

/// Waits until the history of topologies has the sample rate.
async fn wait_until_rate_is_recorded(cluster: &Cluster, rate: f64) {
    wait_until("the rate is in the history", WAIT_MAX, async || {
        let history = cluster.try_json(&["metrics", "--topologies"]).ok_or("no response")?;
        let found = history["topologies"][0]["sampleRate"].as_f64();
        if found == Some(rate) { Ok(()) } else { Err(history.to_string()) }
    })
    .await;
}
