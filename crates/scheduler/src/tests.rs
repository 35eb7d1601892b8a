//! Guarantees of placement.

mod failures;
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

pub(crate) use properties::{problems, with_dead};

use super::{
    Keep, Placement, Problem, Solution, Standing, Supervisor, TopologyDemand, UnplacedReason,
    check::{Violation, violations},
    solve,
};
use stormkeeper_model::{
    Port, Slot, SupervisorId, TaskId, Timestamp, TopologyId,
    resources::{Capacity, TaskRequests},
    task_set::TaskSet,
    topology::TaskTable,
};

pub(crate) fn supervisor_id(n: usize) -> SupervisorId {
    format!("s{n:04}").parse().expect("valid id")
}

pub(crate) fn topology_id(n: usize) -> TopologyId {
    format!("t{n}-1-100").parse().expect("valid id")
}

/// `hosts` hosts with one supervisor of `slots` slots each.
pub(crate) fn cluster(hosts: usize, slots: u16) -> Problem {
    let supervisors = (0..hosts).map(|n| (supervisor_id(n), supervisor(&format!("h{n:04}"), slots)));
    Problem { supervisors: supervisors.collect(), ..Problem::default() }
}

pub(crate) fn supervisor(host: &str, slots: u16) -> Supervisor {
    Supervisor {
        host: host.to_owned(),
        ports: (0..slots).map(|n| Port(6700 + n)).collect(),
        standing: Standing::Live,
        capacity: Capacity::default(),
    }
}

/// A topology that was never placed, with a component for each number of tasks.
pub(crate) fn topology(n: usize, workers: u32, parallelism: &[u32]) -> TopologyDemand {
    let components =
        parallelism.iter().enumerate().map(|(c, &p)| (format!("c{c}").parse().expect("valid id"), p));
    TopologyDemand {
        id: topology_id(n),
        workers,
        tasks: TaskTable::number(components),
        requests: TaskRequests::new(),
        keep: Keep::Healthy(TaskSet::default()),
    }
}

fn drain(problem: &mut Problem, n: usize) {
    problem.supervisors.get_mut(&supervisor_id(n)).expect("is there").standing = Standing::Drained;
}

pub(crate) fn all_healthy(problem: &mut Problem) {
    for topology in &mut problem.topologies {
        topology.keep = Keep::Healthy(topology.tasks.tasks());
    }
}

pub(crate) fn fresh(problem: &Problem) -> Solution {
    checked(problem, &Solution::default())
}

/// Solves and lints.
pub(crate) fn checked(problem: &Problem, previous: &Solution) -> Solution {
    let solution = solve(problem, previous);
    assert_eq!(violations(problem, previous, &solution), []);
    solution
}

/// Number of workers of a placement on each host.
fn per_host<'a>(problem: &'a Problem, placement: &Placement) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for slot in placement.workers.keys() {
        *counts.entry(problem.supervisors[&slot.supervisor].host.as_str()).or_default() += 1;
    }
    counts
}

pub(crate) fn slot(supervisor: usize, port: u16) -> Slot {
    Slot { supervisor: supervisor_id(supervisor), port: Port(port) }
}

pub(crate) fn show(placement: &Placement) -> Vec<String> {
    placement.workers.iter().map(|(slot, tasks)| format!("{slot} {tasks}")).collect()
}

#[test]
fn workers_are_even_over_hosts_and_tasks_of_a_component_over_workers() {
    let mut problem = cluster(3, 4);
    problem.topologies = vec![topology(0, 3, &[3, 4])];
    let solution = fresh(&problem);
    assert_eq!(
        show(&solution.placements[&topology_id(0)]),
        ["s0000:6700 1,4,7", "s0001:6700 2,5", "s0002:6700 3,6"]
    );
}

