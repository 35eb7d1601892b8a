//! Supervisors and workers that do not come up or do not stay up.

use std::collections::BTreeSet;

use super::{
    effects,
    world::{SECOND, World},
};
use crate::{
    failing_problem::FailingProblem,
    liveness::LossReason,
    plan::{ClusterProblem, Plan, Reason},
};
use stormkeeper_coordination::cluster::{
    failure::{FailureKind, ReportedFailure},
    layout,
    record::{self, SupervisorRecord, TopologyRecord},
};
use stormkeeper_model::{Port, Slot, SupervisorId, Timestamp, TopologyId};

fn failure(kind: FailureKind, n: u32) -> ReportedFailure {
    ReportedFailure::new(kind, n, "why".to_owned())
}

impl World {
    fn report(&mut self, supervisor: &str, failures: Vec<ReportedFailure>) {
        let path = layout::supervisor(&supervisor.parse().expect("valid"));
        let record: SupervisorRecord = record::decode(&path, &self.nodes[&path].0).expect("readable");
        self.put(path, record::encode(&SupervisorRecord { failures, ..record }));
    }

    /// Gives a topology to an owner.
    fn own(&mut self, id: &TopologyId, owner: &str) {
        let path = layout::storm(id);
        let record: TopologyRecord = record::decode(&path, &self.nodes[&path].0).expect("readable");
        self.put(path, record::encode(&TopologyRecord { owner: owner.to_owned(), ..record }));
    }

    /// The only worker of a topology.
    fn slot(&self, id: &TopologyId) -> Slot {
        let assignment = self.assignment(id).expect("placed");
        assert_eq!(assignment.workers.len(), 1, "{assignment:?}");
        assignment.workers.keys().next().expect("one").clone()
    }

    /// The supervisor of the only worker reports that it cannot launch it.
    fn cannot_launch(&mut self, id: &TopologyId, everywhere: bool) {
        self.cannot_start(id, FailureKind::Launch, everywhere);
    }

    fn cannot_start(&mut self, id: &TopologyId, kind: FailureKind, everywhere: bool) {
        let slot = self.slot(id);
        let placed = self.assignment(id).expect("placed").workers[&slot].start;
        let reported = ReportedFailure {
            port: Some(slot.port),
            topology: Some(id.clone()),
            placed: Some(placed),
            everywhere,
            ..failure(kind, 3)
        };
        self.report(slot.supervisor.as_str(), vec![reported]);
    }

    /// A topology of one worker without heartbeats, after the settle time of the term.
    fn placed(&mut self, name: &str) -> TopologyId {
        self.wait(20 * SECOND);
        let id = self.submit(name, 2, 1);
        self.settle();
        self.wait(SECOND);
        id
    }
}

fn failing(plan: &Plan) -> Vec<&FailingProblem> {
    let mut failing = Vec::new();
    for finding in &plan.findings {
        if let ClusterProblem::Failing(problem) = &finding.problem {
            failing.push(problem);
        }
    }
    failing
}

fn supervisor(id: &str) -> SupervisorId {
    id.parse().expect("valid")
}

#[test]
fn worker_that_its_supervisor_cannot_start_leaves_at_once_and_does_not_come_back() {
    let mut world = World::with_supervisors(3, 2);
    let id = world.placed("wc");
    let mut tried = BTreeSet::new();
    for _ in 0..3 {
        tried.insert(world.slot(&id).supervisor);
        world.cannot_launch(&id, false);
        let plan = world.decide();
        let lost = matches!(plan.actions[0].reason, Reason::WorkerLost { loss: LossReason::CannotStart, .. });
        assert!(lost, "{plan:?}");
        world.settle();
        world.wait(5 * SECOND);
    }
    assert_eq!(tried.len(), 3, "each supervisor was tried once");
    // All of them fail: now the launch time counts.
    world.cannot_launch(&id, false);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn worker_whose_code_no_host_can_have_stays() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.placed("wc");
    world.cannot_launch(&id, true);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert!(matches!(failing(&plan)[..], [FailingProblem::NoCode { .. }]), "{plan:?}");
}

