//! Orderly stops with real processes: a rebalance and a kill lose nothing that was in a queue, process
//! nothing twice, and take no longer than that needs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use stormkeeper_runtime::test_support::wait_until;
use tempfile::TempDir;

use crate::cluster::{Cluster, Process, Shape, WAIT_MAX};

const TOPOLOGY: &str = "
name: orderly
config: {topology.workers: WORKERS, EXTRA topology.acker.executors: ACKERS, topology.message.timeout.secs: 120}
spouts: [{id: numbers, parallelism: ENDS, command: [python3, numbers.py], output: [n]}]
bolts:
  - {id: relay, parallelism: 2, command: [python3, relay.py], output: [n]}
  - {id: sink, parallelism: ENDS, command: [python3, sink.py], output: []}
streams:
  - {from: numbers, to: relay, grouping: {type: SHUFFLE}}
  - {from: relay, to: sink, grouping: {type: SHUFFLE}}
";

/// A spout that writes what it emits, and what becomes of it; each process has numbers of its own.
const NUMBERS: &str = "
import os
from stormkeeper import Spout

DIR = 'FOLDER'

class Numbers(Spout):
    def initialize(self, conf, context):
        self.n = 0
        self.emitted = open(f'{DIR}/emitted-{os.getpid()}', 'a', buffering=1)
        self.acked = open(f'{DIR}/acked-{os.getpid()}', 'a', buffering=1)
        self.failed = open(f'{DIR}/failed-{os.getpid()}', 'a', buffering=1)

    def next_tuple(self):
        for _ in range(10):
            self.n += 1
            name = f'{os.getpid()}-{self.n}'
            self.emitted.write(name + '\\n')
            self.emit([name], id=name)

    def ack(self, id):
        self.acked.write(f'{id}\\n')

    def fail(self, id):
        self.failed.write(f'{id}\\n')

Numbers().run()
";

/// Slower than the spouts, so that queues are full.
const RELAY: &str = "
import time
from stormkeeper import BasicBolt

class Relay(BasicBolt):
    def process(self, tup):
        time.sleep(0.001)
        self.emit(tup.values)

Relay().run()
";

const SINK: &str = "
import os
from stormkeeper import BasicBolt

DIR = 'FOLDER'

class Sink(BasicBolt):
    def initialize(self, conf, context):
        self.seen = open(f'{DIR}/seen-{os.getpid()}', 'a', buffering=1)

    def process(self, tup):
        self.seen.write(tup.values[0] + '\\n')

