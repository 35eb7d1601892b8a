//! `stormkeeper logs` and the agents of supervisors: logs are read, searched and followed through any
//! nimbus, and nothing but logs can be read.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::wait_until;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::cluster::{Cluster, Shape, WAIT_MAX, kill9, signal};

const TOPOLOGY: &str = r#"
name: talker
config: {topology.workers: 2}
spouts: [{id: talk, parallelism: 1, command: ["python3", "talk.py"], output: [n]}]
bolts: [{id: sink, parallelism: 3, command: ["python3", "sink.py"], output: []}]
streams: [{from: talk, to: sink, grouping: {type: SHUFFLE}}]
"#;

/// Writes a numbered line with the pid to stderr every few milliseconds.
const TALK: &str = "
import os, sys, time
from stormkeeper import Spout

n = 0

class Talk(Spout):
    def next_tuple(self):
        global n
        sys.stderr.write('said %d %d\\n' % (os.getpid(), n))
        sys.stderr.flush()
        n += 1
        time.sleep(0.02)
        self.emit([n])

Talk().run()
";

const SINK: &str = "
import sys
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        sys.stderr.write('heard\\n')

Sink().run()
";

fn talker(cluster: &Cluster) -> PathBuf {
    let dir = cluster.path("talker");
    fs::create_dir_all(dir.join("resources")).expect("a directory");
    fs::write(dir.join("resources/talk.py"), TALK).expect("written");
    fs::write(dir.join("resources/sink.py"), SINK).expect("written");
    let file = dir.join("topology.yaml");
    fs::write(&file, TOPOLOGY).expect("written");
    file
}

async fn running_talker(cluster: &Cluster) {
    let file = talker(cluster).display().to_string();
    cluster.ok(&["submit", &file, "--wait", "--timeout", "50s"]);
    wait_until("the spout has written lines", WAIT_MAX, async || {
        let lines = cluster.ok(&["logs", "talker", "--component", "talk", "--grep", "said"]);
        if lines.lines().count() > 5 { Ok(()) } else { Err(format!("{lines}\n{}", cluster.logs())) }
    })
    .await;
}

/// A running `stormkeeper logs -f`, which ends with the test.
struct Follower {
    child: Child,
    out: PathBuf,
}

impl Follower {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let (out, errors) = (cluster.path("followed"), cluster.path("followed.errors"));
        let child = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
            .args(["--nimbus", cluster.api(0), "--nimbus", cluster.api(1), "logs", "-f"])
            .args(args)
            .env_remove("STORMKEEPER_CONF")
            .env("XDG_STATE_HOME", cluster.path("state"))
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("created"))
            .stderr(File::create(errors).expect("created"))
            .spawn()
            .expect("the binary runs");
        Self { child, out }
    }

    /// Numbers of the lines of each process of the spout, in the order in which they were printed.
    fn said(&self) -> BTreeMap<u64, Vec<u64>> {
        said(&fs::read_to_string(&self.out).expect("readable"))
    }

    async fn wait_for_processes(&self, n: usize, cluster: &Cluster) {
        wait_until(&format!("lines of {n} processes of the spout"), WAIT_MAX, async || {
            let said = self.said();
            let is_there = said.len() >= n && said.values().all(|numbers| numbers.len() > 10);
            if is_there { Ok(()) } else { Err(format!("{said:?}\n{}", cluster.logs())) }
        })
        .await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        kill9(self.child.id());
        self.child.wait().expect("it is a child of this test");
    }
}

fn said(text: &str) -> BTreeMap<u64, Vec<u64>> {
    let mut said = BTreeMap::<u64, Vec<u64>>::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("stderr: said ") else { continue };
        let mut words = rest.split(' ').map_while(|word| word.parse().ok());
        if let (Some(pid), Some(n)) = (words.next(), words.next()) {
            said.entry(pid).or_default().push(n);
        }
    }
    said
}

