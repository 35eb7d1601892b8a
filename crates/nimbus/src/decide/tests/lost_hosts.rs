//! Loss of a host with its session: each clause with its times.

use std::{collections::BTreeSet, time::Duration};

use super::{
    effects,
    world::{SECOND, World},
};
use crate::{
    host_problem::HostProblem,
    liveness::{Liveness, LossReason},
    plan::{ClusterProblem, Plan, Reason},
    policy::Share,
};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{SupervisorId, TopologyId, assignment::Assignment};

/// Time for which a host must be gone.
const GONE_FOR: Duration = Duration::from_millis(500);

/// A topology that runs on every supervisor, long after the beginning of the term.
fn running(n_supervisors: usize) -> (World, TopologyId) {
    let mut world = World::with_announcers(n_supervisors, 4);
    let n = u32::try_from(n_supervisors).expect("a few");
    let id = world.running("wc", 2 * n, n);
    world.wait(600 * SECOND);
    assert_eq!(world.decide().actions, []);
    (world, id)
}

fn supervisor(name: &str) -> SupervisorId {
    name.parse().expect("valid")
}

fn uses(world: &World, id: &TopologyId, name: &str) -> bool {
    let assignment: Assignment = world.assignment(id).expect("placed");
    assignment.supervisors().any(|supervisor| supervisor.as_str() == name)
}

fn problems(plan: &Plan) -> Vec<String> {
    let hosts = plan.findings.iter().filter(|finding| matches!(finding.problem, ClusterProblem::Hosts(_)));
    hosts.map(|finding| finding.problem.to_string()).collect()
}

/// Decides until nothing moves for `secs` seconds, one second at a time.
fn assert_nothing_moves_for(world: &mut World, secs: u32) {
    for passed in 0..secs {
        assert_eq!(world.decide().actions, [], "after {passed} s");
        world.wait(SECOND);
    }
}

#[test]
fn tasks_of_a_lost_host_move_half_a_second_after_its_last_heartbeat() {
    let (mut world, id) = running(3);
    world.remove_supervisor("s0");
    // The session of its workers ends later.
    assert_nothing_moves_for(&mut world, 3);
    world.send_heartbeats();
    let plan = world.decide();
    assert_eq!((plan.actions, plan.next), (vec![], Some(GONE_FOR)));
    world.wait(GONE_FOR);
    let plan = world.decide();
    let action = &plan.actions[0];
    assert_eq!(action.moves.len(), 1);
    assert!(matches!(action.reason, Reason::WorkerLost { loss: LossReason::HostLost, .. }), "{action:?}");
    let reason = "the worker in s0:6700 is lost: its host is lost: session expired and all its workers' heartbeats gone";
    assert_eq!(action.reason.to_string(), reason);
    assert!(action.reason.needs_fresh_view());
    world.execute(&plan);
    assert!(!uses(&world, &id, "s0"));
}

#[test]
fn heartbeats_that_go_before_the_registration_count_from_the_registration() {
    let (mut world, _) = running(3);
    let kept = layout::supervisor(&supervisor("s0"));
    let node = world.nodes.remove(&kept).expect("registered");
    world.send_heartbeats();
    world.nodes.insert(kept.clone(), node);
    assert_nothing_moves_for(&mut world, 5);
    world.nodes.remove(&kept);
    assert_eq!(world.decide().next, Some(GONE_FOR));
    world.wait(SECOND);
    assert_eq!(effects(&world.decide())[0], "place in 3 slots");
}

#[test]
fn a_supervisor_that_announced_its_stop_is_waited_for() {
    let (mut world, id) = running(2);
    for name in ["s0", "s1"] {
        // As `docker restart`: the workers end with the container.
        world.stop(name);
        world.send_heartbeats();
        assert_nothing_moves_for(&mut world, 29);
        world.start(name, 4);
        assert_eq!(world.decide().actions, []);
        world.send_heartbeats();
        assert_nothing_moves_for(&mut world, 60);
    }
    world.stop("s0");
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 30);
    world.settle();
    assert!(!uses(&world, &id, "s0"), "a host that does not come back is lost after the time-out");
}

