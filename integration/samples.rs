//! Samples of tuples of a running topology.

use std::fs;

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Shape, WAIT_MAX};

const TICKS: &str = "
import time
from stormkeeper import Spout

class Ticks(Spout):
    def next_tuple(self):
        time.sleep(0.02)
        self.emit(['a secret of ticks'])

Ticks().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        pass

Sink().run()
";

#[tokio::test(flavor = "multi_thread")]
async fn sample_prints_tuples_as_they_pass_and_ends_by_itself_without_a_restart() {
    let cluster = Cluster::of(Shape::SMALL).await;
    let file = cluster.ticker();
    for (name, text) in [("ticks.py", TICKS), ("sink.py", SINK)] {
        fs::write(cluster.path("ticker").join("resources").join(name), text).expect("written");
    }
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    cluster.wait_until_whole("ticker").await;
    let processes = cluster.worker_processes();
    cluster.wait_until_tuples_flow("ticker").await;

    let shown = cluster.ok(&["sample", "ticker", "--component", "sink", "--one-in", "1", "--for", "5s"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() > 10, "{shown}");
    for line in &lines {
        assert!(line.contains(" <- ticks["), "{line}");
        assert!(line.ends_with(r#" default ["a secret of ticks"]"#), "{line}");
    }
    let shown =
        cluster.ok(&["sample", "ticker", "--component", "ticks", "--one-in", "5", "--for", "3s", "--json"]);
    let first: serde_json::Value = serde_json::from_str(shown.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["component"], &first["way"]), (&"ticks".into(), &"emitted".into()));
    assert_eq!(cluster.worker_processes(), processes, "no worker and no component was restarted");

    let url = format!("http://{}/api/stormkeeper/v1/topology/ticker/samples", cluster.api(0));
    let samples = async || {
        let response = reqwest::get(&url).await.map_err(|error| error.to_string())?;
        response.json::<serde_json::Value>().await.map_err(|error| error.to_string())
    };
    wait_until("the leader has removed what has ended", WAIT_MAX, async || {
        let samples = samples().await?;
        if samples["components"] == serde_json::json!({}) { Ok(()) } else { Err(samples.to_string()) }
    })
    .await;
    // One that would last for long ends when it is asked to.
    let request = serde_json::json!({ "component": "sink", "forSecs": 600 });
    let begun = reqwest::Client::new().post(&url).json(&request).send().await.expect("an answer");
    let (status, text) = (begun.status(), begun.text().await.expect("an answer"));
    assert!(status.is_success(), "{status}: {text}");
    assert_eq!(samples().await.expect("an answer")["components"]["sink"]["oneIn"], 100);
    cluster.ok(&["sample", "ticker", "--component", "sink", "--stop"]);
    assert_eq!(samples().await.expect("an answer")["components"], serde_json::json!({}));
    let refused = cluster.run(&["sample", "ticker", "--component", "sinc"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let refused = cluster.run(&["sample", "ticker", "--component", "sink", "--for", "2h"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("limit of 3600 s"), "{refused:?}");
    let events = cluster.ok(&["events"]);
    assert!(events.contains("samples-changed"), "{events}");
    assert!(events.contains("one in 5 tuples of ticks is shown for 3 s"), "{events}");
    assert!(events.contains("the time of samples of tuples is over"), "{events}");
}
