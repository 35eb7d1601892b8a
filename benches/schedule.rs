//! Placement of a large cluster: 1,000 supervisors with 4 slots each, and 100 topologies with
//! 20,000 tasks in total. From scratch, and again from its own solution.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stormkeeper_model::{
    Port,
    resources::{Capacity, TaskRequests},
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_scheduler::{Keep, Problem, Solution, Standing, Supervisor, TopologyDemand, check, solve};

fn problem() -> Problem {
    let supervisor = |n: usize| Supervisor {
        host: format!("host-{n:04}"),
        ports: (6700..6704).map(Port).collect(),
        standing: Standing::Live,
        capacity: Capacity::default(),
    };
    let topology = |n: usize| TopologyDemand {
        id: format!("topology-{n}-1-1700000000").parse().expect("valid id"),
        workers: 30,
        tasks: TaskTable::number([
            ("spout".parse().expect("valid id"), 20),
            ("split".parse().expect("valid id"), 100),
            ("count".parse().expect("valid id"), 80),
        ]),
        requests: TaskRequests::new(),
        keep: Keep::Healthy(TaskSet::default()),
    };
    Problem {
        supervisors: (0..1000)
            .map(|n| (format!("supervisor-{n:04}").parse().expect("valid id"), supervisor(n)))
            .collect(),
        topologies: (0..100).map(topology).collect(),
        ..Problem::default()
    }
}

fn schedule(criterion: &mut Criterion) {
    let fresh = problem();
    let nothing = Solution::default();
    let answer = solve(&fresh, &nothing);
    let mut healthy = fresh.clone();
    for topology in &mut healthy.topologies {
        topology.keep = Keep::Healthy(topology.tasks.tasks());
    }
    assert_eq!(solve(&healthy, &answer), answer);

    let mut group = criterion.benchmark_group("solve 1000x4 slots, 100 topologies, 20000 tasks");
    group.sample_size(20);
    let run = |problem: &Problem, previous: &Solution| black_box(solve(problem, previous));
    // The solution is dropped outside of the measured time: nimbus writes it first.
    group.bench_function("fresh", |b| {
        b.iter_batched(|| (), |()| run(&fresh, &nothing), BatchSize::LargeInput);
    });
    group.bench_function("again", |b| {
        b.iter_batched(|| (), |()| run(&healthy, &answer), BatchSize::LargeInput);
    });
    group.bench_function("check", |b| b.iter(|| black_box(check::violations(&healthy, &answer, &answer))));
    group.finish();
}

criterion_group!(benches, schedule);
criterion_main!(benches);