#[test]
fn a_stop_that_was_announced_before_the_last_registration_does_not_count() {
    let (mut world, id) = running(2);
    world.stop("s0");
    world.decide();
    world.start("s0", 4);
    world.decide();
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(SECOND);
    world.settle();
    assert!(!uses(&world, &id, "s0"));
}

#[test]
fn a_supervisor_of_an_older_build_keeps_the_timeout() {
    let mut world = World::with_announcers(2, 4);
    world.supervisor("s0", 4);
    let id = world.running("wc", 4, 2);
    world.wait(600 * SECOND);
    world.decide();
    world.remove_supervisor("s0");
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 30);
    world.settle();
    assert!(!uses(&world, &id, "s0"));
}

#[test]
fn an_absent_supervisor_moves_nothing_while_one_of_its_workers_has_a_heartbeat() {
    let mut world = World::with_announcers(2, 4);
    let id = world.running("wc", 8, 4);
    world.wait(600 * SECOND);
    world.decide();
    let before = world.assignment(&id).expect("placed");
    let here: Vec<_> = before.workers.iter().filter(|(slot, _)| slot.supervisor.as_str() == "s0").collect();
    assert_eq!(here.len(), 2);
    world.remove_supervisor("s0");
    assert_nothing_moves_for(&mut world, 5);
    // One of two workers ends: its slot keeps the time-out of the supervisor.
    world.silence(&id, here[0].1.tasks.iter());
    assert_nothing_moves_for(&mut world, 25);
    let plan = world.decide();
    assert_eq!(plan.actions[0].n_moved, 2, "{plan:?}");
    // The other one ends too: the host is lost.
    world.execute(&plan);
    world.silence(&id, here[1].1.tasks.iter());
    world.settle();
    assert!(!uses(&world, &id, "s0"));
}

#[test]
fn a_worker_that_restarts_below_a_present_supervisor_stays() {
    let (mut world, id) = running(3);
    let before = world.assignment(&id).expect("placed");
    let worker = before.workers.values().next().expect("a worker");
    world.silence(&id, worker.tasks.iter());
    assert_nothing_moves_for(&mut world, 29);
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 29);
}

#[test]
fn hosts_that_vanish_together_are_lost_only_up_to_the_share() {
    // Supervisors, supervisors that vanish, and whether their tasks move at once.
    let cases =
        [(2, 1, true), (3, 1, true), (3, 2, false), (4, 2, true), (4, 3, false), (5, 2, true), (5, 3, false)];
    for (n, n_vanished, moves) in cases {
        let (mut world, id) = running(n);
        let before = world.assignment(&id);
        for i in 0..n_vanished {
            world.remove_supervisor(&format!("s{i}"));
        }
        world.send_heartbeats();
        world.decide();
        world.wait(SECOND);
        let plan = world.decide();
        assert_eq!(!plan.actions.is_empty(), moves, "{n_vanished} of {n}: {plan:?}");
        if moves {
            continue;
        }
        world.wait(2 * SECOND);
        let told =
            format!("the host host-s0 is gone, and with it {n_vanished} of {n} supervisors, which is more");
        let problems = problems(&world.decide());
        assert!(problems[0].starts_with(&told), "{problems:?}");
        assert_nothing_moves_for(&mut world, 27);
        assert_ne!(effects(&world.decide()), [""; 0], "the old time-out holds");
        assert_eq!(world.assignment(&id), before);
    }
}

#[test]
fn hosts_that_vanished_together_are_lost_when_enough_of_the_others_are_back() {
    let (mut world, id) = running(3);
    for name in ["s0", "s1"] {
        world.remove_supervisor(name);
    }
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 10);
    world.announcer("s1", 4);
    world.settle();
    assert!(!uses(&world, &id, "s0"));
    assert!(uses(&world, &id, "s1"), "s1 has the old time to bring its worker back");
}