#[test]
fn two_supervisors_on_one_host_share_its_workers() {
    let mut problem = Problem::default();
    for n in 0..4 {
        let host = if n < 3 { "big" } else { "small" };
        problem.supervisors.insert(supervisor_id(n), supervisor(host, 4));
    }
    problem.topologies = vec![topology(0, 6, &[6])];
    let placement = &fresh(&problem).placements[&topology_id(0)];
    assert_eq!(per_host(&problem, placement), BTreeMap::from([("big", 3), ("small", 3)]));
    assert_eq!(
        placement
            .workers
            .keys()
            .filter(|slot| slot.supervisor != supervisor_id(3))
            .cloned()
            .collect::<Vec<_>>(),
        [slot(0, 6700), slot(1, 6700), slot(2, 6700)]
    );
}

#[test]
fn a_topology_gets_no_more_workers_than_it_has_tasks() {
    let mut problem = cluster(3, 4);
    problem.topologies = vec![topology(0, 9, &[1, 1])];
    assert_eq!(fresh(&problem).placements[&topology_id(0)].workers.len(), 2);
}

#[test]
fn when_slots_run_short_every_topology_gets_one_before_any_gets_two() {
    let mut problem = cluster(1, 4);
    problem.topologies = (0..3).map(|n| topology(n, 4, &[4])).collect();
    let solution = fresh(&problem);
    let sizes: Vec<usize> = (0..3).map(|n| solution.placements[&topology_id(n)].workers.len()).collect();
    assert_eq!(sizes, [2, 1, 1]);
}

#[test]
fn the_youngest_topology_gets_no_slot_and_the_reason() {
    let mut problem = cluster(1, 2);
    problem.topologies = (0..3).map(|n| topology(n, 1, &[2])).collect();
    let solution = fresh(&problem);
    let unplaced = solution.placements[&topology_id(2)].unplaced.clone().expect("no slot is left");
    assert_eq!(unplaced.tasks, TaskSet::range(1, 2));
    assert_eq!(unplaced.reason.to_string(), "all 2 slots are in use");
    assert!(solution.placements[&topology_id(1)].unplaced.is_none());
}

#[test]
fn the_reason_of_unplaced_tasks_names_the_cause() {
    let check = |problem: &mut Problem, expected: UnplacedReason| {
        problem.topologies = vec![topology(0, 1, &[1])];
        let solution = fresh(problem);
        let unplaced = solution.placements[&topology_id(0)].unplaced.clone().expect("unplaced");
        assert_eq!(unplaced.reason, expected);
    };
    check(&mut Problem::default(), UnplacedReason::NoSupervisor);
    let mut away = cluster(1, 1);
    away.supervisors.get_mut(&supervisor_id(0)).expect("is there").standing = Standing::Away;
    check(&mut away, UnplacedReason::NoSupervisor);
    let mut drained = cluster(1, 1);
    drain(&mut drained, 0);
    check(&mut drained, UnplacedReason::EveryHostDrained);
    check(&mut cluster(1, 0), UnplacedReason::NoFreeSlot { slots: 0 });
    let mut full = cluster(1, 1);
    full.occupied.insert(slot(0, 6700));
    check(&mut full, UnplacedReason::NoFreeSlot { slots: 1 });
}

#[test]
fn a_healthy_topology_uses_a_new_slot_only_after_a_rebalance() {
    let mut problem = cluster(1, 1);
    problem.topologies = vec![topology(0, 2, &[4])];
    let short = fresh(&problem);
    problem.supervisors.insert(supervisor_id(1), supervisor("h0001", 4));
    all_healthy(&mut problem);
    assert_eq!(checked(&problem, &short), short);
    problem.topologies[0].keep = Keep::EvenSpread;
    let grown = checked(&problem, &short);
    assert_eq!(show(&grown.placements[&topology_id(0)]), ["s0000:6700 1-2", "s0001:6700 3-4"]);
}

#[test]
fn a_lost_worker_moves_to_a_new_slot_and_no_running_worker_changes() {
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 3, &[9])];
    let before = fresh(&problem);
    let lost = slot(0, 6700);
    let dead = &before.placements[&topology_id(0)].workers[&lost];
    let healthy = (1..=9).map(TaskId).filter(|task| !dead.contains(*task)).collect();
    problem.topologies[0].keep = Keep::Healthy(healthy);
    let after = checked(&problem, &before);
    let placement = &after.placements[&topology_id(0)];
    assert!(!placement.workers.contains_key(&lost), "a failed slot is avoided while another is free");
    let moved: Vec<_> = placement.workers.iter().filter(|(_, tasks)| *tasks == dead).collect();
    assert_eq!(moved.len(), 1);
}

