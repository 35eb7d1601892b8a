//! The sample in `zk-layout.md`: the output of zkCli on a cluster that runs the word count. The test
//! prints it again, and compares the form of each record with the document; with `UPDATE=1` it
//! replaces the sample if the form differs.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::{assert_generated_form, wait_until};

use crate::{
    cluster::{Cluster, Process, ROOT, Shape, WAIT_MAX, kill9},
    exact_counts::SETTINGS,
    locked::Keys,
};

/// The znode whose value zkCli prints between the answers of two commands, outside of the tree.
const SEPARATOR: &str = "/separator";
const SEPARATOR_LINE: &str = "==========";

/// Runs zkCli with these commands; returns its answer to each.
pub(crate) fn zk_cli(server: &str, commands: &[String]) -> Vec<String> {
    let mut cli = Command::new("java")
        .args(["-Xmx64m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"])
        .args(["-Dzookeeper.jline.disable=true", "-cp"])
        .arg("/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar")
        .args(["org.apache.zookeeper.ZooKeeperMain", "-waitforconnection", "-server", server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("zkCli starts");
    let (create, delete) =
        (format!("create {SEPARATOR} {SEPARATOR_LINE}\n"), format!("delete {SEPARATOR}\n"));
    let separator = format!("get {SEPARATOR}\n");
    let script: String = commands.iter().map(|command| format!("{separator}{command}\n")).collect();
    let mut input = cli.stdin.take().expect("it is piped");
    input.write_all(format!("{create}{script}{separator}{delete}quit\n").as_bytes()).expect("written");
    drop(input);
    let output = cli.wait_with_output().expect("zkCli ends");
    let output = String::from_utf8(output.stdout).expect("the records are UTF-8");
    let line = format!("{SEPARATOR_LINE}\n");
    let answers: Vec<String> = output.split(&line).skip(1).map(str::to_owned).collect();
    assert_eq!(answers.len(), commands.len() + 1, "{output}");
    answers[..commands.len()].to_vec()
}

/// Returns the form of a line: numbers, ids and texts are replaced, names of fields stay.
fn form(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(record @ Value::Object(_)) => form_of(&record).to_string(),
        _ => without_numbers(line),
    }
}

fn form_of(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (without_numbers(key), form_of(value))).collect()
        }
        // All entries of a list have one form.
        Value::Array(entries) => entries.first().map(form_of).into_iter().collect(),
        Value::Number(_) => 0.into(),
        Value::String(_) => "text".into(),
        Value::Bool(_) | Value::Null => value.clone(),
    }
}

/// Replaces each word that contains a digit.
fn without_numbers(text: &str) -> String {
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| match word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()) {
            id if id.contains(|c: char| c.is_ascii_digit()) => word.replace(id, "0"),
            _ => word.to_owned(),
        })
        .collect()
}

/// Returns the name of a znode's only child, or of the first.
async fn first_child(cluster: &Cluster, parent: &str) -> Result<String, String> {
    let path = format!("/{parent}").parse().expect("valid path");
    let children = cluster.tree.children(&path).await.map_err(|error| error.to_string())?;
    children.unwrap_or_default().into_iter().min().ok_or_else(|| format!("{ROOT}/{parent} has no child"))
}

/// Brings the cluster into the state of the sample: a second leader, a killed component; a drain and
/// the stop of a supervisor follow. Returns the topology id.
async fn prepare(cluster: &mut Cluster) -> String {
    let file = cluster.example(
        "word-count",
        &[("word.count.repeat: 1", "word.count.repeat: 0"), ("word.count.rate: 0", "word.count.rate: 20")],
    );
    cluster.ok(&["submit", file.to_str().expect("UTF-8")]);
    cluster.wait_until_whole("word-count").await;
    let id = cluster.json(&["show", "word-count"])["id"].as_str().expect("an id").to_owned();

    let leading = cluster.leading().await.expect("there is a leader");
    cluster.nimbuses[leading.nimbus].kill9();
    cluster.wait_for_leader_after(leading.term).await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_nimbuses_registered().await;
    cluster.wait_until_ready().await;

    let runs_split = |process: &Process| {
        fs::read_to_string(format!("/proc/{}/cmdline", process.pid))
            .is_ok_and(|line| line.contains("split.py"))
    };
    let split = cluster.worker_processes().into_iter().find(runs_split);
    kill9(split.expect("a component runs").pid);
    wait_until("the death of the component is a task error", WAIT_MAX, async || {
        first_child(cluster, &format!("taskerrors/{id}/last")).await.map(drop)
    })
    .await;
    wait_until("both nimbuses have the blob", WAIT_MAX, async || {
        let blob = first_child(cluster, "blobs").await?;
        let path = format!("/blobs/{blob}").parse().expect("valid path");
        let holders = cluster.tree.children(&path).await.map_err(|error| error.to_string())?;
        let holders = holders.unwrap_or_default();
        if holders.len() == 2 { Ok(()) } else { Err(format!("{holders:?}")) }
    })
    .await;
    wait_until("the metas are published", WAIT_MAX, async || {
        let path = format!("/metrics/{id}").parse().expect("valid path");
        let node = cluster.tree.get(&path).await.map_err(|error| error.to_string())?;
        node.filter(|node| !node.data.is_empty()).map(drop).ok_or_else(|| "no metas".to_owned())
    })
    .await;
    id
}

