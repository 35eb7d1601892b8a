//! Peers that are hard or impossible to reach.

use super::*;
use crate::report::Problems;
use stormkeeper_model::SupervisorId;

/// A name that no resolver knows.
const UNKNOWN_HOST: &str = "no-such-host.invalid";

/// Starts an emitter on a host called `own_name` whose one peer is at `host`, under `supervisor`.
fn emitter(there: &Identity, (host, supervisor): (&str, &str), own_name: &str) -> (Emitter, Problems) {
    let (mut emitter, problems) = (Emitter::start(Inboxes::default()), Problems::default());
    let own_host = OwnHost { name: own_name.to_owned(), addresses: vec![Ipv4Addr::LOCALHOST.into()] };
    let (counters, tasks) = (Arc::clone(&emitter.counters), &emitter._tasks);
    emitter.peers =
        Peers::new(at(1), Inboxes::default(), counters, tasks).reporting_to(problems.clone(), own_host);
    let mut assignment = assignment(&[(there, &[7])]);
    let (mut slot, mut worker) = assignment.workers.pop_first().expect("one");
    slot.supervisor = supervisor.parse::<SupervisorId>().expect("valid id");
    host.clone_into(&mut worker.host);
    assignment.workers.insert(slot, worker);
    emitter.peers.update(&assignment, &table());
    (emitter, problems)
}

#[tokio::test]
async fn worker_of_the_same_supervisor_is_reached_although_the_host_name_has_no_address() {
    let mut there = Worker::start();
    let (emitter, problems) = emitter(&there.me, (UNKNOWN_HOST, "sup"), "elsewhere");
    emitter.peers.outbox().send(TaskId(7), tuple(1)).await;
    assert_eq!(there.next().await, 1);
    assert_eq!(problems.texts(), Vec::<String>::new());
}

#[tokio::test]
async fn worker_of_another_supervisor_on_a_host_of_our_name_is_reached_as_well() {
    let other = |port| {
        let mut identity = at(port);
        identity.slot.supervisor = "other".parse().expect("valid id");
        identity
    };
    let mut there = Worker::start_at(0, other);
    let (emitter, _) = emitter(&there.me, (UNKNOWN_HOST, "other"), UNKNOWN_HOST);
    emitter.peers.outbox().send(TaskId(7), tuple(1)).await;
    assert_eq!(there.next().await, 1);
}

#[tokio::test]
async fn peer_that_cannot_be_reached_is_a_problem_until_it_leaves() {
    let there = at(1000);
    let (mut emitter, problems) = emitter(&there, (UNKNOWN_HOST, "other"), "elsewhere");
    emitter.peers.outbox().send(TaskId(7), tuple(1)).await;
    wait_until("the problem is reported", WAIT_MAX, || async {
        let texts = problems.texts();
        let is_told = texts.iter().any(|text| {
            text.contains("cannot reach the worker at no-such-host.invalid:1000")
                && text.contains("the host name no-such-host.invalid cannot be resolved")
        });
        if is_told { Ok(()) } else { Err(format!("{texts:?}")) }
    })
    .await;
    emitter.peers.update(&assignment(&[]), &table());
    wait_until("the problem has ended", WAIT_MAX, || async {
        let texts = problems.texts();
        if texts.is_empty() { Ok(()) } else { Err(format!("{texts:?}")) }
    })
    .await;
}

#[tokio::test]
async fn peer_that_comes_late_is_no_problem_any_more() {
    let port = Listener::bind(LOOPBACK, 0).expect("free").local_addr().expect("bound").port();
    let (emitter, problems) = emitter(&at(port), ("127.0.0.1", "sup"), "elsewhere");
    emitter.peers.outbox().send(TaskId(7), tuple(1)).await;
    wait_until("the problem is reported", WAIT_MAX, || async {
        let texts = problems.texts();
        let is_told = texts.iter().any(|text| text.contains("Connection refused"));
        if is_told { Ok(()) } else { Err(format!("{texts:?}")) }
    })
    .await;
    let mut late = Worker::start_at(port, at);
    assert_eq!(late.next().await, 1);
    assert_eq!(problems.texts(), Vec::<String>::new());
}
