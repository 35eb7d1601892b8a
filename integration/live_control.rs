//! Live control: what operators change about metrics takes effect in workers that run on, and
//! what they did not change is counted exactly all along.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, PATIENCE, Shape},
    exact_counts::{self, counted, settled, totals, wait_until_counted},
};

/// With two workers single connections are measured only when they are enabled by name.
const SETTINGS: &str = "topology.max.worker.num.for.netty.metrics: 1\n";

/// How many acks are waited for to see whether something else is counted along.
const MANY: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_change_takes_effect_in_the_workers_that_run() {
    let cluster = Cluster::with(Shape::SMALL, &format!("{}{SETTINGS}", exact_counts::SETTINGS)).await;
    let counts = cluster.path("counts");
    exact_counts::submit(&cluster, &counts).await;
    let workers = cluster.wait_until_whole("exact").await;
    assert_eq!(workers.len(), 2, "{workers:?}");
    let processes = cluster.worker_processes();
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    wait_until_counted(&cluster, &counts).await;

    // A counter is disabled: it stands still while another one goes on.
    wait_until_growth_of_executed(&cluster, &id, Growth::AlongWithAcked).await;
    let shown = control(&cluster, &["--disable", "Executed"]);
    assert_eq!(shown["disabled"], serde_json::json!(["Executed"]));
    wait_until_growth_of_executed(&cluster, &id, Growth::None).await;

    // What is debugged is in each worker's log, with every cut. In it one can see how many of the
    // values were sampled.
    assert_eq!(cuts_in_logs(&cluster), Vec::new());
    control(&cluster, &["--debug", "ExecutorTime", "--sample-rate", "0"]);
    wait_until_sampled(&cluster, |cut| cut.sampled == 0).await;
    control(&cluster, &["--sample-rate", "1"]);
    wait_until_sampled(&cluster, |cut| cut.sampled == cut.count).await;
    wait_until_rate_is_known(&cluster, 1.0).await;

    // Connections, of which nothing was registered so far.
    assert_eq!(connections(&cluster).await, Vec::<String>::new());
    control(&cluster, &["--enable", "NettyCliSendTime"]);
    wait_until("connections are timed", PATIENCE, async || {
        let found = connections(&cluster).await;
        let are_both = found.len() >= 2 && found.iter().all(|name| name.ends_with(".NettyCliSendTime"));
        if are_both { Ok(()) } else { Err(format!("{found:?}\n{}", cluster.logs())) }
    })
    .await;

    // And back.
    let shown = control(&cluster, &["--enable", "Executed"]);
    assert_eq!(shown["disabled"], Value::Null, "{shown}");
    wait_until_growth_of_executed(&cluster, &id, Growth::AlongWithAcked).await;
    control(&cluster, &["--reset"]);
    wait_until_rate_is_known(&cluster, 0.1).await;
    wait_until("nothing is debugged any more", PATIENCE, async || {
        let before = cuts_in_logs(&cluster).len();
        let acked = acked(&cluster, &id)?;
        wait_until_acked(&cluster, &id, acked + MANY).await;
        let after = cuts_in_logs(&cluster).len();
        if after == before { Ok(()) } else { Err(format!("{before}, then {after} cuts in the logs")) }
    })
    .await;

    assert_eq!(cluster.worker_processes(), processes, "the same workers and components all along");
    cluster.ok(&["deactivate", "exact"]);
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(&cluster, (&id, component, metric), &counts).await;
        let (begun, done) = counted(&counts, component);
        assert_eq!(begun, done, "{component} has ended what it began");
        assert_eq!(stored[&format!("component {component}")], done, "{metric}: {stored:?}");
    }
}

/// Changes what the topology measures; answers what is changed by now.
fn control(cluster: &Cluster, options: &[&str]) -> Value {
    cluster.json(&[&["metrics-control", "exact"], options].concat())
}

/// How `Executed` goes on while many tuples are acked.
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
    wait_until("more is acked", PATIENCE, async || {
        let now = acked(cluster, id)?;
        if now >= n { Ok(()) } else { Err(format!("{now} of {n}\n{}", cluster.logs())) }
    })
    .await;
}

