use super::world::{SECOND, World};
use crate::plan::{ClusterProblem, Effect, Plan, Reason};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{BlobKey, TaskId, TopologyId, status::TopologyStatus};

/// No wait.
const NOW: std::time::Duration = std::time::Duration::ZERO;

fn effects(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(|action| action.effect.to_string()).collect()
}

#[test]
fn a_submitted_topology_is_placed_at_once_with_its_supervisor_assignments() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.submit("wc", 4, 2);
    let plan = world.decide();
    assert_eq!(effects(&plan), ["place in 2 slots"]);
    assert_eq!(plan.actions[0].reason, Reason::Unplaced { n_tasks: 4 });
    assert_eq!(plan.actions[0].effect.supervisor_assignments().len(), 2);
    world.execute(&plan);
    assert_eq!(world.decide().actions, []);
    assert_eq!(world.assignment(&id).expect("placed").tasks().to_string(), "1-4");
}

#[test]
fn two_topologies_in_one_plan_do_not_share_a_slot() {
    let mut world = World::with_supervisors(1, 2);
    let (a, b) = (world.submit("a", 2, 1), world.submit("b", 2, 1));
    world.settle();
    world.check();
    assert!(world.assignment(&a).is_some() && world.assignment(&b).is_some());
    let supervisor_assignments = &world.view().supervisor_assignments[&"s0".parse().expect("valid")];
    assert_eq!(supervisor_assignments.value.topologies.len(), 2);
}

#[test]
fn without_a_slot_nothing_is_written_and_the_reason_is_reported() {
    let mut world = World::new();
    let id = world.submit("wc", 4, 2);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert!(
        matches!(plan.findings[0].problem, ClusterProblem::NoSlot { n_tasks: 4, .. }),
        "{:?}",
        plan.findings
    );
    assert_eq!(plan.findings[0].topology, Some(id));
    world.supervisor("s0", 1);
    world.settle();
}

#[test]
fn an_absent_supervisor_whose_tasks_send_heartbeats_loses_nothing() {
    let mut world = World::with_supervisors(2, 2);
    world.running("wc", 4, 2);
    world.remove_supervisor("s0");
    for _ in 0..10 {
        world.wait(60 * SECOND);
        assert_eq!(world.decide().actions, []);
    }
}

#[test]
fn the_tasks_of_a_lost_supervisor_move_after_its_timeout_and_no_others() {
    let mut world = World::with_supervisors(3, 2);
    let id = world.running("wc", 4, 2);
    let before = world.assignment(&id).expect("placed");
    world.wait(60 * SECOND);
    let lost = before.workers.keys().next().expect("a worker").clone();
    world.remove_supervisor(lost.supervisor.as_str());
    world.send_heartbeats();
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.next, Some(30 * SECOND));
    world.wait(30 * SECOND);
    let plan = world.decide();
    assert!(matches!(&plan.actions[0].reason, Reason::WorkerLost { slot, .. } if *slot == lost), "{plan:?}");
    assert_eq!(plan.actions[0].n_moved, 2);
    world.execute(&plan);
    let after = world.assignment(&id).expect("placed");
    assert_eq!(after.tasks(), before.tasks());
    for (slot, worker) in before.workers.iter().filter(|(slot, _)| **slot != lost) {
        assert_eq!(after.workers.get(slot), Some(worker), "a healthy worker was touched");
    }
    // The assignments of the lost supervisor are removed with its last worker.
    world.settle();
    assert!(!world.view().supervisor_assignments.contains_key(&lost.supervisor));
}

#[test]
fn a_supervisor_that_comes_back_in_time_keeps_its_tasks() {
    let mut world = World::with_supervisors(2, 2);
    world.running("wc", 4, 2);
    world.wait(60 * SECOND);
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(29 * SECOND);
    world.supervisor("s0", 2);
    assert_eq!(world.decide().actions, []);
    world.send_heartbeats();
    world.wait(300 * SECOND);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn workers_of_a_lost_supervisor_keep_their_slots_if_no_other_is_free() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 4, 2);
    let before = world.assignment(&id);
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(600 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert!(matches!(plan.findings[0].problem, ClusterProblem::NoSlot { .. }), "{:?}", plan.findings);
    assert_eq!(world.assignment(&id), before);
}

#[test]
fn a_new_leader_waits_for_absent_tasks_from_the_start_of_its_term() {
    let mut world = World::with_supervisors(3, 2);
    let id = world.running("wc", 4, 2);
    world.wait(600 * SECOND);
    // A worker died while there was no leader; its supervisor is present.
    world.silence(&id, [TaskId(1), TaskId(3)]);
    world.fail_over();
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.next, Some(120 * SECOND), "the launch time counts from the new term");
    world.wait(119 * SECOND);
    assert_eq!(world.decide().actions, []);
    world.wait(SECOND);
    assert_eq!(effects(&world.decide()), ["place in 2 slots"]);
}

