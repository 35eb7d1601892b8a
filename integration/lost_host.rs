//! A host that is killed or cut off loses its tasks with its sessions; restarts and outages move
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use stormkeeper_coordination::{
    cluster::{layout, record},
    tree::TreePath,
};
use stormkeeper_model::TopologyId;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{
        Assignments, Cluster, Mode, Network, Process, SESSION_TIMEOUT, Shape, WAIT_MAX, kill9, processes_with,
    },
    history::History,
    recovery::{endless, finish},
};

const TOPOLOGY: &str = "word-count";

/// Timeouts longer than any wait: only the loss of a host moves a task.
const SETTINGS: &str = "nimbus.supervisor.timeout.secs: 600\nnimbus.task.timeout.secs: 600\n";

const SHAPE: Shape = Shape { zookeepers: 1, nimbuses: 2, supervisors: 3, network: Network::Proxied };

/// Time for which a leader moves nothing after a reconnection, and some more.
const QUIET: Duration = Duration::from_secs(13);

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "measurements for the log, and the end of an observation")]
    Instant::now()
}

/// The processes that a supervisor has launched.
fn processes_of(cluster: &Cluster, supervisor: usize) -> BTreeSet<Process> {
    let dir = cluster.path(&cluster.supervisors[supervisor].name);
    processes_with(&format!("STORMKEEPER_SUPERVISOR_DIR={}", dir.display()))
}

/// A supervisor that runs a worker.
fn busy_supervisor(cluster: &Cluster) -> usize {
    let mut all = 0..cluster.supervisors.len();
    all.find(|n| !processes_of(cluster, *n).is_empty()).expect("a worker runs")
}

/// The tasks of the topology on each supervisor, as `/taskbeats` names them.
async fn heartbeats_by_supervisor(cluster: &Cluster) -> BTreeMap<String, Vec<TreePath>> {
    let parent = layout::assignments();
    let mut tasks: BTreeMap<String, Vec<TreePath>> = BTreeMap::new();
    for name in cluster.tree.children(&parent).await.expect("read").unwrap_or_default() {
        let id: TopologyId = name.parse().expect("valid id");
        let path = layout::assignment(&id);
        let Some(node) = cluster.tree.get(&path).await.expect("read") else { continue };
        for (slot, worker) in record::decode_assignment(&path, &node.data).expect("readable").workers {
            let heartbeats = worker.tasks.iter().map(|task| layout::taskbeat(&id, task));
            tasks.entry(slot.supervisor.to_string()).or_default().extend(heartbeats);
        }
    }
    tasks
}

fn id_of(cluster: &Cluster, supervisor: usize) -> String {
    let file = cluster.path(&cluster.supervisors[supervisor].name).join("supervisor/supervisor-id");
    std::fs::read_to_string(file).expect("it has an id").trim().to_owned()
}

/// Waits until the tasks of a supervisor have another place, and all of them run. Returns the duration.
async fn wait_until_left(cluster: &Cluster, supervisor: usize) -> Duration {
    let (id, began) = (id_of(cluster, supervisor), now());
    wait_until("the tasks of the host have another place", WAIT_MAX, async || {
        let placed = heartbeats_by_supervisor(cluster).await;
        if placed.contains_key(&id) { Err(format!("{placed:?}\n{}", cluster.logs())) } else { Ok(()) }
    })
    .await;
    cluster.wait_until_whole(TOPOLOGY).await;
    let lasted = began.elapsed();
    cluster.wait_until_tuples_flow(TOPOLOGY).await;
    let events = cluster.ok(&["events", "--topology", TOPOLOGY]);
    let reason = "its host is lost: session expired and all its workers' heartbeats gone";
    assert!(events.contains(reason), "{events}");
    lasted
}

/// Kills the workers of a supervisor, with their components.
fn kill_workers(cluster: &Cluster, supervisor: usize) {
    processes_of(cluster, supervisor).iter().for_each(|process| kill9(process.pid));
}

/// Waits until the supervisor and all of its workers are absent from the tree.
async fn wait_until_absent(cluster: &Cluster, supervisor: usize) {
    let id = id_of(cluster, supervisor);
    let heartbeats = heartbeats_by_supervisor(cluster).await.remove(&id).expect("it has tasks");
    let registration = layout::supervisor(&id.parse().expect("valid id"));
    wait_until("the host is absent from the tree", WAIT_MAX, async || {
        for path in heartbeats.iter().chain([&registration]) {
            if cluster.tree.get(path).await.expect("read").is_some() {
                return Err(format!("{path} is there\n{}", cluster.logs()));
            }
        }
        Ok(())
    })
    .await;
}

