//! Components that die again and again, and supervisors that cannot bring workers up.

use std::{fs, time::Duration};

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, WAIT_MAX};

const DIES: &str = "
import sys
sys.exit('the disk is read-only')
";

/// Limit within which an operator must see a fault, and the time that a loaded machine may add.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const LOADED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn component_that_dies_at_each_start_shows_in_list_and_show_with_the_reason() {
    let cluster = Cluster::start().await;
    let file = cluster.ticker();
    fs::write(cluster.path("ticker/resources/sink.py"), DIES).expect("written");
    cluster.ok(&["submit", &file.display().to_string()]);
    let line = wait_until("the restarts are in list", SHOWN_WITHIN + LOADED, async || {
        let list = cluster.ok(&["list"]);
        let line = list.lines().find(|line| line.starts_with("! ") && line.contains("started again"));
        line.map(str::to_owned).ok_or_else(|| format!("{list}\n{}", cluster.logs()))
    })
    .await;
    assert!(line.contains("component sink started again"), "{line}");
    assert!(line.contains("exit status: 1") && line.contains("the disk is read-only"), "{line}");
    assert!(line.contains("stormkeeper get-errors"), "{line}");
    let show = cluster.ok(&["show", "ticker"]);
    assert!(show.contains("component sink started again"), "{show}");
}

#[tokio::test(flavor = "multi_thread")]
async fn supervisor_that_cannot_launch_gets_no_second_try_while_another_has_room() {
    let cluster = Cluster::start().await;
    // No worker can be launched there: its directory cannot be created.
    let workers = cluster.path("supervisor-1/supervisor/workers");
    let _absent = fs::remove_dir_all(&workers);
    fs::write(&workers, "").expect("written");
    cluster.ok(&["submit", &cluster.ticker().display().to_string()]);
    cluster.wait_until_whole("ticker").await;
    let list = wait_until("the broken supervisor is in list", WAIT_MAX, async || {
        let list = cluster.ok(&["list"]);
        if list.contains("could not bring workers up") { Ok(list) } else { Err(list) }
    })
    .await;
    assert!(list.contains("its slots are used last"), "{list}");
    // The next topology does not go there either, although that supervisor has more free slots.
    let other = cluster.ticker();
    cluster.ok(&["submit", &other.display().to_string(), "--name", "other"]);
    cluster.wait_until_whole("other").await;
    let events = cluster.json(&["events"]);
    let moves: Vec<String> = (events["events"].as_array().expect("a list").iter())
        .filter(|event| event["event"] == "moved")
        .map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    let [reason] = &moves[..] else { panic!("{moves:?}") };
    assert!(reason.contains("its supervisor cannot start it"), "{reason}");
}
