//! Workers that live and cannot do their work: `list`, `show` and `get-errors` say so.

use std::{fs, net::TcpListener};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Shape, WAIT_MAX};

/// The slots of a supervisor, from its configuration.
fn slots(cluster: &Cluster, supervisor: usize) -> Vec<u16> {
    let config = fs::read_to_string(cluster.path(&format!("supervisor-{supervisor}/storm.yaml")));
    let config = config.expect("a configuration");
    let line = config.lines().find_map(|line| line.strip_prefix("supervisor.slots.ports: "));
    serde_json::from_str(line.expect("slots")).expect("a list")
}

async fn wait_until_list(cluster: &Cluster, what: &str, is_expected: impl Fn(&str) -> bool) {
    wait_until(what, WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        if is_expected(&listed) { Ok(()) } else { Err(format!("{listed}\n{}", cluster.logs())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_whose_port_another_program_uses_is_left_and_comes_back() {
    let cluster = Cluster::start().await;
    let taken: Vec<u16> = (1..=2).map(|supervisor| slots(&cluster, supervisor)[0]).collect();
    let strangers: Vec<TcpListener> =
        taken.iter().map(|port| TcpListener::bind(("0.0.0.0", *port)).expect("free")).collect();
    let file = cluster.ticker().display().to_string();
    cluster.ok(&["submit", &file, "--wait", "--timeout", "50s"]);
    let workers = cluster.wait_until_whole("ticker").await;
    assert!(taken.iter().all(|port| !workers.contains_key(&u64::from(*port))), "{workers:?} {taken:?}");
    let me = format!("(pid {})", std::process::id());
    wait_until_list(&cluster, "the list says who has both ports", |listed| {
        let says = |port: &u16| {
            let text = format!("port {port} is already in use by another program");
            listed.lines().any(|line| line.contains(&text) && line.contains(&me))
        };
        taken.iter().all(says)
    })
    .await;
    let slots_total = || cluster.json(&["cluster"])["cluster"]["slotsTotal"].clone();
    assert_eq!(slots_total(), 6);
    drop(strangers);
    wait_until_list(&cluster, "the list says nothing more", |listed| !listed.contains('!')).await;
    assert_eq!(slots_total(), 8);
    assert_eq!(cluster.workers(), workers, "nothing has moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_free_descriptors_lives_and_its_tasks_that_do_not_run_are_named() {
    let settings = "supervisor.worker.timeout.secs: 5\n";
    let cluster = Cluster::with(Shape { supervisors: 1, ..Shape::SMALL }, settings).await;
    let supervisor = cluster.supervisors[0].process().pid;
    let pid = i32::try_from(supervisor).ok().and_then(Pid::from_raw).expect("a pid");
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(100), maximum: Some(100) }).expect("limited");
    let file = cluster.ticker();
    let text = fs::read_to_string(&file).expect("the topology file");
    let text = text
        .replace("topology.workers: 2", "topology.workers: 1")
        .replace("parallelism: 2", "parallelism: 60");
    fs::write(&file, text).expect("written");
    cluster.ok(&["submit", &file.display().to_string()]);
    let running = || {
        let listed = cluster.json(&["list"])["topologies"][0].clone();
        (listed["tasksAlive"].as_u64().unwrap_or_default(), listed["tasksTotal"].clone())
    };
    wait_until_list(&cluster, "the list names the tasks and the reason", |listed| {
        let says = |line: &str| line.starts_with("! ticker: ") && line.contains("Too many open files");
        listed.lines().any(says) && matches!(running(), (1..=59, _))
    })
    .await;
    let shown = cluster.ok(&["show", "ticker"]);
    assert!(shown.contains("Too many open files"), "{shown}");
    let errors = cluster.ok(&["get-errors", "ticker"]);
    assert!(errors.contains("Too many open files") && errors.contains("LimitNOFILE"), "{errors}");
    // Two worker timeouts later, by the heartbeats that its supervisor reads.
    let workers = cluster.workers();
    let [dir] = &fs::read_dir(cluster.path("supervisor-1/supervisor/workers"))
        .expect("listed")
        .collect::<Vec<_>>()[..]
    else {
        panic!("one worker: {workers:?}")
    };
    let heartbeat = dir.as_ref().expect("listed").path().join("heartbeat");
    let beat = || -> Option<u64> { fs::read_to_string(&heartbeat).ok()?.split(' ').nth(1)?.parse().ok() };
    let before = beat().expect("a heartbeat");
    wait_until("the worker goes on", WAIT_MAX, async || {
        beat().filter(|beat| *beat >= before + 12).map(|_| ()).ok_or_else(|| format!("{:?}", beat()))
    })
    .await;
    assert_eq!(cluster.workers(), workers, "the worker lives");
    assert_eq!(running().1, Value::from(61));
}
