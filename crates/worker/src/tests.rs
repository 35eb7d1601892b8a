//! Tests of complete workers on a memory tree, with real child processes.

mod bad_messages;

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Ended, Error, Options, run};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, TaskHeartbeat, TasksRecord, TopologyRecord},
        store::Store,
    },
    tree::{CreateMode, Tree, TreePath, memory::MemoryTree},
};
use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestTransport};
use stormkeeper_model::{
    BlobKey, ComponentId, Port, Slot, TaskId, Timestamp,
    assignment::{AssignedWorker, Assignment},
    clock::Clock,
    heartbeat::{TaskCounts, TaskStatus},
    status::TopologyStatus,
    task_set::TaskSet,
    topology::{Settings, TaskTable, Topology},
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Wait limit: starting a Python process on a busy machine may take seconds.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn ingest_client(tree: Arc<dyn Tree>) -> Option<Arc<dyn IngestTransport>> {
    Some(Arc::new(IngestClient::new(Store::new(tree)).expect("made")))
}

/// Returns options of a worker whose directory is `dir`.
pub(super) fn options(dir: &Path) -> Options {
    let spec = LaunchSpec {
        topology: "t-1-100".parse().expect("valid"),
        slot: Slot { supervisor: "s".parse().expect("valid"), port: Port(0) },
        start: Timestamp::from_millis(5),
        worker: "w".parse().expect("valid"),
        host: "127.0.0.1".to_owned(),
        dir: dir.to_owned(),
        code: dir.to_owned(),
        defaults: Settings::new(),
        heartbeat_period: Duration::from_millis(20),
        task_heartbeat_period: Duration::from_millis(20),
        subprocess_timeout: Duration::from_secs(30),
        metric_report_period: Duration::from_secs(60),
        config_file: None,
        overrides: Vec::new(),
    };
    spec.into()
}

/// A topology whose workers run in this process.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: MemoryTree,
    store: Store,
    pub(crate) options: Options,
    table: TaskTable,
    assignment: Assignment,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
}

/// A running worker of a [`Stage`].
pub(crate) struct Running {
    stop: CancellationToken,
    ended: oneshot::Receiver<Result<Ended, Error>>,
}

impl Running {
    async fn ended(self) -> Ended {
        let ended = tokio::time::timeout(WAIT_MAX, self.ended).await.expect("in time");
        ended.expect("the worker did not panic").expect("the worker did not fail")
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert_eq!(self.ended().await, Ended::Stopped);
    }
}