#[test]
fn supervisors_without_tasks_count_for_the_share_and_old_absences_do_not() {
    let mut world = World::with_announcers(2, 4);
    let id = world.running("wc", 4, 2);
    for name in ["t0", "t1", "t2"] {
        world.announcer(name, 1);
    }
    world.wait(600 * SECOND);
    world.decide();
    for name in ["s0", "t0", "t1"] {
        world.remove_supervisor(name);
    }
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 20);
    // The first comes back. Two that are gone for longer than the time-out are no part of the next
    // event.
    world.announcer("s0", 4);
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 20);
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(SECOND);
    world.settle();
    assert!(!uses(&world, &id, "s0"));
}

#[test]
fn the_share_is_configured() {
    for (millionths, n_vanished, moves) in
        [(0, 1, false), (1_000_000, 2, true), (660_000, 2, false), (670_000, 2, true)]
    {
        let (mut world, _) = running(3);
        world.policy.lost_hosts_share_max = Share::of_millionths(millionths);
        for i in 0..n_vanished {
            world.remove_supervisor(&format!("s{i}"));
        }
        world.send_heartbeats();
        world.decide();
        world.wait(SECOND);
        assert_eq!(!world.decide().actions.is_empty(), moves, "{millionths} of a million, {n_vanished}");
    }
}

#[test]
fn a_reconnected_leader_gives_everybody_the_settling_time() {
    // Settling time, and the time that passes.
    for (settle, waits) in [(15, 15), (3, 10), (20, 20)] {
        let (mut world, _) = running(3);
        world.policy.settle = settle * SECOND;
        world.remove_supervisor("s0");
        world.send_heartbeats();
        world.decide();
        world.wait(GONE_FOR / 2);
        world.liveness.interrupt();
        assert_nothing_moves_for(&mut world, waits);
        assert_eq!(effects(&world.decide())[0], "place in 3 slots", "settling time of {settle} s");
    }
}

#[test]
fn a_new_leader_waits_and_knows_announcers_only_from_what_its_nimbus_saw() {
    for knows in [true, false] {
        let (mut world, _) = running(3);
        world.remove_supervisor("s0");
        world.send_heartbeats();
        let announcers: BTreeSet<SupervisorId> = match knows {
            true => world.liveness.announcers(world.clock.monotonic()),
            false => BTreeSet::new(),
        };
        assert_eq!(announcers.contains(&supervisor("s0")), knows);
        world.liveness = Liveness::new(world.clock.monotonic()).with_announcers(&announcers);
        assert_nothing_moves_for(&mut world, if knows { 15 } else { 30 });
        assert_eq!(effects(&world.decide())[0], "place in 3 slots");
    }
}

