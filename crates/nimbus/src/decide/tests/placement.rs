use super::effects;
use super::world::{SECOND, World};
use crate::plan::{ClusterProblem, Reason};
use stormkeeper_model::{
    TaskId,
    resources::{Capacity, TaskRequest},
};

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
    assert_eq!(plan.next, Some(3 * SECOND), "its absence is reported");
    world.wait(3 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.next, Some(27 * SECOND));
    world.wait(27 * SECOND);
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
    assert_eq!(plan.next, Some(8 * SECOND), "the tasks are reported");
    world.wait(8 * SECOND);
    assert_eq!(world.decide().next, Some(112 * SECOND), "the launch time counts from the new term");
    world.wait(111 * SECOND);
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
    assert_eq!(world.decide().actions, []);
    world.wait(3 * SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.next, Some(27 * SECOND));
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
fn shortage_of_memory_is_reported_and_a_new_capacity_moves_no_running_task() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.submit_with("wc", 3, 1, TaskRequest { memory_mb: 1000, cpu_percent: 0 });
    world.offer("s0", Capacity { memory_mb: Some(1500), cpu_percent: None });
    world.offer("s1", Capacity { memory_mb: Some(1000), cpu_percent: None });
    let plan = world.decide();
    assert_eq!(effects(&plan), ["place in 2 slots"]);
    assert_eq!(
        plan.findings[0].problem.to_string(),
        "1 tasks have no slot: a task of work requests 1000 MiB of memory, and the best place, host-s0, has 500 MiB \
         left of 1500 MiB; add supervisors or capacity, or request less"
    );
    world.execute(&plan);
    assert_eq!(world.decide().actions, [], "the rest waits");
    world.offer("s0", Capacity { memory_mb: Some(2), cpu_percent: None });
    assert_eq!(world.decide().actions, [], "running tasks stay");
    world.offer("s0", Capacity { memory_mb: Some(2000), cpu_percent: None });
    world.settle();
    assert_eq!(world.assignment(&id).expect("placed").tasks().to_string(), "1-3");
}

#[test]
fn nothing_is_placed_on_a_supervisor_whose_certificate_has_expired_unless_all_have() {
    let mut world = World::with_supervisors(2, 2);
    let running = world.running("old", 2, 2);
    let before = world.assignment(&running).expect("placed");
    world.set_certificate_expired("s0", true);
    assert_eq!(world.decide().actions, [], "what runs there runs on");
    let id = world.submit("wc", 2, 2);
    world.settle();
    world.check();
    let supervisors = |world: &World, id| {
        let slots = world.assignment(id).expect("placed").workers.into_keys();
        slots.map(|slot| slot.supervisor.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(supervisors(&world, &id), ["s1"]);
    assert_eq!(world.assignment(&running).expect("placed"), before);
    let late = world.submit("late", 1, 1);
    world.settle();
    assert_eq!(world.assignment(&late), None, "the other supervisor is full");
    world.set_certificate_expired("s1", true);
    world.settle();
    assert_eq!(supervisors(&world, &late), ["s0"], "no supervisor has a valid certificate");
}
