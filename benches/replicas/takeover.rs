//! Time until a new leader of a large cluster has decided.

use std::time::Duration;

use crate::{
    cluster::{Cluster, Settings},
    floor,
    hosts::Hosts,
    load::{Load, wait_for_heartbeats, wait_for_hosts},
    process::{cpu_time, resident_bytes},
    report::{Report, Samples},
};

const N_SUPERVISORS: usize = 1000;
const LOAD: Load = Load { n_topologies: 300, n_tasks_each: 67, n_workers_each: 6 };

const N_WARM: usize = 7;
const N_COLD: usize = 7;

pub(crate) async fn run(n_servers: usize) -> Report {
    let mut report =
        Report::new("A new leader of 300 topologies, 1,000 supervisors with 4 slots each, 20,100 tasks");
    let settings = Settings { session_timeout: Duration::from_secs(10), extra: "" };
    let mut cluster = Cluster::start(n_servers, 2, &settings).await;
    let hosts = Hosts {
        first: 0,
        n: N_SUPERVISORS,
        n_slots: 4,
        n_sessions: 50,
        session_timeout: Duration::from_secs(30),
    };
    let _hosts = hosts.start(&cluster);
    wait_for_hosts(&cluster, N_SUPERVISORS).await;
    let submits = LOAD.submit(&cluster).await;
    wait_for_heartbeats(&cluster, LOAD.n_tasks()).await;
    report.floor("one submit while all are submitted one after the other", submits);

    takeovers(&mut cluster, &mut report).await;
    starts(&mut cluster, &mut report).await;

    let paths = floor::record_paths(&*cluster.tree).await;
    let (in_turn, at_once) = floor::read_all(&cluster.tree, &cluster.clock, &paths).await;
    report.floor(format!("read all {} records in batches of 200, one after the other", paths.len()), in_turn);
    report.floor("the same, 8 batches at once", at_once);
    let leader = cluster.nimbus(cluster.leader().await).pid();
    report.floor("memory of the leader", format!("{} MiB", resident_bytes(leader) >> 20));
    report
}

/// A follower takes over after the leader is stopped.
async fn takeovers(cluster: &mut Cluster, report: &mut Report) {
    let (mut decided, mut since_stop) = (Samples::default(), Samples::default());
    for _ in 0..N_WARM {
        let leader = cluster.leader().await;
        let term = cluster.term().await;
        let nimbus = cluster.take_nimbus(leader);
        let began = cluster.clock.monotonic();
        nimbus.terminate();
        let led = cluster.led_after(term).await;
        cluster.request_write().await;
        let done = cluster.write_done().await;
        decided.add(done.since(led));
        since_stop.add(done.since(began));
        nimbus.ended();
        cluster.start_nimbus(leader);
        cluster.ready(2).await;
    }
    report.row("a follower wins: until it has decided and written", "2 s", decided);
    report.floor("from SIGTERM to its predecessor until then", since_stop);
}

/// A nimbus with an empty view starts and leads.
async fn starts(cluster: &mut Cluster, report: &mut Report) {
    let follower = 1 - cluster.leader().await;
    let nimbus = cluster.take_nimbus(follower);
    nimbus.terminate();
    nimbus.ended();
    let leader = 1 - follower;
    let (mut decided, mut since_start, mut cpu) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..N_COLD {
        let term = cluster.term().await;
        cluster.take_nimbus(leader).kill9();
        cluster.request_write().await;
        let began = cluster.clock.monotonic();
        cluster.start_nimbus(leader);
        let led = cluster.led_after(term).await;
        let done = cluster.write_done().await;
        decided.add(done.since(led));
        since_start.add(done.since(began));
        cpu.add(cpu_time(cluster.nimbus(leader).pid()));
        cluster.ready(1).await;
    }
    report.row("a nimbus that just started wins: until it has decided and written", "2 s", decided);
    report.floor("from its start until then", since_start);
    report.floor("CPU time that it used until then", cpu);
}
