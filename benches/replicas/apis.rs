//! The APIs of a leader of a large cluster: answers at a fixed rate, single answers, and the leader's
//! decisions while monitors ask.

use std::time::Duration;

use serde_json::Value;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{ComponentId, TopologyId};

use crate::{
    cluster::{Cluster, Settings},
    hosts::Hosts,
    load::{Load, wait_for_heartbeats, wait_for_hosts},
    measured,
    process::{cpu_time, resident_bytes},
    report::{Report, Samples, millis},
    requests::{Connection, at_rate, in_turn},
};

const N_SUPERVISORS: usize = 1000;
const LOAD: Load = Load { n_topologies: 300, n_tasks_each: 67, n_workers_each: 6 };

/// Requests per second, and the seconds for which they are sent.
const RATE: (u32, u32) = (2000, 20);

/// Minutes with points of the topology whose pages are measured.
const N_MINUTES: u32 = 1400;

/// Tasks of that topology with metrics of their own.
const N_TASKS: u32 = 60;

/// Answers that are measured one after the other.
const N_ANSWERS: usize = 50;

/// Time between two answers that must not be of one snapshot.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(11);

/// Decisions that are measured with and without monitors.
const N_DECISIONS: usize = 150;

/// Pause after a decision.
const DECISION_PAUSE: Duration = Duration::from_millis(300);

pub(crate) async fn run(n_servers: usize) -> Report {
    let title = "The APIs of a leader of 300 topologies, 1,000 supervisors with 4 slots each, 20,100 tasks";
    let mut report = Report::new(title);
    let extra = "nimbus.prometheus.series.max: 40000\n";
    let settings = Settings { session_timeout: Duration::from_secs(30), extra };
    let cluster = Cluster::start(n_servers, 1, &settings).await;
    let hosts = Hosts {
        first: 0,
        n: N_SUPERVISORS,
        n_slots: 4,
        n_sessions: 50,
        session_timeout: Duration::from_secs(30),
    };
    let _hosts = hosts.start(&cluster);
    wait_for_hosts(&cluster, N_SUPERVISORS).await;
    LOAD.submit(&cluster).await;
    wait_for_heartbeats(&cluster, LOAD.n_tasks()).await;
    let topology = measure(&cluster).await;
    let address = cluster.store.leader().await.expect("a response of the tree").expect("a leader").api;
    rates(&cluster, &address, &mut report).await;
    pages(&cluster, (&address, &topology), &mut report).await;
    decisions(&cluster, (&address, &topology), &mut report).await;
    let nimbus = cluster.nimbus(0).pid();
    report.floor("memory of the leader", format!("{} MiB", resident_bytes(nimbus) >> 20));
    report
}

/// Gives all topologies metrics of a few minutes, and one of them those of a day, with those of its
/// tasks. Returns that one.
async fn measure(cluster: &Cluster) -> TopologyId {
    let names = cluster.tree.children(&layout::storms()).await.expect("read").expect("topologies");
    let topologies: Vec<TopologyId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let components: [ComponentId; 2] = ["lines", "count"].map(|id| id.parse().expect("a valid id"));
    let (first, others) = topologies.split_first().expect("some topologies");
    let tasks = Some((&components[1], N_TASKS));
    measured::send(cluster, first, &measured::subjects(&components, tasks), N_MINUTES).await;
    for other in others {
        measured::send(cluster, other, &measured::subjects(&components, None), 3).await;
    }
    first.clone()
}

/// Measures answers at a fixed rate, beside a path that costs the server nothing but the request.
async fn rates(cluster: &Cluster, address: &str, report: &mut Report) {
    let (per_second, nimbus) = (RATE.0, cluster.nimbus(0).pid());
    for (path, goal) in [
        ("/live", "–"),
        ("/api/v1/cluster/summary", "99 % below 50 ms"),
        ("/api/stormkeeper/v1/cluster/summary", "99 % below 50 ms"),
    ] {
        let before = cpu_time(nimbus);
        let took = at_rate(address, path, RATE, &cluster.clock).await;
        let cpu = (cpu_time(nimbus) - before) / took.n();
        let text = format!("{}; {} of CPU time for each", took.percentiles(), millis(cpu));
        report.row(format!("`GET {path}`, {per_second} per second"), goal, text);
    }
}

