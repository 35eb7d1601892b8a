//! Guarantees of placement with requests and capacities.

use proptest::prelude::*;

use super::{
    Keep, Problem, Solution, UnplacedReason,
    check::violations,
    solve,
    tests::{
        all_healthy, checked, cluster, fresh, problems, show, supervisor_id, topology, topology_id, with_dead,
    },
};
use stormkeeper_model::resources::{Capacity, Resource, TaskRequest};

fn offer(problem: &mut Problem, n: usize, memory_mb: Option<u64>, cpu_percent: Option<u64>) {
    let supervisor = problem.supervisors.get_mut(&supervisor_id(n)).expect("is there");
    supervisor.capacity = Capacity { memory_mb, cpu_percent };
}

fn request(problem: &mut Problem, n: usize, component: &str, memory_mb: u64, cpu_percent: u64) {
    let request = TaskRequest { memory_mb, cpu_percent };
    problem.topologies[n].requests.insert(component.parse().expect("valid id"), request);
}

#[test]
fn tasks_go_where_their_resources_are_free_also_in_more_workers_than_requested() {
    let mut problem = cluster(3, 2);
    problem.topologies = vec![topology(0, 1, &[4])];
    request(&mut problem, 0, "c0", 100, 10);
    offer(&mut problem, 0, Some(250), None);
    offer(&mut problem, 1, Some(100), None);
    offer(&mut problem, 2, None, Some(15));
    let placement = &fresh(&problem).placements[&topology_id(0)];
    assert_eq!(show(placement), ["s0000:6700 1-2", "s0001:6700 3", "s0002:6700 4"]);
    assert_eq!(placement.unplaced, None);
}

#[test]
fn shortage_is_named_with_resource_amounts_and_host_and_the_rest_is_placed() {
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 1, &[3, 1])];
    request(&mut problem, 0, "c0", 1000, 0);
    offer(&mut problem, 0, Some(1500), Some(100));
    offer(&mut problem, 1, Some(800), None);
    let unplaced = fresh(&problem).placements[&topology_id(0)].unplaced.clone().expect("too little memory");
    assert_eq!(unplaced.tasks.to_string(), "2-3");
    assert_eq!(
        unplaced.reason.to_string(),
        "a task of c0 requests 1000 MiB of memory, and the best place, h0001, has 800 MiB left of 800 MiB; add \
         supervisors or capacity, or request less"
    );
    problem.topologies[0].requests.clear();
    request(&mut problem, 0, "c0", 0, 150);
    offer(&mut problem, 1, None, Some(50));
    let unplaced = fresh(&problem).placements[&topology_id(0)].unplaced.clone().expect("too little CPU");
    let UnplacedReason::NoCapacity { resource, wanted, free, capacity, host, .. } = unplaced.reason else {
        panic!("{unplaced:?}");
    };
    assert_eq!((resource, wanted, free, capacity, &*host), (Resource::Cpu, 150, 100, 100, "h0000"));
}

#[test]
fn running_tasks_stay_when_a_capacity_is_declared_and_a_rebalance_heeds_it() {
    let mut problem = cluster(2, 1);
    problem.topologies = vec![topology(0, 1, &[2])];
    request(&mut problem, 0, "c0", 100, 0);
    let before = fresh(&problem);
    assert_eq!(show(&before.placements[&topology_id(0)]), ["s0000:6700 1-2"]);
    offer(&mut problem, 0, Some(100), None);
    all_healthy(&mut problem);
    assert_eq!(checked(&problem, &before), before);
    problem.topologies[0].keep = Keep::EvenSpread;
    let after = checked(&problem, &before);
    assert_eq!(show(&after.placements[&topology_id(0)]), ["s0000:6700 1", "s0001:6700 2"]);
}

#[test]
fn a_rebalance_within_capacities_changes_only_the_workers_that_have_to_give_a_task_away() {
    let mut problem = cluster(3, 1);
    problem.topologies = vec![topology(0, 2, &[4])];
    request(&mut problem, 0, "c0", 100, 0);
    for n in 0..3 {
        offer(&mut problem, n, Some(200), None);
    }
    let before = fresh(&problem);
    assert_eq!(show(&before.placements[&topology_id(0)]), ["s0000:6700 1,3", "s0001:6700 2,4"]);
    problem.topologies[0].keep = Keep::EvenSpread;
    problem.topologies[0].workers = 3;
    let after = checked(&problem, &before);
    assert_eq!(show(&after.placements[&topology_id(0)]), ["s0000:6700 1,3", "s0001:6700 2", "s0002:6700 4"]);
}

#[test]
fn slot_that_a_topology_cannot_use_is_left_to_the_next_one() {
    let mut problem = cluster(1, 1);
    problem.topologies = vec![topology(0, 1, &[1]), topology(1, 1, &[1])];
    request(&mut problem, 0, "c0", 100, 0);
    offer(&mut problem, 0, Some(50), None);
    let solution = fresh(&problem);
    assert_eq!(show(&solution.placements[&topology_id(0)]), Vec::<String>::new());
    assert_eq!(show(&solution.placements[&topology_id(1)]), ["s0000:6700 1"]);
}

