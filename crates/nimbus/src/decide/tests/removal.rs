use std::time::Duration;

use super::world::{SECOND, World};
use super::{NOW, effects};
use crate::plan::{ClusterProblem, Finding, Plan, Reason};
use stormkeeper_coordination::{cluster::layout, tree::TreePath};
use stormkeeper_model::{BlobKey, TaskId, Timestamp};

#[test]
fn a_killed_topology_is_removed_step_by_step_and_leaves_nothing() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    world.kill(&id, 30 * SECOND);
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.next), (0, Some(30 * SECOND)));
    world.wait(30 * SECOND);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["remove the assignment"]);
    world.execute(&plan);
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.next), (0, Some(30 * SECOND)), "its workers still send heartbeats");
    world.send_heartbeats();
    let plan = world.decide();
    assert_eq!(effects(&plan), ["remove tasks, heartbeats, errors and metrics"]);
    assert_eq!(plan.actions[0].reason, Reason::HeartbeatsGone);
    world.execute(&plan);
    assert_eq!(effects(&world.decide()), ["remove the topology"]);
    world.settle();
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())), "{:?}", world.nodes.keys());
}

#[test]
fn a_kill_is_carried_out_before_its_deadline_once_all_workers_have_drained_for_it() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    world.kill(&id, 30 * SECOND);
    let (deadline, assignment) = (world.deadline(&id), world.assignment(&id).expect("placed"));
    let slots = || assignment.workers.keys().cloned();
    world.drained(&id, slots().take(1), deadline);
    assert_eq!(world.decide().actions, [], "one worker has not drained");
    world.drained(&id, slots(), Timestamp::from_millis(deadline.as_millis() - 1));
    assert_eq!(world.decide().actions, [], "they have drained for another change");
    world.drained(&id, slots(), deadline);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["remove the assignment"]);
    assert_eq!(plan.actions[0].reason, Reason::Drained);
    world.execute(&plan);
    world.send_heartbeats();
    // The next leader has seen no worker that drained, and goes on with the removal.
    world.fail_over();
    world.settle();
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())), "{:?}", world.nodes.keys());
}

#[test]
fn znode_that_may_not_be_deleted_is_named_and_tried_again_and_the_kill_goes_on() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    world.kill(&id, Duration::ZERO);
    let plan = world.decide();
    world.execute(&plan);
    world.send_heartbeats();
    assert_eq!(effects(&world.decide()), ["remove tasks, heartbeats, errors and metrics"]);

    // The leader has tried it, and could not delete one znode below the errors.
    let path = layout::taskerrors_of_task(&id, TaskId(1));
    let is_left = |path: &TreePath| !path.as_str().contains(id.as_str()) || *path == layout::storm(&id);
    world.nodes.retain(|path, _| is_left(path) || *path == layout::taskerrors(&id));
    world.liveness.note_undeletable(&id, &path, world.clock.monotonic());
    let plan = world.decide();
    assert_eq!(effects(&plan), ["remove the topology"]);
    world.execute(&plan);
    let plan = world.decide();
    assert_eq!(effects(&plan), [] as [&str; 0]);
    world.wait(SECOND);
    let plan = world.decide();
    assert!(
        matches!(&plan.findings[0].problem, ClusterProblem::Undeletable { path: named } if *named == path),
        "{:?}",
        plan.findings
    );
    for _ in 0..2 {
        world.wait(60 * SECOND);
        assert_eq!(effects(&world.decide()), ["remove tasks, heartbeats, errors and metrics"]);
        world.liveness.note_undeletable(&id, &path, world.clock.monotonic());
        let plan = world.decide();
        assert_eq!((plan.actions.len(), plan.next), (0, Some(30 * SECOND)), "not in every round");
    }
    world.nodes.retain(|path, _| !path.as_str().contains(id.as_str()));
    assert_eq!((world.decide().actions, world.decide().findings), (vec![], vec![]));
}