#[test]
fn a_topology_is_spread_before_hosts_are_balanced() {
    let mut problem = cluster(2, 4);
    problem.topologies = vec![topology(0, 2, &[2])];
    problem.occupied = [slot(0, 6702), slot(0, 6703)].into();
    let placement = &fresh(&problem).placements[&topology_id(0)];
    assert_eq!(per_host(&problem, placement), BTreeMap::from([("h0000", 1), ("h0001", 1)]));
}

/// A placement by hand, of the tasks of topology 0.
fn placed(workers: &[(Slot, &str)]) -> Solution {
    let workers = workers.iter().map(|(slot, tasks)| (slot.clone(), tasks.parse().expect("tasks")));
    let placement = Placement { workers: workers.collect(), unplaced: None };
    Solution { placements: BTreeMap::from([(topology_id(0), placement)]) }
}

#[test]
fn a_rebalance_prefers_the_former_slots() {
    let mut problem = cluster(3, 4);
    problem.topologies = vec![topology(0, 2, &[2])];
    problem.topologies[0].keep = Keep::EvenSpread;
    let before = placed(&[(slot(1, 6702), "1"), (slot(2, 6701), "2")]);
    assert_eq!(checked(&problem, &before), before);
}

#[test]
fn a_rebalance_changes_only_the_workers_that_have_to_give_a_task_away() {
    let mut problem = cluster(3, 2);
    problem.topologies = vec![topology(0, 3, &[1, 2, 1])];
    problem.topologies[0].keep = Keep::EvenSpread;
    let before = placed(&[(slot(0, 6700), "1,3"), (slot(1, 6700), "2,4")]);
    let after = placed(&[(slot(0, 6700), "1,3"), (slot(1, 6700), "2"), (slot(2, 6700), "4")]);
    assert_eq!(checked(&problem, &before), after);
}

#[test]
fn a_rebalance_evens_out_what_lost_hosts_have_left_uneven() {
    let mut problem = cluster(3, 1);
    problem.topologies = vec![topology(0, 3, &[3, 3])];
    problem.topologies[0].keep = Keep::EvenSpread;
    let before = placed(&[(slot(0, 6700), "1,4"), (slot(1, 6700), "2-3,5-6")]);
    let after = placed(&[(slot(0, 6700), "1,4"), (slot(1, 6700), "2,5"), (slot(2, 6700), "3,6")]);
    assert_eq!(checked(&problem, &before), after);
}

#[test]
fn another_port_of_the_same_supervisor_replaces_a_failed_one() {
    let mut problem = cluster(1, 2);
    problem.topologies = vec![topology(0, 1, &[2])];
    let before = placed(&[(slot(0, 6700), "1-2")]);
    assert_eq!(checked(&problem, &before), placed(&[(slot(0, 6701), "1-2")]));
}

#[test]
fn running_workers_get_no_task_while_a_new_worker_can() {
    let mut problem = cluster(4, 1);
    problem.topologies = vec![topology(0, 3, &[2, 3])];
    problem.topologies[0].keep = Keep::Healthy(TaskSet::range(1, 2));
    let before = placed(&[(slot(0, 6700), "1"), (slot(1, 6700), "2"), (slot(2, 6700), "3-5")]);
    let after = placed(&[(slot(0, 6700), "1"), (slot(1, 6700), "2"), (slot(3, 6700), "3-5")]);
    assert_eq!(checked(&problem, &before), after);
}

#[test]
fn tasks_added_to_running_workers_are_even_by_component() {
    let mut problem = cluster(2, 1);
    problem.topologies = vec![topology(0, 2, &[4, 4])];
    problem.topologies[0].keep = Keep::Healthy(TaskSet::range(1, 4));
    let before = placed(&[(slot(0, 6700), "1"), (slot(1, 6700), "2-4")]);
    let after = placed(&[(slot(0, 6700), "1,5,7"), (slot(1, 6700), "2-4,6,8")]);
    assert_eq!(checked(&problem, &before), after, "tasks that never had a slot may join");
}