impl Stage {
    /// Submits a topology of `components` and assigns its tasks to `n_workers` in turn.
    pub(crate) async fn new(
        settings: serde_json::Value,
        components: serde_json::Value,
        n_workers: usize,
    ) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut options = options(dir.path());
        options.spec.code = dir.path().join("code");
        fs::create_dir_all(options.spec.code.join("resources")).expect("created");
        let topology = json!({ "name": "t", "settings": settings, "components": components });
        fs::write(options.spec.code.join("topology.json"), topology.to_string()).expect("written");
        let topology: Topology = serde_json::from_value(topology).expect("a topology");
        let table =
            TaskTable::number(topology.components.iter().map(|(id, one)| (id.clone(), one.parallelism)));
        // All ports stay bound until the last is found, so that no port is found twice.
        let ports: Vec<TcpListener> =
            (0..n_workers).map(|_| TcpListener::bind("0.0.0.0:0").expect("a free port")).collect();
        let mut assignment = Assignment::default();
        for (n, port) in ports.iter().enumerate() {
            let port = Port(port.local_addr().expect("bound").port());
            let slot = Slot { supervisor: options.spec.slot.supervisor.clone(), port };
            let tasks: TaskSet = table.tasks().iter().skip(n).step_by(n_workers).collect();
            let worker = AssignedWorker { host: options.spec.host.clone(), tasks, start: options.spec.start };
            assignment.workers.insert(slot, worker);
        }
        let server = MemoryTree::new();
        let store = Store::new(server.connect());
        let (clock, tasks) = (Clock::new(), Tasks::default());
        let stage = Self { dir, server, store, options, table, assignment, clock, tasks };
        stage.write_records().await;
        stage
    }

    /// 200 sentences of three words each: one spout task, two tasks that split, two that count.
    pub(crate) async fn of_words(n_workers: usize) -> Self {
        let shuffle = json!({ "type": "shuffle" });
        let mut split = bolt(&["python3", "split.py"], 2, "sentences", shuffle);
        split["outputs"] = json!({ "default": { "fields": ["word"] } });
        let by_word = json!({ "type": "fields", "fields": ["word"] });
        let components = json!({
            "sentences": spout(&["python3", "sentences.py"], &["sentence"]),
            "split": split,
            "count": bolt(&["python3", "count.py"], 2, "split", by_word),
        });
        let stage = Self::new(json!({}), components, n_workers).await;
        stage.write_resource("sentences.py", SENTENCES);
        stage.write_resource("split.py", SPLIT);
        stage.write_resource("count.py", COUNT);
        stage
    }

    async fn write_records(&self) {
        self.store.ensure_layout().await.expect("created");
        let id = &self.options.spec.topology;
        for path in [layout::taskbeats(id), layout::last_errors(id)] {
            self.server.connect().ensure(&path).await.expect("created");
        }
        let table = TasksRecord { components: self.table.clone(), unknown_fields: Default::default() };
        self.create(&layout::storm(id), topology_record(TopologyStatus::Active)).await;
        self.create(&layout::tasks(id), record::encode(&table)).await;
        self.create(&layout::assignment(id), record::encode_assignment(&self.assignment)).await;
    }

    pub(crate) async fn create(&self, path: &TreePath, data: Vec<u8>) {
        self.server.connect().create(path, &data, CreateMode::Persistent).await.expect("created");
    }

    pub(crate) async fn set(&self, path: &TreePath, data: Vec<u8>) {
        self.server.connect().set(path, &data, None).await.expect("set");
    }

    async fn set_status(&self, status: TopologyStatus) {
        self.set(&layout::storm(&self.options.spec.topology), topology_record(status)).await;
    }

    pub(crate) fn write_resource(&self, name: &str, text: &str) {
        fs::write(self.options.spec.code.join("resources").join(name), text).expect("written");
    }

    /// Starts all assigned workers.
    pub(crate) fn start(&self) -> Vec<Running> {
        let start = |(n, slot): (usize, &Slot)| {
            let mut options = self.options.clone();
            options.spec.slot = slot.clone();
            options.spec.worker = format!("w{n}").parse().expect("valid");
            options.spec.dir = self.dir.path().join(format!("w{n}"));
            fs::create_dir_all(options.spec.dir.join("pids")).expect("created");
            let (stop, (send, ended)) = (CancellationToken::new(), oneshot::channel());
            let ingest = ingest_client(self.server.connect());
            let worker = run(options, self.server.connect(), ingest, self.clock.clone(), stop.clone());
            self.tasks.start("worker", OnExit::Ignore, async {
                // Fails if the test has ended already.
                let _over = send.send(Box::pin(worker).await);
            });
            Running { stop, ended }
        };
        self.assignment.workers.keys().enumerate().map(start).collect()
    }

    async fn heartbeats(&self) -> BTreeMap<TaskId, TaskHeartbeat> {
        self.store.task_heartbeats(&self.options.spec.topology).await.expect("the tree answers")
    }

    /// Returns the sum of the counts of all tasks of a component.
    async fn counts(&self, component: &str) -> TaskCounts {
        let (component, beats) = (id(component), self.heartbeats().await);
        let mut total = TaskCounts::default();
        for task in self.table.0[&component].iter() {
            total += beats.get(&task).map(|beat| beat.counts).unwrap_or_default();
        }
        total
    }

    pub(crate) async fn counts_become(&self, component: &str, expected: TaskCounts) {
        wait_until(&format!("{component} counts {expected:?}"), WAIT_MAX, || async {
            let counts = self.counts(component).await;
            if counts == expected { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    async fn status_becomes(&self, task: TaskId, status: TaskStatus) {
        wait_until(&format!("task {task} is {status:?}"), WAIT_MAX, || async {
            let beat = self.heartbeats().await.get(&task).map(|beat| beat.status);
            if beat == Some(status) { Ok(()) } else { Err(format!("{beat:?}")) }
        })
        .await;
    }

    /// Waits until the last error of a component contains `part`, and returns the error.
    pub(crate) async fn error(&self, component: &str, part: &str) -> stormkeeper_model::error::TaskError {
        wait_until(&format!("{component} has an error with {part:?}"), WAIT_MAX, || async {
            let errors =
                self.store.last_errors(&self.options.spec.topology).await.map_err(|e| e.to_string())?;
            let error = errors.get(&id(component)).ok_or("no error")?;
            if error.message.contains(part) { Ok(error.clone()) } else { Err(format!("{error:?}")) }
        })
        .await
    }

    /// Waits until a file in the components' directory has `n` lines, and returns its lines.
    pub(crate) async fn lines(&self, name: &str, n: usize) -> Vec<String> {
        let path = self.options.spec.code.join("resources").join(name);
        wait_until(&format!("{name} has {n} lines"), WAIT_MAX, || async {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= n { Ok(lines) } else { Err(format!("{} lines", lines.len())) }
        })
        .await
    }
}

pub(crate) fn id(component: &str) -> ComponentId {
    component.parse().expect("valid")
}

fn topology_record(status: TopologyStatus) -> Vec<u8> {
    record::encode(&TopologyRecord { status, blob: BlobKey::of(b""), ..TopologyRecord::sample("t") })
}

pub(crate) fn spout(command: &[&str], fields: &[&str]) -> serde_json::Value {
    json!({ "kind": "spout", "parallelism": 1, "run": { "command": command },
            "outputs": { "default": { "fields": fields } } })
}

pub(crate) fn bolt(
    command: &[&str],
    parallelism: u32,
    from: &str,
    grouping: serde_json::Value,
) -> serde_json::Value {
    json!({ "kind": "bolt", "parallelism": parallelism, "run": { "command": command },
            "inputs": [{ "from": from, "stream": "default", "grouping": grouping }] })
}

/// A spout of 200 sentences of three words, with ids.
const SENTENCES: &str = r#"
from stormkeeper import Spout
class Sentences(Spout):
    def initialize(self, conf, context):
        self.n, self.acked = 0, []
    def next_tuple(self):
        if self.n < 200:
            self.emit(["w%d w%d again" % (self.n % 10, self.n % 3)], id=self.n)
            self.n += 1
    def ack(self, id):
        assert id == len(self.acked), "acks are in order"
        self.acked.append(id)
Sentences().run()
"#;

const SPLIT: &str = r#"
from stormkeeper import BasicBolt
class Split(BasicBolt):
    def process(self, tup):
        for word in tup.values[0].split():
            assert len(self.emit([word], need_task_ids=True)) == 1
Split().run()
"#;

const COUNT: &str = r#"
from stormkeeper import BasicBolt
class Count(BasicBolt):
    def process(self, tup):
        with open("words", "a") as words:
            words.write("%s %d\n" % (tup.values[0], self.task_id))
Count().run()
"#;

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
async fn failed_child_is_reported_and_other_tasks_continue() {
    let all = || json!({ "type": "all" });
    let silent = r#"read hello; printf '{"pid":1}\nend\n'; exec sleep 1000"#;
    let mut components = json!({
        "lines": spout(&["python3", "lines.py"], &["line"]),
        "garbage": bolt(&["sh", "-c", "echo what is this"], 1, "lines", all()),
        "leaver": bolt(&["sh", "-c", "echo oh no >&2; exit 3"], 1, "lines", all()),
        "silent": bolt(&["sh", "-c", silent], 1, "lines", all()),
        "missing": bolt(&["no-such-program"], 1, "lines", all()),
        "liar": bolt(&["python3", "liar.py"], 1, "lines", all()),
        "fine": bolt(&["python3", "fine.py"], 1, "lines", all()),
    });
    let settings = json!({ "topology.subprocess.timeout.secs": 10 });
    components["silent"]["settings"] = json!({ "topology.subprocess.timeout.secs": 0.2 });
    let stage = Stage::new(settings, components, 1).await;
    stage.write_resource(
        "lines.py",
        "from stormkeeper import Spout\nclass Lines(Spout):\n    def next_tuple(self): self.emit(['x'])\nLines().run()\n",
    );
    stage.write_resource(
        "liar.py",
        "from stormkeeper import Bolt\nclass Liar(Bolt):\n    def process(self, tup):\n        self.ack(tup)\n        self.ack(tup)\nLiar().run()\n",
    );
    stage.write_resource(
        "fine.py",
        "from stormkeeper import BasicBolt\nclass Fine(BasicBolt):\n    def process(self, tup):\n        self.log('fine')\nFine().run()\n",
    );
    let workers = stage.start();
    let error = stage.error("garbage", "what is this").await;
    let expected = "task 2 of garbage: refused a message (a line on stdout that is not a multilang message)";
    assert!(error.message.starts_with(expected), "{error:?}");
    let error = stage.error("leaver", "exit status: 3").await;
    assert_eq!(error.stack, "oh no");
    stage.error("silent", "no message for 200ms").await;
    stage.error("missing", "cannot start [\"no-such-program\"]").await;
    // The spout starts although some tasks never come up, and the fine bolt works.
    wait_until("the fine bolt acks", WAIT_MAX, || async {
        let counts = stage.counts("fine").await;
        if counts.acked > 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    stage.error("liar", "sent \"ack\" for tuple").await;
    // One bad message costs one message.
    let acked = stage.counts("liar").await.acked;
    wait_until("the liar goes on", WAIT_MAX, || async {
        let counts = stage.counts("liar").await;
        if counts.acked > acked && counts.failed == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
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

/// A spout that records the commands it receives and emits without end.
const COMMAND_LOG: &str = r#"
from stormkeeper import Spout
class Diary(Spout):
    def note(self, text):
        with open("diary", "a") as out:
            out.write(text + "\n")
    def next_tuple(self):
        self.emit([1])
    def activate(self):
        self.note("activate")
    def deactivate(self):
        self.note("deactivate")
    def cleanup(self):
        self.note("cleanup")
Diary().run()
"#;

/// Waits for `n` more heartbeats of a worker.
async fn after_heartbeats(heartbeat: &Path, n: u64) {
    let read = || -> Option<u64> { fs::read_to_string(heartbeat).ok()?.split(' ').nth(1)?.parse().ok() };
    let before = read().expect("a heartbeat");
    wait_until("the worker continues", WAIT_MAX, || async move {
        read().filter(|beat| *beat >= before + n).ok_or("it has stopped".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_controls_the_spouts_and_the_assignment_ends_the_worker() {
    let components = json!({ "diary": spout(&["python3", "diary.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    stage.write_resource("diary.py", COMMAND_LOG);
    let mut workers = stage.start();
    let heartbeat = stage.dir.path().join("w0/heartbeat");
    stage.status_becomes(TaskId(1), TaskStatus::Running).await;
    stage.lines("diary", 1).await;
    stage.set_status(TopologyStatus::Inactive).await;
    stage.status_becomes(TaskId(1), TaskStatus::Inactive).await;
    assert_eq!(stage.lines("diary", 2).await, ["activate", "deactivate"]);
    after_heartbeats(&heartbeat, 5).await;
    let still = stage.counts("diary").await;
    after_heartbeats(&heartbeat, 10).await;
    assert_eq!(stage.counts("diary").await, still, "an inactive spout is not called");

    stage.set_status(TopologyStatus::Active).await;
    stage.lines("diary", 3).await;
    // An unavailable tree and an unreadable record change nothing.
    stage.set(&layout::assignment(&stage.options.spec.topology), b"by hand".to_vec()).await;
    stage.server.set_online(false);
    after_heartbeats(&heartbeat, 10).await;
    stage.server.set_online(true);
    let before = stage.counts("diary").await;
    wait_until("the spout continues", WAIT_MAX, || async {
        let counts = stage.counts("diary").await;
        if counts.emitted > before.emitted { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;

    let mut elsewhere = stage.assignment.clone();
    elsewhere.workers.values_mut().for_each(|worker| worker.start = Timestamp::from_millis(6));
    let data = record::encode_assignment(&elsewhere);
    stage.set(&layout::assignment(&stage.options.spec.topology), data).await;
    assert_eq!(workers.remove(0).ended().await, Ended::Unassigned);
    assert_eq!(stage.lines("diary", 5).await[2..], ["activate", "deactivate", "cleanup"]);
    assert_eq!(stage.heartbeats().await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_assignment_or_topology_file_does_not_start() {
    let components = json!({ "diary": spout(&["python3", "diary.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    let mut options = stage.options.clone();
    options.spec.dir = stage.dir.path().join("w0");
    fs::create_dir_all(&options.spec.dir).expect("created");
    let tree: Arc<_> = stage.server.connect();
    let ended = run(options.clone(), tree.clone(), None, Clock::new(), CancellationToken::new()).await;
    assert_eq!(ended.expect("no failure"), Ended::Unassigned);
    options.spec.code = stage.dir.path().join("nothing");
    let failure =
        run(options, tree, None, Clock::new(), CancellationToken::new()).await.expect_err("no code");
    assert!(failure.to_string().contains("nothing/topology.json"), "{failure}");
}