/// Measures single answers.
async fn pages(cluster: &Cluster, (address, topology): (&str, &TopologyId), report: &mut Report) {
    for (what, path) in [
        ("Storm, list of topologies", "/api/v1/topology/summary".to_owned()),
        ("Storm, list of supervisors", "/api/v1/supervisor/summary".to_owned()),
        ("Storm, page of a topology", format!("/api/v1/topology/{topology}")),
        ("Storm, page of a topology, window 86400", format!("/api/v1/topology/{topology}?window=86400")),
        ("Storm, page of a component with 60 tasks", format!("/api/v1/topology/{topology}/component/count")),
        ("own, list of topologies", "/api/stormkeeper/v1/topology/summary".to_owned()),
    ] {
        let took = in_turn(address, &path, N_ANSWERS, &cluster.clock).await;
        report.row(what, "20 ms", took);
    }
    let query = query_of_flink(address).await;
    let took = in_turn(address, &query, N_ANSWERS, &cluster.clock).await;
    report.row("Flink, 1,000 metrics of the tasks of a component", "10 ms", took);
    let (page, mut took) = (Connection::open(address).await.get("/metrics").await, Samples::default());
    let is_value = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
    let n_series = page.split(|byte| *byte == b'\n').filter(is_value).count();
    for _ in 0..7 {
        tokio::time::sleep(SNAPSHOT_PERIOD).await;
        let (nimbus, began) = (cluster.nimbus(0).pid(), cpu_time(cluster.nimbus(0).pid()));
        took.extend(in_turn(address, "/metrics", 1, &cluster.clock).await);
        report.floor("CPU time of the leader for one of them", millis(cpu_time(nimbus) - began));
    }
    report.row(format!("`/metrics`, a new page of {n_series} lines"), "100 ms", took);
}

/// Returns the path of a query for 1,000 metrics of the component with the most metrics.
async fn query_of_flink(address: &str) -> String {
    let mut connection = Connection::open(address).await;
    let jobs: Value = serde_json::from_slice(&connection.get("/jobs").await).expect("JSON");
    for job in jobs["jobs"].as_array().expect("a list") {
        let path = format!("/jobs/{}", job["id"].as_str().expect("an id"));
        let job: Value = serde_json::from_slice(&connection.get(&path).await).expect("JSON");
        for vertex in job["vertices"].as_array().expect("a list") {
            let path = format!("{path}/vertices/{}/metrics", vertex["id"].as_str().expect("an id"));
            let names: Value = serde_json::from_slice(&connection.get(&path).await).expect("JSON");
            let names = names.as_array().into_iter().flatten().filter_map(|name| name["id"].as_str());
            let names: Vec<&str> = names.take(1000).collect();
            if names.len() == 1000 {
                return format!("{path}?get={}", names.join(","));
            }
        }
    }
    panic!("no component has 1,000 metrics");
}

/// Measures the leader's decisions: from an error in the tree until the leader has corrected it.
async fn decisions(cluster: &Cluster, (address, topology): (&str, &TopologyId), report: &mut Report) {
    let alone = decide(cluster).await;
    report.floor("a decision, from its cause in the tree until its effect there", alone.percentiles());
    let pages = [
        (Duration::from_secs(10), "/metrics".to_owned()),
        (Duration::from_secs(1), format!("/api/v1/topology/{topology}")),
        (Duration::from_secs(1), "/api/v1/topology/summary".to_owned()),
        (Duration::from_secs(1), query_of_flink(address).await),
    ];
    let asking = futures_util::future::join_all(pages.iter().map(async |(period, path)| {
        let (mut connection, mut period) = (Connection::open(address).await, tokio::time::interval(*period));
        loop {
            period.tick().await;
            connection.get(path).await;
        }
    }));
    let watched = tokio::select! {
        // Cancel-safe: the monitors end with the last decision.
        _never = asking => unreachable!("monitors ask for ever"),
        watched = decide(cluster) => watched,
    };
    let what = "the same while Prometheus asks every 10 s, and monitors of Storm and Flink every second";
    report.row(what, "no spike", watched.percentiles());
}

async fn decide(cluster: &Cluster) -> Samples {
    let mut took = Samples::default();
    for _ in 0..N_DECISIONS {
        tokio::time::sleep(DECISION_PAUSE).await;
        let began = cluster.clock.monotonic();
        cluster.request_write().await;
        took.add(cluster.write_done().await.since(began));
    }
    took
}