#[test]
fn other_records_are_removed_some_time_after_the_topology_record_was_deleted() {
    let mut world = World::with_supervisors(2, 2);
    let (id, other) = (world.running("wc", 4, 2), world.running("other", 2, 1));
    world.wait(600 * SECOND);
    let before = world.nodes.clone();
    world.nodes.remove(&layout::storm(&id));
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.findings.len(), plan.next), (0, 0, Some(SECOND)));
    world.wait(SECOND);
    let plan = world.decide();
    assert_eq!((plan.actions.len(), plan.next), (0, Some(59 * SECOND)));
    assert!(
        matches!(&plan.findings[0].problem, ClusterProblem::NoRecord { path } if *path == layout::storm(&id))
    );
    // Restored in time, the topology stays; deleted again, the full time applies again.
    world.wait(58 * SECOND);
    world.nodes.insert(layout::storm(&id), before[&layout::storm(&id)].clone());
    assert_eq!((world.decide().actions, world.decide().findings), (vec![], vec![]));
    world.nodes.remove(&layout::storm(&id));
    world.decide();
    world.wait(59 * SECOND);
    world.liveness.interrupt();
    assert_eq!(world.decide().actions, [], "a lost connection may be the reason for the absence");
    world.wait(60 * SECOND);
    let mut steps = Vec::new();
    for _ in 0..4 {
        let plan = world.decide();
        steps.extend(plan.actions.iter().map(|action| (action.effect.to_string(), action.reason.clone())));
        plan.actions.iter().for_each(|action| world.act(&action.effect, usize::MAX));
        world.send_heartbeats();
    }
    let step = |text: &str, reason| (text.to_owned(), reason);
    assert_eq!(
        steps,
        [
            step("remove the assignment", Reason::NoRecord),
            step("remove tasks, heartbeats, errors and metrics", Reason::HeartbeatsGone),
        ]
    );
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())), "{:?}", world.nodes.keys());
    assert!(
        world
            .view()
            .supervisor_assignments
            .values()
            .all(|supervisor_assignments| !supervisor_assignments.value.topologies.contains_key(&id))
    );
    assert_eq!(world.decide(), Plan::default());
    world.check();
    assert!(world.assignment(&other).is_some());
}

#[test]
fn an_orphan_with_unreadable_records_can_be_removed() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    for root in [layout::assignment, layout::tasks] {
        world.put(root(&id), b"garbage".to_vec());
    }
    world.nodes.remove(&layout::storm(&id));
    world.decide();
    world.wait(60 * SECOND);
    for _ in 0..4 {
        let plan = world.decide();
        plan.actions.iter().for_each(|action| world.act(&action.effect, usize::MAX));
        world.send_heartbeats();
    }
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())), "{:?}", world.nodes.keys());
}

#[test]
fn the_znode_of_an_unused_blob_on_no_nimbus_is_deleted_after_a_while() {
    let mut world = World::with_supervisors(1, 1);
    world.running("wc", 2, 1);
    let [used, held, left] = [b"x", b"h", b"l"].map(|bytes| BlobKey::of(bytes));
    for key in [&used, &held, &left] {
        world.put(layout::blob(key), Vec::new());
    }
    let holder = layout::blob_replica(&held, &"n".parse().expect("valid"));
    world.put(holder.clone(), Vec::new());
    // The package of the topology is reported as lost before.
    assert_eq!(world.decide().next, Some(3 * SECOND));
    world.wait(3 * SECOND);
    assert_eq!(world.decide().next, Some(57 * SECOND));
    world.wait(56 * SECOND);
    world.fail_over();
    world.decide();
    world.wait(59 * SECOND);
    assert_eq!(world.decide().actions, [], "the next leader restarts the timer");
    world.wait(SECOND);
    world.settle();
    assert!(!world.nodes.contains_key(&layout::blob(&left)));
    world.nodes.remove(&holder);
    world.decide();
    world.wait(60 * SECOND);
    world.settle();
    assert!(!world.nodes.contains_key(&layout::blob(&held)));
    assert!(world.nodes.contains_key(&layout::blob(&used)), "a topology waits for a nimbus that has it");
}

#[test]
fn lost_package_is_a_problem_of_its_topology_which_runs_on_and_can_be_killed() {
    let mut world = World::with_supervisors(1, 1);
    let id = world.running("wc", 2, 1);
    world.put(layout::blob(&BlobKey::of(b"x")), Vec::new());
    assert_eq!(world.decide().findings, []);
    world.wait(3 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    let problem = ClusterProblem::NoPackage { blob: BlobKey::of(b"x") };
    assert_eq!(plan.findings, [Finding { topology: Some(id.clone()), problem }]);
    world.kill(&id, NOW);
    world.settle();
    // The workers end, and with them their heartbeats.
    world.send_heartbeats();
    world.settle();
    assert!(!world.nodes.contains_key(&layout::storm(&id)));
}

#[test]
fn persistent_heartbeats_delay_a_removal_by_the_task_timeout() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    world.kill(&id, NOW);
    world.settle();
    world.wait(29 * SECOND);
    assert_eq!(world.decide().actions, []);
    world.wait(SECOND);
    assert_eq!(world.decide().actions[0].reason, Reason::HeartbeatsOverdue);
    world.settle();
    assert_eq!(world.topology_record(&id), None);
}

#[test]
fn a_kill_keeps_its_deadline_over_a_failover() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    world.kill(&id, 30 * SECOND);
    world.wait(20 * SECOND);
    world.fail_over();
    assert_eq!(world.decide().next, Some(10 * SECOND));
    world.wait(10 * SECOND);
    assert_eq!(effects(&world.decide()), ["remove the assignment"]);
}