/// Commands of the sample, for this cluster.
async fn commands(cluster: &Cluster, id: &str) -> Vec<String> {
    let child = async |parent: &str| first_child(cluster, parent).await.expect("there is one");
    let (supervisor, nimbus) = (child("supervisors").await, child("nimbuses").await);
    let (task, blob) = (child(&format!("taskbeats/{id}")).await, child("blobs").await);
    let errors = child(&format!("taskerrors/{id}")).await;
    let error = child(&format!("taskerrors/{id}/{errors}")).await;
    let holder = child(&format!("blobs/{blob}")).await;
    [
        ("ls", String::new()),
        ("get", "/layout".to_owned()),
        ("get", "/leader".to_owned()),
        ("get", "/term".to_owned()),
        ("get", "/tree-id".to_owned()),
        ("get", format!("/nimbuses/{nimbus}")),
        ("get", format!("/supervisors/{supervisor}")),
        ("get", format!("/stopped-supervisors/{}", child("stopped-supervisors").await)),
        ("get", format!("/storms/{id}")),
        ("get", format!("/tasks/{id}")),
        ("get", format!("/assignments/{id}")),
        ("get", format!("/credentials/{id}")),
        ("get", format!("/supervisor-assignments/{supervisor}")),
        ("ls", format!("/taskbeats/{id}")),
        ("get", format!("/taskbeats/{id}/{task}")),
        ("ls -R", format!("/blobs/{blob}")),
        ("get", format!("/blobs/{blob}/{holder}")),
        ("ls -R", format!("/taskerrors/{id}")),
        ("get", format!("/taskerrors/{id}/{errors}/{error}")),
        ("get", format!("/taskerrors/{id}/last/split")),
        ("get", format!("/events/{}", child("events").await)),
        ("get", "/metric-log".to_owned()),
        ("get", format!("/metrics/{id}")),
        ("get", "/drains/127.0.0.1".to_owned()),
    ]
    .map(|(command, path)| format!("{command} {ROOT}{path}"))
    .to_vec()
}

/// Returns the row of the table of znodes that `path` belongs to.
fn kind_of(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.strip_prefix(ROOT)?.split('/').collect();
    let is_kind = |row: &&str| {
        let row: Vec<&str> = row.split('/').collect();
        let is_same = |(row, part): (&&str, &&str)| row.starts_with('{') || row == part;
        row.len() == parts.len() && row.iter().zip(&parts).all(is_same)
    };
    let rows = layout::TABLE.iter().map(|row| row.path).filter(is_kind);
    rows.min_by_key(|row| row.matches('{').count())
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_in_the_documentation_has_the_form_of_real_records() {
    let keys = Keys::new();
    let secret =
        format!("storm.cluster.secret.file: {}\nstorm.access: open\n", keys.path("secret").display());
    let mut cluster = Cluster::with(Shape::SMALL, &format!("{SETTINGS}{secret}")).await;
    let id = prepare(&mut cluster).await;
    cluster.ok(&["credentials", "word-count", "db.password=not-shown"]);
    cluster.ok(&["drain", "127.0.0.1", "--spout-wait", "3s"]);
    // Its workers run on.
    let status = cluster.supervisors[1].terminate();
    assert!(status.success(), "{status}");
    let commands = commands(&cluster, &id).await;
    let kinds: BTreeSet<_> = commands.iter().filter_map(|one| kind_of(one.split(' ').next_back()?)).collect();
    let all: BTreeSet<_> = layout::TABLE.iter().map(|row| row.path).collect();
    assert_eq!(kinds, all, "the sample shows a znode of each kind");

    let answers = zk_cli(&cluster.zookeeper.servers[0].address(), &commands);
    let shown = commands.iter().zip(answers).map(|(command, answer)| format!("[zk] {command}\n{answer}"));
    let sample = format!("```text\n{}```\n", shown.collect::<Vec<_>>().join("\n"));
    assert_generated_form("zk-layout.md", "sample", &sample, |text| {
        text.lines().map(form).collect::<Vec<_>>().join("\n")
    });
}