#[test]
fn a_lost_connection_restarts_every_timer() {
    let mut world = World::with_supervisors(2, 2);
    world.running("wc", 4, 2);
    world.wait(600 * SECOND);
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(29 * SECOND);
    world.liveness.interrupt();
    world.wait(600 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.next, Some(30 * SECOND));
}

#[test]
fn a_silent_task_is_not_moved_while_its_worker_is_alive() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 1);
    world.silence(&id, [TaskId(2)]);
    world.decide();
    world.wait(3600 * SECOND);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn a_worker_without_a_first_heartbeat_moves_after_its_launch_time() {
    let mut world = World::with_supervisors(2, 1);
    let id = world.submit("wc", 2, 1);
    world.settle();
    let first = world.assignment(&id).expect("placed");
    world.wait(119 * SECOND);
    assert_eq!(world.decide().actions, []);
    world.wait(SECOND);
    world.settle();
    let second = world.assignment(&id).expect("placed");
    assert_ne!(first.workers.keys().next(), second.workers.keys().next());
}

#[test]
fn a_worker_without_a_first_heartbeat_restarts_in_place_if_no_other_slot_is_free() {
    let mut world = World::with_supervisors(1, 1);
    let id = world.submit("wc", 2, 1);
    world.settle();
    let first = world.assignment(&id).expect("placed");
    world.wait(120 * SECOND);
    world.settle();
    let second = world.assignment(&id).expect("placed");
    let starts = |assignment: &stormkeeper_model::assignment::Assignment| {
        assignment.workers.values().map(|worker| worker.start).collect::<Vec<_>>()
    };
    assert_eq!(first.workers.keys().next(), second.workers.keys().next());
    assert!(starts(&second) > starts(&first));
}

#[test]
fn a_lost_worker_in_a_full_cluster_does_not_change_healthy_workers() {
    // With its supervisor present, and with it absent.
    for (n_supervisors, ports, goes) in [(1, 2, false), (2, 1, true)] {
        let mut world = World::with_supervisors(n_supervisors, ports);
        let id = world.running("wc", 4, 2);
        world.wait(600 * SECOND);
        let before = world.assignment(&id).expect("placed");
        let (lost, healthy) = (before.workers.keys().last(), before.workers.keys().next());
        let (lost, healthy) = (lost.expect("a worker"), healthy.expect("a worker"));
        world.silence(&id, before.workers[lost].tasks.iter());
        if goes {
            world.remove_supervisor(lost.supervisor.as_str());
        }
        world.decide();
        world.wait(600 * SECOND);
        let plan = world.decide();
        assert!(matches!(plan.findings[0].problem, ClusterProblem::NoSlot { n_tasks: 2, .. }), "{plan:?}");
        world.settle();
        let after = world.assignment(&id).expect("placed");
        assert_eq!(after.workers[healthy], before.workers[healthy], "a healthy worker was touched");
        assert!(after.workers.keys().eq(before.workers.keys()), "{after:?}");
        assert_eq!(after.workers[lost].tasks, before.workers[lost].tasks);
        let starts_again = after.workers[lost].start > before.workers[lost].start;
        assert_eq!(starts_again, !goes, "it restarts in place if its supervisor is present");
        // A new slot is used by the lost worker alone.
        world.supervisor("t", 1);
        world.wait(600 * SECOND);
        world.settle();
        let last = world.assignment(&id).expect("placed");
        assert_eq!(last.workers[healthy], before.workers[healthy]);
        assert!(last.supervisors().any(|supervisor| supervisor.as_str() == "t"), "{last:?}");
    }
}

#[test]
fn two_lost_workers_do_not_swap_their_slots() {
    let mut world = World::with_supervisors(2, 1);
    let ids = [world.running("a", 2, 1), world.running("b", 2, 1)];
    world.wait(600 * SECOND);
    for id in &ids {
        world.silence(id, [TaskId(1), TaskId(2)]);
    }
    let before: Vec<_> = ids.iter().map(|id| world.assignment(id).expect("placed")).collect();
    world.decide();
    world.wait(30 * SECOND);
    // Neither could be written first without two workers in one slot; settle() checks that.
    world.settle();
    for (id, before) in ids.iter().zip(before) {
        let after = world.assignment(id).expect("placed");
        assert!(after.workers.keys().eq(before.workers.keys()) && after != before, "{after:?}");
    }
}

