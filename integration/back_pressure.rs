//! A bolt that stands still (SIGSTOP) while its spouts emit as fast as they can: the spouts wait, no worker
//! grows, and everything flows again afterwards. `STORMKEEPER_STOPPED_SECS=600` lets it stand still for ten
//! minutes.

use std::{collections::BTreeMap, fs, time::Duration};

use rustix::process::Signal;
use stormkeeper_runtime::{proc, test_support::wait_until};

use crate::cluster::{Cluster, Shape, WAIT_MAX, signal};

const TOPOLOGY: &str = "
name: flood
config: {topology.workers: 2, topology.acker.executors: 0, topology.subprocess.timeout.secs: 3600}
spouts: [{id: numbers, parallelism: 2, command: [python3, numbers.py], output: [n, text]}]
bolts:
  - {id: relay, parallelism: 2, command: [python3, relay.py], output: [n, text]}
  - {id: sink, parallelism: 2, command: [python3, sink.py], output: []}
streams:
  - {from: numbers, to: relay, grouping: {type: SHUFFLE}}
  - {from: relay, to: sink, grouping: {type: SHUFFLE}}
";

const NUMBERS: &str = "
from stormkeeper import Spout

class Numbers(Spout):
    n = 0

    def next_tuple(self):
        for _ in range(100):
            self.n += 1
            self.emit([self.n, 'x' * 100])

Numbers().run()
";

const RELAY: &str = "
from stormkeeper import BasicBolt

class Relay(BasicBolt):
    def process(self, tup):
        self.emit(tup.values)

Relay().run()
";

const SINK: &str = "
import os
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def initialize(self, conf, context):
        open(f'FOLDER/pid-{os.getpid()}', 'w').close()

    def process(self, tup):
        pass

Sink().run()
";

/// Most memory by which a worker may grow while a bolt stands still: all queues of this topology are full
/// with less than a tenth of it.
const GROWTH_MAX: u64 = 32 << 20;

/// Time for which nothing is emitted before the spouts count as halted.
const HALTED: Duration = Duration::from_secs(3);

#[expect(clippy::disallowed_methods, reason = "the person who measures sets it")]
fn stopped_for() -> Duration {
    let secs = std::env::var("STORMKEEPER_STOPPED_SECS").ok();
    Duration::from_secs(secs.map_or(10, |secs| secs.parse().expect("a number of seconds")))
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_bolt_halts_its_spouts_at_bounded_memory_and_releases_them() {
    let cluster = Cluster::of(Shape::SMALL).await;
    let (folder, pids) = (cluster.path("flood"), cluster.path("flood-pids"));
    fs::create_dir_all(folder.join("resources")).expect("a directory");
    fs::create_dir_all(&pids).expect("a directory");
    for (name, text) in [("numbers.py", NUMBERS), ("relay.py", RELAY), ("sink.py", SINK)] {
        let text = text.replace("FOLDER", &pids.display().to_string());
        fs::write(folder.join("resources").join(name), text).expect("written");
    }
    let file = folder.join("topology.yaml");
    fs::write(&file, TOPOLOGY).expect("written");
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    let workers = cluster.wait_until_whole("flood").await;
    cluster.wait_until_tuples_flow("flood").await;

    let sinks: Vec<u32> = fs::read_dir(&pids)
        .expect("readable")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("pid-")?.parse().ok())
        .collect();
    assert_eq!(sinks.len(), 2, "{sinks:?}");
    sinks.iter().for_each(|pid| signal(*pid, Signal::STOP));

    let resident = || -> BTreeMap<u64, u64> {
        let of = |pid| proc::of_process(pid).expect("readable").expect("it runs").resident_bytes;
        workers.iter().map(|(port, worker)| (*port, of(worker.pid))).collect()
    };
    wait_until_halted(&cluster, &sinks).await;
    let at_first = resident();
    let mut most = at_first.clone();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < stopped_for() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (port, bytes) in resident() {
            let known = most.entry(port).or_default();
            *known = bytes.max(*known);
        }
    }
    let mebibytes = |bytes: &BTreeMap<u64, u64>| -> BTreeMap<u64, u64> {
        bytes.iter().map(|(port, bytes)| (*port, bytes >> 20)).collect()
    };
    eprintln!(
        "resident MiB of the workers when the spouts had halted: {:?}, at most within {:?}: {:?}",
        mebibytes(&at_first),
        stopped_for(),
        mebibytes(&most)
    );
    for (port, bytes) in &most {
        assert!(*bytes < at_first[port] + GROWTH_MAX, "{:?} {:?}", mebibytes(&at_first), mebibytes(&most));
    }

    let before = counts(&cluster);
    sinks.iter().for_each(|pid| signal(*pid, Signal::CONT));
    wait_until("everything flows again", WAIT_MAX, async || {
        let now = counts(&cluster);
        let flows = now.iter().all(|(component, n)| *n > before[component] + 1000);
        if flows { Ok(()) } else { Err(format!("{before:?} {now:?}\n{}", cluster.logs())) }
    })
    .await;
    // The same workers: none was ended.
    assert_eq!(cluster.wait_until_whole("flood").await, workers);
    cluster.ok(&["kill", "flood", "-w", "0s"]);
}

/// Tuples that each component has emitted, and a bolt without output has executed.
fn counts(cluster: &Cluster) -> BTreeMap<String, u64> {
    let shown = cluster.json(&["show", "flood"]);
    let count = |one: &serde_json::Value| {
        let (emitted, executed) = (one["emitted"].as_u64()?, one["executed"].as_u64()?);
        Some((one["id"].as_str()?.to_owned(), if emitted > 0 { emitted } else { executed }))
    };
    shown["components"].as_array().into_iter().flatten().filter_map(count).collect()
}

async fn wait_until_halted(cluster: &Cluster, sinks: &[u32]) {
    let last = std::sync::Mutex::new((BTreeMap::new(), tokio::time::Instant::now()));
    wait_until("the spouts wait", WAIT_MAX, async || {
        let (now, mut last) = (counts(cluster), last.lock().expect("no panic"));
        if now != last.0 {
            *last = (now, tokio::time::Instant::now());
        }
        match last.1.elapsed() >= HALTED + HEARTBEAT {
            true => Ok(()),
            false => Err(format!("{:?} (sinks {sinks:?})\n{}", last.0, cluster.logs())),
        }
    })
    .await;
}

/// Counts are as old as a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(10);