#[test]
fn lint_finds_tasks_beyond_a_capacity() {
    let mut problem = cluster(1, 1);
    problem.topologies = vec![topology(0, 1, &[2])];
    request(&mut problem, 0, "c0", 100, 0);
    let solution = fresh(&problem);
    offer(&mut problem, 0, Some(150), None);
    let found: Vec<String> =
        violations(&problem, &Solution::default(), &solution).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["supervisor s0000 gets tasks beyond its capacity of memory"]);
    assert_eq!(violations(&problem, &solution, &solution), [], "kept tasks may exceed it");
}

/// Requests and capacities from small numbers.
fn limit(problem: &mut Problem, memory: &[u64], capacities: &[Option<u64>]) {
    for (n, supervisor) in problem.supervisors.values_mut().enumerate() {
        let of = |n: usize| capacities.get(n % capacities.len().max(1)).copied().flatten();
        supervisor.capacity = Capacity { memory_mb: of(n), cpu_percent: of(n + 1) };
    }
    for topology in &mut problem.topologies {
        for (n, component) in topology.tasks.0.keys().enumerate() {
            let of = |n: usize| memory.get(n % memory.len().max(1)).copied().unwrap_or_default();
            let request = TaskRequest { memory_mb: of(n), cpu_percent: of(n + 1) };
            topology.requests.insert(component.clone(), request);
        }
    }
}

proptest! {
    #[test]
    fn without_requests_or_without_capacities_the_placement_is_the_same(
        problem in problems(), memory in prop::collection::vec(0u64..9, 1..4),
        capacities in prop::collection::vec(prop::option::of(0u64..20), 1..4), pattern: u64,
    ) {
        let mut plain = problem.clone();
        let (mut requests_only, mut capacities_only) = (problem.clone(), problem);
        limit(&mut requests_only, &memory, &[None]);
        limit(&mut capacities_only, &[], &capacities);
        for topology in &mut capacities_only.topologies {
            topology.requests.clear();
        }
        let first = solve(&plain, &Solution::default());
        prop_assert_eq!(&solve(&requests_only, &Solution::default()), &first);
        prop_assert_eq!(&solve(&capacities_only, &Solution::default()), &first);
        for problem in [&mut plain, &mut requests_only, &mut capacities_only] {
            with_dead(problem, pattern);
        }
        let second = solve(&plain, &first);
        prop_assert_eq!(&solve(&requests_only, &first), &second);
        prop_assert_eq!(&solve(&capacities_only, &first), &second);
    }

    /// Requests of nothing take the limited path and need no room.
    #[test]
    fn requests_of_nothing_place_every_task_that_is_placed_without_them(
        mut problem in problems(), capacities in prop::collection::vec(prop::option::of(0u64..20), 1..4),
    ) {
        let placed = |problem: &Problem| -> Vec<usize> {
            let solution = solve(problem, &Solution::default());
            assert_eq!(violations(problem, &Solution::default(), &solution), []);
            solution.placements.values().map(|p| p.workers.values().map(|tasks| tasks.len()).sum()).collect()
        };
        let before = placed(&problem);
        limit(&mut problem, &[0], &capacities);
        prop_assert_eq!(placed(&problem), before);
    }

    #[test]
    fn no_capacity_is_exceeded_whatever_is_requested_or_lost(
        mut problem in problems(), memory in prop::collection::vec(0u64..9, 1..4),
        capacities in prop::collection::vec(prop::option::of(0u64..20), 1..4), pattern: u64,
    ) {
        limit(&mut problem, &memory, &capacities);
        let first = solve(&problem, &Solution::default());
        prop_assert_eq!(violations(&problem, &Solution::default(), &first), []);
        with_dead(&mut problem, pattern);
        let second = solve(&problem, &first);
        prop_assert_eq!(violations(&problem, &first, &second), []);
        all_healthy(&mut problem);
        prop_assert_eq!(violations(&problem, &second, &solve(&problem, &second)), []);
        problem.topologies[0].keep = Keep::EvenSpread;
        prop_assert_eq!(violations(&problem, &second, &solve(&problem, &second)), []);
    }

    #[test]
    fn task_without_a_place_fits_into_no_free_slot(
        mut problem in problems(), memory in 1u64..9, capacity in 1u64..20,
    ) {
        limit(&mut problem, &[memory], &[Some(capacity)]);
        let solution = solve(&problem, &Solution::default());
        for (id, supervisor) in &problem.supervisors {
            let workers = || solution.placements.values().flat_map(|placement| &placement.workers);
            let here = || workers().filter(|(slot, _)| slot.supervisor == *id);
            let n_tasks: usize = here().map(|(_, tasks)| tasks.len()).sum();
            let has_room = (n_tasks as u64 + 1) * memory <= capacity && here().count() < supervisor.ports.len();
            let waits = solution.placements.values().any(|placement| placement.unplaced.is_some());
            prop_assert!(!(has_room && waits), "{id} has room: {solution:?}");
        }
    }
}
