//! 100,000 tasks with heartbeats: their cost, and the time until a lost host is detected.

use std::time::Duration;

use stormkeeper_coordination::cluster::{layout, record::decode_assignment};
use stormkeeper_model::{SupervisorId, TopologyId, clock::Monotonic};

use crate::{
    cluster::{Cluster, Settings},
    hosts::{Hosts, supervisor_id},
    load::{Load, wait_for_heartbeats, wait_for_hosts},
    process::{Process, cpu_time, resident_bytes},
    report::{Report, Samples, millis},
    watching::{until, until_gone},
};

const LOAD: Load = Load { n_topologies: 100, n_tasks_each: 1000, n_workers_each: 4 };

/// Hosts with 4 workers of 250 tasks each. Each host to be lost is a process of its own.
const N_HOSTS: usize = 100;
const N_LOST: usize = 5;

/// Slots per host, with room for the tasks of lost hosts.
const N_SLOTS: u16 = 8;

/// Six heartbeat periods.
const STEADY: Duration = Duration::from_secs(60);

const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(n_servers: usize) -> Report {
    let mut report = Report::new("100,000 tasks of 100 topologies in 400 workers on 100 hosts");
    // The detection of a lost host waits for its session only, not for the supervisor to come back,
    // nor for a new leader to settle.
    let extra = "nimbus.supervisor.timeout.secs: 0\nnimbus.settle.secs: 0\n";
    let settings = Settings { session_timeout: SESSION_TIMEOUT, extra };
    let cluster = Cluster::start(n_servers, 2, &settings).await;
    let hosts =
        |first, n| Hosts { first, n, n_slots: N_SLOTS, n_sessions: n, session_timeout: SESSION_TIMEOUT };
    let mut doomed: Vec<Process> = (0..N_LOST).map(|n| hosts(n, 1).start(&cluster)).collect();
    let rest = hosts(N_LOST, N_HOSTS - N_LOST).start(&cluster);
    wait_for_hosts(&cluster, N_HOSTS).await;
    let submits = LOAD.submit(&cluster).await;
    wait_for_heartbeats(&cluster, LOAD.n_tasks()).await;
    let cpu = cpu_time(cluster.nimbus(cluster.leader().await).pid());
    report.floor("CPU time of the leader until all tasks are placed and send heartbeats", millis(cpu));
    report.floor("one submit while all are submitted one after the other", submits);
    steady(&cluster, &rest, &mut report).await;
    lose_hosts(&cluster, &mut doomed, &mut report).await;
    report
}

/// Returns one number of the server's response to `mntr` or `srvr`.
async fn ask(cluster: &Cluster, word: &str, key: &str) -> u64 {
    let answer = cluster.zookeeper.servers[0].ask(word).await.expect("a response of the server");
    let line = answer.lines().find_map(|line| line.strip_prefix(key)).expect("a line with the key").trim();
    match line.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect("a number"),
        None => line.parse().expect("a number"),
    }
}

async fn steady(cluster: &Cluster, hosts: &Process, report: &mut Report) {
    let leader = cluster.leader().await;
    let pids = [
        ("the leader", cluster.nimbus(leader).pid()),
        ("the other nimbus", cluster.nimbus(1 - leader).pid()),
        ("ZooKeeper", cluster.zookeeper.servers[0].pid().expect("it runs")),
        ("the process that simulates 95 hosts", hosts.pid()),
    ];
    let (began, zxid) = (cluster.clock.monotonic(), ask(cluster, "srvr", "Zxid:").await);
    let received = ask(cluster, "mntr", "zk_packets_received").await;
    let before = pids.map(|(_, pid)| cpu_time(pid));
    tokio::time::sleep(STEADY).await;
    let took = cluster.clock.monotonic().since(began).as_secs_f64();
    let per_second = |n: u64| format!("{:.0}/s", n as f64 / took);
    let n_writes = ask(cluster, "srvr", "Zxid:").await - zxid;
    let n_requests = ask(cluster, "mntr", "zk_packets_received").await - received;
    report.row("transactions", "2,000/s", per_second(n_writes));
    report.floor("requests, reads and pings included", per_second(n_requests));
    report.floor("znodes written in those transactions", per_second(LOAD.n_tasks() as u64 * 6));
    for ((name, pid), before) in pids.into_iter().zip(before) {
        let cpu = (cpu_time(pid) - before).as_secs_f64() / took * 100.0;
        let memory = resident_bytes(pid) >> 20;
        let goal = if name == "the leader" { "20 % of a core" } else { "–" };
        report.row(format!("CPU and memory of {name}"), goal, format!("{cpu:.1} % of a core, {memory} MiB"));
    }
}

async fn lose_hosts(cluster: &Cluster, doomed: &mut Vec<Process>, report: &mut Report) {
    let (mut ended, mut written, mut restarted) =
        (Samples::default(), Samples::default(), Samples::default());
    for n in (0..N_LOST).rev() {
        let id = supervisor_id(n);
        let assignments =
            cluster.store.supervisor_assignments(&id).await.expect("read").expect("it has assignments");
        let concerned: Vec<TopologyId> = assignments.value.topologies.into_keys().collect();
        let began = cluster.clock.monotonic();
        doomed.pop().expect("one for each").kill9();
        let gone = until_gone(&*cluster.tree, &cluster.clock, &layout::supervisor(&id)).await;
        let reassigned = reassigned(cluster, &id, &concerned).await;
        ended.add(gone.since(began));
        written.add(reassigned.since(gone));
        wait_for_heartbeats(cluster, LOAD.n_tasks()).await;
        restarted.add(cluster.clock.monotonic().since(gone));
    }
    report.row(
        "a host with 1,000 tasks is lost: from the end of its session until all are reassigned",
        "1 s",
        written,
    );
    report.floor("until all of them send heartbeats elsewhere", restarted);
    report.floor("kill -9 of the host, session timeout 10 s: until its session has ended", ended);
}

/// Waits until all of `topologies` are assigned to other supervisors than `lost`; returns the time.
async fn reassigned(cluster: &Cluster, lost: &SupervisorId, topologies: &[TopologyId]) -> Monotonic {
    let mut last = cluster.clock.monotonic();
    for id in topologies {
        let path = layout::assignment(id);
        let moved = until(&*cluster.tree, &cluster.clock, &path, |node| {
            let assignment = decode_assignment(&path, &node?.data).ok()?;
            assignment.workers.keys().all(|slot| slot.supervisor != *lost).then_some(())
        });
        last = last.max(moved.await.1);
    }
    last
}
