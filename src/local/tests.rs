//! Tests of whole topologies in local mode, with real child processes.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::config::{Config, Environment};
use stormkeeper_topology_package::flux;

/// Time without activity that ends a run.
const IDLE: Duration = Duration::from_secs(2);

async fn run_topology(yaml: &str, resources: &[(&str, &str)]) -> Outcome {
    try_topology(yaml, resources, idle_for(IDLE)).await.expect("it runs")
}

/// The run ends when it is idle for this long.
fn idle_for(idle: Duration) -> Until {
    Until { time: Some(Duration::from_secs(120)), idle: Some(idle) }
}

/// Runs the topology in `yaml` with these resources.
async fn try_topology(yaml: &str, resources: &[(&str, &str)], until: Until) -> Result<Outcome, Error> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("topology.yaml");
    fs::write(&file, yaml).expect("written");
    fs::create_dir(dir.path().join("resources")).expect("a directory");
    for (name, text) in resources {
        fs::write(dir.path().join("resources").join(name), text).expect("written");
    }
    run_file(&file, dir.path(), until).await
}

async fn run_file(file: &Path, dir: &Path, until: Until) -> Result<Outcome, Error> {
    let (config, _) = Config::load(None, &[], &Environment::default()).expect("defaults are valid");
    let source = flux::load(file).expect("a valid topology");
    let bundle = flux::bundle(&source, config.max_blob_bytes()).expect("small");
    let loopback = ([127, 0, 0, 1], 0).into();
    let timing = config.worker_timing();
    let options = Options {
        bundle: Bytes::from(bundle.bytes),
        key: bundle.key,
        owner: "test".to_owned(),
        dir: dir.join("cluster"),
        nimbus: nimbus::Options { host: "127.0.0.1".to_owned(), api: loopback, ..config.nimbus_options() },
        supervisor: supervisor::Options {
            host: "127.0.0.1".to_owned(),
            agent: None,
            ..config.supervisor_options()
        },
        launch: LaunchDefaults {
            locks: stormkeeper_access::locks::Locks::open(),
            zookeeper_users: None,
            fixed_credentials: Some("{\"db\":\"s3cr3t\"}\n".to_owned()),
            zookeeper_identity: None,
            connections: None,
            run_as: None,
            config_file: None,
            overrides: Vec::new(),
            heartbeat_period: timing.heartbeat_period,
            task_heartbeat_period: HEARTBEAT_PERIOD,
            subprocess_timeout: timing.subprocess_timeout,
            metric_report_period: timing.metric_report_period,
            settings: config.topology_defaults(),
            on_stop: OnStop::StopWorkers,
            withheld_variables: Vec::new(),
            abandoned_after: Duration::from_secs(3600),
        },
        ui: false,
        until,
    };
    fs::create_dir_all(&options.dir).expect("a directory");
    Box::pin(run(options, Clock::new(), CancellationToken::new(), |_| {})).await
}

fn emitted(outcome: &Outcome) -> BTreeMap<String, (u64, u64)> {
    let counts = outcome.detail.components.iter();
    counts.map(|one| (one.id.to_string(), (one.counts.emitted, one.counts.executed))).collect()
}

const SPOUT: &str = "import stormkeeper
class Numbers(stormkeeper.Spout):
    n = 0
    def next_tuple(self):
        if self.n < 300:
            self.emit([self.n % 7, self.n], id=self.n)
            self.n += 1
Numbers().run()
";

const ECHO: &str = "import stormkeeper
class Echo(stormkeeper.BasicBolt):
    def process(self, tup):
        self.emit(tup.values)
Echo().run()
";

#[tokio::test(flavor = "multi_thread")]
async fn every_grouping_keeps_its_guarantee_over_several_workers() {
    let bolt = |id: &str, grouping: &str| {
        (
            format!("  - {{id: {id}, parallelism: 3, command: [python3, echo.py], output: [k, n]}}\n"),
            format!("  - {{from: numbers, to: {id}, grouping: {grouping}}}\n"),
        )
    };
    let bolts = [
        bolt("shuffled", "{type: SHUFFLE}"),
        bolt("local", "{type: LOCAL_OR_SHUFFLE}"),
        bolt("by-key", "{type: FIELDS, args: [k]}"),
        bolt("everyone", "{type: ALL}"),
        bolt("first", "{type: GLOBAL}"),
        bolt("whoever", "{type: NONE}"),
    ];
    let yaml = format!(
        "name: groupings\nconfig: {{topology.workers: 3}}\nspouts:\n  - {{id: numbers, command: [python3, spout.py], \
         output: [k, n]}}\nbolts:\n{}streams:\n{}",
        bolts.iter().map(|(bolt, _)| bolt.as_str()).collect::<String>(),
        bolts.iter().map(|(_, stream)| stream.as_str()).collect::<String>(),
    );
    let outcome = run_topology(&yaml, &[("spout.py", SPOUT), ("echo.py", ECHO)]).await;
    assert_eq!(outcome.end, End::Idle);
    assert!(outcome.errors.errors.is_empty(), "{:?}", outcome.errors);
    let counts = emitted(&outcome);
    assert_eq!(counts["numbers"].0, 300);
    for once in ["shuffled", "local", "by-key", "first", "whoever"] {
        assert_eq!(counts[once], (300, 300), "{once}: {counts:?}");
    }
    assert_eq!(counts["everyone"], (900, 900));
    let tasks_of = |component: &str| {
        let tasks = outcome.detail.tasks.iter().filter(|task| task.component.as_str() == component);
        tasks.map(|task| task.counts.executed).collect::<Vec<u64>>()
    };
    assert_eq!(tasks_of("shuffled"), [100, 100, 100]);
    assert_eq!(tasks_of("first"), [300, 0, 0]);
    assert_eq!(tasks_of("everyone"), [300, 300, 300]);
}

