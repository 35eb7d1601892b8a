//! Registration of 10,000 heartbeats by the workers of one host.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream};
use stormkeeper_coordination::{
    cluster::{
        layout::{self, Ephemeral},
        presence::Presence,
        record::{self, TaskHeartbeat},
    },
    tree::{CreateMode, Op, ReadTree as _, Tree, zookeeper::ZooKeeperTree},
};
use stormkeeper_model::{
    Port, TaskId, TopologyId,
    heartbeat::{TaskCounts, TaskStatus},
};
use stormkeeper_runtime::tasks::Tasks;

use crate::{
    cluster::{Cluster, Settings},
    process::cpu_time,
    report::{Report, Samples},
};

const N_RUNS: usize = 7;
const N_WORKERS: u16 = 10;
const N_TASKS_EACH: u32 = 1000;

/// Number of operations that a `Presence` puts into one transaction.
const BATCH: usize = 100;

/// Number of concurrent transactions of the floor.
const N_AT_ONCE: usize = 100;

pub(crate) async fn run(n_servers: usize) -> Report {
    let mut report =
        Report::new("10,000 tasks in 10 workers register their heartbeats, each worker in its own session");
    let settings = Settings { session_timeout: Duration::from_secs(10), extra: "" };
    let cluster = Cluster::start(n_servers, 1, &settings).await;
    let leader = cluster.nimbus(0).pid();
    let (mut registered, mut cpu) = (Samples::default(), Samples::default());
    let (mut raw, mut singly) = (Samples::default(), Samples::default());
    for n in 0..N_RUNS {
        // New parents of heartbeats for each run: a parent without a topology is removed after a
        // minute.
        let before = cpu_time(leader);
        registered.add(register(&cluster, &place(&cluster, 3 * n).await).await);
        cpu.add(cpu_time(leader) - before);
        raw.add(create(&cluster, &place(&cluster, 3 * n + 1).await, BATCH).await);
        singly.add(create(&cluster, &place(&cluster, 3 * n + 2).await, 1).await);
    }
    report.row("until all are in the tree", "seconds", registered);
    report.floor("CPU time of the leader, which watches, until they are removed again", cpu);
    report.floor("bare creates in one session, 100 to a transaction, 100 at once", raw);
    report.floor("bare creates, one to a transaction, 100 at once", singly);
    report
}

async fn place(cluster: &Cluster, n: usize) -> TopologyId {
    let id: TopologyId = format!("register-{n}-1").parse().expect("a valid id");
    cluster.tree.create(&layout::taskbeats(&id), b"", CreateMode::Persistent).await.expect("created");
    id
}

fn heartbeats(topology: &TopologyId, worker: u16) -> impl Iterator<Item = (Ephemeral, Vec<u8>)> {
    let first = u32::from(worker) * N_TASKS_EACH + 1;
    (first..first + N_TASKS_EACH).map(move |task| {
        let heartbeat = TaskHeartbeat {
            host: "127.0.0.1".to_owned(),
            port: Port(6700 + worker),
            worker: "6700-1700000000-abcdef".parse().expect("a valid id"),
            status: TaskStatus::Starting,
            uptime_secs: 0,
            counts: TaskCounts::default(),
            pending: 0,
            drained_for: None,
            unknown_fields: Default::default(),
        };
        (Ephemeral::TaskHeartbeat(topology.clone(), TaskId(task)), record::encode(&heartbeat))
    })
}

/// Ten connected workers register their heartbeats.
async fn register(cluster: &Cluster, topology: &TopologyId) -> Duration {
    let (tasks, options) = (Tasks::default(), cluster.options());
    let trees: Vec<Arc<dyn Tree>> = (0..N_WORKERS)
        .map(|_| ZooKeeperTree::connect(options.clone(), fastrand::Rng::new(), &tasks) as Arc<dyn Tree>)
        .collect();
    for tree in &trees {
        tree.session().wait_for(|state| state.connected().is_some()).await.expect("connected");
    }
    let began = cluster.clock.monotonic();
    let presences = (0..N_WORKERS).zip(&trees).map(|(worker, tree)| {
        let presence = Presence::start(Arc::clone(tree), &tasks);
        presence.keep_all(heartbeats(topology, worker));
        presence
    });
    let presences: Vec<Presence> = presences.collect();
    join_all(presences.iter().map(Presence::settled)).await;
    let took = cluster.clock.monotonic().since(began);
    join_all(trees.iter().map(|tree| tree.close())).await;
    took
}

/// Creates the same znodes with bare requests.
async fn create(cluster: &Cluster, topology: &TopologyId, batch: usize) -> Duration {
    let (tasks, options) = (Tasks::default(), cluster.options());
    let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
    tree.session().wait_for(|state| state.connected().is_some()).await.expect("connected");
    let creates: Vec<Op> = (0..N_WORKERS)
        .flat_map(|worker| heartbeats(topology, worker))
        .map(|(heartbeat, data)| Op::Create { path: heartbeat.path(), data, mode: CreateMode::Ephemeral })
        .collect();
    let began = cluster.clock.monotonic();
    let multis = creates.chunks(batch).map(|ops| tree.multi(ops.to_vec()));
    let mut multis = stream::iter(multis).buffer_unordered(N_AT_ONCE);
    while let Some(created) = multis.next().await {
        created.expect("created");
    }
    let took = cluster.clock.monotonic().since(began);
    drop(multis);
    tree.close().await;
    took
}
