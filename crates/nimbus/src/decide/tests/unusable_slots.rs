//! Slots whose port another program uses, as their supervisors report.

use super::world::{SECOND, World};
use crate::{
    liveness::LossReason,
    plan::{ClusterProblem, Reason},
};
use stormkeeper_coordination::cluster::{layout, record, reported_problem::ReportedProblem};
use stormkeeper_model::{Port, Slot, TopologyId};

/// The supervisor reports that the port of `slot` is taken, as `unusable`.
fn take(world: &mut World, slot: &Slot, id: &TopologyId) {
    let mut supervisor = world.view().supervisors[&slot.supervisor].clone();
    supervisor.ports.retain(|port| *port != slot.port);
    let problem = ReportedProblem::of_slot(slot.port, Some(id.clone()), "taken");
    supervisor.problems = vec![ReportedProblem { unusable: true, ..problem }];
    world.put(layout::supervisor(&slot.supervisor), record::encode(&supervisor));
}

fn slots(world: &World, id: &TopologyId) -> Vec<Slot> {
    world.assignment(id).expect("placed").workers.into_keys().collect()
}

#[test]
fn tasks_leave_a_slot_whose_port_is_taken_at_once() {
    let mut world = World::with_supervisors(1, 3);
    world.wait(600 * SECOND);
    let id = world.submit("wc", 4, 1);
    world.settle();
    let before = slots(&world, &id).remove(0);
    world.wait(SECOND);
    take(&mut world, &before, &id);
    let plan = world.decide();
    let reason = &plan.actions[0].reason;
    assert!(
        matches!(reason, Reason::WorkerLost { loss: LossReason::SlotUnusable, n_workers: 1, .. }),
        "{reason:?}"
    );
    world.execute(&plan);
    world.check();
    assert_ne!(slots(&world, &id), [before]);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn worker_that_runs_in_a_slot_stays_whatever_is_reported_of_its_port() {
    let mut world = World::with_supervisors(1, 3);
    let id = world.running("wc", 4, 1);
    let slot = slots(&world, &id).remove(0);
    take(&mut world, &slot, &id);
    world.wait(600 * SECOND);
    world.send_heartbeats();
    assert_eq!(world.decide().actions, []);
}

#[test]
fn without_another_slot_the_tasks_wait_and_nothing_is_written_again_and_again() {
    let mut world = World::with_supervisors(1, 1);
    world.wait(600 * SECOND);
    let id = world.submit("wc", 4, 1);
    world.settle();
    let slot = slots(&world, &id).remove(0);
    take(&mut world, &slot, &id);
    let mut first = None;
    for _ in 0..5 {
        world.wait(200 * SECOND);
        let plan = world.decide();
        assert_eq!(plan.actions, []);
        // The topology has no slot, and its tasks send no heartbeat.
        let [no_slot, silent] = &plan.findings[..] else { panic!("{:?}", plan.findings) };
        assert!(matches!(no_slot.problem, ClusterProblem::NoSlot { n_tasks: 4, .. }), "{no_slot:?}");
        assert!(matches!(silent.problem, ClusterProblem::Failing(_)), "{silent:?}");
        assert_eq!(*first.get_or_insert(plan.findings.clone()), plan.findings);
    }
    assert_eq!(slots(&world, &id), [slot]);
    world.supervisor("s1", 1);
    world.settle();
    assert_eq!(slots(&world, &id), [Slot { supervisor: "s1".parse().expect("valid"), port: Port(6700) }]);
}
