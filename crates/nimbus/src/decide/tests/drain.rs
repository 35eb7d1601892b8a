//! Drained hosts.

use super::world::{SECOND, World};
use crate::plan::{ClusterProblem, Effect, Reason};
use stormkeeper_model::{TopologyId, status::TopologyStatus};
use stormkeeper_scheduler as scheduler;

fn hosts_of(world: &World, id: &TopologyId) -> Vec<String> {
    let assignment = world.assignment(id).expect("placed");
    let mut hosts: Vec<String> = assignment.workers.values().map(|worker| worker.host.clone()).collect();
    hosts.sort();
    hosts
}

#[test]
fn spouts_stop_before_a_drain_moves_workers_and_other_workers_stay() {
    let mut world = World::with_supervisors(3, 2);
    let id = world.running("wc", 4, 2);
    assert_eq!(hosts_of(&world, &id), ["host-s0", "host-s1"]);
    let before = world.assignment(&id).expect("placed");
    world.drain("host-s0", Some(5));
    let plan = world.decide();
    let hosts = vec!["host-s0".to_owned()];
    assert_eq!(plan.actions[0].reason, Reason::HostsDrained { hosts: hosts.clone() });
    assert!(matches!(plan.actions[0].effect, Effect::BeginMove { .. }));
    world.settle();
    assert_eq!(world.topology_record(&id).expect("there").status, TopologyStatus::Rebalancing);
    assert_eq!(world.assignment(&id).expect("placed"), before, "nothing moves while tuples are in flight");
    world.wait(4 * SECOND);
    assert_eq!(world.decide().actions, []);
    world.wait(SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions[0].reason, Reason::HostsDrained { hosts });
    assert_eq!(plan.actions[0].moves.len(), 1, "{:?}", plan.actions[0].moves);
    world.settle();
    assert_eq!(hosts_of(&world, &id), ["host-s1", "host-s2"]);
    let after = world.assignment(&id).expect("placed");
    let stayed = |slot| before.workers.get(slot) == after.workers.get(slot);
    assert!(before.workers.keys().any(stayed), "the worker on the other host stays");
    assert_eq!(world.topology_record(&id).expect("there").status, TopologyStatus::Active);
    assert_eq!(world.topology_record(&id).expect("there").workers, 2);
}

#[test]
fn without_free_slots_a_topology_stays_on_a_drained_host_and_reports_it() {
    let mut world = World::with_supervisors(2, 1);
    let id = world.running("wc", 4, 2);
    world.drain("host-s0", None);
    let plan = world.decide();
    assert_eq!(plan.actions, [], "its spouts keep running");
    let reason = scheduler::UnplacedReason::NoFreeSlot { slots: 1 };
    let problem = ClusterProblem::DrainWaits { hosts: vec!["host-s0".to_owned()], reason };
    assert_eq!(plan.findings[0].problem, problem);
    world.supervisor("s2", 1);
    world.settle();
    world.wait(31 * SECOND);
    world.settle();
    assert_eq!(hosts_of(&world, &id), ["host-s1", "host-s2"]);
}

#[test]
fn nothing_is_placed_on_a_drained_host_until_it_is_undrained() {
    let mut world = World::with_supervisors(2, 1);
    world.drain("host-s0", None);
    let id = world.submit("wc", 2, 2);
    world.settle();
    assert_eq!(hosts_of(&world, &id), ["host-s1"]);
    let other = world.submit("other", 1, 1);
    world.settle();
    assert_eq!(world.assignment(&other), None);
    world.undrain("host-s0");
    world.settle();
    assert_eq!(hosts_of(&world, &other), ["host-s0"]);
    assert_eq!(hosts_of(&world, &id), ["host-s1"], "nothing moves back");
}

#[test]
fn workers_stay_if_the_host_is_undrained_before_the_move() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 2, 1);
    let before = world.assignment(&id);
    world.drain("host-s0", Some(20));
    world.settle();
    world.undrain("host-s0");
    world.wait(21 * SECOND);
    world.settle();
    assert_eq!(world.assignment(&id), before);
    assert_eq!(world.topology_record(&id).expect("there").status, TopologyStatus::Active);
}

#[test]
fn the_next_leader_continues_a_drain_with_the_remaining_wait() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 2, 1);
    world.drain("host-s0", Some(10));
    world.settle();
    world.wait(8 * SECOND);
    world.fail_over();
    world.wait(2 * SECOND);
    world.settle();
    assert_eq!(hosts_of(&world, &id), ["host-s1"]);
}