#[test]
fn moves_are_capped_and_a_large_worker_goes_alone() {
    let mut world = World::with_supervisors(4, 1);
    let id = world.running("wc", 12, 3);
    world.policy.max_moves_per_round = 6;
    world.wait(60 * SECOND);
    for name in ["s0", "s1", "s2"] {
        world.remove_supervisor(name);
    }
    for port in 10..14 {
        world.supervisor(&format!("t{port}"), 1);
    }
    world.send_heartbeats();
    world.decide();
    world.wait(30 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions[0].n_moved, 4, "a second worker of four would be over six");
    assert!(matches!(plan.findings[0].problem, ClusterProblem::MovesCapped { .. }));
    world.policy.max_moves_per_round = 2;
    assert_eq!(world.decide().actions[0].n_moved, 4, "it goes alone");
    assert_eq!(plan.actions[0].effect.topology(), Some(&id));
}

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
    assert_eq!(world.decide().next, Some(60 * SECOND));
    world.wait(59 * SECOND);
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

#[test]
fn an_unreadable_record_is_reported_and_its_topology_unchanged() {
    let roots: [fn(&TopologyId) -> stormkeeper_coordination::tree::TreePath; 3] =
        [layout::storm, layout::tasks, layout::assignment];
    for root in roots {
        let mut world = World::with_supervisors(2, 2);
        let id = world.running("bad", 4, 2);
        let before = world.nodes.clone();
        world.put(root(&id), b"garbage".to_vec());
        world.remove_supervisor("s1");
        world.send_heartbeats();
        world.decide();
        world.wait(3600 * SECOND);
        let plan = world.decide();
        assert_eq!(plan.actions, [], "with an unreadable {}", root(&id));
        assert!(
            matches!(&plan.findings[0].problem, ClusterProblem::Unreadable { path, .. } if *path == root(&id))
        );
        let others = |nodes: &std::collections::BTreeMap<stormkeeper_coordination::tree::TreePath, _>| {
            nodes.keys().filter(|path| !path.as_str().contains("beats")).cloned().collect::<Vec<_>>()
        };
        let gone: Vec<_> =
            others(&before).into_iter().filter(|path| !world.nodes.contains_key(path)).collect();
        assert_eq!(gone, [layout::supervisor(&"s1".parse().expect("valid"))]);
        // The others are placed, but in no slot that the unreadable one may have.
        world.supervisor("s2", 1);
        let good = world.submit("good", 2, 2);
        world.settle();
        world.check();
        let placed = world.assignment(&good).expect("placed");
        if root(&id) == layout::assignment(&id) {
            assert!(placed.supervisors().all(|supervisor| supervisor.as_str() == "s2"), "{placed:?}");
        }
    }
}

#[test]
fn a_killed_topology_with_an_unreadable_assignment_can_be_removed() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("bad", 4, 2);
    world.put(layout::assignment(&id), b"garbage".to_vec());
    world.put(layout::tasks(&id), b"garbage".to_vec());
    world.kill(&id, NOW);
    world.settle();
    world.send_heartbeats();
    world.settle();
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())));
    assert!(
        world
            .view()
            .supervisor_assignments
            .values()
            .all(|supervisor_assignments| supervisor_assignments.value.topologies.is_empty())
    );
}

#[test]
fn differing_supervisor_assignments_are_corrected() {
    let mut world = World::with_supervisors(1, 2);
    world.running("wc", 2, 1);
    let path = layout::supervisor_assignments(&"s0".parse().expect("valid"));
    let right = world.nodes[&path].0.clone();
    for wrong in [&br#"{"v":1,"topologies":{"x-1-1":3}}"#[..], br#"{"v":1,"topologies":{}}"#, b"garbage"] {
        world.put(path.clone(), wrong.to_vec());
        let plan = world.decide();
        assert_eq!(effects(&plan), ["correct /supervisor-assignments/s0"]);
        world.execute(&plan);
        assert_eq!(world.nodes[&path].0, right);
    }
    world.nodes.remove(&path);
    assert_eq!(effects(&world.decide()), ["correct /supervisor-assignments/s0"]);
}

#[test]
fn a_missing_parent_of_heartbeats_is_created_again() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    world.nodes.retain(|path, _| !path.is_at_or_below(&layout::taskbeats(&id)));
    let plan = world.decide();
    assert!(matches!(plan.actions[0].effect, Effect::RestoreParents { heartbeats: true, errors: false, .. }));
}

#[test]
fn an_oversized_assignment_is_reported_and_does_not_block_others() {
    let mut world = World::with_supervisors(1, 2);
    for n in 0..3000 {
        world.supervisor(&format!("{}-{n}", "long-name".repeat(15)), 1);
    }
    let big = world.submit("big", 3000, 3000);
    let small = world.submit("small", 2, 1);
    let plan = world.decide();
    assert!(matches!(plan.findings[0].problem, ClusterProblem::TooLarge { .. }), "{:?}", plan.findings);
    world.execute(&plan);
    assert!(world.assignment(&big).is_none() && world.assignment(&small).is_some());
}
