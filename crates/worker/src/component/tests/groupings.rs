//! Conformance of groupings: one table of rules for emitters and receivers in Rust and in Python, in two
//! workers.

use std::{collections::BTreeMap, fs};

use super::*;
use stormkeeper_model::{TaskId, task_set::TaskSet};
use stormkeeper_stream::{Value, hash};

/// Number of tuples of each stream: a multiple of the number of tasks.
const N: u64 = 240;

/// Number of tasks of each bolt.
const TASKS: u32 = 4;

/// Number of keys. Every other tuple has the first one.
const KEYS: u64 = 30;

fn key_of(n: u64) -> String {
    if n.is_multiple_of(2) { "the".to_owned() } else { format!("k{}", n % KEYS) }
}

/// What the tasks of a bolt received: task, key, number.
type Received = Vec<(u32, String, u64)>;

/// Tasks of a bolt, and those of the emitter's worker among them.
struct Places {
    tasks: Vec<u32>,
    near: Vec<u32>,
}

/// A grouping, and what must hold of what the tasks of its bolt received.
struct Rule {
    name: &'static str,
    grouping: fn() -> serde_json::Value,
    stream: &'static str,
    check: fn(&Received, &Places),
}

const RULES: [Rule; 9] = [
    Rule { name: "shuffle", grouping: || json!({ "type": "shuffle" }), stream: "default", check: is_even },
    Rule { name: "none", grouping: || json!({ "type": "none" }), stream: "default", check: is_even },
    Rule {
        name: "local-or-shuffle",
        grouping: || json!({ "type": "local_or_shuffle" }),
        stream: "default",
        check: |received, places| {
            let near = Places { tasks: places.near.clone(), near: Vec::new() };
            assert!(near.tasks.len() == 2, "half of the tasks are in each worker");
            is_even(received, &near);
        },
    },
    Rule {
        name: "fields",
        grouping: || json!({ "type": "fields", "fields": ["key"] }),
        stream: "default",
        check: is_by_hash,
    },
    Rule {
        name: "partial-key",
        grouping: || json!({ "type": "partial_key", "fields": ["key"] }),
        stream: "default",
        check: is_by_two_hashes,
    },
    Rule {
        name: "all",
        grouping: || json!({ "type": "all" }),
        stream: "default",
        check: |received, places| {
            for task in &places.tasks {
                let mut numbers: Vec<u64> =
                    received.iter().filter(|(to, ..)| to == task).map(|(.., n)| *n).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..N).collect::<Vec<_>>(), "task {task}");
            }
        },
    },
    Rule {
        name: "global",
        grouping: || json!({ "type": "global" }),
        stream: "default",
        check: |received, places| {
            let lowest = places.tasks.iter().min().expect("tasks");
            assert!(received.iter().all(|(to, ..)| to == lowest), "{received:?}");
        },
    },
    Rule {
        name: "direct",
        grouping: || json!({ "type": "direct" }),
        stream: "named",
        // The emitter names the task number `n % TASKS`.
        check: |received, places| {
            for (to, _, n) in received {
                assert_eq!(*to, places.tasks[*n as usize % places.tasks.len()], "{n}");
            }
        },
    },
    // A grouping of the author's own: the emitter computes the documented hash of the key.
    Rule { name: "own-hash", grouping: || json!({ "type": "direct" }), stream: "hashed", check: is_by_hash },
];

/// Checks that each tuple came once, and the tasks have as many of them.
fn is_even(received: &Received, places: &Places) {
    let mut counts: BTreeMap<u32, u64> = places.tasks.iter().map(|task| (*task, 0)).collect();
    for (to, ..) in received {
        *counts.get_mut(to).unwrap_or_else(|| panic!("task {to} is none of {:?}", places.tasks)) += 1;
    }
    assert!(counts.values().all(|n| *n == N / places.tasks.len() as u64), "{counts:?}");
}

fn hash_of(key: &str) -> u64 {
    hash::of_values([&Value::from(key)])
}

fn at(hash: u64, n: usize) -> usize {
    usize::try_from(hash % n as u64).expect("small")
}

