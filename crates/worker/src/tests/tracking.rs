//! Tracked tuple trees, with real components and real connections between the workers.

use serde_json::json;
use stormkeeper_model::{heartbeat::TaskCounts, topology::Ackers};

use super::{Stage, bolt, spout};

/// A spout of `conf["n"]` numbers that emits what failed again, and writes what it is told to `told`.
const NUMBERS: &str = r#"
from stormkeeper import Spout
class Numbers(Spout):
    def initialize(self, conf, context):
        self.waiting = list(range(conf["n"]))
    def next_tuple(self):
        if self.waiting:
            id = self.waiting.pop(0)
            self.emit([id], id=id)
            self.tell("emitted", id)
    def ack(self, id):
        self.tell("acked", id)
    def fail(self, id):
        self.tell("failed", id)
        self.waiting.append(id)
    def tell(self, what, id):
        with open("told", "a") as told:
            told.write("%s %d\n" % (what, id))
Numbers().run()
"#;

/// A bolt that emits each number twice, anchored.
const TWICE: &str = r#"
from stormkeeper import BasicBolt
class Twice(BasicBolt):
    def process(self, tup):
        self.emit(tup.values)
        self.emit(tup.values)
Twice().run()
"#;

/// A bolt that fails one of the tuples of each number once, and acks the others.
const FAILS_ONCE: &str = r#"
from stormkeeper import Bolt
class Once(Bolt):
    def initialize(self, conf, context):
        self.seen = set()
    def process(self, tup):
        if tup.values[0] in self.seen:
            self.ack(tup)
        else:
            self.seen.add(tup.values[0])
            self.fail(tup)
Once().run()
"#;

/// A bolt that keeps its tuples until it has as many as `conf["n"]`.
const BATCHES: &str = r#"
from stormkeeper import Bolt
class Batches(Bolt):
    def initialize(self, conf, context):
        self.kept = []
    def process(self, tup):
        self.kept.append(tup)
        if len(self.kept) == self.conf["n"]:
            self.emit(["all"], anchors=self.kept)
            for tup in self.kept:
                self.ack(tup)
            self.kept = []
Batches().run()
"#;

/// A bolt that emits to a stream that it does not have, with the first tuple, and acks all.
const REFUSED_ONCE: &str = r#"
from stormkeeper import Bolt
class Refused(Bolt):
    n = 0
    def process(self, tup):
        self.n += 1
        self.emit(tup.values, anchors=[tup], stream="nowhere" if self.n == 1 else None)
        self.ack(tup)
Refused().run()
"#;

/// A bolt that acks nothing.
const NEVER: &str = r#"
from stormkeeper import Bolt
class Never(Bolt):
    def process(self, tup):
        pass
Never().run()
"#;

/// A bolt that acks each number after three seconds, and asks for that time.
const SLOW: &str = r#"
import time
from stormkeeper import Bolt
class Slow(Bolt):
    def process(self, tup):
        for _ in range(6):
            time.sleep(0.5)
            self.reset_timeout(tup)
        self.ack(tup)
Slow().run()
"#;

/// A bolt that dies with the first tuple that it gets, once.
const DIES: &str = r#"
import os
from stormkeeper import BasicBolt
class Dies(BasicBolt):
    def process(self, tup):
        if not os.path.exists("died"):
            open("died", "w").close()
            os._exit(7)
Dies().run()
"#;

const PER_WORKER: Option<Ackers> = Some(Ackers::PerWorker);

fn emitting(mut bolt: serde_json::Value) -> serde_json::Value {
    bolt["outputs"] = json!({ "default": { "fields": ["n"] } });
    bolt
}

/// The spout and the components after it, each fed by the one before.
async fn stage(
    tracking: (Option<Ackers>, u64),
    settings: serde_json::Value,
    bolts: &[(&str, &str)],
    n_workers: usize,
) -> Stage {
    let mut components = json!({ "numbers": spout(&["python3", "numbers-spout.py"], &["n"]) });
    let mut from = "numbers";
    for (name, _) in bolts {
        let command = format!("{name}.py");
        components[*name] = emitting(bolt(&["python3", &command], 1, from, json!({ "type": "shuffle" })));
        from = name;
    }
    let stage = Stage::tracked(tracking, settings, components, n_workers).await;
    stage.write_resource("numbers-spout.py", NUMBERS);
    for (name, code) in bolts {
        stage.write_resource(&format!("{name}.py"), code);
    }
    stage
}

