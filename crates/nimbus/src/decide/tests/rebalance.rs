use super::world::{SECOND, World};
use super::{NOW, effects};
use crate::plan::{ClusterProblem, Reason};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{
    Slot,
    assignment::Assignment,
    status::{PendingChange, TopologyStatus},
    task_set::TaskSet,
};

#[test]
fn a_due_rebalance_changes_everything_in_one_transaction() {
    let mut world = World::with_supervisors(4, 2);
    let id = world.running("wc", 4, 2);
    world.rebalance(&id, 10 * SECOND, 4, Some(8));
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.next), (0, Some(10 * SECOND)));
    world.wait(10 * SECOND);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["rebalance to 4 slots"]);
    world.execute(&plan);
    let topology_record = world.topology_record(&id).expect("there");
    assert_eq!(
        (topology_record.status, topology_record.pending, topology_record.workers),
        (TopologyStatus::Active, None, 4)
    );
    assert_eq!(world.assignment(&id).expect("placed").tasks().to_string(), "1-8");
    assert_eq!(world.decide().actions, []);
}

#[test]
fn a_rebalance_is_carried_out_before_its_deadline_once_all_workers_have_drained_for_it() {
    let mut world = World::with_supervisors(4, 2);
    let id = world.running("wc", 4, 2);
    world.rebalance(&id, 10 * SECOND, 4, None);
    let (deadline, assignment) = (world.deadline(&id), world.assignment(&id).expect("placed"));
    world.drained(&id, assignment.workers.keys().take(1).cloned(), deadline);
    assert_eq!(world.decide().actions, [], "one worker has not drained");
    world.drained(&id, assignment.workers.keys().cloned(), deadline);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["rebalance to 4 slots"]);
    assert_eq!(plan.actions[0].reason, Reason::Drained);
    world.execute(&plan);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn a_plan_decided_on_an_older_task_table_is_rejected() {
    for n_tasks in [2, 6] {
        let mut world = World::with_supervisors(3, 2);
        let id = world.running("wc", 4, 2);
        let before = world.nodes.clone();
        world.rebalance(&id, NOW, 2, Some(n_tasks));
        world.settle();
        // An event was lost, and this view has the former table.
        let mut behind = world.clone();
        for path in [layout::tasks(&id), layout::storm(&id)] {
            behind.nodes.insert(path.clone(), before[&path].clone());
        }
        let plan = behind.decide();
        let ops = plan.actions[0].effect.ops().expect("one transaction");
        let refused = world.multi(&ops).expect_err("it would move healthy tasks");
        assert!(refused.starts_with("/storms/") || refused.starts_with("/tasks/"), "{refused}");
    }
}

#[test]
fn a_rebalance_that_changes_the_tasks_restarts_every_worker() {
    let mut world = World::with_supervisors(1, 1);
    let id = world.running("wc", 4, 1);
    let before = world.assignment(&id).expect("placed");
    world.rebalance(&id, SECOND, 1, Some(3));
    world.wait(SECOND);
    world.settle();
    let after = world.assignment(&id).expect("placed");
    let slot = before.workers.keys().next().expect("a worker");
    assert!(after.workers[slot].start > before.workers[slot].start);
    assert_eq!(after.tasks().to_string(), "1-3");
}

#[test]
fn a_rebalance_changes_no_worker_that_keeps_its_tasks_unless_all_shall_restart() {
    let mut world = World::with_supervisors(3, 2);
    let id = world.running("wc", 4, 2);
    let before = world.assignment(&id).expect("placed");
    world.rebalance(&id, NOW, 3, None);
    world.settle();
    let grown = world.assignment(&id).expect("placed");
    let same = |before: &Assignment, after: &Assignment| {
        before.workers.iter().filter(|(slot, worker)| after.workers.get(*slot) == Some(*worker)).count()
    };
    assert_eq!((grown.workers.len(), same(&before, &grown)), (3, 1), "{before:?} {grown:?}");
    world.rebalance(&id, NOW, 3, None);
    world.settle();
    assert_eq!(world.assignment(&id), Some(grown.clone()), "nothing is to be done");
    world.rebalance(&id, NOW, 3, None);
    world.edit(&id, |record| {
        if let Some(PendingChange::Rebalance { restart, .. }) = &mut record.pending {
            *restart = true;
        }
    });
    world.settle();
    let restarted = world.assignment(&id).expect("placed");
    assert_eq!(same(&grown, &restarted), 0, "all restart");
    let tasks = |assignment: &Assignment| -> Vec<(Slot, TaskSet)> {
        assignment.workers.iter().map(|(slot, worker)| (slot.clone(), worker.tasks.clone())).collect()
    };
    assert_eq!(tasks(&grown), tasks(&restarted), "in place");
}

#[test]
fn a_rebalance_without_free_slots_waits() {
    let mut world = World::with_supervisors(1, 1);
    let id = world.running("wc", 4, 1);
    world.rebalance(&id, SECOND, 2, None);
    world.remove_supervisor("s0");
    world.wait(SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert!(matches!(plan.findings[0].problem, ClusterProblem::RebalanceWaits { .. }), "{plan:?}");
    world.supervisor("s0", 1);
    world.settle();
    assert_eq!(world.topology_record(&id).expect("there").status, TopologyStatus::Active);
}

#[test]
fn a_rebalance_leaves_slots_that_their_supervisor_no_longer_offers() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    for supervisor in ["s0", "s1"] {
        world.supervisor(supervisor, 1);
    }
    world.settle();
    let slots = |world: &World| -> Vec<String> {
        world.assignment(&id).expect("placed").workers.keys().map(ToString::to_string).collect()
    };
    world.rebalance(&id, NOW, 2, None);
    world.settle();
    assert_eq!(slots(&world), ["s0:6700", "s1:6700"]);
}
