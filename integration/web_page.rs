//! The web page in a headless Chromium, against the nimbuses of a cluster: each view has its data, in
//! each size and colour; a nimbus that dies does not blank it; and a role is offered what it may do.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{
    authority::Authority,
    cluster::{Cluster, Shape},
    exact_counts::SETTINGS,
    locked::{Keys, restart_with, text},
};

/// Topology whose names, errors, log lines and settings have markup where they can.
const NOISY: &str = r#"
name: noisy-one
config: {topology.workers: 2, topology.acker.executors: null, test.markup: "<img src=x onerror=alert(1)>"}
spouts: [{id: numbers, parallelism: 1, command: ["python3", "numbers.py"], output: [n]}]
bolts:
  - {id: noisy, parallelism: 2, command: ["python3", "noisy.py"], output: [n]}
  - {id: sink, parallelism: 2, command: ["python3", "sink.py"], output: []}
streams:
  - {from: numbers, to: noisy, grouping: {type: SHUFFLE}}
  - {from: noisy, to: sink, grouping: {type: SHUFFLE}}
"#;

const NUMBERS: &str = "
import time
from stormkeeper import Spout

class Numbers(Spout):
    n = 0

    def next_tuple(self):
        time.sleep(0.02)
        self.n += 1
        self.emit([self.n], id=self.n)

Numbers().run()
";

const NOISE: &str = "
from stormkeeper import BasicBolt

class Noisy(BasicBolt):
    def process(self, tup):
        if tup.values[0] % 50 == 0:
            self.report_error('broken <img src=x onerror=alert(1)>')
            self.log('said <img src=x onerror=alert(1)>', 'warn')
        self.emit(tup.values)

Noisy().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        pass

Sink().run()
";

const NAME: &str = "noisy-one";

/// Writes the topology; returns its file.
fn noisy(cluster: &Cluster) -> PathBuf {
    let dir = cluster.path("noisy");
    fs::create_dir_all(dir.join("resources")).expect("a directory");
    for (name, text) in [("numbers.py", NUMBERS), ("noisy.py", NOISE), ("sink.py", SINK)] {
        fs::write(dir.join("resources").join(name), text).expect("written");
    }
    let file = dir.join("topology.yaml");
    fs::write(&file, NOISY).expect("written");
    file
}

/// The test in Python, which drives the browser.
struct Driver {
    child: Child,
    output: BufReader<ChildStdout>,
    seen: String,
}

impl Driver {
    fn start(arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/browser/page_test.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output, seen: String::new() }
    }

    /// Reads until a line.
    fn expect(&mut self, line: &str) {
        loop {
            let mut read = String::new();
            let n = self.output.read_line(&mut read).expect("text");
            self.seen.push_str(&read);
            assert!(n > 0, "it ended before {line:?}; its error is above; it said:\n{}", self.seen);
            if read.trim_end() == line {
                return;
            }
        }
    }

    fn finish(mut self) {
        self.expect("ok");
        assert!(self.child.wait().expect("it ends").success(), "{}", self.seen);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_of_the_page_shows_its_data_and_keeps_it_while_its_nimbus_is_dead() {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let ticker = cluster.ticker();
    Driver::start(&["empty", cluster.api(0)]).finish();
    cluster.ok(&["submit", ticker.to_str().expect("text"), "--wait"]);
    let noisy = noisy(&cluster);
    cluster.ok(&["submit", noisy.to_str().expect("text"), "--wait"]);
    cluster.wait_until_tuples_flow("ticker").await;
    let gone = cluster.json(&["show", "ticker"])["id"].as_str().expect("an id").to_owned();
    cluster.ok(&["kill", "ticker", "-w", "0s"]);
    cluster.wait_until_tuples_flow(NAME).await;

    let leading = cluster.leading().await.expect("there is a leader").nimbus;
    let follower = 1 - leading;
    let (api, other) = (cluster.api(follower).to_owned(), cluster.api(leading).to_owned());
    Driver::start(&["views", &api, NAME, &gone]).finish();
    Driver::start(&["full", &api]).finish();

    let mut driver = Driver::start(&["away", &api, NAME, &other]);
    driver.expect("loaded");
    cluster.nimbuses[follower].kill9();
    driver.expect("away");
    cluster.nimbuses[follower].start_again();
    driver.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn person_who_signs_in_is_offered_what_the_role_may_do() {
    let keys = Keys::new();
    let cluster = Cluster::with(Shape::SMALL, &format!("{SETTINGS}{}", keys.settings())).await;
    let ticker = cluster.ticker();
    cluster.ok(&["submit", ticker.to_str().expect("text"), "--wait"]);
    let (reader, operator) = (keys.token("grafana"), keys.token("bob"));
    Driver::start(&["roles", cluster.api(0), "ticker", &reader, &operator]).finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn page_over_tls_offers_no_change_where_they_are_switched_off() {
    let (keys, authority) = (Keys::new(), Authority::new("page"));
    let issued = authority.issue(&["127.0.0.1"]);
    let files = [("ca", &authority.pem), ("host.crt", &issued.certificate), ("host.key", &issued.key)];
    let files = files.map(|(name, pem)| {
        let path = keys.path(name);
        fs::write(&path, pem).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its own");
        path
    });
    let [ca, certificate, key] = files.each_ref().map(|path| text(path));
    let tls = format!(
        "storm.tls: required\nstorm.tls.ca.file: {ca}\nstorm.tls.cert.file: {certificate}\n\
         storm.tls.key.file: {key}\n"
    );
    let settings = format!("{SETTINGS}{}{tls}", keys.settings());
    let mut cluster = Cluster::with(Shape::SMALL, &settings).await;
    let ticker = cluster.ticker();
    cluster.ok(&["submit", text(&ticker), "--wait"]);
    restart_with(&mut cluster, "ui.actions.enabled: false\n").await;
    let admin = keys.token("root");
    Driver::start(&["secured", cluster.api(0), "ticker", &admin, &issued.public_key]).finish();
}
