//! Log levels of components that are set while a topology runs.

use std::fs;

use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    live_control::logs,
};

const TICKS: &str = "
import time
from stormkeeper import Spout

class Ticks(Spout):
    def next_tuple(self):
        time.sleep(0.05)
        self.log('a detail of ticks', 'debug')
        self.emit([1])

Ticks().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        self.log('a detail of sink', 'debug')
        self.log('a line of sink', 'info')

Sink().run()
";

#[tokio::test(flavor = "multi_thread")]
async fn log_level_of_a_component_holds_in_running_workers_for_its_time_and_is_shown() {
    let cluster = Cluster::of(Shape::SMALL).await;
    let file = cluster.ticker();
    for (name, text) in [("ticks.py", TICKS), ("sink.py", SINK)] {
        fs::write(cluster.path("ticker").join("resources").join(name), text).expect("written");
    }
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    cluster.wait_until_whole("ticker").await;
    let processes = cluster.worker_processes();
    wait_until_logged(&cluster, "a line of sink").await;
    assert_eq!((n_lines(&cluster, "a detail of sink"), n_lines(&cluster, "a detail of ticks")), (0, 0));

    let shown = cluster.ok(&["log-level", "ticker", "debug", "--component", "sink", "--for", "1h"]);
    assert!(shown.starts_with("log level of sink is debug until "), "{shown}");
    assert!(cluster.ok(&["show", "ticker"]).contains("log level of sink is debug until "));
    wait_until_logged(&cluster, "a detail of sink").await;
    assert_eq!(n_lines(&cluster, "a detail of ticks"), 0, "the other component logs as before");

    // All others, for a time that the leader ends.
    cluster.ok(&["log-level", "ticker", "debug", "--for", "3s"]);
    wait_until_logged(&cluster, "a detail of ticks").await;
    wait_until("the level of all components has ended", WAIT_MAX, async || {
        let levels = cluster.json(&["log-level", "ticker"]);
        let is_ended = levels["all"].is_null() && levels["components"]["sink"]["level"] == "debug";
        if is_ended { Ok(()) } else { Err(levels.to_string()) }
    })
    .await;
    wait_until_quiet(&cluster, "a detail of ticks", "a detail of sink").await;

    // Fewer lines than the filter of the workers lets through.
    cluster.ok(&["log-level", "ticker", "error", "--component", "sink"]);
    cluster.ok(&["log-level", "ticker", "debug", "--component", "ticks"]);
    wait_until_quiet(&cluster, "a line of sink", "a detail of ticks").await;
    cluster.ok(&["log-level", "ticker", "--reset"]);
    wait_until_quiet(&cluster, "a detail of ticks", "a line of sink").await;
    assert_eq!(cluster.worker_processes(), processes, "no worker and no component was restarted");

    let refused = cluster.run(&["log-level", "ticker", "debug", "--component", "sinc"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let events = cluster.ok(&["events"]);
    assert!(events.contains("log-levels-changed"), "{events}");
    assert!(events.contains("log level of sink: debug for 3600 s"), "{events}");
    assert!(events.contains("the time of log levels is over"), "{events}");
}

fn n_lines(cluster: &Cluster, text: &str) -> usize {
    let dirs = (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}")));
    let texts = dirs.flat_map(|dir| logs(&dir)).map(|log| fs::read_to_string(log).unwrap_or_default());
    texts.map(|log| log.matches(text).count()).sum()
}

async fn wait_until_logged(cluster: &Cluster, text: &str) {
    let before = n_lines(cluster, text);
    wait_until(&format!("{text:?} is logged"), WAIT_MAX, async || {
        if n_lines(cluster, text) > before + 5 { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
}

/// Waits until one text is not logged any more, and another one is.
async fn wait_until_quiet(cluster: &Cluster, quiet: &str, logged: &str) {
    wait_until(&format!("{quiet:?} is not logged any more"), WAIT_MAX, async || {
        let before = n_lines(cluster, quiet);
        wait_until_logged(cluster, logged).await;
        let after = n_lines(cluster, quiet);
        if after == before { Ok(()) } else { Err(format!("{before}, then {after} lines")) }
    })
    .await;
}