#[test]
fn lost_tasks_are_not_added_to_an_intact_worker() {
    let whole = (slot(1, 6700), "2-4");
    // Each with the healthy tasks and the expected placement.
    for (first, healthy, expected) in [
        ("1,5-8", "1-4", vec!["s0000:6700 1,5-8", "s0001:6700 2-4"]),
        ("1,5-8", "2-4", vec!["s0001:6700 2-4"]),
    ] {
        let mut problem = cluster(2, 1);
        problem.topologies = vec![topology(0, 2, &[4, 4])];
        problem.topologies[0].keep = Keep::Healthy(healthy.parse().expect("tasks"));
        let before = placed(&[(slot(0, 6700), first), whole.clone()]);
        if expected.len() == 1 {
            problem.occupied.insert(slot(0, 6700));
        }
        let after = checked(&problem, &before);
        let placement = &after.placements[&topology_id(0)];
        assert_eq!(show(placement), expected);
        assert_eq!(placement.unplaced.is_some(), expected.len() == 1, "{placement:?}");
        // They get a slot as soon as one is free, even if the topology requests fewer workers.
        problem.topologies[0].workers = 1;
        problem.supervisors.insert(supervisor_id(2), supervisor("h0002", 1));
        let placed = &checked(&problem, &after).placements[&topology_id(0)];
        assert_eq!(placed.unplaced, None);
        assert_eq!(placed.workers[&whole.0].to_string(), whole.1);
    }
}

#[test]
fn a_failed_slot_is_used_again_if_no_other_is_free() {
    let mut problem = cluster(1, 1);
    problem.topologies = vec![topology(0, 1, &[2])];
    let before = fresh(&problem);
    assert_eq!(checked(&problem, &before), before);
}

#[test]
fn an_away_supervisor_keeps_healthy_tasks_and_gets_no_others() {
    let mut problem = cluster(2, 1);
    problem.topologies = vec![topology(0, 2, &[4])];
    let before = fresh(&problem);
    problem.supervisors.get_mut(&supervisor_id(0)).expect("is there").standing = Standing::Away;
    all_healthy(&mut problem);
    assert_eq!(checked(&problem, &before), before);
    // One task on each supervisor dies: both go to the live one.
    problem.topologies[0].keep = Keep::Healthy([1, 2].into_iter().map(TaskId).collect());
    let after = checked(&problem, &before);
    assert_eq!(show(&after.placements[&topology_id(0)]), ["s0000:6700 1", "s0001:6700 2-4"]);
}

#[test]
fn a_drained_host_gets_no_tasks_and_its_moved_tasks_go_elsewhere() {
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 2, &[4])];
    let before = fresh(&problem);
    all_healthy(&mut problem);
    drain(&mut problem, 0);
    assert_eq!(checked(&problem, &before), before, "kept tasks stay");
    let leaves = before.placements[&topology_id(0)].workers[&slot(0, 6700)].clone();
    let stays = TaskSet::range(1, 4).iter().filter(|task| !leaves.contains(*task)).collect();
    problem.topologies[0].keep = Keep::Healthy(stays);
    let after = checked(&problem, &before);
    assert_eq!(show(&after.placements[&topology_id(0)]), ["s0001:6700 2,4", "s0001:6701 1,3"]);
}

#[test]
fn of_two_topologies_in_one_slot_the_older_stays() {
    let mut problem = cluster(2, 1);
    problem.topologies = vec![topology(0, 1, &[1]), topology(1, 1, &[1])];
    all_healthy(&mut problem);
    let placement =
        Placement { workers: BTreeMap::from([(slot(0, 6700), TaskSet::range(1, 1))]), unplaced: None };
    let previous = Solution {
        placements: BTreeMap::from([(topology_id(0), placement.clone()), (topology_id(1), placement)]),
    };
    let after = checked(&problem, &previous);
    assert_eq!(show(&after.placements[&topology_id(0)]), ["s0000:6700 1"]);
    assert_eq!(show(&after.placements[&topology_id(1)]), ["s0001:6700 1"]);
}

