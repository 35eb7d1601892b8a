use super::*;
use proptest::prelude::*;
use stormkeeper_model::{
    BlobKey, assignment::AssignedWorker, clock::Clock, restarts::RESTART_WINDOW, task_set::TaskSet,
};
use stormkeeper_topology_package::worker_restarts::ComponentRestarts;

const PORT: Port = Port(6700);

fn desired(n: u64, start: u64) -> DesiredWorker {
    DesiredWorker {
        topology: format!("t{n}-1-100").parse().expect("valid id"),
        worker: AssignedWorker {
            host: "h".to_owned(),
            tasks: TaskSet::range(1, 3),
            start: Timestamp::from_millis(start),
        },
        blob: BlobKey::of(b"x"),
        owner: String::new(),
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::EPOCH)
}

#[test]
fn launches_are_reported_from_the_second_and_name_their_placement_from_the_third() {
    let (clock, mut log) = (clock(), FailureLog::default());
    let fail = |start, log: &mut FailureLog| {
        log.launch_failed(PORT, &desired(1, start), "read-only", clock.monotonic());
        log.current(0, clock.monotonic()).first().map(|failure| (failure.n, failure.placed))
    };
    assert_eq!(fail(5, &mut log), None);
    assert_eq!(fail(5, &mut log), Some((2, None)));
    assert_eq!(fail(5, &mut log), Some((3, Some(Timestamp::from_millis(5)))));
    assert_eq!(fail(6, &mut log), Some((4, None)), "another placement in the same slot");
}

#[test]
fn restarts_are_reported_when_more_than_two_are_in_the_window() {
    let (clock, mut log) = (clock(), FailureLog::default());
    for n in 1..=4 {
        log.worker_ended(PORT, &desired(1, 5), "was killed by signal 9", clock.monotonic());
        let reported = log.current(n, clock.monotonic());
        let kinds: Vec<_> = reported.iter().map(|failure| (failure.kind, failure.n)).collect();
        match n {
            1 | 2 => assert_eq!(kinds, []),
            _ => assert_eq!(kinds, [(FailureKind::Supervisor, n), (FailureKind::Worker, n)]),
        }
    }
    clock.advance(RESTART_WINDOW);
    assert_eq!(log.current(0, clock.monotonic()), []);
    assert!(log.histories.is_empty());
}

#[test]
fn components_are_reported_for_as_long_as_their_worker_lives() {
    let (clock, mut log) = (clock(), FailureLog::default());
    let of = |id: &str, n| ComponentRestarts {
        component: id.parse().expect("valid id"),
        n,
        reason: "exit status: 1".to_owned(),
    };
    let restarts = WorkerRestarts { components: vec![of("a", 7), of("b", 2)] };
    log.set_components(PORT, &desired(1, 5).topology, restarts);
    let reported = log.current(0, clock.monotonic());
    assert_eq!(reported.len(), 1);
    assert_eq!((reported[0].kind, reported[0].n), (FailureKind::Component, 7));
    log.retain_components(|port| port != PORT);
    assert_eq!(log.current(0, clock.monotonic()), []);
}

#[test]
fn worker_that_names_many_components_leaves_room_for_those_of_others() {
    let (clock, mut log) = (clock(), FailureLog::default());
    let of = |id: String, n| ComponentRestarts {
        component: id.parse().expect("valid id"),
        n,
        reason: "exit status: 1".to_owned(),
    };
    let many = (0..80).map(|id| of(format!("c{}", id % 60), u32::MAX)).collect();
    log.set_components(PORT, &desired(1, 5).topology, WorkerRestarts { components: many });
    let honest = WorkerRestarts { components: vec![of("split".to_owned(), 3)] };
    log.set_components(Port(6701), &desired(2, 5).topology, honest);
    let reported = log.current(0, clock.monotonic());
    assert_eq!(reported.len(), FAILURES_MAX);
    assert_eq!(reported[1].component.as_ref().map(ComponentId::as_str), Some("split"));
    let keys: std::collections::BTreeSet<_> = reported.iter().map(key).collect();
    assert_eq!(keys.len(), reported.len(), "each component once");
}

#[test]
fn what_is_worse_is_written_at_once_and_what_is_better_once_a_minute() {
    let (clock, mut log) = (clock(), FailureLog::default());
    let fail = |log: &mut FailureLog| {
        log.worker_ended(PORT, &desired(1, 5), "crashed", clock.monotonic());
        log.report(0, clock.monotonic()).map(<[_]>::len)
    };
    assert_eq!([fail(&mut log), fail(&mut log)], [None, None]);
    clock.advance(RESTART_WINDOW / 2);
    assert_eq!([fail(&mut log), fail(&mut log)], [Some(1), Some(1)]);
    assert_eq!(log.report(0, clock.monotonic()), None, "nothing changed");
    // The first two leave the window: the record forgets the problem.
    clock.advance(RESTART_WINDOW / 2);
    assert_eq!(log.report(0, clock.monotonic()).map(<[_]>::len), Some(0));
    clock.advance(Duration::from_secs(1));
    assert_eq!(fail(&mut log), Some(1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(log.report(9, clock.monotonic()).map(<[_]>::len), Some(2));
    clock.advance(Duration::from_secs(1));
    assert_eq!(log.report(8, clock.monotonic()), None, "only better, and too soon");
    clock.advance(FORGET_PERIOD);
    assert_eq!(log.report(8, clock.monotonic()).map(<[_]>::len), Some(2));
}

proptest! {
    #[test]
    fn report_is_bounded_and_lists_each_thing_once(
        failures in prop::collection::vec((0u8..3, 0u16..40, 0u64..40, ".{0,300}"), 0..600),
    ) {
        let (clock, mut log) = (clock(), FailureLog::default());
        for (kind, port, topology, reason) in failures {
            let (port, desired, now) = (Port(port), desired(topology, 5), clock.monotonic());
            match kind {
                0 => log.launch_failed(port, &desired, &reason, now),
                1 => log.code_failed(port, &desired, (&reason, true), now),
                _ => log.worker_ended(port, &desired, &reason, now),
            }
            clock.advance(Duration::from_secs(1));
            prop_assert!(log.histories.len() <= HISTORIES_MAX);
        }
        let reported = log.current(5, clock.monotonic());
        prop_assert!(reported.len() <= FAILURES_MAX);
        prop_assert!(serde_json::to_vec(&reported).expect("JSON").len() < 32 << 10);
        let keys: std::collections::BTreeSet<_> = reported.iter().map(key).collect();
        prop_assert_eq!(keys.len(), reported.len());
    }
}
