//! Clients of Storm's API from public registries, unmodified, with a live cluster: streamparse and the
//! plugin `curl_json` of collectd. What they show is compared with the counts of the components.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    exact_counts::settled_cluster,
};

/// Runs streamparse as its users do. It asks `lein` for the version of Storm, which a script answers.
struct Streamparse {
    project: PathBuf,
    packages: String,
}

/// Tables that a command has printed: rows of cells by column, under the name of the table.
type Tables = BTreeMap<String, Vec<BTreeMap<String, String>>>;

impl Streamparse {
    fn new(cluster: &Cluster, api: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of streamparse")]
        let packages = std::env::var("STORMKEEPER_STREAMPARSE").expect(
            "STORMKEEPER_STREAMPARSE is not set: run scripts/test, which installs streamparse and sets it",
        );
        let project = cluster.path("streamparse");
        fs::create_dir_all(&project).expect("a directory");
        let port: u16 = api.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let config = json!({"envs": {"prod": {
            "use_ssh_for_nimbus": false, "nimbus": "127.0.0.1:6627", "user": "", "ui.port": port, "workers": [],
            "log": {"path": "", "file": ""}, "virtualenv_root": "/nowhere",
        }}});
        fs::write(project.join("config.json"), config.to_string()).expect("written");
        let lein = project.join("lein");
        fs::write(&lein, "#!/bin/sh\necho ' [org.apache.storm/storm-core \"1.2.3\"]'\n").expect("written");
        fs::set_permissions(&lein, fs::Permissions::from_mode(0o755)).expect("made executable");
        Self { project, packages }
    }

    fn run(&self, args: &[&str]) -> Tables {
        #[expect(clippy::disallowed_methods, reason = "the directory of the stand-in for lein comes first")]
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("python3")
            .args(["-W", "ignore", "-m", "streamparse.cli.sparse"])
            .args(args)
            .args(["-e", "prod"])
            .current_dir(&self.project)
            .env("PATH", format!("{}:{path}", self.project.display()))
            .env("PYTHONPATH", &self.packages)
            .env("LEIN_ROOT", "1")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .output()
            .expect("python3 runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}\n{text}\n{errors}", output.status);
        let tables = tables(&text);
        assert!(!tables.is_empty(), "{args:?} printed no table:\n{text}\n{errors}");
        tables
    }
}

/// Parses tables with a title (`# title`), a header and rows between lines; a long cell has several
/// lines.
fn tables(text: &str) -> Tables {
    let mut tables = Tables::new();
    let (mut title, mut columns, mut cells) = (String::new(), Vec::<String>::new(), Vec::<String>::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            (title, columns) = (name.to_owned(), Vec::new());
        } else if line.starts_with('+') {
            let row = std::mem::take(&mut cells);
            match (columns.is_empty(), row.is_empty()) {
                (_, true) => {}
                (true, false) => columns = row,
                (false, false) => {
                    let row = columns.iter().cloned().zip(row).collect();
                    tables.entry(title.clone()).or_default().push(row);
                }
            }
        } else if let Some(row) = line.strip_prefix('|') {
            let parts = row.trim_end_matches('|').split('|').map(str::trim);
            for (place, part) in parts.enumerate() {
                match cells.get_mut(place) {
                    Some(cell) => cell.push_str(part),
                    None => cells.push(part.to_owned()),
                }
            }
        }
    }
    tables
}

