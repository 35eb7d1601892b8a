//! Commands at a terminal, which Python's `pty` plays: `top`, questions, and what is said while they wait.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Sequences that begin and end the second screen of a terminal.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// Sequence with which each picture of `top` begins.
const PICTURE: &str = "\u{1b}[H";

/// Pictures over which the time of the processor is measured, with the start, and its share of a core.
const N_PICTURES: u32 = 16;
const SHARE_MAX: f64 = 0.02;

/// Runs a command at a terminal, with steps of `terminal.py`.
fn at_terminal(cluster: &Cluster, args: &[&str], steps: &[Value]) -> Value {
    let nimbuses = cluster.apis().iter().flat_map(|api| ["--nimbus", api]);
    let command: Vec<&str> =
        [env!("CARGO_BIN_EXE_stormkeeper")].into_iter().chain(nimbuses).chain(args.iter().copied()).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/terminal.py");
    let mut python = Command::new("python3");
    python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.env_remove("STORMKEEPER_CONF").spawn().expect("python3 runs");
    let plan = json!({"command": command, "steps": steps, "timeout": 90}).to_string();
    python.stdin.take().expect("piped").write_all(plan.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"))
}

fn step(until: &str, send: &str) -> Value {
    json!({"until": until, "send": send})
}

/// Submits a topology whose spout has nothing to do.
fn submit(cluster: &Cluster, name: &str) {
    let dir = cluster.path(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = dir.join("topology.yaml");
    let text = format!(
        "name: {name}\nconfig: {{topology.workers: 1}}\n\
         spouts: [{{id: quiet, parallelism: 1, command: [\"python3\", \"quiet.py\"], output: [n]}}]\n"
    );
    std::fs::write(&file, text).expect("written");
    std::fs::create_dir_all(dir.join("resources")).expect("a directory");
    let spout = "from stormkeeper import Spout\n\n\nclass Quiet(Spout):\n    def next_tuple(self):\n        pass\n\n\n\
                 Quiet().run()\n";
    std::fs::write(dir.join("resources/quiet.py"), spout).expect("written");
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_goes_down_and_up_and_leaves_the_terminal_as_it_was_at_any_end() {
    let cluster = Cluster::start().await;
    submit(&cluster, "calm");
    let keys = [
        step("calm", "\r"),
        step("EMITTED", "\r"),
        step("HOST:PORT", "\u{1b}"),
        step("PENDING", "\u{1b}"),
        step("WORKERS", "q"),
    ];
    let ended = at_terminal(&cluster, &["top"], &keys);
    let shown = ended["output"].as_str().expect("text");
    assert_eq!((&ended["status"], &ended["restored"]), (&json!(0), &json!(true)), "{ended}");
    assert!(shown.contains(ENTER) && shown.trim_end().ends_with(LEAVE), "{shown:?}");

    // SIGTERM, SIGHUP, and Ctrl-C, which is a byte.
    for end in [json!({"signal": 15}), json!({"signal": 1}), json!({"send": "\u{3}"})] {
        let mut last = end.clone();
        last["until"] = "quiet".into();
        let ended = at_terminal(&cluster, &["top", "calm"], &[last]);
        assert_eq!((&ended["status"], &ended["restored"]), (&json!(0), &json!(true)), "{end}: {ended}");
        assert!(ended["output"].as_str().is_some_and(|text| text.trim_end().ends_with(LEAVE)), "{ended}");
    }

    let picture = json!({"until": PICTURE, "times": N_PICTURES, "send": "q"});
    let ended = at_terminal(&cluster, &["top"], &[picture]);
    let [cpu, seconds] = ["cpu", "seconds"].map(|key| ended[key].as_f64().expect("a number"));
    let share = cpu / seconds;
    eprintln!("top used {:.2} % of a core", share * 100.0);
    assert!(share < SHARE_MAX, "{share}");

    let refused = at_terminal(&cluster, &["top", "no-such-topology"], &[]);
    let said = refused["output"].as_str().expect("text");
    assert!(refused["status"] == 4 && !said.contains(ENTER), "it is said without a screen: {said:?}");
    let output = cluster.run(&["top"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("top draws on a terminal"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_stop_something_ask_at_a_terminal_and_not_in_a_script() {
    let cluster = Cluster::start().await;
    submit(&cluster, "kept");
    for args in [&["kill", "kept"][..], &["rebalance", "kept"], &["drain", "127.0.0.1"]] {
        let ended = at_terminal(&cluster, args, &[step("[y/N] ", "n\r")]);
        let said = ended["output"].as_str().expect("text");
        assert!(ended["status"] == 2 && said.contains("nothing was changed"), "{args:?}: {said}");
    }
    let kept = cluster.json(&["list"]);
    assert_eq!(kept["topologies"][0]["status"], "active", "{kept}");
    assert_eq!(cluster.json(&["cluster"])["drains"], json!([]), "the host is not drained");
    let ended = at_terminal(&cluster, &["rebalance", "kept", "-w", "0s", "--yes"], &[]);
    assert_eq!(ended["status"], 0, "{ended}");
    let ended = at_terminal(&cluster, &["kill", "kept", "-w", "0s"], &[step("[y/N] ", "y\r")]);
    assert_eq!(ended["status"], 0, "{ended}");
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_prints_a_line_for_each_interval_and_charts_are_for_terminals() {
    let cluster = Cluster::start().await;
    submit(&cluster, "seen");
    let lines = cluster.ok(&["monitor", "seen", "-i", "1s", "-n", "2", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!(
            (&line["count"], &line["watched"], &line["tasksTotal"]),
            (&json!(0), &json!("emitted"), &json!(1))
        );
        assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{line}");
    }
    let table = cluster.ok(&["monitor", "seen", "-i", "1s", "-n", "1", "-m", "quiet", "-w", "transferred"]);
    assert!(table.lines().count() == 2 && table.contains("SENT") && table.contains("quiet"), "{table}");
    let output = cluster.run(&["monitor", "seen", "-m", "quite"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(4) && said.contains("quiet"), "the name that was meant: {said}");
    let shown = cluster.ok(&["show", "seen"]);
    assert!(!shown.contains("LAST 30 MIN"), "columns of scripts stay as they are: {shown}");
}
