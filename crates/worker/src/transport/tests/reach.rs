//! Peers that are hard or impossible to reach.

use std::{collections::BTreeSet, sync::Mutex};

use super::*;
use crate::{limits::FRAME_BYTES_MAX, report::Problems};
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
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
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
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
    assert_eq!(there.next().await, 1);
}

#[tokio::test]
async fn peer_that_cannot_be_reached_is_a_problem_until_it_leaves() {
    let there = at(1000);
    let (mut emitter, problems) = emitter(&there, (UNKNOWN_HOST, "other"), "elsewhere");
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
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
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
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

/// Welcomes each sender, refuses its first frame, and adds the number under which it came to `senders`.
async fn refuse_all(listener: TcpListener, senders: Arc<Mutex<Vec<u64>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (mut content, mut batch) = (Vec::new(), wire::ReceivedBatch::default());
        stream.read_exact(&mut [0; 6]).await.expect("magic and version");
        wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("hello");
        stream.write_all(&wire::frame_of(&HelloReply::Welcome)).await.expect("written");
        wire::read_frame(&mut stream, FRAME_BYTES_MAX, &mut content).await.expect("a frame");
        let marks = batch.read(&content).expect("a batch");
        senders.lock().expect("no panic").push(marks.sequence.expect("numbered").sender);
        let reason = HelloReply::Refused("frame 1 of the peer was received before".to_owned());
        stream.write_all(&wire::frame_of(&reason)).await.expect("written");
    }
}

#[tokio::test]
async fn refused_sender_pauses_takes_a_new_number_and_reports_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let there = at(listener.local_addr().expect("bound").port());
    let (senders, tasks) = (Arc::<Mutex<Vec<u64>>>::default(), Tasks::default());
    tasks.start("refuses", OnExit::Ignore, refuse_all(listener, Arc::clone(&senders)));
    let (emitter, problems) = emitter(&there, ("127.0.0.1", "sup"), "elsewhere");
    let mut outbox = emitter.peers.outbox();
    tasks.start("emits", OnExit::Ignore, async move {
        loop {
            outbox.send(TaskId(7), &tuple(1)).await;
        }
    });
    wait_until("the problem is reported", WAIT_MAX, || async {
        let texts = problems.texts();
        let is_told = texts.iter().any(|text| {
            text.contains("breaks again and again")
                && text.contains("frame 1 of the peer was received before")
        });
        if is_told { Ok(()) } else { Err(format!("{texts:?}")) }
    })
    .await;
    let senders = senders.lock().expect("no panic").clone();
    let different: BTreeSet<&u64> = senders.iter().collect();
    assert_eq!(different.len(), senders.len());
    // Pauses of 20 ms that double, shortened by up to half: 4 s have room for few of them.
    assert!(senders.len() < 20, "{}", senders.len());
}