fn number(row: &BTreeMap<String, String>, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|error| panic!("{column} of {row:?}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn streamparse_and_collectd_show_what_the_components_have_counted() {
    let (cluster, id, emitted, acked) = settled_cluster().await;
    // A follower answers as the leader does; its metric store is a few seconds behind.
    let leading = cluster.leading().await.expect("there is a leader").nimbus;
    let leader = Streamparse::new(&cluster, cluster.api(leading));
    check_streamparse(&leader, &id, emitted, acked);
    let follower = Streamparse::new(&cluster, cluster.api(1 - leading));
    let shown = wait_until("the follower has the same counts", WAIT_MAX, async || {
        let shown = follower.run(&["stats", "-n", "exact"]);
        let sum = number(&shown["Topology stats"][3], "emitted");
        let counted = emitted + acked;
        if sum == counted { Ok(shown) } else { Err(format!("{sum} of {counted}")) }
    })
    .await;
    assert_eq!(shown["Topology stats"], leader.run(&["stats", "-n", "exact"])["Topology stats"]);
    check_collectd(cluster.api(leading)).await;
}

fn check_streamparse(streamparse: &Streamparse, id: &str, emitted: u64, acked: u64) {
    let all = streamparse.run(&["stats"]);
    let cluster = &all["Cluster summary"][0];
    assert!(cluster.values().all(|cell| cell != "MISSING" && cell != "None"), "{cluster:?}");
    assert_eq!((number(cluster, "supervisors"), number(cluster, "tasksTotal")), (2, 4));
    assert_eq!(number(cluster, "slotsUsed"), 2);
    let topology = &all["Topology summary"][0];
    assert_eq!((topology["name"].as_str(), topology["id"].as_str()), ("exact", id));
    assert_eq!((topology["status"].as_str(), number(topology, "workersTotal")), ("INACTIVE", 2));
    assert_eq!(all["Supervisor summary"].len(), 2);

    let one = streamparse.run(&["stats", "-n", "exact"]);
    let windows = &one["Topology stats"];
    let names: Vec<&str> = windows.iter().map(|row| row["windowPretty"].as_str()).collect();
    assert_eq!(names, ["10m 0s", "3h 0m 0s", "1d 0h 0m 0s", "All time"]);
    for row in windows {
        // The life of the topology is shorter than the shortest window.
        // The bolt emits once for each tuple, to nobody.
        assert_eq!(
            (number(row, "emitted"), number(row, "transferred")),
            (emitted + acked, emitted),
            "{row:?}"
        );
        assert_eq!((number(row, "acked"), number(row, "failed")), (0, 0), "emitted without ids: {row:?}");
    }
    assert_eq!(number(&one["Spouts (All time)"][0], "emitted"), emitted);
    let bolt = &one["Bolt (All time)"][0];
    assert_eq!((bolt["boltId"].as_str(), number(bolt, "tasks")), ("sink", 2));
    assert_eq!((number(bolt, "executed"), number(bolt, "acked")), (acked, acked));

    let bolt = streamparse.run(&["stats", "-n", "exact", "-c", "sink"]);
    assert_eq!(bolt["Bolt stats"].len(), 4);
    let input = &bolt["Input stats (All time)"][0];
    assert_eq!((input["component"].as_str(), number(input, "executed")), ("numbers", acked));
    let spout = streamparse.run(&["stats", "-n", "exact", "-c", "numbers"]);
    assert_eq!(spout["Spout stats"][0]["windowPretty"], "All time");
    assert_eq!(number(&spout["Spout stats"][0], "emitted"), emitted);
    let executors = &spout["Executors (All time)"];
    assert_eq!(executors.iter().map(|row| number(row, "emitted")).sum::<u64>(), emitted, "{executors:?}");

    let workers = &streamparse.run(&["worker_uptime"])["Worker Stats"];
    assert_eq!(workers.len(), 4, "each task is its own executor: {workers:?}");
    assert!(
        workers.iter().all(|row| row["Host"] == "127.0.0.1" && row["Uptime"].ends_with('s')),
        "{workers:?}"
    );
    let slots = &streamparse.run(&["slot_usage"])["Slot (and Executor) Counts by Topology"];
    assert_eq!(slots.len(), 1, "{slots:?}");
    assert_eq!(slots[0]["exact"], "2 (4)");
}

/// Running collectd, killed when it is dropped.
struct Collectd(Child);

impl Drop for Collectd {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn check_collectd(api: &str) {
    // Its plugin refuses directories whose names begin with a dot.
    let dir = tempfile::Builder::new().prefix("collectd").tempdir().expect("a temporary directory");
    let dir = dir.path();
    let key = |key: &str| format!("<Key \"{key}\">\nType \"gauge\"\n</Key>\n");
    let page = |instance: &str, path: &str, keys: &[&str]| {
        let keys: String = keys.iter().map(|name| key(name)).collect();
        format!("<URL \"http://{api}/api/v1/{path}\">\nInstance \"{instance}\"\n{keys}</URL>\n")
    };
    let config = format!(
        "Hostname \"it\"\nFQDNLookup false\nInterval 1\nBaseDir \"{0}\"\nPIDFile \"{0}/pid\"\n\
         LoadPlugin csv\nLoadPlugin curl_json\n<Plugin csv>\nDataDir \"{0}/csv\"\n</Plugin>\n\
         <Plugin curl_json>\n{1}{2}</Plugin>\n",
        dir.display(),
        page("cluster", "cluster/summary", &["slotsUsed", "slotsFree", "supervisors"]),
        page("topologies", "topology/summary", &["topologies/*/uptimeSeconds", "topologies/*/workersTotal"]),
    );
    fs::write(dir.join("collectd.conf"), config).expect("written");
    let log = fs::File::create(dir.join("log")).expect("a log");
    let mut command = Command::new("collectd");
    command.arg("-f").arg("-C").arg(dir.join("collectd.conf")).env("no_proxy", "127.0.0.1");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    let _collectd = Collectd(command.spawn().expect("collectd is installed by scripts/test"));
    let expected = [
        ("curl_json-cluster/gauge-slotsUsed", 2),
        ("curl_json-cluster/gauge-slotsFree", 6),
        ("curl_json-cluster/gauge-supervisors", 2),
        ("curl_json-topologies/gauge-topologies-0-workersTotal", 2),
    ];
    for (name, value) in expected {
        wait_until(&format!("collectd has read {name}"), WAIT_MAX, async || {
            let last = last_value(&dir.join("csv/it"), name);
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            if last == Some(value) { Ok(()) } else { Err(format!("{last:?}, not {value}\n{log}")) }
        })
        .await;
    }
    let uptime = last_value(&dir.join("csv/it"), "curl_json-topologies/gauge-topologies-0-uptimeSeconds");
    assert!(uptime.is_some_and(|secs| secs > 0), "{uptime:?}");
}

/// Last value in the files `{name}-{date}`, whose lines are `time,value`.
fn last_value(dir: &Path, name: &str) -> Option<u64> {
    let (folder, begin) = name.split_once('/')?;
    let entries = fs::read_dir(dir.join(folder)).ok()?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin)));
    files.sort();
    let text = fs::read_to_string(files.last()?).ok()?;
    let value = text.lines().last()?.split(',').nth(1)?.parse::<f64>().ok()?;
    Some(value as u64)
}
