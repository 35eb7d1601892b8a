mod compressed;
mod handover;
mod handshakes;
mod intake;
mod previous;
mod proofs;
mod reach;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{wire::HelloReply, *};
use crate::queue::Inbox;
use stormkeeper_model::{
    Port, TaskId, Timestamp,
    assignment::{AssignedWorker, Assignment},
    topology::TaskTable,
};
use stormkeeper_runtime::{
    net::ListenOn,
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};
use stormkeeper_stream::{Origin, Tuple, Value};

const LOOPBACK: ListenOn = ListenOn::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// Wait limit, long enough that only an event that never happens is missed.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn topology(name: &str) -> TopologyId {
    name.parse().expect("valid id")
}

/// Returns the identity of the worker at a port; all have the same supervisor.
fn at(port: u16) -> Identity {
    let slot = Slot { supervisor: "sup".parse().expect("valid id"), port: Port(port) };
    Identity { topology: topology("t-1-1"), slot }
}

fn tuple(n: i64) -> Tuple {
    let origin = Origin {
        task: TaskId(1),
        component: "source".parse().expect("valid id"),
        stream: "default".parse().expect("valid id"),
    };
    Tuple::new(Arc::new(origin), vec![Value::Int(n), "word".into()])
}

fn number(tuple: &Tuple) -> i64 {
    match tuple.values() {
        [Value::Int(n), _] => *n,
        other => panic!("not a tuple of ours: {other:?}"),
    }
}

/// A receiving worker: its listener runs until it is dropped.
struct Worker {
    me: Identity,
    inbox: Inbox,
    counters: Arc<Counters>,
    tasks: Tasks,
}

impl Worker {
    /// A worker with task 7.
    fn start() -> Self {
        Self::start_at(0, at)
    }

    fn start_at(port: u16, me: impl Fn(u16) -> Identity) -> Self {
        Self::start_with(port, me, |listener| listener)
    }

    fn start_with(
        port: u16,
        me: impl Fn(u16) -> Identity,
        configure: impl FnOnce(Listener) -> Listener,
    ) -> Self {
        let listener = configure(Listener::bind(LOOPBACK, port).expect("a free port"));
        let me = me(listener.local_addr().expect("bound").port());
        let (inboxes, mut receivers) = Inboxes::new([TaskId(7)]);
        let counters = Arc::new(Counters::default());
        let tasks = Tasks::default();
        tasks.start("listener", OnExit::Ignore, listener.run(me.clone(), inboxes, counters.clone()));
        let inbox = receivers.remove(&TaskId(7)).expect("asked for");
        Self { me, inbox, counters, tasks }
    }

    async fn next(&mut self) -> i64 {
        let received = tokio::time::timeout(WAIT_MAX, self.inbox.recv()).await.expect("a tuple in time");
        number(&received.expect("the inbox stays open"))
    }

    /// Opens a connection on which nothing was sent yet.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.me.slot.port.0)).await.expect("it listens")
    }
}

/// An emitting worker without inboxes.
struct Emitter {
    peers: Peers,
    counters: Arc<Counters>,
    _tasks: Tasks,
}

impl Emitter {
    fn start(inboxes: Inboxes) -> Self {
        let (counters, tasks) = (Arc::new(Counters::default()), Tasks::default());
        let peers = Peers::new(at(1), inboxes, counters.clone(), &tasks);
        Self { peers, counters, _tasks: tasks }
    }

    fn to(workers: &[(&Identity, &[u32])]) -> Self {
        let mut emitter = Self::start(Inboxes::default());
        emitter.peers.update(&assignment(workers), &table());
        emitter
    }
}

fn assignment(workers: &[(&Identity, &[u32])]) -> Assignment {
    let assigned = |tasks: &[u32]| AssignedWorker {
        host: "127.0.0.1".to_owned(),
        tasks: tasks.iter().copied().map(TaskId).collect(),
        start: Timestamp::EPOCH,
    };
    Assignment {
        workers: workers.iter().map(|(id, tasks)| (id.slot.clone(), assigned(tasks))).collect(),
        unknown_fields: Default::default(),
    }
}

