//! Lines of workers: sockets of the tests in the place of workers.

use std::{os::unix::fs::symlink, pin::Pin, time::Duration};

use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::{status::SlotStatus, worker_dir};
use stormkeeper_api_types::message::live::AgentLine;
use stormkeeper_metrics::live::{LINE_BYTES_MAX, SOCKET};

const WAIT_MAX: Duration = Duration::from_secs(20);
const TOPOLOGY: &str = "wc-1-100";

struct World {
    dir: tempfile::TempDir,
    status: watch::Sender<Status>,
    live: Live,
    _tasks: Tasks,
}

fn id<T: std::str::FromStr<Err = stormkeeper_model::InvalidId>>(text: &str) -> T {
    text.parse().expect("valid")
}

fn slots(workers: &[(u16, &str)]) -> BTreeMap<Port, SlotStatus> {
    let slot = |(port, worker): &(u16, &str)| {
        let (topology, worker) = (Some(id(TOPOLOGY)), Some(id(worker)));
        let (process, reason) = (None, None);
        (Port(*port), SlotStatus { state: "running", topology, worker, process, reason })
    };
    workers.iter().map(slot).collect()
}

impl World {
    /// A supervisor whose slots have these launches.
    fn new(workers: &[(u16, &str)]) -> Self {
        let (dir, tasks) = (tempfile::tempdir().expect("a directory"), Tasks::default());
        let (status, seen) = watch::channel(Status {
            supervisor: id("sup"),
            has_assignments: true,
            slots: slots(workers),
            problems: Vec::new(),
        });
        for (_, worker) in workers {
            std::fs::create_dir_all(worker_dir::path(dir.path(), &id(worker))).expect("created");
        }
        let live = Live::new(dir.path(), seen, Clock::new(), &tasks);
        Self { dir, status, live, _tasks: tasks }
    }

    fn worker_dir(&self, worker: &str) -> std::path::PathBuf {
        worker_dir::path(self.dir.path(), &id(worker))
    }

    fn listen(&self, worker: &str) -> UnixListener {
        UnixListener::bind(self.worker_dir(worker).join(SOCKET)).expect("bound")
    }

    fn read(&self) -> Lines {
        Lines { stream: Box::pin(self.live.read(&id(TOPOLOGY)).expect("read")), lines: Vec::new() }
    }
}

/// Lines as a nimbus reads them.
struct Lines {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    lines: Vec<AgentLine>,
}

impl Lines {
    async fn next(&mut self) -> AgentLine {
        while self.lines.is_empty() {
            let part = self.stream.next().await.expect("more").expect("read");
            let lines = part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.lines = lines.map(|line| serde_json::from_slice(line).expect("a line")).collect();
        }
        self.lines.remove(0)
    }

