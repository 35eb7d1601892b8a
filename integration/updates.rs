//! Updates of a running, tracked word count with real processes: to code with another behaviour while the
//! leader is killed, without losing or repeating a word; and to code that does not run, which goes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Shape, WAIT_MAX};

const TOPOLOGY: &str = "
name: words
config: {topology.workers: 3, topology.message.timeout.secs: 30, topology.max.spout.pending: 200}
spouts: [{id: lines, parallelism: 3, command: [python3, lines.py], output: [line]}]
bolts:
  - {id: split, parallelism: 3, command: [python3, split.py], output: [word]}
  - {id: count, parallelism: 3, command: [python3, count.py], output: []}
streams:
  - {from: lines, to: split, grouping: {type: SHUFFLE}}
  - {from: split, to: count, grouping: {type: FIELDS, args: [word]}}
";

/// A spout that writes what it emits, and repeats what failed; each process has lines of its own. It emits no
/// new ones once there is a file `stop`.
const LINES: &str = "
import os, time
from stormkeeper import Spout

class Lines(Spout):
    def initialize(self, conf, context):
        self.n = 0
        self.again = []
        self.emitted = open(f'FOLDER/emitted-{os.getpid()}', 'a', buffering=1)

    def next_tuple(self):
        if self.again:
            line = self.again.pop()
            self.emit([line], id=line)
            return
        time.sleep(0.002)
        if os.path.exists('FOLDER/stop'):
            return
        self.n += 1
        line = f'{os.getpid()}-{self.n}'
        self.emitted.write(line + '\\n')
        self.emit([line], id=line)

    def fail(self, id):
        self.again.append(id)

Lines().run()
";

const SPLIT: &str = "
from stormkeeper import BasicBolt

class Split(BasicBolt):
    def process(self, tup):
        for part in ('left', 'right'):
            self.emit([f'{tup.values[0]}-{part}'])

Split().run()
";

/// The sink: a file outside of the cluster, with the version of the code that wrote each word.
const COUNT: &str = "
import os
from stormkeeper import BasicBolt

class Count(BasicBolt):
    def initialize(self, conf, context):
        self.seen = open(f'FOLDER/seen-{os.getpid()}', 'a', buffering=1)

    def process(self, tup):
        self.seen.write(f'{tup.values[0]} VERSION\\n')

Count().run()
";

