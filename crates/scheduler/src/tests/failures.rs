//! Supervisors with recent failures are tried last.

use super::*;

fn fail(problem: &mut Problem, supervisor: usize, n: u32) {
    problem.failures.of_supervisors.insert(supervisor_id(supervisor), n);
}

fn fail_for(problem: &mut Problem, n_topology: usize, supervisor: usize, n: u32) {
    let counts = problem.failures.of_topologies.entry(topology_id(n_topology)).or_default();
    counts.insert(supervisor_id(supervisor), n);
}

fn supervisors_of(placement: &Placement) -> BTreeSet<SupervisorId> {
    placement.workers.keys().map(|slot| slot.supervisor.clone()).collect()
}

#[test]
fn supervisor_with_failures_gets_a_worker_only_when_no_other_has_a_free_slot() {
    let mut problem = cluster(3, 2);
    fail(&mut problem, 1, 1);
    problem.topologies = vec![topology(0, 4, &[8])];
    let placement = &fresh(&problem).placements[&topology_id(0)];
    assert_eq!(supervisors_of(placement), [0, 2].map(supervisor_id).into());
    problem.topologies[0].workers = 5;
    let placement = &fresh(&problem).placements[&topology_id(0)];
    assert_eq!(placement.workers.keys().filter(|slot| slot.supervisor == supervisor_id(1)).count(), 1);
}

#[test]
fn supervisor_with_the_fewest_failures_is_tried_first() {
    let mut problem = cluster(3, 1);
    for (n, failures) in [(0, 3), (1, 2), (2, 4)] {
        fail(&mut problem, n, failures);
    }
    problem.topologies = vec![topology(0, 1, &[1])];
    assert_eq!(show(&fresh(&problem).placements[&topology_id(0)]), ["s0001:6700 1"]);
}

#[test]
fn failures_of_one_topology_do_not_count_for_another() {
    let mut problem = cluster(2, 4);
    fail_for(&mut problem, 0, 0, 5);
    problem.topologies = vec![topology(0, 1, &[1]), topology(1, 1, &[1])];
    let solution = fresh(&problem);
    assert_eq!(show(&solution.placements[&topology_id(0)]), ["s0001:6700 1"]);
    assert_eq!(show(&solution.placements[&topology_id(1)]), ["s0000:6700 1"]);
}

#[test]
fn lost_worker_leaves_a_supervisor_that_has_other_free_slots() {
    // The slot of the lost worker is occupied until its topology has left it.
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 2, &[2])];
    let before = fresh(&problem);
    assert_eq!(show(&before.placements[&topology_id(0)]), ["s0000:6700 1", "s0001:6700 2"]);
    problem.occupied.insert(slot(0, 6700));
    problem.topologies[0].keep = Keep::Healthy(TaskSet::range(2, 2));
    let without_memory = checked(&problem, &before);
    assert_eq!(show(&without_memory.placements[&topology_id(0)]), ["s0000:6701 1", "s0001:6700 2"]);
    fail_for(&mut problem, 0, 0, 1);
    let with_memory = checked(&problem, &before);
    assert_eq!(show(&with_memory.placements[&topology_id(0)]), ["s0001:6700 2", "s0001:6701 1"]);
}

#[test]
fn workers_that_run_on_a_supervisor_with_failures_stay() {
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 2, &[2])];
    let before = fresh(&problem);
    all_healthy(&mut problem);
    fail(&mut problem, 0, 9);
    assert_eq!(checked(&problem, &before), before);
}

proptest! {
    #[test]
    fn no_new_worker_is_on_a_supervisor_while_one_with_fewer_failures_has_room(
        mut problem in problems(),
        general in prop::collection::btree_map(0usize..8, 0u32..4, 0..8),
        own in prop::collection::btree_map((0usize..6, 0usize..8), 0u32..4, 0..12),
        pattern: u64,
    ) {
        let before = solve(&problem, &Solution::default());
        with_dead(&mut problem, pattern);
        general.into_iter().for_each(|(n, failures)| fail(&mut problem, n, failures));
        own.into_iter().for_each(|((topology, n), failures)| fail_for(&mut problem, topology, n, failures));
        let after = solve(&problem, &before);
        prop_assert_eq!(violations(&problem, &before, &after), []);
        let mut n_free: BTreeMap<SupervisorId, usize> =
            problem.supervisors.iter().map(|(id, supervisor)| (id.clone(), supervisor.ports.len())).collect();
        for slot in after.placements.values().flat_map(|placement| placement.workers.keys()) {
            *n_free.get_mut(&slot.supervisor).expect("is there") -= 1;
        }
        for (topology, placement) in &after.placements {
            let is_new = |slot: &&Slot| {
                let tasks = before.placements[topology].workers.get(*slot);
                tasks.is_none_or(|tasks| !tasks.iter().any(|task| placement.workers[*slot].contains(task)))
            };
            for slot in placement.workers.keys().filter(is_new) {
                let here = problem.failures.against(topology, &slot.supervisor);
                let better = n_free.iter().find(|(other, n_free)| {
                    **n_free > 0 && problem.failures.against(topology, other) < here
                });
                prop_assert_eq!(better, None, "{} of {} has {} failures", slot, topology, here);
            }
        }
        all_healthy(&mut problem);
        prop_assert_eq!(solve(&problem, &after), after);
    }
}