    /// Waits for a line of which `pick` returns something.
    async fn find<T>(&mut self, pick: impl Fn(AgentLine) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.next().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, found).await.expect("the line comes in time")
    }

    async fn sample(&mut self) -> String {
        self.find(|line| Some(line.sample?.get().to_owned())).await
    }

    async fn has_problem(&mut self, part: &str) {
        self.find(|line| line.problem?.contains(part).then_some(())).await;
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    tokio::time::timeout(WAIT_MAX, listener.accept()).await.expect("in time").expect("accepted").0
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_share_one_connection_to_a_worker_and_a_later_one_gets_its_last_line_at_once() {
    let world = World::new(&[(6700, "6700-2-00000a")]);
    let listener = world.listen("6700-2-00000a");
    let mut first = world.read();
    let mut worker = accept(&listener).await;
    worker.write_all(b"{\"n\":1}\n").await.expect("written");
    assert_eq!(first.sample().await, r#"{"n":1}"#);
    let mut second = world.read();
    assert_eq!(second.sample().await, r#"{"n":1}"#);
    worker.write_all(b"{\"n\":2}\n").await.expect("written");
    assert_eq!((first.sample().await, second.sample().await), (r#"{"n":2}"#.into(), r#"{"n":2}"#.into()));
    let more = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(more.is_err(), "another connection to the worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_is_left_a_moment_after_its_last_reader_and_a_new_one_connects_again() {
    let world = World::new(&[(6700, "6700-2-00000a")]);
    let listener = world.listen("6700-2-00000a");
    let reader = world.read();
    let mut worker = accept(&listener).await;
    drop(reader);
    let mut bytes = [0; 1];
    let end = tokio::time::timeout(WAIT_MAX, tokio::io::AsyncReadExt::read(&mut worker, &mut bytes));
    assert_eq!(end.await.expect("in time").expect("read"), 0, "the connection has ended");
    assert!(world.live.0.topics().is_empty());
    let _reader = world.read();
    accept(&listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_a_socket_and_one_that_ends_are_named_with_the_reason() {
    let world = World::new(&[(6700, "6700-2-00000a"), (6701, "6701-2-00000a")]);
    let listener = world.listen("6701-2-00000a");
    let mut reader = world.read();
    let line = reader.find(Some).await;
    assert_eq!((line.port, line.sample.is_none()), (Port(6700), true), "{line:?}");
    assert!(line.problem.expect("a reason").contains("does not send live numbers"));
    drop(accept(&listener).await);
    drop(listener);
    let problem = reader.find(|line| line.problem.filter(|_| line.port == Port(6701))).await;
    assert_eq!(problem, "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_that_replaces_another_is_followed_and_the_lines_of_the_other_are_gone() {
    let world = World::new(&[(6700, "6700-2-00000a")]);
    let old = world.listen("6700-2-00000a");
    let mut reader = world.read();
    accept(&old).await.write_all(b"{\"old\":1}\n").await.expect("written");
    assert_eq!(reader.sample().await, r#"{"old":1}"#);
    std::fs::create_dir_all(world.worker_dir("6700-9-00000b")).expect("created");
    let new = world.listen("6700-9-00000b");
    world.status.send_modify(|status| status.slots = slots(&[(6700, "6700-9-00000b")]));
    accept(&new).await.write_all(b"{\"new\":1}\n").await.expect("written");
    reader.find(|line| (line.worker == id("6700-9-00000b") && line.sample.is_some()).then_some(())).await;
    let kept: Vec<WorkerId> = {
        let mut seen = 0;
        let lines = world.live.0.topics()[&id(TOPOLOGY)].lines_since(&mut seen);
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice::<AgentLine>(line).expect("a line").worker).collect()
    };
    assert_eq!(kept, [id("6700-9-00000b")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_socket_or_no_sample_or_too_long_is_a_reason_and_not_followed() {
    let world = World::new(&[(6700, "6700-2-00000a")]);
    let socket = world.worker_dir("6700-2-00000a").join(SOCKET);
    let elsewhere = world.dir.path().join("elsewhere");
    let other = UnixListener::bind(&elsewhere).expect("bound");
    symlink(&elsewhere, &socket).expect("linked");
    let mut reader = world.read();
    reader.has_problem("is no socket").await;
    let connected = tokio::time::timeout(Duration::from_millis(100), other.accept()).await;
    assert!(connected.is_err(), "a link was followed");
    std::fs::remove_file(&socket).expect("removed");
    let listener = world.listen("6700-2-00000a");
    accept(&listener).await.write_all(b"hello\n").await.expect("written");
    reader.has_problem("is no sample").await;
    let mut worker = accept(&listener).await;
    // Fails when the reader has gone away in the middle.
    let _gone = worker.write_all(&vec![b' '; LINE_BYTES_MAX + 10]).await;
    reader.has_problem("longer than").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_without_a_worker_and_readers_beyond_the_limit_are_refused() {
    let world = World::new(&[(6700, "6700-2-00000a")]);
    let refused = |topology: &str| world.live.read(&id(topology)).map(drop).expect_err("refused");
    assert_eq!(refused("other-1-1"), Refused::NoWorker);
    let readers: Vec<Lines> = (0..READERS_MAX).map(|_| world.read()).collect();
    assert_eq!(refused(TOPOLOGY), Refused::Full);
    drop(readers);
    world.read();
}

#[test]
fn reader_that_is_slow_gets_only_the_last_line_of_each_worker() {
    let topic = Topic::new(Clock::new());
    let line = |text: &str| Ok(RawValue::from_string(text.to_owned()).expect("JSON"));
    let worker: WorkerId = id("6700-2-00000a");
    for n in 0..100 {
        topic.put(&worker, Port(6700), line(&n.to_string()));
    }
    let mut seen = 0;
    let text = topic.lines_since(&mut seen);
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1, "{text:?}");
    let last: AgentLine = serde_json::from_slice(&text).expect("a line");
    assert_eq!(last.sample.map(|sample| sample.get().to_owned()).as_deref(), Some("99"));
    assert_eq!(topic.lines_since(&mut seen), "\n", "nothing new");
}