struct Words {
    cluster: Cluster,
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Words {
    async fn start() -> Self {
        let cluster = Cluster::of(Shape::SMALL).await;
        let folder = tempfile::tempdir().expect("a directory");
        let file = cluster.path("words").join("topology.yaml");
        fs::create_dir_all(cluster.path("words").join("resources")).expect("a directory");
        fs::write(&file, TOPOLOGY).expect("written");
        let words = Self { cluster, folder, file };
        words.write("lines.py", LINES);
        words.write("split.py", SPLIT);
        words.write("count.py", &COUNT.replace("VERSION", "v1"));
        words.cluster.ok(&["submit", &words.file(), "--wait"]);
        words.wait_until_seen("v1", 1000).await;
        words
    }

    fn file(&self) -> String {
        self.file.display().to_string()
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let text = text.replace("FOLDER", &self.dir().display().to_string());
        fs::write(self.cluster.path("words").join("resources").join(name), text).expect("written");
    }

    /// Lines that processes of one kind wrote, each with its number of times.
    fn lines(&self, kind: &str) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for entry in fs::read_dir(self.dir()).expect("readable") {
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

    fn n_seen(&self, version: &str) -> usize {
        self.lines("seen").keys().filter(|line| line.ends_with(version)).count()
    }

    async fn wait_until_seen(&self, version: &str, n: usize) {
        wait_until("words arrive", WAIT_MAX + Duration::from_secs(30), async || {
            let seen = self.n_seen(version);
            if seen >= n { Ok(()) } else { Err(format!("{seen} of {n}\n{}", self.cluster.logs())) }
        })
        .await;
    }

    fn show(&self) -> Result<Value, String> {
        self.cluster.try_json(&["show", "words"]).ok_or_else(|| "no response".to_owned())
    }

    /// Ends the lines, and waits until every word of every line has been seen. Returns how often each was.
    async fn drained(&self) -> BTreeMap<String, usize> {
        fs::write(self.dir().join("stop"), "").expect("written");
        wait_until("every word is seen", WAIT_MAX + Duration::from_secs(60), async || {
            let seen = self.seen();
            let missing: Vec<String> =
                self.emitted().into_iter().filter(|word| !seen.contains_key(word)).collect();
            let few = &missing[..missing.len().min(5)];
            if missing.is_empty() { Ok(()) } else { Err(format!("{} are missing: {few:?}", missing.len())) }
        })
        .await;
        self.seen()
    }

    fn seen(&self) -> BTreeMap<String, usize> {
        let mut words = BTreeMap::new();
        for (line, n) in self.lines("seen") {
            let word = line.rsplit_once(' ').map_or("", |(word, _)| word);
            *words.entry(word.to_owned()).or_default() += n;
        }
        words
    }

    fn emitted(&self) -> BTreeSet<String> {
        let lines = self.lines("emitted");
        lines.keys().flat_map(|line| ["left", "right"].map(|part| format!("{line}-{part}"))).collect()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn update_loses_and_repeats_no_word_although_the_leader_is_killed_in_the_middle() {
    let mut words = Words::start().await;
    let id = words.cluster.json(&["show", "words"])["id"].clone();
    let places = |shown: &Value| shown["workers"].as_array().map_or(0, Vec::len);
    let n_workers = places(&words.cluster.json(&["show", "words"]));

    words.write("count.py", &COUNT.replace("VERSION", "v2"));
    let begun = words.cluster.ok(&["update", "words", &words.file()]);
    assert!(begun.contains("is being updated"), "{begun}");
    for refused in [vec!["rebalance", "words", "-n", "2"], vec!["update", "words", &words.file()]] {
        let refused = words.cluster.run(&refused);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(text(&refused).contains("update"), "{}", text(&refused));
    }
    wait_until("the first worker runs the new code", WAIT_MAX, async || {
        let shown = words.show()?;
        let update = &shown["update"];
        let is_there =
            update["replaced"] == 1 && update["starting"].as_array().is_some_and(|it| it.len() == 1);
        if is_there { Ok(()) } else { Err(format!("{shown}\n{}", words.cluster.logs())) }
    })
    .await;
    let before = words.cluster.leading().await.expect("a leader");
    words.cluster.nimbuses[before.nimbus].kill9();
    words.cluster.wait_for_leader_after(before.term).await;
    wait_until("the update is done", Duration::from_secs(180), async || {
        let shown = words.show()?;
        if shown["update"].is_null() {
            Ok(())
        } else {
            Err(format!("{}\n{}", shown["update"], words.cluster.logs()))
        }
    })
    .await;
    let (v1, v2) = (words.n_seen("v1"), words.n_seen("v2"));
    words.wait_until_seen("v2", v2 + 1000).await;
    assert_eq!(words.n_seen("v1"), v1, "no worker has the former code");

    let shown = words.cluster.json(&["show", "words"]);
    assert_eq!((&shown["id"], places(&shown)), (&id, n_workers));
    let seen = words.drained().await;
    let twice: Vec<&String> = seen.iter().filter(|(_, n)| **n > 1).map(|(word, _)| word).collect();
    assert!(twice.is_empty(), "{} seen twice: {:?}", twice.len(), &twice[..twice.len().min(5)]);
    assert_eq!(seen.len(), words.emitted().len());
    let events = words.cluster.ok(&["events"]);
    for part in [
        "worker 1 of 3, at ",
        "worker 3 of 3, at ",
        "has drained and is replaced",
        "all workers run the new package",
    ] {
        assert!(events.contains(part), "{part}: {events}");
    }
    assert!(!events.contains("has not drained in time"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn update_to_code_that_does_not_run_or_does_not_fit_changes_nothing_in_the_end() {
    let words = Words::start().await;
    let before = words.cluster.workers();
    let (blob, topology) = (words.cluster.json(&["show", "words"])["blob"].clone(), TOPOLOGY);
    fs::write(
        &words.file,
        topology.replace("output: [word]", "output: [term]").replace("args: [word]", "args: [term]"),
    )
    .expect("written");
    let refused = words.cluster.run(&["update", "words", &words.file()]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(
        text(&refused).contains("the bolt split declares the stream default otherwise"),
        "{}",
        text(&refused)
    );
    fs::write(&words.file, topology).expect("written");

    words.write("count.py", "raise SystemExit('this version does not run')");
    let failed = words.cluster.run(&["update", "words", &words.file(), "--wait"]);
    assert_eq!(failed.status.code(), Some(4), "{}\n{}", text(&failed), words.cluster.logs());
    assert!(text(&failed).contains("all workers have the former code again"), "{}", text(&failed));
    let shown = words.cluster.json(&["show", "words"]);
    assert_eq!((&shown["update"], &shown["blob"]), (&Value::Null, &blob));
    let after = words.cluster.workers();
    let same = before.iter().filter(|(port, process)| after.get(*port) == Some(*process)).count();
    assert_eq!((before.len(), after.len(), same), (3, 3, 2), "one worker was replaced, and replaced again");
    words.cluster.wait_until_whole("words").await;
    let v1 = words.n_seen("v1");
    words.wait_until_seen("v1", v1 + 1000).await;
    words.drained().await;
    let events = words.cluster.ok(&["events"]);
    assert!(events.contains("update-failed"), "{events}");
    assert!(events.contains("ends again and again; going back to the former package"), "{events}");
}