Sink().run()
";

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_and_kill_lose_no_untracked_tuple_that_was_in_a_queue() {
    check("0", 2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_and_kill_lose_no_tracked_tuple_and_repeat_none() {
    let dir = check("2", 2, 0).await;
    assert_tracked(&dir);
}

/// Of four tasks in two workers, one goes to the third: the other worker runs on.
#[tokio::test(flavor = "multi_thread")]
async fn worker_that_keeps_its_tasks_in_a_rebalance_runs_on_and_no_tracked_tuple_is_lost() {
    let dir = check("2", 1, 1).await;
    assert_tracked(&dir);
}

/// Of six tasks in the four slots of one host, two go to the host that comes.
#[tokio::test(flavor = "multi_thread")]
async fn topology_grows_back_when_a_host_comes_and_no_tracked_tuple_is_lost() {
    let mut cluster = Cluster::of(Shape::SMALL).await;
    let folder = tempfile::tempdir().expect("a directory");
    let dir = folder.path();
    cluster.supervisors[1].terminate();
    // Bounded, so that the relays are through with what is in flight in seconds on a busy machine too.
    let extra =
        "topology.grow.back: true, topology.grow.back.delay.secs: 2, topology.max.spout.pending: 1000,";
    let file = topology(&cluster, dir, ("2", 2, 6), extra);
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    wait_until_seen(&cluster, dir, 1000).await;
    let before = cluster.wait_until_whole("orderly").await;
    assert_eq!(before.len(), 4, "{before:?}");

    cluster.supervisors[1].start_again();
    wait_until("the topology has six workers", WAIT_MAX, async || {
        let shown = cluster.try_json(&["show", "orderly"]).ok_or("no response")?;
        let done = shown["workersTotal"] == 6 && shown["status"] == "active";
        if done { Ok(()) } else { Err(format!("{shown:#}\n{}", cluster.logs())) }
    })
    .await;
    wait_until_replaced(&cluster, &before, (1, 6)).await;
    let events = cluster.ok(&["events"]);
    assert_eq!(events.matches("it grows back from 4 to 6 workers").count(), 2, "{events}");
    stop_and_compare(&cluster, dir, 1).await;
    assert_tracked(&folder);
}

/// Checks that each tuple was acked, once.
fn assert_tracked(dir: &TempDir) {
    let (emitted, acked) = (lines(dir.path(), "emitted"), lines(dir.path(), "acked"));
    assert_eq!(lines(dir.path(), "failed").len(), 0);
    assert!(acked == emitted, "{} emitted, {} acked", emitted.len(), acked.len());
}

/// Runs the topology, with `ends` spouts and as many sinks, through a rebalance and a kill. `n_same` of its
/// workers run on over the rebalance. Returns the folder with what its components wrote.
async fn check(ackers: &str, ends: u32, n_same: usize) -> TempDir {
    let cluster = Cluster::of(Shape::SMALL).await;
    let folder = tempfile::tempdir().expect("a directory");
    let dir = folder.path();
    let file = topology(&cluster, dir, (ackers, ends, 2), "");
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    wait_until_seen(&cluster, dir, 1000).await;
    let before = cluster.wait_until_whole("orderly").await;

    cluster.ok(&["rebalance", "orderly", "-n", "3"]);
    let status = |cluster: &Cluster| {
        let shown = cluster.try_json(&["show", "orderly"]).ok_or("no response")?;
        Ok::<_, String>(shown["status"].as_str().unwrap_or_default().to_owned())
    };
    wait_until("the rebalance is done", WAIT_MAX, async || {
        let status = status(&cluster)?;
        if status == "active" { Ok(()) } else { Err(format!("{status}\n{}", cluster.logs())) }
    })
    .await;
    wait_until_replaced(&cluster, &before, (n_same, 3)).await;
    stop_and_compare(&cluster, dir, 2).await;
    folder
}

/// Waits until the topology has `n_workers`, of which `n_same` are processes of `before`, and checks that
/// these run on while tuples flow.
async fn wait_until_replaced(
    cluster: &Cluster,
    before: &BTreeMap<u64, Process>,
    (n_same, n_workers): (usize, usize),
) {
    let found = || {
        let after = cluster.workers();
        let same = before.iter().filter(|(port, process)| after.get(port) == Some(*process)).count();
        (same, after.len())
    };
    wait_until("workers are replaced", WAIT_MAX, async || {
        let found = found();
        if found == (n_same, n_workers) { Ok(()) } else { Err(format!("{found:?}\n{}", cluster.logs())) }
    })
    .await;
    cluster.wait_until_whole("orderly").await;
    cluster.wait_until_tuples_flow("orderly").await;
    assert_eq!(found(), (n_same, n_workers), "{}", cluster.logs());
}

/// Kills the topology when more tuples have arrived, and checks that each arrived once. `n_drained` changes
/// have waited for the workers.
async fn stop_and_compare(cluster: &Cluster, dir: &Path, n_drained: usize) {
    let seen = lines(dir, "seen").len();
    wait_until_seen(cluster, dir, seen + 1000).await;

    cluster.ok(&["kill", "orderly"]);
    wait_until("the topology is removed", WAIT_MAX, async || {
        let list = cluster.try_json(&["list"]).ok_or("no response")?;
        let is_gone = list["topologies"].as_array().is_some_and(Vec::is_empty);
        if is_gone { Ok(()) } else { Err(format!("{list}\n{}", cluster.logs())) }
    })
    .await;
    let events = cluster.ok(&["events"]);
    // Each waited for its workers, and not for the two minutes of the message timeout.
    assert_eq!(events.matches("its workers have processed all tuples").count(), n_drained, "{events}");

    let (emitted, seen) = (lines(dir, "emitted"), lines(dir, "seen"));
    let missing: Vec<&String> = emitted.keys().filter(|name| !seen.contains_key(*name)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} are lost: {:?}",
        missing.len(),
        emitted.len(),
        &missing[..missing.len().min(20)]
    );
    let twice: Vec<&String> = seen.iter().filter(|(_, n)| **n > 1).map(|(name, _)| name).collect();
    assert!(twice.is_empty(), "seen twice: {twice:?}");
    assert_eq!(emitted.len(), seen.len());
}

fn topology(
    cluster: &Cluster,
    dir: &Path,
    (ackers, ends, workers): (&str, u32, u32),
    extra: &str,
) -> PathBuf {
    let folder = cluster.path("orderly");
    fs::create_dir_all(folder.join("resources")).expect("a directory");
    for (name, text) in [("numbers.py", NUMBERS), ("relay.py", RELAY), ("sink.py", SINK)] {
        let text = text.replace("FOLDER", &dir.display().to_string());
        fs::write(folder.join("resources").join(name), text).expect("written");
    }
    let file = folder.join("topology.yaml");
    let text = TOPOLOGY.replace("ACKERS", ackers).replace("ENDS", &ends.to_string());
    let text = text.replace("WORKERS", &workers.to_string()).replace("EXTRA", extra);
    fs::write(&file, text).expect("written");
    file
}

/// Lines that processes of one kind wrote, each with its number of times.
fn lines(dir: &Path, kind: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(&format!("{kind}-")) {
            continue;
        }
        for line in fs::read_to_string(&path).expect("readable").lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

async fn wait_until_seen(cluster: &Cluster, dir: &Path, n: usize) {
    wait_until("tuples arrive", WAIT_MAX + Duration::from_secs(30), async || {
        let seen = lines(dir, "seen").len();
        if seen >= n { Ok(()) } else { Err(format!("{seen} of {n}\n{}", cluster.logs())) }
    })
    .await;
}