/// Observes for a while that no assignment is written.
async fn assert_nothing_moves(cluster: &Cluster, before: &Assignments, during: &str) {
    let end = now() + QUIET;
    wait_until("the observation time is over", QUIET + WAIT_MAX, async || {
        assert_eq!(cluster.assignments().await, *before, "{during}:\n{}", cluster.logs());
        let left = end.saturating_duration_since(now());
        if left.is_zero() { Ok(()) } else { Err(format!("{left:?} are left")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_is_killed_or_cut_off_loses_its_tasks_with_its_sessions() {
    let mut cluster = Cluster::with(SHAPE, SETTINGS).await;
    endless(&cluster).await;

    let killed = busy_supervisor(&cluster);
    cluster.supervisors[killed].kill9();
    kill_workers(&cluster, killed);
    let lasted = wait_until_left(&cluster, killed).await;
    eprintln!("a host was killed: all tasks ran elsewhere after {lasted:?}");
    cluster.supervisors[killed].start_again();
    cluster.wait_until_ready().await;

    let cut_off = busy_supervisor(&cluster);
    let old: BTreeSet<Process> = processes_of(&cluster, cut_off);
    let proxy = cluster.nimbuses.len() + cut_off;
    cluster.proxies[proxy].set(Mode::Refuse);
    let lasted = wait_until_left(&cluster, cut_off).await;
    eprintln!("a host was cut off: all tasks ran elsewhere after {lasted:?}");
    cluster.proxies[proxy].heal();
    wait_until("the host that came back ends its old workers", WAIT_MAX, async || {
        let left: Vec<_> = processes_of(&cluster, cut_off).intersection(&old).copied().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}\n{}", cluster.logs())) }
    })
    .await;
    cluster.wait_until_ready().await;
    finish(&cluster).await;
    History::of(&mut cluster).assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_hosts_and_supervisors_keep_their_tasks() {
    let mut cluster = Cluster::with(SHAPE, SETTINGS).await;
    endless(&cluster).await;
    let before = cluster.assignments().await;

    // As `docker restart`: the supervisor stops cleanly, and its workers end with the container.
    for supervisor in 0..cluster.supervisors.len() {
        let has_workers = !processes_of(&cluster, supervisor).is_empty();
        let status = cluster.supervisors[supervisor].terminate();
        assert!(status.success(), "{status}");
        kill_workers(&cluster, supervisor);
        if has_workers {
            wait_until_absent(&cluster, supervisor).await;
            assert_nothing_moves(&cluster, &before, "a host is being restarted").await;
            let listed = cluster.ok(&["list"]);
            assert!(listed.contains("has stopped, and its workers with it: start it"), "{listed}");
        }
        cluster.supervisors[supervisor].start_again();
        cluster.wait_until_ready().await;
        cluster.wait_until_whole(TOPOLOGY).await;
    }
    wait_until("no stop is announced any more", WAIT_MAX, async || {
        let stops = cluster.tree.children(&layout::stopped_supervisors()).await.expect("read");
        if stops == Some(vec![]) { Ok(()) } else { Err(format!("{stops:?}")) }
    })
    .await;

    // The session of a killed supervisor expires, and its workers run on.
    let killed = busy_supervisor(&cluster);
    let workers = cluster.workers();
    cluster.supervisors[killed].kill9();
    let id = id_of(&cluster, killed).parse().expect("valid id");
    wait_until("the session of the supervisor expires", WAIT_MAX, async || {
        let node = cluster.tree.get(&layout::supervisor(&id)).await.expect("read");
        if node.is_none() { Ok(()) } else { Err(format!("{node:?}")) }
    })
    .await;
    assert_nothing_moves(&cluster, &before, "a supervisor is killed above its workers").await;
    let listed = cluster.ok(&["list"]);
    assert!(listed.contains("is absent, so nobody restarts its workers, which run on: start it"), "{listed}");
    cluster.supervisors[killed].start_again();
    cluster.wait_until_ready().await;
    assert_eq!(cluster.workers(), workers, "they were adopted");

    assert_nothing_moves(&cluster, &before, "everything is back").await;
    finish(&cluster).await;
    History::of(&mut cluster).assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_about_a_session_move_nothing() {
    let cluster = Cluster::with(Shape { network: Network::Direct, ..SHAPE }, SETTINGS).await;
    let workers = endless(&cluster).await;
    let before = cluster.assignments().await;
    for sessions in [0.9, 1.2, 1.6] {
        let ended = cluster.count_in_logs("session ended");
        cluster.zookeeper.servers[0].pause().await;
        // An outage of this length: nothing is waited for.
        tokio::time::sleep(SESSION_TIMEOUT.mul_f64(sessions)).await;
        cluster.zookeeper.servers[0].resume();
        cluster.wait_until_ready().await;
        cluster.wait_until_whole(TOPOLOGY).await;
        assert_nothing_moves(&cluster, &before, "after an outage").await;
        let n_ended: usize = cluster.count_in_logs("session ended").iter().sum();
        eprintln!("outage of {sessions} sessions: {} sessions ended", n_ended - ended.iter().sum::<usize>());
    }
    assert_eq!(cluster.workers(), workers);
    finish(&cluster).await;
}
