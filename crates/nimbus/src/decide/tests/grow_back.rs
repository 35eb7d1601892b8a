//! Topologies that grow back to their number of workers.

use super::world::{SECOND, World};
use crate::plan::{Effect, Plan, Reason};
use stormkeeper_model::{
    TopologyId,
    status::{PendingChange, TopologyStatus},
};

const DELAY: u64 = 60;

/// A topology of four tasks that requests three workers and has got one slot.
fn short(n_supervisors: usize) -> (World, TopologyId) {
    let mut world = World::with_supervisors(n_supervisors, 1);
    let id = world.running("wc", 4, 3);
    world.edit(&id, |record| record.grow_back_secs = Some(DELAY));
    world.decide();
    (world, id)
}

fn n_workers(world: &World, id: &TopologyId) -> usize {
    world.assignment(id).expect("placed").workers.len()
}

fn status(world: &World, id: &TopologyId) -> TopologyStatus {
    world.topology_record(id).expect("there").status
}

fn begins(plan: &Plan) -> Vec<&Reason> {
    let begins = plan.actions.iter().filter(|action| matches!(action.effect, Effect::BeginMove { .. }));
    begins.map(|action| &action.reason).collect()
}

/// Lets time pass in steps, in which a leader would decide, and carries out every plan.
fn pass(world: &mut World, secs: u32) {
    for _ in 0..secs {
        world.wait(SECOND);
        world.settle();
        world.send_heartbeats();
    }
}

#[test]
fn topology_grows_back_once_slots_were_free_for_the_delay_and_its_spouts_have_stopped() {
    let (mut world, id) = short(1);
    pass(&mut world, 100);
    assert_eq!(n_workers(&world, &id), 1, "there is no slot");
    world.supervisor("s1", 1);
    world.supervisor("s2", 1);
    world.settle();
    world.wait(59 * SECOND);
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.next), (0, Some(SECOND)), "{plan:?}");
    world.wait(SECOND);
    let plan = world.decide();
    assert_eq!(begins(&plan), [&Reason::GrowsBack { from: 1, to: 3 }]);
    world.execute(&plan);
    assert_eq!((status(&world, &id), n_workers(&world, &id)), (TopologyStatus::Rebalancing, 1));
    let (before, deadline) = (world.assignment(&id).expect("placed"), world.deadline(&id));
    assert_eq!(world.decide().actions, [], "tuples are in flight");
    world.drained(&id, before.workers.keys().cloned(), deadline);
    let plan = world.decide();
    assert_eq!(plan.actions[0].reason, Reason::GrowsBack { from: 1, to: 3 });
    assert_eq!(plan.actions[0].moves.len(), 3, "{:?}", plan.actions[0].moves);
    world.execute(&plan);
    assert_eq!((status(&world, &id), n_workers(&world, &id)), (TopologyStatus::Active, 3));
    pass(&mut world, 200);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn topology_that_did_not_ask_for_it_stays_as_it_is() {
    let (mut world, id) = short(1);
    world.edit(&id, |record| record.grow_back_secs = None);
    world.supervisor("s1", 4);
    let before = world.assignment(&id);
    pass(&mut world, 300);
    assert_eq!((world.assignment(&id), status(&world, &id)), (before, TopologyStatus::Active));
}

#[test]
fn slots_that_come_and_go_start_no_growth() {
    let (mut world, id) = short(1);
    for _ in 0..10 {
        world.supervisor("s1", 4);
        pass(&mut world, 50);
        world.remove_supervisor("s1");
        pass(&mut world, 5);
    }
    assert_eq!((status(&world, &id), n_workers(&world, &id)), (TopologyStatus::Active, 1));
}

#[test]
fn topologies_grow_back_one_after_the_other_the_oldest_first() {
    let (mut world, first) = short(1);
    world.supervisor("s1", 1);
    world.wait(SECOND);
    let second = world.running("second", 4, 2);
    world.edit(&second, |record| record.grow_back_secs = Some(DELAY));
    world.supervisor("s2", 4);
    world.settle();
    world.wait(60 * SECOND);
    world.settle();
    assert_eq!(
        (status(&world, &first), status(&world, &second)),
        (TopologyStatus::Rebalancing, TopologyStatus::Active)
    );
    pass(&mut world, 300);
    assert_eq!((n_workers(&world, &first), n_workers(&world, &second)), (3, 2));
}

#[test]
fn topology_goes_on_as_it_was_if_the_slots_are_gone_when_its_spouts_have_stopped() {
    let (mut world, id) = short(1);
    world.supervisor("s1", 2);
    world.settle();
    world.wait(60 * SECOND);
    world.settle();
    assert_eq!(status(&world, &id), TopologyStatus::Rebalancing);
    let before = world.assignment(&id);
    world.remove_supervisor("s1");
    world.wait(30 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions[0].reason, Reason::GrowsBack { from: 1, to: 1 });
    world.execute(&plan);
    assert_eq!((world.assignment(&id), status(&world, &id)), (before, TopologyStatus::Active));
}

#[test]
fn nothing_grows_back_while_an_operator_rebalances_or_a_host_is_left() {
    let (mut world, id) = short(1);
    world.supervisor("s1", 1);
    let other = world.running("other", 2, 1);
    world.rebalance(&other, 1000 * SECOND, 1, None);
    world.supervisor("s2", 2);
    pass(&mut world, 200);
    assert_eq!(status(&world, &id), TopologyStatus::Active);
    world.edit(&other, |record| {
        (record.status, record.pending) = (TopologyStatus::Active, None::<PendingChange>);
    });
    world.settle();
    assert_eq!(status(&world, &id), TopologyStatus::Rebalancing, "it was due");
}

#[test]
fn new_leader_waits_for_the_whole_delay() {
    let (mut world, id) = short(1);
    world.supervisor("s1", 2);
    pass(&mut world, 50);
    world.fail_over();
    pass(&mut world, 59);
    assert_eq!(status(&world, &id), TopologyStatus::Active);
    // Its first observation was a second after its term began.
    pass(&mut world, 2);
    assert_eq!(status(&world, &id), TopologyStatus::Rebalancing);
}
