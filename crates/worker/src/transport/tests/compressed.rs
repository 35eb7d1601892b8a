//! Connections with compressed frames, and receivers that do not know them.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::transport::{
    greeting::COMPRESSES,
    wire::{
        self, Hello, MAGIC, MAX_HANDSHAKE_BYTES, ReceivedBatch, VERSION,
        compressed::{COMPRESSED, Compressor},
    },
};

fn compressing(workers: &[(&Identity, &[u32])]) -> Emitter {
    let mut emitter = Emitter::start(Inboxes::default());
    emitter.peers =
        Peers::new(at(1), Inboxes::default(), emitter.counters.clone(), &emitter._tasks).compressing(true);
    emitter.peers.update(&assignment(workers), &table());
    emitter
}

/// Sends 5,000 tuples to a worker; returns the bytes that this took.
async fn bytes_of_tuples(is_compressing: bool) -> usize {
    let proxy = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let (port, real) = (proxy.local_addr().expect("bound").port(), Cell::new(0));
    let named = |own| {
        real.set(own);
        at(port)
    };
    let mut there = Worker::start_with(0, named, |listener| listener);
    let (real, n_bytes, tasks) = (real.get(), Arc::new(AtomicUsize::new(0)), Tasks::default());
    let counted = Arc::clone(&n_bytes);
    tasks.start("proxy", OnExit::Ignore, async move {
        let (mut from, _) = proxy.accept().await.expect("a connection");
        let mut to = TcpStream::connect(("127.0.0.1", real)).await.expect("it listens");
        let (mut read, mut back) = from.split();
        let (mut replies, mut write) = to.split();
        let forward = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                counted.fetch_add(n, Ordering::Relaxed);
                write.write_all(&buffer[..n]).await.expect("it reads");
            }
        };
        let _both = tokio::join!(forward, tokio::io::copy(&mut replies, &mut back));
    });
    let emitter = match is_compressing {
        true => compressing(&[(&there.me, &[7])]),
        false => Emitter::to(&[(&there.me, &[7])]),
    };
    let mut outbox = emitter.peers.outbox();
    for n in 0..5000 {
        assert_eq!(outbox.send(TaskId(7), &tuple(n)).await, Sent::Queued);
        if n >= 1000 {
            assert_eq!(there.next().await, n - 1000);
        }
    }
    for n in 4000..5000 {
        assert_eq!(there.next().await, n);
    }
    assert_eq!(there.counters.read(), Counts { received: 5000, ..Counts::default() });
    n_bytes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn compressed_tuples_arrive_in_order_and_take_fewer_bytes() {
    let (plain, compressed) = (bytes_of_tuples(false).await, bytes_of_tuples(true).await);
    assert!(compressed * 3 < plain * 2, "{compressed} of {plain} bytes");
}

/// Accepts a connection as a worker of a build that does not know compression; returns the version.
async fn version_of(listener: &TcpListener) -> (TcpStream, u16) {
    let accepted = tokio::time::timeout(WAIT_MAX, listener.accept()).await.expect("in time");
    let (mut stream, _) = accepted.expect("a connection");
    let mut magic = [0; 4];
    stream.read_exact(&mut magic).await.expect("sent");
    assert_eq!(magic, MAGIC);
    let version = stream.read_u16().await.expect("sent");
    let mut content = Vec::new();
    wire::read_frame(&mut stream, MAX_HANDSHAKE_BYTES, &mut content).await.expect("a greeting");
    (stream, version)
}

#[tokio::test]
async fn worker_of_a_build_without_compression_gets_frames_that_it_can_read() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let me = at(listener.local_addr().expect("bound").port());
    let emitter = compressing(&[(&me, &[7])]);
    assert_eq!(emitter.peers.outbox().send(TaskId(7), &tuple(1)).await, Sent::Queued);
    let (mut stream, version) = version_of(&listener).await;
    assert_eq!(version, VERSION | COMPRESSES);
    let refused = HelloReply::Refused(format!("unsupported protocol version {version}"));
    stream.write_all(&wire::frame_of(&refused)).await.expect("it reads");
    drop(stream);

    let (mut stream, version) = version_of(&listener).await;
    assert_eq!(version, VERSION);
    stream.write_all(&wire::frame_of(&HelloReply::Welcome)).await.expect("it reads");
    let (mut content, mut batch) = (Vec::new(), ReceivedBatch::default());
    wire::read_frame(&mut stream, 1 << 20, &mut content).await.expect("a frame that is not compressed");
    batch.read(&content).expect("a batch");
    assert_eq!(batch.rows(&content).map(|row| number(&row.to_tuple())).collect::<Vec<_>>(), [1]);
    drop(stream);

    // It may have been updated when it is connected to again.
    let mut outbox = emitter.peers.outbox();
    let sends = async {
        // What is sent before the end of the connection is noticed is lost.
        loop {
            outbox.send(TaskId(7), &tuple(2)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let again = tokio::time::timeout(WAIT_MAX, version_of(&listener));
    let (_stream, version) = tokio::select! {
        again = again => again.expect("a connection in time"),
        () = sends => unreachable!("it sends for ever"),
    };
    assert_eq!(version, VERSION | COMPRESSES);
}

/// Connects with a version, and sends `frame`.
async fn send_frame(there: &Worker, version: u16, frame: &[u8]) -> TcpStream {
    let mut stream = there.connect().await;
    let hello = Hello { topology: topology("t-1-1"), to: there.me.slot.clone(), from: at(1).slot };
    let opening = [&MAGIC[..], &version.to_be_bytes(), &wire::frame_of(&hello), frame].concat();
    stream.write_all(&opening).await.expect("it reads");
    stream
}

#[tokio::test]
async fn damaged_frame_and_one_that_was_not_announced_are_refused_and_nothing_else_is() {
    let mut there = Worker::start();
    let damaged = [&(COMPRESSED | 100).to_be_bytes()[..], &1000_u32.to_be_bytes(), &[9; 96]].concat();
    let _open = send_frame(&there, VERSION | COMPRESSES, &damaged).await;
    until_counts(&there.counters, "the damaged frame is refused", |counts| counts.refused_frames == 1).await;
    let valid = [&[0, 0, 4, 0][..], &[7; 1024]].concat();
    let valid = Compressor::default().shortest(&valid).to_vec();
    assert!(valid.len() < 1000);
    let _open = send_frame(&there, VERSION, &valid).await;
    until_counts(&there.counters, "the other one is refused", |counts| counts.refused_frames == 2).await;
    let emitter = compressing(&[(&there.me, &[7])]);
    assert_eq!(emitter.peers.outbox().send(TaskId(7), &tuple(3)).await, Sent::Queued);
    assert_eq!(there.next().await, 3);
}
