//! The page of a local run and its live numbers: `stormkeeper local FILE --ui`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use stormkeeper_runtime::test_support::wait_until;

/// Time for the first minute of metrics, which must be over.
const WAIT_MAX: Duration = Duration::from_secs(240);

/// A spout without end and a sink, in `sh`.
const TOPOLOGY: &str = r#"
name: paged
config: {topology.workers: 2, topology.acker.executors: null}
spouts: [{id: numbers, parallelism: 1, command: ["sh", "spout.sh"], output: [n]}]
bolts: [{id: sink, parallelism: 1, command: ["sh", "sink.sh"], output: []}]
streams: [{from: numbers, to: sink, grouping: {type: SHUFFLE}}]
"#;

const SPOUT: &str = r#"printf '{"pid": %s}\nend\n' $$
n=0
while read -r line; do
  case $line in
    *'"next"'*) n=$((n + 1)); sleep 0.05; printf '{"command":"emit","id":"%s","tuple":[%s]}\nend\n' $n $n; sync=1 ;;
    *'"command"'*) sync=1 ;;
    end) [ -z "$sync" ] || printf '{"command":"sync"}\nend\n'; sync= ;;
  esac
done
"#;

const SINK: &str = r#"printf '{"pid": %s}\nend\n' $$
while read -r line; do
  case $line in
    *'"__heartbeat"'*) printf '{"command":"sync"}\nend\n' ;;
    *'"id":"'*) id=${line#*'"id":"'}; printf '{"command":"ack","id":"%s"}\nend\n' "${id%%'"'*}" ;;
  esac
done
"#;

struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // The next local run would clean up after a killed one; SIGTERM has it clean up itself.
        let _asked = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ended = self.0.wait();
    }
}

#[tokio::test]
async fn local_run_serves_the_page_and_keeps_metrics_while_it_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let resources = dir.path().join("resources");
    std::fs::create_dir(&resources).expect("a directory");
    for (name, text) in [("spout.sh", SPOUT), ("sink.sh", SINK)] {
        std::fs::write(resources.join(name), text).expect("written");
    }
    let file = dir.path().join("topology.yaml");
    std::fs::write(&file, TOPOLOGY).expect("written");
    let mut run = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
        .args(["local", "topology.yaml", "--ui"])
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let said = BufReader::new(run.stderr.take().expect("piped")).lines();
    let run = Run(run);
    let (page, lines) = tokio::task::spawn_blocking(move || {
        let mut said = said.map_while(Result::ok);
        let page = said.find_map(|line| line.split_once("page: ").map(|(_, page)| page.to_owned()));
        (page.expect("the address of the page"), said)
    })
    .await
    .expect("read");
    // Nobody reads the rest, and a full pipe must not stop it.
    std::thread::spawn(move || lines.for_each(drop));

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = async |url: String| {
        let answer = client.get(url).send().await.map_err(|error| error.to_string())?;
        answer
            .error_for_status()
            .map_err(|error| error.to_string())?
            .text()
            .await
            .map_err(|error| error.to_string())
    };
    let html = get(page.clone()).await.expect("the page");
    assert!(html.contains("<title>Stormkeeper"), "{html}");
    let api = page.replace("/ui/", "/api/stormkeeper/v1");
    // Both workers are in the one process.
    wait_until("there are live numbers", WAIT_MAX, async || {
        let text = get(format!("{api}/topology/paged/live")).await?;
        let live: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let rate = live["components"][0]["rates"]["emitted"].as_f64();
        let is_live = live["workersLive"] == 2 && rate.is_some_and(|rate| rate > 0.0);
        if is_live { Ok(()) } else { Err(text) }
    })
    .await;
    let emitted = wait_until("a minute of metrics is shown", WAIT_MAX, async || {
        let url = format!("{api}/metrics/topology/paged/latest?level=component&window=60&name=Emitted");
        let text = get(url).await?;
        let latest: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let shown = latest["values"].as_array().is_some_and(|values| !values.is_empty());
        if shown { Ok(latest) } else { Err(text) }
    })
    .await;
    assert!(emitted.to_string().contains("numbers"), "{emitted}");
    drop(run);
}
