//! Simulated hosts in a separate process: registered supervisors, and workers that send heartbeats
//! according to the assignments of the leader, without real worker processes.
//!
//! Each supervisor and each worker keeps its ephemerals through its own `Presence`, like the real
//! daemons, in sessions that several hosts share. Each worker rewrites the heartbeats of all of its
//! tasks, with new counts, once per period.

use std::{collections::BTreeMap, io::Read as _, sync::Arc, time::Duration};

use crate::{
    cluster::{self, Cluster},
    process::Process,
};
use stormkeeper_coordination::{
    cluster::{
        layout::{self, Ephemeral},
        presence::Presence,
        record::{self, Resources, SupervisorRecord, TaskHeartbeat},
        store::Store,
    },
    tree::{Scope, Tree, options::Options, zookeeper::ZooKeeperTree},
};
use stormkeeper_model::{
    Port, SupervisorId, TopologyId,
    clock::Clock,
    heartbeat::{TaskCounts, TaskStatus},
    task_set::TaskSet,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

pub(crate) const VERB: &str = "hosts";

/// The default of `task.heartbeat.frequency.secs`.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);

const FIRST_PORT: u16 = 6700;

/// Hosts that one process simulates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hosts {
    /// Number of the first host.
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Number of slots of each host.
    pub(crate) n_slots: u16,
    pub(crate) n_sessions: usize,
    pub(crate) session_timeout: Duration,
}

/// Id of the supervisor of host `n`.
pub(crate) fn supervisor_id(n: usize) -> SupervisorId {
    format!("host-{n:04}").parse().expect("a valid id")
}

impl Hosts {
    /// Starts the process that simulates the hosts.
    pub(crate) fn start(self, cluster: &Cluster) -> Process {
        let this = std::env::current_exe().expect("this program has a path");
        let servers = cluster.options().servers.join(",");
        let numbers = [
            self.first.to_string(),
            self.n.to_string(),
            self.n_slots.to_string(),
            self.n_sessions.to_string(),
            self.session_timeout.as_millis().to_string(),
        ];
        let args: Vec<&str> =
            [VERB, &servers].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        Process::start(&this, &args, &cluster.dir.path().join("hosts.log"))
    }

    fn parse(args: &[&str]) -> Self {
        let number = |i: usize| args[i].parse::<usize>().expect("a number");
        Self {
            first: number(0),
            n: number(1),
            n_slots: u16::try_from(number(2)).expect("a few slots"),
            n_sessions: number(3),
            session_timeout: Duration::from_millis(number(4) as u64),
        }
    }
}

/// Simulates hosts until standard input is closed, which happens when the parent ends.
pub(crate) async fn run(args: &[&str]) {
    stormkeeper_runtime::telemetry::log_to_stderr(Some("warn"));
    let hosts = Hosts::parse(&args[1..]);
    let servers = args[0].split(',').map(str::to_owned).collect();
    let options = Options { session_timeout: hosts.session_timeout, ..cluster::options(servers) };
    let tasks = Tasks::default();
    let trees: Vec<Arc<dyn Tree>> = (0..hosts.n_sessions)
        .map(|_| ZooKeeperTree::connect(options.clone(), fastrand::Rng::new(), &tasks) as Arc<dyn Tree>)
        .collect();
    for n in 0..hosts.n {
        let tree = Arc::clone(&trees[n % trees.len()]);
        let host = Host { n: hosts.first + n, n_slots: hosts.n_slots, tree, workers: BTreeMap::new() };
        tasks.start("host", OnExit::StopOwner, host.run());
    }
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        // Cancel-safe: the first to end ends the process.
        _ended = input => {}
        () = async { tasks.cancelled().cancelled().await } => panic!("a host has ended"),
    }
}

struct Host {
    n: usize,
    n_slots: u16,
    tree: Arc<dyn Tree>,
    /// Simulated workers, each with its tasks and the async tasks that send their heartbeats.
    workers: BTreeMap<(TopologyId, Port), (TaskSet, Tasks)>,
}

impl Host {
    async fn run(mut self) {
        let (id, tasks) = (supervisor_id(self.n), Tasks::default());
        let presence = Presence::start(Arc::clone(&self.tree), &tasks);
        let record = SupervisorRecord {
            host: id.to_string(),
            ports: (FIRST_PORT..FIRST_PORT + self.n_slots).map(Port).collect(),
            resources: Resources { cpu_percent: 400, memory_mb: 4096 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start: Clock::new().now(),
            announces_stop: false,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        presence.keep(&Ephemeral::Supervisor(id.clone()), record::encode(&record));
        let mut assignments = self.tree.watch(&layout::supervisor_assignments(&id), Scope::Node);
        loop {
            assignments.changed().await;
            if let Err(error) = self.reconcile(&id).await {
                panic!("{id} cannot read its assignments: {error}");
            }
        }
    }

    /// Starts and stops workers according to the supervisor's assignments.
    async fn reconcile(&mut self, id: &SupervisorId) -> Result<(), Box<dyn std::error::Error>> {
        let store = Store::new(Arc::clone(&self.tree));
        let mut wanted = BTreeMap::new();
        let assignments = store.supervisor_assignments(id).await?;
        for topology in assignments.iter().flat_map(|assignments| assignments.value.topologies.keys()) {
            let Some(assignment) = store.assignment(topology).await? else { continue };
            for (port, worker) in assignment.value.workers_of(id) {
                wanted.insert((topology.clone(), port), worker.tasks.clone());
            }
        }
        // Stopping a worker leaves its heartbeats to the session. A worker is only stopped here on
        // a lost host, whose session ends.
        self.workers.retain(|slot, (tasks, _)| wanted.get(slot) == Some(tasks));
        for ((topology, port), tasks) in wanted {
            let slot = (topology.clone(), port);
            if !self.workers.contains_key(&slot) {
                let owner = heartbeat(&self.tree, id, topology, port, &tasks);
                self.workers.insert(slot, (tasks, owner));
            }
        }
        Ok(())
    }
}

/// Keeps the heartbeats of one worker, as `worker::heartbeat` does.
fn heartbeat(
    tree: &Arc<dyn Tree>,
    host: &SupervisorId,
    topology: TopologyId,
    port: Port,
    set: &TaskSet,
) -> Tasks {
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(tree), &tasks);
    let (host, set, clock) = (host.to_string(), set.clone(), Clock::new());
    let worker: stormkeeper_model::WorkerId =
        format!("{port}-{}-{:06x}", clock.now().as_millis() / 1000, fastrand::u32(..0x0100_0000))
            .parse()
            .expect("a valid id");
    tasks.start("heartbeats", OnExit::StopOwner, async move {
        let began = clock.monotonic();
        let mut period = tokio::time::interval(HEARTBEAT_PERIOD);
        loop {
            period.tick().await;
            let uptime_secs = clock.monotonic().since(began).as_secs();
            presence.keep_all(set.iter().map(|task| {
                let n = uptime_secs * 1000;
                let counts = TaskCounts { emitted: n, transferred: n, executed: n, acked: n, failed: 0 };
                let heartbeat = TaskHeartbeat {
                    host: host.clone(),
                    port,
                    worker: worker.clone(),
                    status: TaskStatus::Running,
                    uptime_secs,
                    counts,
                    pending: 0,
                    drained_for: None,
                    unknown_fields: Default::default(),
                };
                (Ephemeral::TaskHeartbeat(topology.clone(), task), record::encode(&heartbeat))
            }));
        }
    });
    tasks
}
