//! Hosts whose name an operator has corrected.

use super::{
    effects,
    world::{SECOND, World},
};

#[test]
fn corrected_name_of_a_host_reaches_its_workers_which_run_on() {
    let mut world = World::with_announcers(2, 4);
    let id = world.running("wc", 4, 2);
    world.wait(60 * SECOND);
    assert_eq!(world.decide().actions, []);
    let before = world.assignment(&id).expect("placed");

    world.rename_host("s0", "right.example", Some("two supervisors run with its id"));
    assert_eq!(world.decide().actions, [], "it may be two hosts");

    world.rename_host("s0", "right.example", None);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["place in 2 slots"]);
    let reason = plan.actions[0].reason.to_string();
    assert_eq!(reason, "hosts have another name, and their workers run on: host-s0 is right.example");
    assert!(plan.actions[0].moves.is_empty(), "nothing moves");
    world.execute(&plan);
    world.settle();
    let after = world.assignment(&id).expect("placed");
    let renamed =
        |(slot, worker): (&stormkeeper_model::Slot, &stormkeeper_model::assignment::AssignedWorker)| {
            let mut worker = worker.clone();
            if slot.supervisor.as_str() == "s0" {
                "right.example".clone_into(&mut worker.host);
            }
            (slot.clone(), worker)
        };
    assert_eq!(after.workers, before.workers.iter().map(renamed).collect(), "no other slot, task or start");
    assert_eq!(world.decide().actions, []);
}