#[test]
fn what_cannot_be_read_counts_as_alive() {
    type Damage = fn(&mut World, &TopologyId);
    let damages: [(&str, Damage); 4] = [
        ("the registration", |world, _| world.put(layout::supervisor(&supervisor("s0")), b"?".to_vec())),
        ("the announced stop", |world, _| {
            world.put(layout::stopped_supervisor(&supervisor("s0")), b"?".to_vec());
        }),
        ("the supervisor assignments", |world, _| {
            world.put(layout::supervisor_assignments(&supervisor("s0")), br#"{"v":9}"#.to_vec());
        }),
        ("the parent of the heartbeats", |world, id| {
            world.nodes.retain(|path, _| !path.is_at_or_below(&layout::taskbeats(id)));
        }),
    ];
    for (what, damage) in damages {
        let (mut world, id) = running(3);
        world.remove_supervisor("s0");
        world.send_heartbeats();
        damage(&mut world, &id);
        let before = world.assignment(&id);
        for _ in 0..20 {
            // The parent is restored only in the tree of a real leader.
            world.decide();
            world.wait(SECOND);
        }
        let plan = world.decide();
        let moves = plan.actions.iter().filter(|action| matches!(action.reason, Reason::WorkerLost { .. }));
        assert_eq!(moves.count(), 0, "{what}: {plan:?}");
        assert_eq!(world.assignment(&id), before);
    }
}

#[test]
fn moves_of_lost_hosts_are_capped() {
    let mut world = World::with_announcers(4, 4);
    world.running("wc", 16, 8);
    world.policy.max_moves_per_round = 3;
    world.wait(600 * SECOND);
    world.decide();
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(SECOND);
    let plan = world.decide();
    assert_eq!(plan.actions[0].n_moved, 2);
    assert!(
        plan.findings.iter().any(|finding| matches!(finding.problem, ClusterProblem::MovesCapped { .. }))
    );
}

#[test]
fn absent_supervisors_are_reported_with_what_to_do() {
    let (mut world, id) = running(1);
    world.remove_supervisor("s0");
    world.decide();
    world.wait(3 * SECOND);
    let told = |world: &mut World| {
        let findings = world.decide().findings;
        let finding = findings.iter().find(|finding| matches!(finding.problem, ClusterProblem::Hosts(_)));
        let finding = finding.expect("it is reported");
        assert_eq!(finding.topology.as_ref(), Some(&id), "`list` shows it with the topology");
        finding.problem.to_string()
    };
    let absent = HostProblem::SupervisorAbsent { supervisor: supervisor("s0"), host: "host-s0".to_owned() };
    assert_eq!(told(&mut world), absent.to_string());
    world.send_heartbeats();
    assert!(told(&mut world).starts_with("the host host-s0 is gone, and with it 1 of 1 supervisors"));
    world.policy.lost_hosts_share_max = Share::of_millionths(1_000_000);
    assert!(told(&mut world).starts_with("the host host-s0 is gone with its supervisor s0"));
    world.stop("s0");
    assert!(told(&mut world).starts_with("the supervisor s0 on host-s0 has stopped"));
    world.start("s0", 4);
    assert_eq!(problems(&world.decide()), [""; 0]);
}

#[test]
fn announced_stops_are_deleted_when_no_task_waits_for_the_supervisor() {
    let (mut world, _) = running(2);
    for i in 0..150 {
        world.stop(&format!("x{i}"));
    }
    world.stop("s0");
    let n_stops = |world: &World| world.view().stopped_supervisors.len();
    assert_nothing_moves_for(&mut world, 20);
    assert_eq!(n_stops(&world), 151);
    world.wait(39 * SECOND);
    world.send_heartbeats();
    world.settle();
    assert_eq!(n_stops(&world), 151, "kept for a minute");
    world.wait(SECOND);
    world.decide();
    assert_eq!(effects(&world.decide()), ["delete 100 announced stops of supervisors"]);
    world.settle();
    assert_eq!(n_stops(&world), 1, "only that of the supervisor that had tasks until now");
    world.wait(60 * SECOND);
    world.settle();
    assert_eq!(n_stops(&world), 0);
}

#[test]
fn supervisors_that_announced_their_stop_have_not_vanished() {
    let (mut world, id) = running(3);
    world.stop("s1");
    world.remove_supervisor("s0");
    world.send_heartbeats();
    world.decide();
    world.wait(SECOND);
    world.settle();
    assert!(!uses(&world, &id, "s0"), "one of three has vanished");
    assert!(uses(&world, &id, "s1"));
}

#[test]
fn assignment_that_cannot_be_read_may_have_a_worker_that_is_alive() {
    let mut world = World::with_announcers(2, 4);
    let (a, b) = (world.running("a", 4, 2), world.running("b", 4, 2));
    // The unreadable assignment cannot use its slots.
    world.announcer("s2", 4);
    world.wait(600 * SECOND);
    world.decide();
    assert!(uses(&world, &a, "s0") && uses(&world, &b, "s0"));
    world.put(layout::assignment(&b), b"?".to_vec());
    world.remove_supervisor("s0");
    world.send_heartbeats();
    assert_nothing_moves_for(&mut world, 30);
    assert_eq!(effects(&world.decide())[0], "place in 2 slots", "the old time-out holds");
}