#[test]
fn a_kept_worker_keeps_its_start_and_one_with_a_dead_task_restarts() {
    let mut problem = cluster(1, 2);
    problem.topologies = vec![topology(0, 2, &[4])];
    let placement = fresh(&problem).placements[&topology_id(0)].clone();
    let at = Timestamp::from_millis;
    let all = Keep::Healthy(TaskSet::range(1, 4));
    let first = placement.assignment(&problem.supervisors, None, &all, at(100));
    assert!(first.workers.values().all(|worker| worker.start == at(100) && worker.host == "h0000"));
    let again = placement.assignment(&problem.supervisors, Some(&first), &all, at(200));
    assert_eq!(again, first);
    assert_eq!(placement.assignment(&problem.supervisors, Some(&first), &Keep::EvenSpread, at(200)), first);
    let one_dead = Keep::Healthy(TaskSet::range(2, 4));
    let starts = |now| {
        let assignment = placement.assignment(&problem.supervisors, Some(&first), &one_dead, now);
        assignment.workers.values().map(|worker| worker.start).collect::<Vec<_>>()
    };
    assert_eq!(starts(at(200)), [at(200), at(100)]);
    assert_eq!(starts(at(50)), [at(101), at(100)], "starts differ even if the clock was set back");
}

#[test]
fn the_lint_finds_each_violation() {
    let mut problem = cluster(2, 2);
    problem.topologies = vec![topology(0, 1, &[2]), topology(1, 1, &[2])];
    drain(&mut problem, 1);
    let good = fresh(&problem);
    let all = {
        all_healthy(&mut problem);
        problem
    };
    let place = |solution: &mut Solution, n: usize, slot: Slot, tasks: TaskSet| {
        let placement = solution.placements.get_mut(&topology_id(n)).expect("is there");
        placement.workers.insert(slot, tasks);
    };
    let check = |break_it: &dyn Fn(&mut Solution), expected: &str| {
        let mut broken = good.clone();
        break_it(&mut broken);
        let found: Vec<String> = violations(&all, &good, &broken).iter().map(Violation::to_string).collect();
        assert!(found.iter().any(|text| text.contains(expected)), "{expected:?} not in {found:?}");
    };
    check(&|s| place(s, 0, slot(0, 6701), TaskSet::range(1, 2)), "slot s0000:6701 is given to");
    check(&|s| place(s, 0, slot(0, 6701), TaskSet::range(1, 2)), "task 1 of t0-1-100 is placed twice");
    check(&|s| place(s, 0, slot(0, 9999), TaskSet::range(1, 2)), "slot s0000:9999, which does not exist");
    check(&|s| place(s, 0, slot(7, 6700), TaskSet::range(1, 2)), "slot s0007:6700, which does not exist");
    check(&|s| place(s, 0, slot(1, 6700), TaskSet::range(1, 2)), "drained");
    check(
        &|s| place(s, 0, slot(0, 6700), TaskSet::range(1, 1)),
        "task 2 of t0-1-100 is missing from the placement",
    );
    check(&|s| place(s, 0, slot(0, 6700), TaskSet::range(1, 1)), "task 2 of t0-1-100 is healthy in slot");
    check(&|s| place(s, 0, slot(0, 6700), TaskSet::range(1, 3)), "t0-1-100 has no task 3");
    check(&|s| place(s, 0, slot(0, 6700), TaskSet::default()), "worker without a task");
    check(&|s| drop(s.placements.remove(&topology_id(1))), "t1-1-100 has no placement");
    check(
        &|s| drop(s.placements.insert(topology_id(9), Placement::default())),
        "t9-1-100 is placed but was not requested",
    );
    let mut away = all.clone();
    away.supervisors.get_mut(&supervisor_id(0)).expect("is there").standing = Standing::Away;
    let added = violations(&away, &Solution::default(), &good);
    assert!(matches!(added[..], [Violation::AddedTo { standing: Standing::Away, .. }, ..]), "{added:?}");
    let mut occupied = all.clone();
    occupied.occupied.insert(slot(0, 6700));
    let found = violations(&occupied, &good, &good);
    assert!(matches!(found[..], [Violation::OccupiedSlot { .. }]), "{found:?}");
}