async fn wait_until_growth_of_executed(cluster: &Cluster, id: &str, wanted: Growth) {
    wait_until(&format!("the growth of Executed is {wanted:?}"), PATIENCE, async || {
        let before = (of_sink(cluster, id, "Executed")?, acked(cluster, id)?);
        wait_until_acked(cluster, id, before.1 + MANY).await;
        let after = of_sink(cluster, id, "Executed")?;
        let is_there = match wanted {
            Growth::None => after == before.0,
            // Many acks, of which one cut or two may be on their way to the other counter.
            Growth::AlongWithAcked => after >= before.0 + MANY / 2,
        };
        if is_there { Ok(()) } else { Err(format!("{} to {after}\n{}", before.0, cluster.logs())) }
    })
    .await;
}

/// The metrics of single connections.
async fn connections(cluster: &Cluster) -> Vec<String> {
    let url = format!("http://{}/api/v1/metrics/topology/exact/metas?level=netty", cluster.api(0));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(url).send().await.expect("answered");
    let answer: Value = answer.json().await.expect("JSON");
    let metas = answer["metas"].as_array().unwrap_or_else(|| panic!("no metas: {answer}"));
    let of_connections = metas.iter().filter_map(|meta| meta["metric"].as_str()).map(str::to_owned);
    of_connections.collect()
}

/// A cut of a histogram, as a worker's log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Logged {
    count: u64,
    sampled: u64,
}

/// The logs of all workers.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => logs(&path),
            false => Vec::from_iter(path.ends_with("worker.log").then_some(path)),
        }
    });
    found.collect()
}

fn cuts_in_log(log: &Path) -> Vec<Logged> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains("@sys@ExecutorTime point="));
    lines.map(|line| logged(line).unwrap_or_else(|| panic!("no cut of a histogram: {line}"))).collect()
}

fn cuts_in_logs(cluster: &Cluster) -> Vec<Logged> {
    let dirs = (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}")));
    dirs.flat_map(|dir| logs(&dir)).flat_map(|log| cuts_in_log(&log)).collect()
}

/// `… Histogram { count: 7, …, zeros: 0, buckets: {212: 3, 215: 4} }) …`
fn logged(line: &str) -> Option<Logged> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    let (buckets, _) = after("buckets: {")?.split_once('}')?;
    let in_buckets = buckets.split(',').filter_map(|bucket| number(bucket.split_once(": ")?.1));
    let sampled = number(after("zeros: ")?)? + in_buckets.sum::<u64>();
    Some(Logged { count: number(after("count: ")?)?, sampled })
}

/// Waits until the last cuts in the log of each worker are as wanted.
async fn wait_until_sampled(cluster: &Cluster, is_wanted: impl Fn(&Logged) -> bool) {
    wait_until("each worker samples at the new rate", PATIENCE, async || {
        let dirs = (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}")));
        let cuts: Vec<Vec<Logged>> = dirs.flat_map(|dir| logs(&dir)).map(|log| cuts_in_log(&log)).collect();
        let is_so = |cuts: &Vec<Logged>| {
            let last: Vec<&Logged> = cuts.iter().rev().take(4).collect();
            last.len() == 4 && last.iter().all(|cut| cut.count > 0 && is_wanted(cut))
        };
        if cuts.len() == 2 && cuts.iter().all(is_so) {
            return Ok(());
        }
        let last: Vec<_> = cuts.iter().map(|cuts| cuts.iter().rev().take(4).collect::<Vec<_>>()).collect();
        Err(format!("{last:?}\n{}", cluster.logs()))
    })
    .await;
}

/// Waits until the history of topologies says the rate.
async fn wait_until_rate_is_known(cluster: &Cluster, rate: f64) {
    wait_until("the rate is in the history", PATIENCE, async || {
        let past = cluster.try_json(&["metrics", "--topologies"]).ok_or("nobody answers")?;
        let found = past["topologies"][0]["sampleRate"].as_f64();
        if found == Some(rate) { Ok(()) } else { Err(past.to_string()) }
    })
    .await;
}