#[test]
fn start_that_fails_for_the_topology_moves_it_and_changes_nothing_for_others() {
    let mut world = World::with_supervisors(2, 4);
    let id = world.placed("bad");
    let here = world.slot(&id).supervisor;
    world.cannot_start(&id, FailureKind::Topology, false);
    let plan = world.decide();
    let lost = matches!(plan.actions[0].reason, Reason::WorkerLost { loss: LossReason::CannotStart, .. });
    assert!(lost, "the topology may start on another host: {plan:?}");
    let texts: Vec<String> = failing(&plan).iter().map(ToString::to_string).collect();
    let [text] = &texts[..] else { panic!("the host is not to blame: {texts:?}") };
    let expected = "tasks 1-2 do not run: their worker at host-s0:6700 failed 3 times at its start, for a reason that \
                    may be in the topology or its owner; last: why; see `stormkeeper get-errors bad`";
    assert_eq!(text, expected);
    world.settle();
    assert_ne!(world.slot(&id).supervisor, here);
    world.send_heartbeats();
    world.decide();
    // The supervisor that it left is the emptier one.
    let other = world.submit("good", 1, 1);
    world.settle();
    assert_eq!(world.slot(&other).supervisor, here);
}

#[test]
fn silence_of_a_topology_whose_worker_starts_again_changes_nothing_for_others() {
    let mut world = World::with_supervisors(2, 4);
    let id = world.placed("bad");
    let slot = world.slot(&id);
    let restarts = ReportedFailure {
        port: Some(slot.port),
        topology: Some(id.clone()),
        ..failure(FailureKind::Worker, 9)
    };
    world.report(slot.supervisor.as_str(), vec![restarts]);
    world.wait(120 * SECOND);
    world.settle();
    assert_ne!(world.slot(&id).supervisor, slot.supervisor, "its own failures count for itself");
    world.send_heartbeats();
    world.decide();
    let other = world.submit("good", 1, 1);
    world.settle();
    assert_eq!(world.slot(&other).supervisor, slot.supervisor);
}

#[test]
fn report_about_an_earlier_placement_in_the_slot_moves_nothing() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.placed("wc");
    let slot = world.slot(&id);
    let reported = ReportedFailure {
        port: Some(slot.port),
        topology: Some(id.clone()),
        placed: Some(Timestamp::EPOCH),
        ..failure(FailureKind::Launch, 9)
    };
    world.report(slot.supervisor.as_str(), vec![reported]);
    assert_eq!(world.decide().actions, []);
}

#[test]
fn silent_worker_goes_to_another_supervisor_and_new_topologies_too() {
    let mut world = World::with_supervisors(2, 4);
    let id = world.placed("wc");
    let broken = world.slot(&id).supervisor;
    world.wait(120 * SECOND);
    world.settle();
    assert_ne!(world.slot(&id).supervisor, broken, "another slot of the same supervisor is no help");
    world.send_heartbeats();
    world.decide();
    // Without memory the next topologies would go to the emptier supervisor.
    for name in ["a", "b"] {
        let id = world.submit(name, 1, 1);
        world.settle();
        assert_ne!(world.slot(&id).supervisor, broken);
        world.send_heartbeats();
        world.decide();
    }
    world.wait(600 * SECOND);
    let id = world.submit("c", 1, 1);
    world.settle();
    assert_eq!(world.slot(&id).supervisor, broken, "forgotten");
}

#[test]
fn topology_that_fails_on_every_supervisor_is_to_blame_itself() {
    let mut world = World::with_supervisors(3, 4);
    let id = world.placed("bad");
    for _ in 0..2 {
        world.cannot_launch(&id, false);
        world.settle();
        world.wait(SECOND);
    }
    // The third has one worker, the other two failed only with the bad topology.
    let last = world.slot(&id).supervisor;
    let other = world.submit("good", 1, 1);
    world.settle();
    assert_ne!(world.slot(&other).supervisor, last);
}

#[test]
fn placement_prefers_supervisors_that_stay_up_and_list_names_the_other() {
    let mut world = World::with_supervisors(2, 4);
    world.report("s0", vec![failure(FailureKind::Supervisor, 3)]);
    let id = world.submit("wc", 4, 4);
    world.settle();
    let used: BTreeSet<SupervisorId> =
        world.assignment(&id).expect("placed").supervisors().cloned().collect();
    assert_eq!(used, [supervisor("s1")].into());
    let plan = world.decide();
    let expected = FailingProblem::SupervisorRestarts {
        supervisor: supervisor("s0"),
        host: "host-s0".to_owned(),
        n: 3,
        reason: "why".to_owned(),
    };
    assert_eq!(failing(&plan), [&expected]);
    assert!(expected.to_string().contains("started again 3 times in the last 10 minutes; last: why; see"));
}