fn is_by_hash(received: &Received, places: &Places) {
    let n = places.tasks.len();
    for (to, key, _) in received {
        assert_eq!(*to, places.tasks[at(hash_of(key), n)], "{key}");
    }
    let used: TaskSet = received.iter().map(|(to, ..)| TaskId(*to)).collect();
    assert_eq!(used.iter().count(), n, "the keys are spread over all tasks");
}

fn is_by_two_hashes(received: &Received, places: &Places) {
    let n = places.tasks.len();
    let mut frequent = [0_u64; 2];
    for (to, key, _) in received {
        let hash = hash_of(key);
        let first = at(hash, n);
        let choices = [first, (first + 1 + at(hash::again(hash), n - 1)) % n].map(|at| places.tasks[at]);
        let chosen = choices.iter().position(|choice| choice == to);
        let chosen = chosen.unwrap_or_else(|| panic!("{key} is at {to}, which is none of {choices:?}"));
        if key == "the" {
            frequent[chosen] += 1;
        }
    }
    assert!(frequent.iter().all(|n| *n >= N / 8), "the frequent key is spread over both: {frequent:?}");
}

/// Emits the tuples of all streams.
struct Emit {
    next: u64,
    named: Vec<TaskId>,
    hashed: Vec<Vec<TaskId>>,
}

impl Spout for Emit {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let of = |name: &str| ["rust", "python"].map(|kind| context.tasks_of(&format!("{name}-{kind}")));
        self.named = of("direct").concat();
        self.hashed = of("own-hash").into();
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        if self.next == N {
            return Ok(());
        }
        let (n, key) = (self.next, key_of(self.next));
        out.emit((key.as_str(), n))?;
        for tasks in self.named.chunks(TASKS as usize) {
            let task = tasks[at(n, tasks.len())];
            out.emission().stream("named").direct(task).emit((key.as_str(), n))?;
        }
        for tasks in &self.hashed {
            let task = tasks[at(hash_of(&key), tasks.len())];
            out.emission().stream("hashed").direct(task).emit((key.as_str(), n))?;
        }
        self.next += 1;
        Ok(())
    }
}

/// The same emitter in Python, with the hash as the documents describe it.
const EMIT: &str = r#"
from stormkeeper import Spout

N, KEYS, MASK = 240, 30, (1 << 64) - 1

def own_hash(text):
    hash = 0xcbf29ce484222325
    for byte in b"\x05" + text.encode() + b"\xff":
        hash = ((hash ^ byte) * 0x100000001b3) & MASK
    for factor in (0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53):
        hash ^= hash >> 33
        hash = (hash * factor) & MASK
    return hash ^ (hash >> 33)

class Emit(Spout):
    def initialize(self, conf, context):
        def tasks(component):
            of = context["task->component"]
            return sorted(int(task) for task, id in of.items() if id == component)
        self.n = 0
        self.named = [tasks("direct-" + kind) for kind in ("rust", "python")]
        self.hashed = [tasks("own-hash-" + kind) for kind in ("rust", "python")]

    def next_tuple(self):
        if self.n == N:
            return
        n = self.n
        key = "the" if n % 2 == 0 else "k%d" % (n % KEYS)
        self.emit([key, n])
        for tasks in self.named:
            self.emit([key, n], stream="named", direct_task=tasks[n % len(tasks)])
        for tasks in self.hashed:
            self.emit([key, n], stream="hashed", direct_task=tasks[own_hash(key) % len(tasks)])
        self.n += 1

Emit().run()
"#;

/// Writes what it receives into a file of its component.
const RECEIVE: &str = r#"
from stormkeeper import BasicBolt

class Receive(BasicBolt):
    def initialize(self, conf, context):
        component = context["task->component"][str(context["taskid"])]
        self.task, self.out = context["taskid"], open(component, "a")
    def process(self, tup):
        self.out.write("%d %s %d\n" % (self.task, tup.values[0], tup.values[1]))
        self.out.flush()

Receive().run()
"#;

type Shared = Arc<Mutex<BTreeMap<&'static str, Received>>>;

