//! Exact counts, groupings and ticks.

use std::{collections::BTreeMap, fs};

use serde_json::json;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{
    heartbeat::{TaskCounts, TaskStatus},
    status::TopologyStatus,
    topology::TaskTable,
};

use super::{Stage, bolt, id, spout};

/// Sends the sentences through `n_workers` and checks all counts.
async fn words_are_counted_exactly(n_workers: usize) {
    let stage = Stage::of_words(n_workers).await;
    let workers = stage.start();
    let lines = stage.lines("words", 600).await;
    let mut tasks_of_word: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in &lines {
        let (word, task) = line.split_once(' ').expect("two columns");
        tasks_of_word.entry(word).or_default().push(task);
    }
    let counts: BTreeMap<&str, usize> =
        tasks_of_word.iter().map(|(word, tasks)| (*word, tasks.len())).collect();
    let w = |n: usize| (0..200).filter(|i| i % 10 == n).count() + (0..200).filter(|i| i % 3 == n).count();
    let expected = [("again", 200), ("w0", w(0)), ("w1", w(1)), ("w2", w(2))];
    let expected =
        expected.into_iter().chain(["w3", "w4", "w5", "w6", "w7", "w8", "w9"].map(|word| (word, 20)));
    assert_eq!(counts, expected.collect());
    for (word, tasks) in &tasks_of_word {
        assert!(tasks.iter().all(|task| task == &tasks[0]), "{word} went to several tasks");
    }
    let counted = TaskCounts { executed: 600, acked: 600, ..TaskCounts::default() };
    stage.counts_become("count", counted).await;
    let split = TaskCounts { emitted: 600, transferred: 600, executed: 200, acked: 200, failed: 0 };
    stage.counts_become("split", split).await;
    let emitted = TaskCounts { emitted: 200, transferred: 200, executed: 200, acked: 200, failed: 0 };
    stage.counts_become("sentences", emitted).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(stage.heartbeats().await, BTreeMap::new(), "heartbeats are removed with their worker");
    for n in 0..n_workers {
        let pids = fs::read_dir(stage.dir.path().join(format!("w{n}/pids"))).expect("readable").count();
        assert_eq!(pids, 0, "pid files are removed with their child");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_counted_in_one_worker() {
    words_are_counted_exactly(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_counted_across_two_workers() {
    words_are_counted_exactly(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_and_direct_emits_reach_their_tasks() {
    let mut receiver = bolt(&["python3", "receiver.py"], 3, "chooser", json!({ "type": "direct" }));
    receiver["settings"] = json!({ "topology.tick.tuple.freq.secs": 0.05 });
    let mut chooser = spout(&["python3", "chooser.py"], &["task"]);
    chooser["outputs"]["default"]["direct"] = true.into();
    let stage = Stage::new(json!({}), json!({ "chooser": chooser, "receiver": receiver }), 1).await;
    stage.write_resource(
        "chooser.py",
        r#"
from stormkeeper import Spout
class Chooser(Spout):
    def initialize(self, conf, context):
        self.n = 0
        tasks = context["task->component"]
        self.tasks = sorted(int(task) for task in tasks if tasks[task] == "receiver")
    def next_tuple(self):
        if self.n < 30:
            task = self.tasks[self.n % 3]
            assert self.emit([task], direct_task=task, need_task_ids=True) == [task]
            self.n += 1
Chooser().run()
"#,
    );
    stage.write_resource(
        "receiver.py",
        r#"
from stormkeeper import BasicBolt, is_tick
class Receiver(BasicBolt):
    def process(self, tup):
        name = "ticks" if is_tick(tup) else "received"
        with open(name, "a") as out:
            out.write("%d %r %d\n" % (self.task_id, tup.values, tup.task))
Receiver().run()
"#,
    );
    let workers = stage.start();
    let mut received = stage.lines("received", 30).await;
    received.sort();
    let expected: Vec<String> =
        [2, 3, 4].iter().flat_map(|task| vec![format!("{task} [{task}] 1"); 10]).collect();
    assert_eq!(received, expected);
    let ticks = stage.lines("ticks", 10).await;
    assert!(ticks.iter().all(|tick| tick.ends_with(" [0.05] -1")), "{ticks:?}");
    // Ticks are acked by the bolt and not counted.
    let counts = TaskCounts { executed: 30, acked: 30, ..TaskCounts::default() };
    stage.counts_become("receiver", counts).await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_table_that_is_changed_under_the_workers_loses_no_tuples() {
    // The last one fits the topology: the same tasks in other components.
    let of_words = Stage::of_words(2).await.table;
    let reversed = of_words.0.iter().rev().map(|(id, tasks)| (id.clone(), tasks.iter().map(|_| 1).sum()));
    let renumbered = serde_json::to_string(&TaskTable::number(reversed)).expect("JSON");
    assert_ne!(renumbered, serde_json::to_string(&of_words).expect("JSON"));
    for wrong in [r#"{"nope":"1-5"}"#, r#"{"sentences":"1"}"#, &renumbered] {
        let stage = Stage::of_words(2).await;
        stage.set_status(TopologyStatus::Inactive).await;
        let workers = stage.start();
        for task in stage.table.tasks().iter() {
            let is_spout = stage.table.component_of(task) == Some(&id("sentences"));
            let status = if is_spout { TaskStatus::Inactive } else { TaskStatus::Running };
            stage.status_becomes(task, status).await;
        }
        let data = format!(r#"{{"v":1,"components":{wrong}}}"#);
        stage.set(&layout::tasks(&stage.options.spec.topology), data.into_bytes()).await;
        stage.set_status(TopologyStatus::Active).await;
        stage.lines("words", 600).await;
        for worker in workers {
            worker.stop().await;
        }
    }
}
