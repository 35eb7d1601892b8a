//! A leader is frozen, and the only other nimbus restarts with an empty disk: all committed metrics
//! still exist after both nimbuses have synchronized.

use std::fs;

use serde_json::Value;
use stormkeeper_coordination::cluster::{metric_log::MetricLogState, store::Store};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::{SETTINGS, settled, submit, totals, wait_until_counted},
};

/// Counter of the last component of the topology.
const SINK: (&str, &str) = ("sink", "Acked");

async fn metric_log_state(cluster: &Cluster) -> MetricLogState {
    Store::new(cluster.tree.clone()).metric_log_state().await.expect("readable").unwrap_or_default()
}

/// Returns a field of a nimbus in the list of nimbuses.
fn of_nimbus(cluster: &Cluster, nimbus: usize, field: &str) -> Value {
    let listed = cluster.json(&["nimbuses"])["nimbuses"].clone();
    let of = listed.as_array().into_iter().flatten().find(|one| one["api"] == cluster.api(nimbus));
    of.map(|one| one[field].clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_metrics_survive_a_frozen_leader_and_an_empty_disk() {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    let leading = cluster.leading().await.expect("there is a leader");
    let other = 1 - leading.nimbus;
    let status = cluster.nimbuses[other].terminate();
    assert!(status.success(), "{status}");
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    let before = settled(&cluster, (&id, SINK.0, SINK.1), &counts).await;
    wait_until("the whole log is committed on the leader alone", WAIT_MAX, async || {
        let index = cluster.json(&["metrics", "--status"])["store"]["index"].clone();
        let record = metric_log_state(&cluster).await;
        let is_alone = record.in_sync_replicas.len() == 1;
        if is_alone && record.high_watermark.index == index {
            Ok(())
        } else {
            Err(format!("{record:?} {index}"))
        }
    })
    .await;
    let high_watermark_before = metric_log_state(&cluster).await.high_watermark;

    let dirs = [0, 1].map(|n| cluster.path(&format!("nimbus-{}/nimbus/metrics", n + 1)));
    fs::remove_dir_all(&dirs[other]).expect("deleted");
    cluster.nimbuses[leading.nimbus].freeze();
    cluster.nimbuses[other].start_again();
    let new = cluster.wait_for_leader_after(leading.term).await;
    assert_eq!(new.nimbus, other);
    wait_until("the new leader reports the replica it waits for", WAIT_MAX, async || {
        let message = of_nimbus(&cluster, other, "metricsProblem");
        let is_waiting = message.as_str().is_some_and(|text| text.contains("waiting for"));
        if is_waiting { Ok(()) } else { Err(format!("{message}\n{}", cluster.logs())) }
    })
    .await;
    // It leads, except for metrics.
    cluster.ok(&["activate", "exact"]);
    cluster.ok(&["deactivate", "exact"]);

    cluster.nimbuses[leading.nimbus].thaw();
    wait_until("both replicas have the same log", WAIT_MAX, async || {
        let behind = [0, 1].map(|nimbus| of_nimbus(&cluster, nimbus, "metricsLagEntries"));
        let record = metric_log_state(&cluster).await;
        let is_replicated = behind == [0, 0]
            && record.in_sync_replicas.len() == 2
            && record.high_watermark > high_watermark_before;
        if is_replicated { Ok(()) } else { Err(format!("{behind:?} {record:?}\n{}", cluster.logs())) }
    })
    .await;
    assert_eq!(metric_log_state(&cluster).await.unclean_takeover, None);
    for dir in dirs {
        let names = fs::read_dir(&dir).expect("readable").map(|entry| entry.expect("readable").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let quarantined: Vec<_> = names.filter(|name| name.contains("quarantine-")).collect();
        assert!(quarantined.is_empty(), "{quarantined:?} in {}", dir.display());
    }
    // The nimbus that had lost its disk responds alone.
    let status = cluster.nimbuses[leading.nimbus].terminate();
    assert!(status.success(), "{status}");
    let after = settled(&cluster, (&id, SINK.0, SINK.1), &counts).await;
    for (level, count) in before {
        assert!(after.get(&level) >= Some(&count), "{level}: {count} before, and then {after:?}");
    }
    assert_eq!(after, totals(&cluster, &id, SINK.1).expect("answered"));
    assert_eq!(cluster.leading().await.expect("there is a leader"), new, "the leader has changed");
}
