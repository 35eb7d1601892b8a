//! Tests of complete workers on a memory tree, with real child processes.

mod bad_messages;
mod batches;
mod counting;
mod follow;
mod idle;
mod large_tuples;
mod liveness;
mod status;
mod strangers;
mod tracking;

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
    topology::{Ackers, Settings, TaskTable, Topology},
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Wait limit: starting a Python process on a busy host may take seconds.
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
        tasks: stormkeeper_model::task_set::TaskSet::default(),
        withheld_variables: Vec::new(),
        abandoned_after: Duration::from_secs(3600),
        owner: String::new(),
        files: None,
        user: None,
        connections: None,
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
    /// Ackers of the topology, and its message timeout in seconds.
    tracking: (Option<Ackers>, u64),
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

    /// Waits for the failure of the worker.
    pub(crate) async fn error(self) -> Error {
        let ended = tokio::time::timeout(WAIT_MAX, self.ended).await.expect("in time");
        ended.expect("the worker did not panic").expect_err("the worker failed")
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
        Self::tracked((None, 30), settings, components, n_workers).await
    }

    /// As [`Stage::new`], with these ackers and this message timeout in seconds.
    pub(crate) async fn tracked(
        tracking: (Option<Ackers>, u64),
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
        let stage = Self { dir, server, store, options, table, assignment, tracking, clock, tasks };
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
        let table = TasksRecord {
            components: self.table.clone(),
            requests: Default::default(),
            unknown_fields: Default::default(),
        };
        self.create(&layout::storm(id), self.topology_record(TopologyStatus::Active)).await;
        self.create(&layout::tasks(id), record::encode(&table)).await;
        self.create(&layout::assignment(id), record::encode_assignment(&self.assignment)).await;
    }

    pub(crate) async fn create(&self, path: &TreePath, data: Vec<u8>) {
        self.server.connect().create(path, &data, CreateMode::Persistent).await.expect("created");
    }

    pub(crate) async fn set(&self, path: &TreePath, data: Vec<u8>) {
        self.server.connect().set(path, &data, None).await.expect("set");
    }

    fn topology_record(&self, status: TopologyStatus) -> Vec<u8> {
        let (ackers, message_timeout_secs) = self.tracking;
        let blob = BlobKey::of(b"");
        let record = TopologyRecord::sample("t");
        record::encode(&TopologyRecord { status, ackers, message_timeout_secs, blob, ..record })
    }

    async fn set_status(&self, status: TopologyStatus) {
        self.set(&layout::storm(&self.options.spec.topology), self.topology_record(status)).await;
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

    /// Returns the tasks of a component.
    pub(crate) fn tasks_of(&self, component: &str) -> &TaskSet {
        &self.table.0[&id(component)]
    }

    /// Returns the tasks of the worker that has `task`.
    pub(crate) fn tasks_beside(&self, task: TaskId) -> &TaskSet {
        let mut workers = self.assignment.workers.values();
        &workers.find(|worker| worker.tasks.contains(task)).expect("a worker").tasks
    }

    pub(crate) async fn heartbeats(&self) -> BTreeMap<TaskId, TaskHeartbeat> {
        self.store.task_heartbeats(&self.options.spec.topology).await.expect("the tree answers")
    }

    /// Returns the sum of the counts of all tasks of a component.
    pub(crate) async fn counts(&self, component: &str) -> TaskCounts {
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
