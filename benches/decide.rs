//! Cost of one decision of the leader: without changes, and after the loss of a host.
//!
//! There are two clusters: many tasks in few topologies, and many topologies on many hosts.
//! `decide` makes their first placement.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use stormkeeper_coordination::{
    cluster::{
        record::{Resources, Stored, SupervisorRecord, TasksRecord, TopologyRecord, UnknownFields},
        view::ClusterView,
    },
    tree::Version,
};
use stormkeeper_model::{
    Port, SupervisorId, Timestamp, TopologyId, TopologyName, clock::Clock, task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_nimbus::{
    decide::{Moment, decide},
    liveness::Liveness,
    plan::{Effect, Plan},
    policy::{Policy, Share},
};

struct Cluster {
    view: ClusterView,
    liveness: Liveness,
    policy: Policy,
    clock: Clock,
}

impl Cluster {
    /// Creates `n` topologies with a spout and a bolt in `workers` workers, all of them placed and
    /// every task alive.
    fn new(n: usize, n_tasks: u32, workers: u32, n_supervisors: usize, n_slots: u16) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let mut view = ClusterView::default();
        for n in 0..n_supervisors {
            view.supervisors.insert(supervisor_id(n), supervisor(n, n_slots));
        }
        for n in 0..n {
            let (name, tasks): (TopologyName, _) =
                (format!("load-{n:03}").parse().expect("valid"), table(n_tasks));
            let id = TopologyId::new(&name, 1, clock.now());
            view.topologies.insert(id.clone(), stored(topology_record(name, workers)));
            view.heartbeats.insert(id.clone(), tasks.tasks());
            view.errors.insert(id.clone());
            let tasks = TasksRecord {
                components: tasks,
                requests: Default::default(),
                unknown_fields: UnknownFields::new(),
            };
            view.tasks.insert(id, stored(tasks));
        }
        let liveness = Liveness::new(clock.monotonic());
        let policy = Policy {
            task_timeout: Duration::from_secs(30),
            task_launch: Duration::from_secs(120),
            supervisor_timeout: Duration::ZERO,
            lost_hosts_share_max: Share::HALF,
            settle: Duration::ZERO,
            max_moves_per_round: 5000,
        };
        let mut cluster = Self { view, liveness, policy, clock };
        cluster.place();
        cluster
    }

    fn place(&mut self) {
        for action in self.decide().actions {
            let Effect::Place { id, assignment, supervisor_assignments, .. } = action.effect else {
                panic!("only placements are expected: {:?}", action.effect);
            };
            self.view.assignments.insert(id, stored(assignment));
            for change in supervisor_assignments {
                self.view
                    .supervisor_assignments
                    .insert(change.supervisor, stored(change.after.expect("there are some")));
            }
        }
        self.liveness.observe(&self.view, self.clock.monotonic());
        // The assignments here have their first version, unlike those that the plan refers to.
        let versions = self.view.assignments.values().map(|assignment| assignment.version);
        assert!(versions.into_iter().all(|version| version == Version::FIRST));
        assert_eq!(self.decide().actions, [], "there is nothing left to decide");
    }

    fn decide(&self) -> Plan {
        let monotonic = self.clock.monotonic();
        let moves_left = self.policy.max_moves_per_round;
        let now = Moment { wall: self.clock.now(), monotonic, moves_left };
        decide(&self.view, &self.liveness, now, &self.policy)
    }

    /// Removes a host and the heartbeats of all tasks on it.
    fn lose_host(&mut self) {
        let lost = supervisor_id(0);
        self.view.supervisors.remove(&lost);
        for (id, assignment) in &self.view.assignments {
            let gone: TaskSet =
                assignment.value.workers_of(&lost).flat_map(|(_, worker)| worker.tasks.iter()).collect();
            let heartbeats = self.view.heartbeats.get_mut(id).expect("it has heartbeats");
            *heartbeats = heartbeats.iter().filter(|task| !gone.contains(*task)).collect();
        }
        self.liveness.observe(&self.view, self.clock.monotonic());
    }
}

fn stored<T>(value: T) -> Stored<T> {
    Stored { value, version: Version::FIRST }
}

fn supervisor_id(n: usize) -> SupervisorId {
    format!("host-{n:04}").parse().expect("valid")
}

fn supervisor(n: usize, n_slots: u16) -> SupervisorRecord {
    SupervisorRecord {
        host: format!("host-{n:04}"),
        ports: (6700..6700 + n_slots).map(Port).collect(),
        resources: Resources { cpu_percent: 400, memory_mb: 4096 },
        capacity: Default::default(),
        memory_limits_unenforced: None,
        version: "0".to_owned(),
        start: Timestamp::EPOCH,
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
    }
}

fn table(n_tasks: u32) -> TaskTable {
    let n_spouts = n_tasks / 10;
    TaskTable::number([
        ("lines".parse().expect("valid"), n_spouts),
        ("count".parse().expect("valid"), n_tasks - n_spouts),
    ])
}

fn topology_record(name: TopologyName, workers: u32) -> TopologyRecord {
    TopologyRecord {
        launched: Timestamp::from_millis(900_000),
        workers,
        ..TopologyRecord::sample(name.as_str())
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100 topologies, 100,000 tasks, 100 hosts");
    measure(&mut group, Cluster::new(100, 1000, 4, 100, 8));
    group.finish();
    let mut group = criterion.benchmark_group("300 topologies, 20,100 tasks, 1,000 hosts");
    measure(&mut group, Cluster::new(300, 67, 6, 1000, 4));
    group.finish();
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, mut cluster: Cluster) {
    group.sample_size(20);
    group.bench_function("copy the view", |b| b.iter(|| black_box(cluster.view.clone())));
    let mut liveness = cluster.liveness.clone();
    group.bench_function("observe liveness", |b| {
        b.iter(|| liveness.observe(&cluster.view, cluster.clock.monotonic()));
    });
    group.bench_function("decide at rest", |b| b.iter(|| black_box(cluster.decide())));
    cluster.lose_host();
    assert!(!cluster.decide().actions.is_empty(), "a host is lost");
    group.bench_function("decide when a host is lost", |b| b.iter(|| black_box(cluster.decide())));
}

criterion_group!(benches, decisions);
criterion_main!(benches);