#[tokio::test(flavor = "multi_thread")]
async fn component_reads_the_credentials_of_the_run_from_the_file_of_its_environment() {
    let yaml = "name: secret\nspouts:\n  - {id: one, command: [python3, spout.py], output: [n]}\n";
    let spout = "import json, os, stormkeeper
class One(stormkeeper.Spout):
    def initialize(self, conf, context):
        with open(os.environ['STORMKEEPER_CREDENTIALS_FILE']) as file:
            self.left = len(json.load(file)['db'])
    def next_tuple(self):
        if self.left:
            self.emit([self.left])
            self.left -= 1
One().run()
";
    let outcome = run_topology(yaml, &[("spout.py", spout)]).await;
    assert!(outcome.errors.errors.is_empty(), "{:?}", outcome.errors);
    assert_eq!(emitted(&outcome)["one"].0, 6, "a tuple for each letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn component_that_never_starts_ends_the_run_with_its_error() {
    let yaml = "name: half\nspouts:\n  - {id: numbers, command: [python3, spout.py], output: [k, n]}\n  \
                - {id: broken, command: [sh, -c, 'echo no luck >&2; exit 3'], output: [x]}\n";
    let error = try_topology(yaml, &[("spout.py", SPOUT)], idle_for(IDLE)).await.expect_err("it cannot run");
    let text = error.to_string();
    assert!(text.contains("only 1 of 2 tasks") && text.contains("broken"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_may_take_less_than_its_start_ends_well_and_a_broken_one_does_not() {
    let until = || Until { time: Some(Duration::from_millis(1)), idle: None };
    let yaml = "name: brief\nspouts:\n  - {id: numbers, command: [python3, spout.py], output: [k, n]}\n";
    let outcome = try_topology(yaml, &[("spout.py", SPOUT)], until()).await.expect("nothing is wrong");
    assert_eq!(outcome.end, End::Time);
    let broken = "name: broken\nspouts: [{id: broken, command: [sh, -c, 'exit 3'], output: [x]}]\n";
    let error = try_topology(broken, &[], until()).await.expect_err("it cannot run").to_string();
    assert!(error.contains("only 0 of 1 tasks") && error.contains("broken"), "{error}");
}

/// Four tuples to a bolt that works on each for longer than the idle time.
async fn run_slow(bolt: &str) -> Outcome {
    let yaml = "name: slow\nspouts:\n  - {id: four, command: [python3, spout.py], output: [n]}\nbolts:\n  \
                - {id: slow, command: [python3, slow.py]}\nstreams:\n  - {from: four, to: slow, grouping: {type: SHUFFLE}}\n";
    let spout = "import stormkeeper
class Four(stormkeeper.Spout):
    n = 0
    def next_tuple(self):
        if self.n < 4:
            self.emit([self.n])
            self.n += 1
Four().run()
";
    let idle = Duration::from_millis(700);
    try_topology(yaml, &[("spout.py", spout), ("slow.py", bolt)], idle_for(idle)).await.expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn run_is_not_idle_while_tuples_are_with_a_slow_bolt() {
    let outcome = run_slow(
        "import stormkeeper, time
class Slow(stormkeeper.BasicBolt):
    def process(self, tup):
        time.sleep(1.7)
Slow().run()
",
    )
    .await;
    let slow = outcome.detail.components.iter().find(|one| one.id.as_str() == "slow").expect("there");
    assert_eq!((outcome.end, slow.counts.acked, slow.pending), (End::Idle, 4, 0));
    assert_eq!(outcome.unfinished, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_ends_when_a_bolt_that_never_acks_has_handled_its_tuples() {
    let outcome = run_slow(
        "import stormkeeper, time
class Sink(stormkeeper.Bolt):
    n = 0
    def process(self, tup):
        time.sleep(1.7)
        self.n += 1
        self.report_error('handled %d' % self.n)
Sink().run()
",
    )
    .await;
    let slow = outcome.detail.components.iter().find(|one| one.id.as_str() == "slow").expect("there");
    assert_eq!((outcome.end, slow.counts.acked, slow.pending), (End::Idle, 0, 0));
    assert_eq!(outcome.errors.last.values().next().expect("an error").message, "handled 4");
    let [line] = &outcome.unfinished[..] else { panic!("{:?}", outcome.unfinished) };
    assert!(line.starts_with("4 tuples read by slow and never acked: "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_is_not_idle_while_a_spout_owes_an_answer_and_the_error_names_the_command() {
    for command in ["activate", "next", "ack"] {
        let yaml = format!(
            "name: owes\nconfig: {{topology.subprocess.timeout.secs: 4}}\nspouts:\n  \
             - {{id: owes, command: [python3, spout.py, {command}], output: [n]}}\n"
        );
        let spout = "import json, sys, time
def hear():
    return json.loads(''.join(iter(sys.stdin.readline, 'end\\n')))
def say(message):
    print(json.dumps(message) + '\\nend', flush=True)
hear()
say({'pid': 1})
n = 0
while True:
    command = hear()['command']
    if command == sys.argv[1]:
        time.sleep(1000)
    if command == 'next':
        n += 1
        if n == 1:
            say({'command': 'emit', 'id': 1, 'tuple': [1], 'need_task_ids': False})
    say({'command': 'sync'})
";
        let outcome = try_topology(&yaml, &[("spout.py", spout)], idle_for(IDLE)).await;
        let outcome = outcome.expect("it runs");
        let error = &outcome.errors.last.values().next().expect(command).message;
        assert!(error.contains(&format!("no answer to {command} for 4s; its process was ended")), "{error}");
        assert_eq!(outcome.end, End::Idle);
    }
}
