//! `stormkeeper doctor` on the host of a cluster.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use serde_json::Value;
use stormkeeper_model::clock::Clock;

use crate::cluster::Cluster;

/// Longest time of the command: that of a session, and of its end.
const DOCTOR_SECS_MAX: u64 = 30;

fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&told).unwrap_or_else(|error| {
        panic!("{error}: {told}{}", String::from_utf8_lossy(&output.stderr));
    })
}

/// Returns the results of a check, each with its text.
fn results(report: &Value, check: &str) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().expect("checks").iter().filter(|one| one["check"] == check);
    checks.map(|one| (one["state"].as_str().expect("a state").to_owned(), one.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_cluster_passes_and_each_fault_of_the_host_is_found_within_its_time() {
    let cluster = Cluster::start().await;
    cluster.wait_until_ready().await;
    let config = cluster.path("nimbus-1/storm.yaml").display().to_string();
    let healthy = cluster.run(&["doctor", "--json", "--config", &config]);
    let found = report(&healthy);
    assert!(healthy.status.success() && found["failures"] == 0, "{found}");
    for check in ["names", "zookeeper", "tree", "nimbus", "clock", "versions", "disk", "limits"] {
        let results = results(&found, check);
        assert!(!results.is_empty(), "nothing about {check}: {found}");
        assert!(results.iter().all(|(state, _)| state != "fail"), "{results:?}");
    }
    let servers = results(&found, "zookeeper");
    assert!(servers.iter().all(|(state, text)| state == "ok" && text.contains("version 3.")), "{servers:?}");

    // A server that accepts and never answers, a token that everybody may read, a name without an address.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("storm.zookeeper.servers=[\"{}\"]", silent.local_addr().expect("bound"));
    let token = cluster.path("token");
    fs::write(&token, "x".repeat(40)).expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("allowed");
    let token = format!("ui.token.file={}", token.display());
    let seeds = "nimbus.seeds=[\"no-such-host.invalid\"]";
    let clock = Clock::new();
    let began = clock.monotonic();
    let faults = ["-c", &silent, "-c", &token, "-c", seeds];
    let sick = cluster.run(&[&["doctor", "--json", "-q", "--config", &config], &faults[..]].concat());
    let took = clock.monotonic().since(began);
    assert!(took.as_secs() < DOCTOR_SECS_MAX, "{took:?}");
    let found = report(&sick);
    assert_eq!(sick.status.code(), Some(1), "{found}");
    for (check, part) in
        [("tree", "within 10s"), ("files", "chmod 600"), ("names", "no-such-host.invalid does not resolve")]
    {
        let results = results(&found, check);
        assert!(
            results.iter().any(|(state, text)| state == "fail" && text.contains(part)),
            "{check}: {found}"
        );
    }
    assert!(!found.to_string().contains("\"state\":\"ok\""), "-q leaves out what is well: {found}");
}
