//! Assignments that were deleted by hand.

use super::{
    effects,
    world::{SECOND, World},
};
use crate::plan::Reason;
use stormkeeper_coordination::cluster::{
    layout,
    record::{self, TasksRecord},
};
use stormkeeper_model::topology::TaskTable;

#[test]
fn deleted_assignments_are_written_again_as_they_were() {
    let mut world = World::with_announcers(2, 4);
    let ids = [world.running("a", 4, 2), world.running("b", 4, 2)];
    world.wait(60 * SECOND);
    world.decide();
    let before = ids.clone().map(|id| world.assignment(&id));
    for with_supervisor_assignments in [false, true] {
        world.nodes.retain(|path, _| {
            let is_assignment = path.parent() == Some(layout::assignments());
            let is_supervisors = path.parent() == Some(layout::supervisor_assignments_parent());
            !(is_assignment || is_supervisors && with_supervisor_assignments)
        });
        let plan = world.decide();
        assert_eq!(effects(&plan)[..2], ["place in 2 slots", "place in 2 slots"]);
        assert!(plan.actions.iter().take(2).all(|action| action.reason == Reason::AssignmentMissing));
        assert!(plan.actions[0].reason.needs_fresh_view());
        world.execute(&plan);
        world.settle();
        assert_eq!(ids.clone().map(|id| world.assignment(&id)), before, "no worker restarts");
        assert_eq!(world.decide().actions, []);
    }
}

#[test]
fn deleted_assignment_is_placed_anew_if_the_last_one_is_not_known_or_not_valid() {
    for what in ["another leader", "slots of another topology", "other tasks"] {
        let mut world = World::with_announcers(2, 4);
        let id = world.running("wc", 4, 2);
        world.decide();
        let last = world.assignment(&id).expect("placed");
        world.wait(SECOND);
        world.nodes.remove(&layout::assignment(&id));
        match what {
            "another leader" => world.fail_over(),
            "slots of another topology" => {
                let thief = world.submit("thief", 4, 2);
                world.put(layout::assignment(&thief), record::encode_assignment(&last));
            }
            _ => {
                let components = TaskTable::number([("work".parse().expect("valid"), 6)]);
                let tasks = TasksRecord {
                    components,
                    requests: Default::default(),
                    unknown_fields: Default::default(),
                };
                world.put(layout::tasks(&id), record::encode(&tasks));
            }
        }
        let plan = world.decide();
        let restores = plan.actions.iter().any(|action| action.reason == Reason::AssignmentMissing);
        assert!(!restores, "{what}: {plan:?}");
        world.execute(&plan);
        world.settle();
        assert!(world.assignment(&id).is_some_and(|assignment| assignment != last), "{what}");
    }
}

#[test]
fn deleted_assignment_of_a_killed_topology_is_not_written_again() {
    let mut world = World::with_announcers(1, 4);
    let id = world.running("wc", 4, 2);
    world.decide();
    world.kill(&id, 30 * SECOND);
    world.nodes.remove(&layout::assignment(&id));
    world.settle();
    assert_eq!(world.assignment(&id), None);
}