/// Returns what the spout was told, without the emits, and the numbers of each kind.
fn told(lines: &[String], what: &str) -> Vec<u64> {
    let ids = lines.iter().filter_map(|line| line.strip_prefix(what));
    let mut ids: Vec<u64> = ids.map(|id| id.trim().parse().expect("a number")).collect();
    ids.sort_unstable();
    ids
}

async fn every_number_is_acked_once(ackers: Ackers, n_workers: usize) {
    let bolts = [("a-twice", TWICE), ("b-twice", TWICE), ("c-fails", FAILS_ONCE)];
    let stage = stage((Some(ackers), 30), json!({ "n": 50 }), &bolts, n_workers).await;
    let workers = stage.start();
    // Each number is emitted, failed once, emitted again and acked.
    let lines = stage.lines("told", 200).await;
    let all: Vec<u64> = (0..50).collect();
    assert_eq!((told(&lines, "failed"), told(&lines, "acked")), (all.clone(), all));
    let spout = TaskCounts { emitted: 100, transferred: 100, executed: 100, acked: 50, failed: 50 };
    stage.counts_become("numbers", spout).await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_fails_with_one_of_its_tuples_and_is_acked_with_the_last_one() {
    every_number_is_acked_once(Ackers::PerWorker, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_span_workers() {
    every_number_is_acked_once(Ackers::PerWorker, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_of_a_worker_without_an_acker_are_tracked_by_another_one() {
    every_number_is_acked_once(Ackers::Count(1), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tuple_of_many_anchors_belongs_to_all_their_trees() {
    let bolts = [("a-batches", BATCHES), ("b-fails", FAILS_ONCE)];
    let stage = stage((PER_WORKER, 30), json!({ "n": 20 }), &bolts, 2).await;
    let workers = stage.start();
    let lines = stage.lines("told", 80).await;
    let all: Vec<u64> = (0..20).collect();
    assert_eq!((told(&lines, "failed"), told(&lines, "acked")), (all.clone(), all));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_fails_if_an_emit_is_refused_although_its_anchor_is_acked() {
    let bolts = [("a-refused", REFUSED_ONCE), ("b-twice", TWICE)];
    let stage = stage((PER_WORKER, 600), json!({ "n": 1 }), &bolts, 2).await;
    let workers = stage.start();
    let lines = stage.lines("told", 4).await;
    assert_eq!(lines, ["emitted 0", "failed 0", "emitted 0", "acked 0"]);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spout_with_max_pending_tuples_waits_for_acks() {
    let bolts = [("a-batches", BATCHES)];
    let settings = json!({ "n": 20, "topology.max.spout.pending": 5 });
    let stage = stage((PER_WORKER, 2), settings, &bolts, 1).await;
    let workers = stage.start();
    // The bolt waits for twenty tuples, and the spout for acks of its five: they time out.
    let lines = stage.lines("told", 10).await;
    assert_eq!(told(&lines[..5], "emitted"), [0, 1, 2, 3, 4]);
    assert_eq!(told(&lines[..10], "failed").len(), 5, "{lines:?}");
    let error = stage.error("numbers", "5 tuples were not fully processed within 2 s").await;
    assert!(error.message.contains("topology.message.timeout.secs"), "{error:?}");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn component_that_never_acks_is_reported() {
    let stage = stage((PER_WORKER, 1), json!({ "n": 1 }), &[("a-never", NEVER)], 1).await;
    let workers = stage.start();
    stage.error("a-never", "has neither acked nor failed any of its tuples in 10 s").await;
    stage.error("numbers", "1 tuples were not fully processed within 1 s").await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bolt_that_resets_the_timeout_has_more_time() {
    let stage = stage((PER_WORKER, 2), json!({ "n": 1 }), &[("a-slow", SLOW)], 2).await;
    let workers = stage.start();
    let lines = stage.lines("told", 2).await;
    assert_eq!(lines, ["emitted 0", "acked 0"]);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tuples_of_a_bolt_that_dies_fail_at_once() {
    let stage = stage((PER_WORKER, 600), json!({ "n": 1 }), &[("a-dies", DIES)], 2).await;
    let workers = stage.start();
    let lines = stage.lines("told", 4).await;
    assert_eq!(lines, ["emitted 0", "failed 0", "emitted 0", "acked 0"]);
    for worker in workers {
        worker.stop().await;
    }
}