fn n_listed_workers(listed: &Value) -> usize {
    listed["supervisors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| it["workers"].as_array().map_or(0, Vec::len))
        .sum()
}

async fn api(cluster: &Cluster, nimbus: usize, path: &str) -> (u16, Value) {
    let client = stormkeeper_api_types::http::client().build().expect("a client");
    let url = format!("http://{}/api/stormkeeper/v1/topology/{path}", cluster.api(nimbus));
    let response = client.get(url).send().await.expect("answered");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_through_any_nimbus_and_followed_over_killed_workers_and_a_lost_host() {
    let mut cluster = Cluster::start().await;
    running_talker(&cluster).await;

    for nimbus in 0..2 {
        let (status, listed) = api(&cluster, nimbus, "talker/logs").await;
        assert_eq!((status, n_listed_workers(&listed)), (200, 2), "{listed}");
    }
    let last = cluster.ok(&["logs", "talker", "-n", "3"]);
    let places: Vec<&str> = last.lines().filter_map(|line| Some(line.split_once(" | ")?.0)).collect();
    assert_eq!(places.len(), 6, "three lines of each of two workers: {last}");
    let grepped = cluster.ok(&["logs", "talker", "--component", "talk", "--grep", "said"]);
    assert!(
        grepped.lines().all(|line| line.contains("component=talk") && line.contains("said")),
        "{grepped}"
    );
    assert_eq!(said(&grepped).len(), 1, "{grepped}");
    let worker = format!("127.0.0.1:{}", cluster.workers().keys().next().expect("a worker"));
    let of_one = cluster.ok(&["logs", "talker", "--worker", &worker]);
    assert!(!of_one.is_empty() && !of_one.contains(" | "), "{of_one}");
    let output = cluster.run(&["logs", "talker", "--component", "none"]);
    assert_eq!(output.status.code(), Some(4));

    let follower = Follower::start(&cluster, &["talker", "--component", "talk", "--grep", "said"]);
    follower.wait_for_processes(1, &cluster).await;
    for process in cluster.workers().values() {
        kill9(process.pid);
    }
    follower.wait_for_processes(2, &cluster).await;
    // The host of the spout is lost: the supervisor and its workers end together.
    let show = cluster.json(&["show", "talker", "--tasks"]);
    let talk = show["tasks"].as_array().into_iter().flatten().find(|task| task["component"] == "talk");
    let port = talk.and_then(|task| task["port"].as_u64()).unwrap_or_else(|| panic!("a place: {show}"));
    let workers = cluster.workers();
    let on = |supervisor: usize| {
        let config = fs::read_to_string(cluster.path(&format!("supervisor-{supervisor}/storm.yaml")));
        config.expect("a configuration").contains(&port.to_string())
    };
    let host = if on(1) { 1 } else { 2 };
    cluster.supervisors[host - 1].kill9();
    let of_host = format!("supervisor-{host}/");
    for process in workers.values() {
        let args = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        if args.contains(&of_host) {
            kill9(process.pid);
        }
    }
    follower.wait_for_processes(3, &cluster).await;
    for (pid, numbers) in &follower.said() {
        let first = numbers[0];
        let expected: Vec<u64> = (first..first + numbers.len() as u64).collect();
        assert_eq!(numbers, &expected, "each line of {pid} is printed once, and none is missing");
    }
    let firsts: Vec<u64> = follower.said().values().map(|numbers| numbers[0]).collect();
    assert!(
        firsts.iter().filter(|first| **first == 0).count() >= 2,
        "new workers from their beginning: {firsts:?}"
    );

    let mut follower = follower;
    signal(follower.child.id(), Signal::INT);
    let status = follower.child.wait().expect("it is a child of this test");
    assert_eq!(status.code(), Some(0), "Ctrl-C ends it cleanly");
}

/// Sends a request as it is, and returns the response.
async fn raw(agent: &str, target: &[u8]) -> String {
    let mut stream = TcpStream::connect(agent).await.expect("the agent listens");
    let head = format!("HTTP/1.1\r\nHost: {agent}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[b"GET ", target, b" ", head.as_bytes()].concat()).await.expect("sent");
    let mut answer = Vec::new();
    // A response to a malformed request may be followed by a reset.
    let _reset = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn agents(cluster: &Cluster) -> Vec<String> {
    let parent = layout::supervisors();
    wait_until("every supervisor announces its agent", WAIT_MAX, async || {
        let names =
            cluster.tree.children(&parent).await.map_err(|error| error.to_string())?.unwrap_or_default();
        let mut agents = Vec::new();
        for name in names {
            let path = parent.child(&name).map_err(|error| error.to_string())?;
            let node =
                cluster.tree.get(&path).await.map_err(|error| error.to_string())?.ok_or("it is gone")?;
            let record: Value = serde_json::from_slice(&node.data).map_err(|error| error.to_string())?;
            agents.extend(record["agent"].as_str().map(str::to_owned));
        }
        if agents.len() == cluster.supervisors.len() { Ok(agents) } else { Err(format!("{agents:?}")) }
    })
    .await
}

/// Returns the files of a download, and checks that none is left unfinished.
fn downloaded(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for of_supervisor in fs::read_dir(dir).expect("a directory") {
        for file in fs::read_dir(of_supervisor.expect("readable").path()).expect("a directory") {
            let path = file.expect("readable").path();
            files.insert(path.clone(), fs::read(path).expect("readable"));
        }
    }
    let hidden = |path: &&PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
    assert_eq!(files.keys().find(hidden), None);
    files
}

/// Returns the newest parts of the logs among downloaded files, by worker.
fn workers_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<(&str, &[u8])> {
    let logs = files.iter().filter_map(|(path, bytes)| {
        let name = path.file_name()?.to_str()?;
        Some((name.strip_suffix("-worker.log")?, bytes.as_slice()))
    });
    logs.collect()
}

/// Returns the log of a worker as it is in the directory of its supervisor.
fn log_on_disk(cluster: &Cluster, worker: &str) -> Vec<u8> {
    let arguments = |process: &crate::cluster::Process| {
        fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default()
    };
    let dir = cluster.workers().values().find_map(|process| {
        let arguments = arguments(process);
        let path = arguments.split('\0').find(|argument| argument.contains(worker))?;
        let (before, _) = path.split_once(worker)?;
        Some(PathBuf::from(before).join(worker))
    });
    fs::read(dir.expect("the worker runs").join("logs/worker.log")).expect("readable")
}

/// Runs `stormkeeper logs talker --download DIR`. Returns its exit status, and its messages.
fn download(cluster: &Cluster, to: &Path, further: &[&str]) -> (Option<i32>, String) {
    let to = to.to_str().expect("UTF-8");
    let output = cluster.run(&[&["logs", "talker", "--download", to], further].concat());
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Downloads the logs of both workers, which are those on the disk, and overwrites them only if told to.
fn download_all(cluster: &Cluster) {
    let all = cluster.path("all");
    let (status, errors) = download(cluster, &all, &[]);
    assert!(status == Some(0) && errors.contains("(1 of "), "{errors}");
    let first = downloaded(&all);
    assert_eq!(workers_of(&first).len(), 2, "the log of each of two workers: {:?}", first.keys());
    for (worker, bytes) in workers_of(&first) {
        let on_disk = log_on_disk(cluster, worker);
        assert!(!bytes.is_empty() && on_disk.starts_with(bytes), "{worker}: {} bytes", bytes.len());
    }
    let (status, errors) = download(cluster, &all, &[]);
    assert!(status == Some(2) && errors.contains("--force"), "{errors}");
    assert_eq!(downloaded(&all), first, "nothing is overwritten");
    let (status, errors) = download(cluster, &all, &["--force"]);
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(workers_of(&downloaded(&all)).len(), 2);
}

/// Downloads the logs of the host that answers.
fn download_some(cluster: &Cluster) {
    let some = cluster.path("some");
    let (status, errors) = download(cluster, &some, &[]);
    assert_eq!(status, Some(5), "{errors}");
    assert!(errors.contains("! the logs on 127.0.0.1 are missing (supervisor "), "{errors}");
    assert_eq!(workers_of(&downloaded(&some)).len(), 1, "that of the other host is kept: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_logs_is_read_and_a_supervisor_that_hangs_is_named() {
    let mut cluster = Cluster::start().await;
    running_talker(&cluster).await;
    let agents = agents(&cluster).await;
    let id = cluster.json(&["list"])["topologies"][0]["id"].as_str().expect("an id").to_owned();
    let port = *cluster.workers().keys().next().expect("a worker");
    let secret = "storm.zookeeper.servers";
    assert!(Path::new(&cluster.path("supervisor-1/storm.yaml")).exists());
    let long = "../".repeat(20_000);
    for agent in &agents {
        for file in [
            "../../../../storm.yaml",
            "..%2f..%2f..%2f..%2fstorm.yaml",
            "%2e%2e/%2e%2e/%2e%2e/%2e%2e/storm.yaml",
            "..%252f..%252fstorm.yaml",
            "..\\..\\storm.yaml",
            "%2fetc%2fpasswd",
            "//etc/passwd",
            "worker.log%00.txt",
            "worker.log/../../worker.json",
            "worker.json",
            "%c0%ae%c0%ae%c0%af",
            &long,
        ] {
            for target in [
                format!("/api/stormkeeper/v1/logs/{id}/{port}/{file}"),
                format!("/api/stormkeeper/v1/logs/{id}/{port}/{file}/download"),
                format!("/api/stormkeeper/v1/logs/{id}/{port}/worker.log?worker={file}"),
                format!("/api/stormkeeper/v1/logs/{file}"),
                format!("/{file}"),
            ] {
                let answer = raw(agent, target.as_bytes()).await;
                let status = answer.split(' ').nth(1).unwrap_or_default();
                let shown = &target[..target.len().min(120)];
                // No answer at all: the head is longer than the server reads.
                let is_refused = status.is_empty() || status.starts_with('4');
                assert!(is_refused, "{shown}: {answer}");
                assert!(!answer.contains(secret) && !answer.contains("root:"), "{shown}: {answer}");
            }
        }
        assert!(raw(agent, b"/\xff\xfe\x00").await.starts_with("HTTP/1.1 400"));
        assert!(raw(agent, b"/live").await.starts_with("HTTP/1.1 200"));
        let page = raw(agent, b"/metrics").await;
        let up = format!(
            "stormkeeper_worker_up{{topology=\"talker\",topology_id=\"{id}\",host=\"127.0.0.1\",port="
        );
        assert!(page.lines().any(|line| line.starts_with(&up) && line.ends_with("} 1")), "{page}");
    }

    let (status, answer) = api(&cluster, 0, "talker/logs/none/1/worker.log").await;
    assert_eq!((status, &answer["code"]), (404, &"unknown_host".into()), "{answer}");
    download_all(&cluster);

    cluster.supervisors[1].freeze();
    download_some(&cluster);
    let output = cluster.run(&["logs", "talker", "-n", "2"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("! the logs on 127.0.0.1 are missing (supervisor "), "{errors}");
    assert!(errors.contains("no answer within") || errors.contains("is not registered"), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "the other worker is shown");
    cluster.supervisors[1].thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn supervisor_whose_agent_port_is_taken_runs_and_says_so_until_the_port_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let settings = format!("supervisor.agent.port: {port}\n");
    let cluster = Cluster::with(Shape { supervisors: 1, ..Shape::SMALL }, &settings).await;
    let file = talker(&cluster).display().to_string();
    cluster.ok(&["submit", &file, "--wait", "--timeout", "50s"]);
    wait_until("the list names the port", WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        let is_named = listed.contains(&format!("cannot listen on 127.0.0.1:{port}"));
        if is_named { Ok(()) } else { Err(format!("{listed}\n{}", cluster.logs())) }
    })
    .await;
    let output = cluster.run(&["logs", "talker"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(5) && errors.contains("it has no agent"), "{errors}");
    drop(taken);
    wait_until("the logs can be read", WAIT_MAX, async || {
        let output = cluster.run(&["logs", "talker"]);
        let is_read = output.status.success() && !output.stdout.is_empty();
        if is_read { Ok(()) } else { Err(format!("{output:?}\n{}", cluster.logs())) }
    })
    .await;
}