struct Receive {
    rule: &'static str,
    task: u32,
    received: Shared,
}

impl Bolt for Receive {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.task = context.task().0;
        Ok(())
    }

    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let row = (self.task, tuple.str("key")?.to_owned(), tuple.u64("n")?);
        self.received.lock().expect("no panic").entry(self.rule).or_default().push(row);
        Ok(())
    }
}

fn components(emitter_run: &serde_json::Value) -> serde_json::Value {
    let stream = |direct: bool| json!({ "fields": ["key", "n"], "direct": direct });
    let mut emit = spout();
    emit["run"] = emitter_run.clone();
    emit["outputs"] = json!({ "default": stream(false), "named": stream(true), "hashed": stream(true) });
    let mut components = serde_json::Map::from_iter([("emit".to_owned(), emit)]);
    for Rule { name, grouping, stream, .. } in &RULES {
        let mut in_rust = bolt(TASKS, "emit", grouping());
        let mut in_python = shell_bolt(&["python3", "receive.py"], TASKS, "emit", grouping());
        for one in [&mut in_rust, &mut in_python] {
            one["inputs"][0]["stream"] = json!(stream);
        }
        components.insert(format!("{name}-rust"), in_rust);
        components.insert(format!("{name}-python"), in_python);
    }
    components.into()
}

async fn conform(emitter_run: serde_json::Value) {
    let mut stage = Stage::new(json!({}), components(&emitter_run), 2).await;
    stage.write_resource("emit.py", EMIT);
    stage.write_resource("receive.py", RECEIVE);
    let shared = Shared::default();
    if emitter_run == json!("in_worker") {
        let make = || Emit { next: 0, named: Vec::new(), hashed: Vec::new() };
        stage.options.components.add_spout(id("emit"), make);
    }
    for Rule { name, .. } in &RULES {
        let received = Arc::clone(&shared);
        stage.options.components.add_bolt(id(&format!("{name}-rust")), move || Receive {
            rule: name,
            task: 0,
            received: Arc::clone(&received),
        });
    }
    let workers = stage.start();
    for Rule { name, stream, check, .. } in &RULES {
        let n = if *name == "all" { N * u64::from(TASKS) } else { N };
        for kind in ["rust", "python"] {
            let component = format!("{name}-{kind}");
            stage
                .counts_become(&component, TaskCounts { executed: n, acked: n, ..TaskCounts::default() })
                .await;
            let received = match kind {
                "rust" => shared.lock().expect("no panic").remove(name).unwrap_or_default(),
                _ => {
                    let path = stage.options.spec.code.join("resources").join(&component);
                    let text = fs::read_to_string(path).expect("the file of the component");
                    text.lines().map(read_line).collect()
                }
            };
            let mut numbers: Vec<u64> = received.iter().map(|(.., n)| *n).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!((received.len() as u64, numbers.len() as u64), (n, N), "{component}: each tuple once");
            assert!(received.iter().all(|(_, key, n)| *key == key_of(*n)), "{component}: as emitted");
            println!("{component} on {stream}");
            check(&received, &places(&stage, &component));
        }
    }
    for worker in workers {
        worker.stop().await;
    }
}

fn read_line(line: &str) -> (u32, String, u64) {
    let parts: Vec<&str> = line.split(' ').collect();
    let [task, key, n] = parts[..] else { panic!("{line:?}") };
    (task.parse().expect("a task"), key.to_owned(), n.parse().expect("a number"))
}

fn places(stage: &Stage, component: &str) -> Places {
    let tasks: Vec<u32> = stage.tasks_of(component).iter().map(|task| task.0).collect();
    let emitter = stage.tasks_of("emit").iter().next().expect("one task");
    let near = stage.tasks_beside(emitter);
    let near = tasks.iter().copied().filter(|task| near.contains(TaskId(*task))).collect();
    Places { tasks, near }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grouping_keeps_its_rule_for_an_emitter_in_rust() {
    conform(json!("in_worker")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grouping_keeps_its_rule_for_an_emitter_in_python() {
    conform(json!({ "command": ["python3", "emit.py"] })).await;
}
