//! Owners of topologies in a locked cluster, and what is theirs alone.

use std::{fs, path::Path};

use reqwest::StatusCode;
use serde_json::{Value, json};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX, kill9},
    locked::Keys,
};

/// Topology whose spout copies the file with its credentials to `OUT`, again and again.
const TOPOLOGY: &str = r#"
name: NAME
config: {topology.workers: 1, out: OUT}
spouts: [{id: copy, command: ["python3", "copy.py"], output: [n]}]
bolts: [{id: sink, command: ["python3", "sink.py"], output: []}]
streams: [{from: copy, to: sink, grouping: {type: SHUFFLE}}]
"#;

const COPY: &str = r#"
import os, time
from stormkeeper import Spout

class Copy(Spout):
    def initialize(self, conf, context):
        self.path = os.environ["STORMKEEPER_CREDENTIALS_FILE"]
        assert self.path == conf["stormkeeper.credentials.file"]
        self.out = conf["out"]

    def next_tuple(self):
        with open(self.path) as file:
            text = file.read()
        with open(self.out + ".tmp", "w") as out:
            out.write(text)
        os.replace(self.out + ".tmp", self.out)
        time.sleep(0.05)

Copy().run()
"#;

const SINK: &str = "from stormkeeper import Bolt\n\nBolt().run()\n";

/// Submits in parts, as programs do by Storm's API. Returns the status and the answer.
async fn submit_in_parts(api: &str, token: &str, (name, out): (&str, &Path)) -> (StatusCode, Value) {
    let out = format!("{:?}", out.display().to_string());
    let topology = TOPOLOGY.replace("NAME", name).replace("OUT", &out);
    let mut body = String::new();
    for (part, file, content) in [
        ("topology", Some("topology.yaml"), topology.as_str()),
        ("owner", None, "mallory"),
        ("resource", Some("copy.py"), COPY),
        ("resource", Some("sink.py"), SINK),
    ] {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body +=
            &format!("--x-y\r\ncontent-disposition: form-data; name=\"{part}\"{file}\r\n\r\n{content}\r\n");
    }
    body += "--x-y--\r\n";
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("http://{api}/api/v1/topology")).bearer_auth(token).body(body);
    let request = request.header("content-type", "multipart/form-data; boundary=x-y");
    let answer = request.send().await.expect("answered");
    let status = answer.status();
    (status, answer.json().await.unwrap_or_default())
}

async fn wait_for_copy(cluster: &Cluster, out: &Path, expected: &Value) {
    wait_until("the component reads its credentials", WAIT_MAX, async || {
        let text = fs::read_to_string(out).unwrap_or_default();
        match serde_json::from_str::<Value>(&text).ok().as_ref() == Some(expected) {
            true => Ok(()),
            false => Err(format!("{text:?}\n{}", cluster.logs())),
        }
    })
    .await;
}

async fn record(cluster: &Cluster, id: &str) -> Option<Value> {
    let path = layout::credentials(&id.parse().expect("an id"));
    let node = cluster.tree.get(&path).await.expect("answered")?;
    Some(serde_json::from_slice(&node.data).expect("JSON"))
}

/// Asserts that a value is in no file of the nimbuses and in no log.
fn expect_nowhere(cluster: &Cluster, value: &str) {
    assert!(!cluster.logs().contains(value), "a log has a value");
    for nimbus in &cluster.nimbuses {
        let dir = cluster.path(&nimbus.name);
        let found = std::process::Command::new("grep").args(["-rlaF", value]).arg(&dir).output();
        let found = String::from_utf8_lossy(&found.expect("grep runs").stdout).into_owned();
        assert_eq!(found, "", "files with a value");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_and_its_credentials_belong_to_the_owner_of_its_token() {
    let keys = Keys::new();
    let mut cluster = Cluster::with(Shape::SMALL, &keys.settings()).await;
    let api = cluster.api(0).to_owned();
    let (out, other) = (cluster.path("copy-of-team"), cluster.path("copy-of-bob"));
    for (token, name, out, owner) in [("ci", "of-team", &out, "team"), ("bob", "of-bob", &other, "bob")] {
        let (status, answer) = submit_in_parts(&api, &keys.token(token), (name, out)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(cluster.json(&["show", name])["owner"], owner, "whatever the submit claims");
    }
    cluster.wait_until_whole("of-team").await;
    wait_for_copy(&cluster, &out, &json!({})).await;
    // Its components start programs of their own while they start.
    cluster.wait_until_whole("of-bob").await;
    wait_for_copy(&cluster, &other, &json!({})).await;
    let id = cluster.json(&["show", "of-team"])["id"].as_str().expect("an id").to_owned();

    cluster.set_token(Some(keys.path("ci")));
    let refused = cluster.run(&["credentials", "of-bob", "db.password=s3cr3t"]);
    assert_eq!(refused.status.code(), Some(4), "the topology of somebody else");
    let workers = cluster.worker_processes();
    cluster.ok(&["credentials", "of-team", "db.password=s3cr3t-1", "db.user=wc"]);
    wait_for_copy(&cluster, &out, &json!({"db.password": "s3cr3t-1", "db.user": "wc"})).await;
    cluster.ok(&["credentials", "of-team", "db.password=s3cr3t-2", "--remove", "db.user"]);
    wait_for_copy(&cluster, &out, &json!({"db.password": "s3cr3t-2"})).await;
    assert_eq!(cluster.worker_processes(), workers, "no worker was restarted\n{}", cluster.logs());
    assert_eq!(fs::read_to_string(&other).expect("there"), "{}\n", "another topology has none");

    let list = cluster.json(&["credentials", "of-team", "--list"]);
    assert_eq!(list["credentials"][0]["name"], "db.password");
    assert!(list["credentials"][0]["by"].as_str().is_some_and(|by| by.starts_with("ci from")), "{list}");
    let events = cluster.ok(&["events"]);
    assert!(events.contains("set db.password, removed db.user"), "{events}");
    let stored = record(&cluster, &id).await.expect("there");
    for shown in [list.to_string(), events, stored.to_string()] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
    expect_nowhere(&cluster, "s3cr3t-2");

    // A replaced secret loses nothing: the leader seals with the first one.
    let old = fs::read_to_string(keys.path("secret")).expect("there");
    let next = "n".repeat(64);
    fs::write(keys.path("secret"), format!("{}\n{next}\n", old.trim())).expect("written");
    fs::write(keys.path("secret"), format!("{next}\n{}\n", old.trim())).expect("written");
    wait_until("the credentials are sealed with the next secret", WAIT_MAX, async || {
        let now = record(&cluster, &id).await.ok_or("no record")?;
        if now["key"] == stored["key"] { Err(format!("{now}\n{}", cluster.logs())) } else { Ok(()) }
    })
    .await;
    fs::write(keys.path("secret"), format!("{next}\n")).expect("written");
    cluster.ok(&["credentials", "of-team", "api.key=s3cr3t-3"]);
    let both = json!({"api.key": "s3cr3t-3", "db.password": "s3cr3t-2"});
    wait_for_copy(&cluster, &out, &both).await;

    // A worker that starts later has them from its first moment.
    fs::remove_file(&out).expect("there");
    cluster.worker_processes().into_iter().for_each(|process| kill9(process.pid));
    wait_for_copy(&cluster, &out, &both).await;
    cluster.set_token(Some(keys.path("root")));
    for name in ["of-team", "of-bob"] {
        cluster.ok(&["kill", name, "-w", "0s", "-y"]);
    }
    cluster.wait_until_nothing_is_left().await;
    assert_eq!(record(&cluster, &id).await, None, "they are removed with their topology");
}