#[test]
fn one_restless_topology_is_its_own_fault_and_two_are_the_hosts() {
    let mut world = World::with_supervisors(2, 6);
    let (first, second) = (world.running("a", 1, 1), world.running("b", 1, 1));
    // Both on one supervisor.
    let here = world.slot(&first).supervisor;
    let restless = |id: &TopologyId| ReportedFailure {
        port: Some(Port(6700)),
        topology: Some(id.clone()),
        component: Some("work".parse().expect("valid")),
        ..failure(FailureKind::Component, 5)
    };
    world.report(here.as_str(), vec![restless(&first)]);
    let third = world.submit("c", 1, 1);
    world.settle();
    assert_eq!(world.slot(&third).supervisor, supervisor("s0"), "even, as without failures");
    world.report("s0", vec![restless(&first), restless(&second)]);
    for name in ["d", "e", "f"] {
        let id = world.submit(name, 1, 1);
        world.settle();
        assert_eq!(world.slot(&id).supervisor, supervisor("s1"));
    }
}

#[test]
fn restless_topologies_of_one_owner_are_no_fault_of_the_host_where_others_have_topologies() {
    let mut world = World::with_supervisors(2, 9);
    let (first, second) = (world.running("a", 1, 1), world.running("b", 1, 1));
    let calm = world.running("calm", 1, 1);
    let restless = |id: &TopologyId| ReportedFailure {
        port: Some(Port(6700)),
        topology: Some(id.clone()),
        component: Some("work".parse().expect("valid")),
        ..failure(FailureKind::Component, 5)
    };
    world.own(&calm, "bob");
    world.report("s0", vec![restless(&first), restless(&second)]);
    let mut used = BTreeSet::new();
    for name in ["c", "d"] {
        let id = world.submit(name, 1, 1);
        world.settle();
        used.insert(world.slot(&id).supervisor);
    }
    assert!(used.contains(&supervisor("s0")), "{used:?}");
    // A second owner has the trouble too.
    world.own(&second, "carl");
    for name in ["e", "f", "g"] {
        let id = world.submit(name, 1, 1);
        world.settle();
        assert_eq!(world.slot(&id).supervisor, supervisor("s1"));
    }
}

#[test]
fn components_and_workers_that_start_again_are_problems_of_their_topology() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    let slot = world.slot(&id);
    let of_slot = |kind, component: Option<&str>| ReportedFailure {
        port: Some(slot.port),
        topology: Some(id.clone()),
        component: component.map(|it| it.parse().expect("valid")),
        ..failure(kind, 7)
    };
    let failures = vec![of_slot(FailureKind::Worker, None), of_slot(FailureKind::Component, Some("work"))];
    world.report(slot.supervisor.as_str(), failures);
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    let texts: Vec<String> = failing(&plan).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "the worker at host-s0:6700 started again 7 times in the last 10 minutes; last: why; see its log, or \
             `stormkeeper get-errors wc`",
            "component work started again 7 times in the last 10 minutes in the worker at host-s0:6700; last: why; \
             see `stormkeeper get-errors wc`",
        ]
    );
    assert!(plan.findings.iter().all(|finding| finding.topology.as_ref() == Some(&id)));
    // Many are listed as a number.
    let many = (0..9).map(|n| of_slot(FailureKind::Component, Some(&format!("c{n}")))).collect();
    world.report(slot.supervisor.as_str(), many);
    let plan = world.decide();
    assert_eq!(failing(&plan).len(), 6);
    assert!(matches!(failing(&plan)[5], FailingProblem::More { n: 4, .. }), "{plan:?}");
}

#[test]
fn tasks_without_a_heartbeat_are_reported_after_eight_seconds_with_the_reason_if_there_is_one() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.placed("wc");
    let plan = world.decide();
    assert_eq!((failing(&plan), plan.next), (vec![], Some(7 * SECOND)));
    world.wait(7 * SECOND);
    let plan = world.decide();
    let [FailingProblem::Silent { tasks, n_workers: 1, .. }] = failing(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(tasks.to_string(), "1-2");
    world.cannot_launch(&id, false);
    let plan = world.decide();
    let texts: Vec<String> = failing(&plan).iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].starts_with("supervisor s0 on host-s0 could not bring workers up, 3 attempts"),
        "{texts:?}"
    );
    let expected = "tasks 1-2 do not run: supervisor s0 cannot start their worker at host-s0:6700, 3 attempts failed; \
                    last: why";
    assert!(texts[1].starts_with(expected), "{texts:?}");
    // A heartbeat ends the problem of the tasks; the supervisor is remembered.
    world.send_heartbeats();
    assert!(matches!(failing(&world.decide())[..], [FailingProblem::SupervisorFails { .. }]));
}

#[test]
fn restart_in_place_for_lack_of_slots_happens_once() {
    let mut world = World::with_supervisors(1, 1);
    let id = world.placed("wc");
    world.cannot_launch(&id, false);
    assert_eq!(effects(&world.decide()).len(), 1, "there is no other slot, so it starts again there");
    world.settle();
    world.cannot_launch(&id, false);
    world.wait(20 * SECOND);
    assert_eq!(world.decide().actions, [], "not again before the launch time");
}