/// Two tasks of each of four components.
fn table() -> TaskTable {
    let component = |id: &str| id.parse().expect("valid id");
    TaskTable::number(["a-source", "b-relay", "c-sink", "d-other"].map(|id| (component(id), 2)))
}

async fn until_counts(counters: &Counters, what: &str, enough: impl Fn(&Counts) -> bool) {
    wait_until(what, WAIT_MAX, || async {
        let counts = counters.read();
        if enough(&counts) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

async fn until_full(peers: &Peers) {
    wait_until("the queue is full", WAIT_MAX, || async {
        if peers.are_full() { Ok(()) } else { Err("there is room".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn tuples_reach_local_and_remote_tasks_in_order() {
    let mut there = Worker::start();
    let (inboxes, mut receivers) = Inboxes::new([TaskId(2)]);
    let mut emitter = Emitter::start(inboxes);
    emitter.peers.update(&assignment(&[(&at(1), &[2]), (&there.me, &[7])]), &table());
    let mut outbox = emitter.peers.outbox();
    let mut here = receivers.remove(&TaskId(2)).expect("asked for");
    for n in 0..5000 {
        assert_eq!(outbox.send(TaskId(7), &tuple(n)).await, Sent::Queued);
        assert_eq!(outbox.send(TaskId(2), &tuple(n)).await, Sent::Queued);
        assert_eq!(number(&here.recv().await.expect("open")), n);
        if n >= 1000 {
            assert_eq!(there.next().await, n - 1000);
        }
    }
    for n in 4000..5000 {
        assert_eq!(there.next().await, n);
    }
    assert_eq!(there.counters.read(), Counts { received: 5000, ..Counts::default() });
    until_counts(&emitter.counters, "all are sent", |counts| counts.sent == 5000).await;
}

#[tokio::test]
async fn tuple_arrives_unchanged() {
    let mut there = Worker::start();
    let emitter = Emitter::to(&[(&there.me, &[7])]);
    let sent = tuple(-5);
    emitter.peers.outbox().send(TaskId(7), &sent).await;
    assert_eq!(there.inbox.recv().await, Some(sent));
}

#[tokio::test]
async fn tuple_without_a_receiver_is_dropped_and_counted() {
    let there = Worker::start();
    let emitter = Emitter::to(&[(&there.me, &[7, 8, 98])]);
    let mut outbox = emitter.peers.outbox();
    // Task 98 is assigned, but no table has it.
    for nowhere in [98, 99] {
        assert_eq!(outbox.send(TaskId(nowhere), &tuple(1)).await, Sent::Dropped);
    }
    assert_eq!(emitter.counters.read().unroutable, 2);
    // The assignment has task 8 in the worker, but the worker does not run it.
    assert_eq!(outbox.send(TaskId(8), &tuple(1)).await, Sent::Queued);
    until_counts(&there.counters, "the tuple is refused", |counts| counts.refused_tuples == 1).await;
    assert_eq!(there.counters.read().received, 0);
}

#[tokio::test]
async fn slow_receiver_blocks_its_sender() {
    let mut there = Worker::start();
    let emitter = Emitter::to(&[(&there.me, &[7])]);
    let mut outbox = emitter.peers.outbox();
    // Large enough that the kernel's buffers hold few of them.
    let large = |n: i64| Tuple::new(tuple(n).origin().clone(), vec![n.into(), "x".repeat(100_000).into()]);
    // One in each lane, two in frames, and what the kernel's buffers hold.
    let most = 4 + 4 * crate::transport::peer::SOCKET_BUFFER_BYTES as usize / 100_000;
    let mut n_sent = 0;
    let stopped = async {
        loop {
            outbox.send(TaskId(7), &large(n_sent)).await;
            n_sent += 1;
        }
    };
    // The sender is blocked once nothing moves any more: the inbox and the queue are full.
    tokio::select! {
        () = stopped => unreachable!("it sends for ever"),
        () = async {
            wait_until("the inbox is full", WAIT_MAX, || async {
                if there.inbox.is_full() { Ok(()) } else { Err("there is room".to_owned()) }
            })
            .await;
            until_full(&emitter.peers).await;
        } => {}
    }
    assert!(usize::try_from(n_sent).expect("positive") <= most, "{n_sent} in flight");
    // The sender continues as soon as there is room.
    for n in 0..n_sent {
        assert_eq!(there.next().await, n);
    }
}

#[tokio::test]
async fn sender_reconnects_to_a_restarted_receiver() {
    let mut there = Worker::start();
    let emitter = Emitter::to(&[(&there.me, &[7])]);
    let mut outbox = emitter.peers.outbox();
    outbox.send(TaskId(7), &tuple(1)).await;
    assert_eq!(there.next().await, 1);

    let port = there.me.slot.port.0;
    assert!(there.tasks.stop(WAIT_MAX).await);
    drop(there);
    wait_until("nobody listens", WAIT_MAX, || async {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(_) => Err("somebody still listens".to_owned()),
            Err(_refused) => Ok(()),
        }
    })
    .await;
    // The tuple waits in the queue: the end of the idle connection was detected before.
    outbox.send(TaskId(7), &tuple(2)).await;
    let mut again = Worker::start_at(port, at);
    assert_eq!(again.next().await, 2);
    assert_eq!(emitter.counters.read().reconnects, 1);
}

#[tokio::test]
async fn tuples_queued_for_a_late_peer_are_not_lost() {
    // No worker listens at the port yet.
    let port = Listener::bind(LOOPBACK, 0).expect("free").local_addr().expect("bound").port();
    let emitter = Emitter::to(&[(&at(port), &[7])]);
    let mut outbox = emitter.peers.outbox();
    for n in 0..100 {
        assert_eq!(outbox.send(TaskId(7), &tuple(n)).await, Sent::Queued);
    }
    let mut late = Worker::start_at(port, at);
    for n in 0..100 {
        assert_eq!(late.next().await, n);
    }
}

#[tokio::test]
async fn removed_peer_unblocks_tasks_that_wait_for_it() {
    let port = Listener::bind(LOOPBACK, 0).expect("free").local_addr().expect("bound").port();
    let mut emitter = Emitter::to(&[(&at(port), &[7])]);
    let (done, mut is_done) = mpsc::channel(1);
    let tasks = Tasks::default();
    let mut outbox = emitter.peers.outbox();
    tasks.start("emitter", OnExit::Ignore, async move {
        let mut n_sent = 1;
        while outbox.send(TaskId(7), &tuple(0)).await == Sent::Queued {
            n_sent += 1;
        }
        done.send(n_sent).await.expect("the test waits");
    });
    until_full(&emitter.peers).await;
    emitter.peers.update(&assignment(&[]), &table());
    // What the sender had taken before it connects, what was in the queue, and the tuple that waited.
    let dropped = tokio::time::timeout(WAIT_MAX, is_done.recv()).await.expect("freed").expect("sent");
    assert!(dropped > PEER_QUEUE_TUPLES as u64, "{dropped}");
    until_counts(&emitter.counters, "all are counted", |counts| counts.dropped == dropped).await;
}

#[tokio::test]
async fn worker_that_stays_keeps_its_connection() {
    let (mut one, mut other) = (Worker::start(), Worker::start());
    let mut emitter = Emitter::to(&[(&one.me, &[7])]);
    let mut outbox = emitter.peers.outbox();
    outbox.send(TaskId(7), &tuple(1)).await;
    assert_eq!(one.next().await, 1);
    // Task 7 moves; its previous worker stays with another task.
    emitter.peers.update(&assignment(&[(&one.me, &[8]), (&other.me, &[7])]), &table());
    outbox.send(TaskId(7), &tuple(2)).await;
    assert_eq!(other.next().await, 2);
    emitter.peers.update(&assignment(&[(&one.me, &[7]), (&other.me, &[])]), &table());
    outbox.send(TaskId(7), &tuple(3)).await;
    assert_eq!(one.next().await, 3);
    assert_eq!(emitter.counters.read().reconnects, 0);
}

#[tokio::test]
async fn component_without_senders_needs_no_connection() {
    let there = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    // The tasks before 7 belong to other components, whose connections would come first.
    let there_at = at(there.local_addr().expect("bound").port());
    let emitter = Emitter::to(&[(&there_at, &[1, 3, 5, 7])]);
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
    let (mut stream, _) = there.accept().await.expect("accepted");
    stream.write_all(&wire::frame_of(&HelloReply::Welcome)).await.expect("written");
    until_counts(&emitter.counters, "the first connection carries the tuple", |c| c.sent == 1).await;
}

#[tokio::test]
async fn connection_for_another_worker_is_refused_with_the_reason() {
    let check = async |hello: wire::Hello, reason: &str| {
        let there = Worker::start();
        let hello =
            if hello.to == at(0).slot { wire::Hello { to: there.me.slot.clone(), ..hello } } else { hello };
        let mut stream = there.connect().await;
        let opening = [&wire::MAGIC[..], &wire::VERSION.to_be_bytes(), &wire::frame_of(&hello)].concat();
        stream.write_all(&opening).await.expect("written");
        let mut content = Vec::new();
        wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("answered");
        let answer: HelloReply = wire::read_message(&content).expect("readable");
        assert_eq!(answer, HelloReply::Refused(reason.replace("SLOT", &there.me.slot.to_string())));
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
        until_counts(&there.counters, "the refusal is counted", |counts| counts.refused_connections == 1)
            .await;
    };
    let hello = |id: &str, to: u16| wire::Hello { topology: topology(id), to: at(to).slot, from: at(2).slot };
    check(hello("t-2-9", 0), "the worker at sup:2 sends tuples of t-2-9, but this worker runs t-1-1").await;
    check(hello("t-1-1", 3), "the worker at sup:2 connects to slot sup:3, but this worker has slot SLOT")
        .await;
}

#[tokio::test]
async fn sender_of_another_topology_delivers_nothing() {
    let mut there = Worker::start_at(0, |port| Identity { topology: topology("t-2-9"), ..at(port) });
    let emitter = Emitter::to(&[(&there.me, &[7])]);
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
    // The sender keeps retrying, as the right worker may still come.
    until_counts(&there.counters, "it is refused twice", |counts| counts.refused_connections >= 2).await;
    assert_eq!(there.inbox.try_recv(), None);
    assert_eq!(emitter.counters.read().sent, 0);
}

#[tokio::test]
async fn unsupported_protocol_version_is_refused_with_the_reason() {
    let there = Worker::start();
    let mut stream = there.connect().await;
    stream.write_all(&[&wire::MAGIC[..], &[0, 9]].concat()).await.expect("written");
    let mut content = Vec::new();
    wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("answered");
    let answer: HelloReply = wire::read_message(&content).expect("readable");
    let reason = "unsupported protocol version 9; this worker speaks version 1";
    assert_eq!(answer, HelloReply::Refused(reason.to_owned()));
}

#[tokio::test]
async fn foreign_protocol_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 64],
        &[&wire::MAGIC[..], &[0, 1, 0xff, 0xff, 0, 0]].concat(),
        &[&wire::MAGIC[..], &[0, 1, 0, 0, 0, 2, 1, 2]].concat(),
    ] {
        let there = Worker::start();
        let mut stream = there.connect().await;
        stream.write_all(bytes).await.expect("written");
        until_counts(&there.counters, "the refusal is counted", |counts| counts.refused_connections == 1)
            .await;
        // The connection was closed or reset.
        let _over =
            tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut Vec::new())).await.expect("closed");
    }
}

#[tokio::test]
async fn invalid_frame_closes_only_its_own_connection() {
    let mut there = Worker::start();
    let hello = wire::Hello { topology: topology("t-1-1"), to: there.me.slot.clone(), from: at(2).slot };
    let opening = [&wire::MAGIC[..], &wire::VERSION.to_be_bytes(), &wire::frame_of(&hello)].concat();
    for (n, frame) in [(1, &[0x01, 0x00, 0x00, 0x01][..]), (2, &[0, 0, 0, 3, 0xc1, 0xc1, 0xc1])] {
        let mut stream = there.connect().await;
        stream.write_all(&opening).await.expect("written");
        stream.write_all(frame).await.expect("written");
        until_counts(&there.counters, "the refusal is counted", |counts| counts.refused_frames == n).await;
        let _over =
            tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut Vec::new())).await.expect("closed");
    }
    let emitter = Emitter::to(&[(&there.me, &[7])]);
    emitter.peers.outbox().send(TaskId(7), &tuple(1)).await;
    assert_eq!(there.next().await, 1);
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_closed() {
    let there = Worker::start();
    let _stream = there.connect().await;
    until_counts(&there.counters, "the refusal is counted", |counts| counts.refused_connections == 1).await;
}

/// Number of tuples that each source below emits, and that a relay emits for each one: more than
/// all queues on the way hold, so that each queue is full at some time.
const N_FLOOD: i64 = 10_000;
const N_RELAYED: i64 = 2;

/// Returns a tuple of about a hundredth of a frame: the kernel's buffers hold a few hundred.
fn bulky(n: i64) -> Tuple {
    Tuple::new(tuple(n).origin().clone(), vec![n.into(), "x".repeat(1500).into()])
}

/// Source → relay → sink, with one task of each in both of two workers, and every tuple crosses:
/// both directions between the workers carry tuples for relays and for sinks.
#[tokio::test]
async fn topology_without_cycles_drains_when_all_queues_are_full() {
    let listeners = [(); 2].map(|()| Listener::bind(LOOPBACK, 0).expect("a free port"));
    let ids = listeners.each_ref().map(|listener| at(listener.local_addr().expect("bound").port()));
    let (relays, sinks) = ([TaskId(3), TaskId(4)], [TaskId(5), TaskId(6)]);
    let assignment = assignment(&[(&ids[0], &[1, 3, 5]), (&ids[1], &[2, 4, 6])]);
    let tasks = Tasks::default();
    let (mut all_peers, mut ends) = (Vec::new(), Vec::new());
    for (i, listener) in listeners.into_iter().enumerate() {
        let other = 1 - i;
        let (inboxes, mut receivers) = Inboxes::new([relays[i], sinks[i]]);
        let counters = Arc::new(Counters::default());
        let mut peers = Peers::new(ids[i].clone(), inboxes.clone(), counters.clone(), &tasks);
        peers.update(&assignment, &table());
        tasks.start("listener", OnExit::Ignore, listener.run(ids[i].clone(), inboxes, counters));
        let mut outbox = peers.outbox();
        tasks.start("source", OnExit::Ignore, async move {
            for n in 0..N_FLOOD {
                outbox.send(relays[other], &bulky(n)).await;
            }
        });
        let (mut outbox, mut inbox) = (peers.outbox(), receivers.remove(&relays[i]).expect("asked for"));
        tasks.start("relay", OnExit::Ignore, async move {
            while let Some(tuple) = inbox.recv().await {
                for copy in 0..N_RELAYED {
                    outbox.send(sinks[other], &bulky(number(&tuple) * N_RELAYED + copy)).await;
                }
            }
        });
        all_peers.push(peers);
        ends.push(receivers.remove(&sinks[i]).expect("asked for"));
    }
    let drained = async |inbox: &mut Inbox| {
        for n in 0..N_FLOOD * N_RELAYED {
            let next = tokio::time::timeout(WAIT_MAX, inbox.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("it stands still after {n} tuples"));
            assert_eq!(number(&next.expect("the inbox stays open")), n);
        }
    };
    let [one, other] = &mut ends[..] else { unreachable!("two workers") };
    tokio::join!(drained(one), drained(other));
}
