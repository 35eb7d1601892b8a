//! Live numbers: seconds after the start, equal to the counts at the end, also after a failover of the
//! nimbus that serves them.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX, kill9, signal},
    exact_counts::SETTINGS,
};

const TOPOLOGY: &str = r#"
name: counted
config: {topology.workers: 2}
spouts: [{id: numbers, parallelism: 1, command: ["python3", "numbers.py"], output: [n]}]
bolts: [{id: sink, parallelism: 3, command: ["python3", "sink.py"], output: []}]
streams: [{from: numbers, to: sink, grouping: {type: SHUFFLE}}]
"#;

/// Emits 2000 numbers in some ten seconds, and then none.
const NUMBERS: &str = "
import time
from stormkeeper import Spout

class Numbers(Spout):
    n = 0

    def next_tuple(self):
        time.sleep(0.005)
        if self.n < 2000:
            self.n += 1
            self.emit([self.n], id=self.n)

Numbers().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        pass

Sink().run()
";

const EMITTED: u64 = 2000;

fn counted(cluster: &Cluster) -> PathBuf {
    let dir = cluster.path("counted");
    std::fs::create_dir_all(dir.join("resources")).expect("a directory");
    for (name, text) in [("numbers.py", NUMBERS), ("sink.py", SINK)] {
        std::fs::write(dir.join("resources").join(name), text).expect("written");
    }
    let file = dir.join("topology.yaml");
    std::fs::write(&file, TOPOLOGY).expect("written");
    file
}

async fn once(cluster: &Cluster, nimbus: usize) -> Result<Value, String> {
    let url = format!("http://{}/api/stormkeeper/v1/topology/counted/live", cluster.api(nimbus));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client.get(url).send().await.map_err(|error| error.to_string())?;
    response.error_for_status().map_err(|error| error.to_string())?.json().await.map_err(|e| e.to_string())
}

fn component<'a>(live: &'a Value, id: &str) -> &'a Value {
    let all = live["components"].as_array().into_iter().flatten();
    all.into_iter().find(|one| one["id"] == id).unwrap_or(&Value::Null)
}

/// A stream of live numbers.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(cluster: &Cluster, nimbus: usize) -> Self {
        let mut stream = TcpStream::connect(cluster.api(nimbus)).await.expect("connected");
        let request = format!(
            "GET /api/stormkeeper/v1/topology/counted/live/events HTTP/1.1\r\nhost: {}\r\n\r\n",
            cluster.api(nimbus)
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        Self(BufReader::new(stream))
    }

    /// Returns the next numbers; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let next = async {
            loop {
                let mut line = String::new();
                if self.0.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    return Some(serde_json::from_str(data).expect("JSON"));
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, next).await.expect("in time")
    }

    async fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let live = self.next().await.expect("more");
                if is_it(&live) {
                    return live;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, found).await.unwrap_or_else(|_| panic!("no event in which {what}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_numbers_come_in_seconds_end_equal_to_the_counts_and_go_on_after_a_failover() {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let file = counted(&cluster);
    cluster.ok(&["submit", file.to_str().expect("text"), "--wait", "--timeout", "50s"]);
    let leading = cluster.leading().await.expect("a leader").nimbus;
    let mut events = Events::open(&cluster, leading).await;
    let is_running = |live: &Value| {
        component(live, "sink")["rates"]["executed"].as_f64().is_some_and(|rate| rate > 0.0)
            && component(live, "numbers")["streams"][0]["emittedRate"].as_f64().is_some_and(|rate| rate > 0.0)
    };
    let first = events.find("both workers have rates", is_running).await;
    assert!(first["ageMs"].as_u64().is_some_and(|age| age < 2_000), "{first}");
    assert_eq!((&first["workersLive"], &first["workersTotal"]), (&2.into(), &2.into()), "{first}");
    // Long before the first minute and, mostly, before the heartbeats of the tasks.
    let shown = cluster.ok(&["show", "counted"]);
    assert!(shown.contains("numbers  live, "), "{shown}");
    let watched = cluster.ok(&["monitor", "counted", "-i", "1s", "-n", "2", "--component", "numbers"]);
    assert!(watched.lines().count() == 3 && watched.contains("/s"), "{watched}");

    // The nimbus dies; the other one serves the same numbers.
    cluster.nimbuses[leading].kill9();
    while events.next().await.is_some() {}
    let mut events = Events::open(&cluster, 1 - leading).await;
    let is_complete = |live: &Value| {
        component(live, "numbers")["counts"]["acked"] == EMITTED
            && component(live, "sink")["counts"]["executed"] == EMITTED
    };
    let last = events.find("all tuples are counted", is_complete).await;
    assert_eq!(component(&last, "numbers")["streams"][0]["emitted"], EMITTED, "{last}");
    assert_eq!(last["tasks"], Value::Null, "events are short");

    // A worker that does not go on is named, and its numbers are not shown.
    let workers = cluster.workers();
    let (_, worker) = workers.first_key_value().expect("a worker");
    signal(worker.pid, Signal::STOP);
    let without = events.find("a worker is missing", |live| live["workersLive"] == 1).await;
    assert_eq!(without["missing"].as_array().map(Vec::len), Some(1), "{without}");
    signal(worker.pid, Signal::CONT);
    events.find("both workers are there again", |live| live["workersLive"] == 2).await;
    // One that is killed counts again from its start.
    kill9(worker.pid);
    let counted = |live: &Value| {
        let count = |id, what| component(live, id)["counts"][what].as_u64().unwrap_or_default();
        count("numbers", "acked") + count("sink", "executed")
    };
    let begins_anew = |live: &Value| live["workersLive"] == 2 && counted(live) < 2 * EMITTED - 100;
    events.find("the new worker has counted little", begins_anew).await;
    let live = wait_until("one answer has all tasks", WAIT_MAX, async || {
        let live = once(&cluster, 1 - leading).await?;
        if live["tasks"].as_array().is_some_and(|tasks| tasks.len() == 4) {
            Ok(live)
        } else {
            Err(live.to_string())
        }
    })
    .await;
    assert!(live["tasks"].as_array().into_iter().flatten().all(|task| task["rates"].is_object()), "{live}");
}
