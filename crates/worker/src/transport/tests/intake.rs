//! Limits on what strangers, and peers that misbehave, can do at the port of a worker.

use proptest::prelude::*;
use tokio::io::duplex;

use super::super::replay::Sequence;
use super::*;
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_DEADLINE, IDLE_CONNECTION_MAX, SMALL_FRAME_BYTES, UNFINISHED_BYTES,
};
use crate::queue::inbox_with;
use wire::{BatchFrame, Hello, ReadError};

/// Starts a worker with task 7 whose assignment has the workers at `ports`.
fn guarded(ports: &[u16]) -> (Worker, Membership) {
    let ids: Vec<Identity> = ports.iter().map(|port| at(*port)).collect();
    let workers: Vec<(&Identity, &[u32])> = ids.iter().map(|id| (id, &[][..])).collect();
    let members = Membership::of(&assignment(&workers));
    let to = members.clone();
    (Worker::start_with(0, at, |listener| listener.open_to(to)), members)
}

/// Opens a connection as the worker at `from`, and returns the reply to the handshake.
async fn greet(there: &Worker, from: u16) -> (TcpStream, HelloReply) {
    let mut stream = there.connect().await;
    let hello = Hello { topology: topology("t-1-1"), to: there.me.slot.clone(), from: at(from).slot };
    let opening = [&wire::MAGIC[..], &wire::VERSION.to_be_bytes(), &wire::frame_of(&hello)].concat();
    stream.write_all(&opening).await.expect("written");
    let mut content = Vec::new();
    wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("answered");
    (stream, wire::read_message(&content).expect("readable"))
}

/// A frame with one tuple for task 7.
fn frame_of(frame: &mut BatchFrame, n: i64) -> Vec<u8> {
    frame.fill(&mut inbox_with([(&[TaskId(7)][..], &tuple(n))]), None);
    frame.bytes().to_vec()
}

#[tokio::test]
async fn sender_that_is_not_in_the_assignment_is_refused() {
    let (there, _members) = guarded(&[2]);
    let (_stream, reply) = greet(&there, 2).await;
    assert_eq!(reply, HelloReply::Welcome);
    let (_stream, reply) = greet(&there, 3).await;
    let reason = "the worker at sup:3 is not in the assignment of t-1-1";
    assert_eq!(reply, HelloReply::Refused(reason.to_owned()));
    until_counts(&there.counters, "the refusal is counted", |counts| counts.refused_connections == 1).await;
}

#[tokio::test]
async fn sender_that_has_just_been_assigned_is_accepted_once_the_assignment_is_read_again() {
    let (there, members) = guarded(&[2]);
    let (moved, tasks) = (members.clone(), Tasks::default());
    tasks.start("reader", OnExit::Ignore, async move {
        moved.read_again().await;
        moved.update(&assignment(&[(&at(3), &[])]));
    });
    let (_stream, reply) = greet(&there, 3).await;
    assert_eq!(reply, HelloReply::Welcome);
    let (_stream, reply) = greet(&there, 2).await;
    assert!(matches!(reply, HelloReply::Refused(_)), "{reply:?}");
}

#[tokio::test]
async fn frame_that_is_sent_again_is_received_once() {
    let mut there = Worker::start();
    let mut frame = BatchFrame::numbered();
    let (first, second) = (frame_of(&mut frame, 1), frame_of(&mut frame, 2));
    let (mut stream, _) = greet(&there, 2).await;
    stream.write_all(&[&first[..], &second, &first].concat()).await.expect("written");
    assert_eq!((there.next().await, there.next().await), (1, 2));
    until_counts(&there.counters, "it is refused", |counts| counts.refused_frames == 1).await;
    // Neither on another connection.
    let (mut stream, _) = greet(&there, 2).await;
    stream.write_all(&[&second[..], &frame_of(&mut frame, 3)].concat()).await.expect("written");
    until_counts(&there.counters, "it is refused again", |counts| counts.refused_frames == 2).await;
    assert_eq!(there.counters.read().received, 2);
}

#[tokio::test]
async fn forged_frame_with_a_high_number_does_not_silence_its_sender() {
    let mut there = Worker::start();
    let frames_after = |number| BatchFrame::after(Sequence { sender: 3, number });
    let mut frames = frames_after(0);
    let (mut honest, _) = greet(&there, 2).await;
    honest.write_all(&frame_of(&mut frames, 1)).await.expect("written");
    assert_eq!(there.next().await, 1);
    for jump in [2_u64, 3, 100, 10_000, 1 << 60] {
        let (mut stranger, _) = greet(&there, 2).await;
        stranger.write_all(&frame_of(&mut frames_after(jump), 99)).await.expect("written");
        assert_eq!(there.next().await, 99);
    }
    for n in 2..10 {
        honest.write_all(&frame_of(&mut frames, n)).await.expect("written");
        assert_eq!(there.next().await, n);
    }
    // Nor after a reconnect of a sender of the previous release, which keeps its number.
    let (mut honest, _) = greet(&there, 2).await;
    honest.write_all(&frame_of(&mut frames, 10)).await.expect("written");
    assert_eq!(there.next().await, 10);
}

#[tokio::test]
async fn refused_sender_is_told_the_reason() {
    let there = Worker::start();
    let (mut stream, _) = greet(&there, 2).await;
    let mut frame = BatchFrame::numbered();
    let frames = [frame_of(&mut frame, 1), frame_of(&mut BatchFrame::default(), 2)].concat();
    stream.write_all(&frames).await.expect("written");
    let mut content = Vec::new();
    wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("a reason");
    let told: HelloReply = wire::read_message(&content).expect("readable");
    let reason = "a frame has no number, and frames before it had one";
    assert_eq!(told, HelloReply::Refused(reason.to_owned()));
    assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
}

#[tokio::test]
async fn sender_of_the_previous_release_does_not_number_its_frames_and_is_received() {
    let mut there = Worker::start();
    let mut frame = BatchFrame::default();
    let (mut stream, _) = greet(&there, 2).await;
    for n in 1..4 {
        stream.write_all(&frame_of(&mut frame, n)).await.expect("written");
        assert_eq!(there.next().await, n);
    }
    // A sender that has numbered a frame numbers all of them.
    let numbered = frame_of(&mut BatchFrame::numbered(), 4);
    stream.write_all(&[numbered, frame_of(&mut frame, 5)].concat()).await.expect("written");
    assert_eq!(there.next().await, 4);
    until_counts(&there.counters, "it is refused", |counts| counts.refused_frames == 1).await;
    assert_eq!(there.counters.read().received, 4);
}

#[tokio::test]
async fn unfinished_frames_hold_no_more_than_the_budget_and_small_frames_pass_them() {
    let budget = FrameBudget::new(UNFINISHED_BYTES);
    let (small, large) = budget.free();
    let with = budget.clone();
    let mut there = Worker::start_with(0, at, |listener| listener.with_budget(with));
    let mut slow = Vec::new();
    for _ in 0..20 {
        let (mut stream, _) = greet(&there, 2).await;
        let length = u32::try_from(FRAME_BYTES_MAX).expect("fits");
        stream.write_all(&length.to_be_bytes()).await.expect("written");
        slow.push(stream);
    }
    wait_until("the budget of large frames is used", WAIT_MAX, || async {
        let (_, free) = budget.free();
        if free == large % FRAME_BYTES_MAX { Ok(()) } else { Err(format!("{free}")) }
    })
    .await;
    let (mut stream, _) = greet(&there, 3).await;
    stream.write_all(&frame_of(&mut BatchFrame::numbered(), 1)).await.expect("written");
    assert_eq!(there.next().await, 1);
    drop(slow);
    wait_until("the budget is free again", WAIT_MAX, || async {
        let free = budget.free();
        if free == (small, large) { Ok(()) } else { Err(format!("{free:?}")) }
    })
    .await;
}

/// Reads one frame of which only `bytes` arrive, and returns the error and the time that it took.
async fn read_slowly(bytes: &[u8]) -> (ReadError, Duration) {
    let (mut sender, mut receiver) = duplex(64);
    sender.write_all(bytes).await.expect("room");
    let began = tokio::time::Instant::now();
    let budget = FrameBudget::new(UNFINISHED_BYTES);
    let read = budget.read_frame(&mut receiver, FRAME_BYTES_MAX, &mut Vec::new()).await;
    drop(sender);
    (read.expect_err("incomplete"), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn frame_that_has_begun_must_be_complete_in_time_and_a_silent_connection_ends() {
    let (error, after) = read_slowly(&[]).await;
    assert!(matches!(error, ReadError::Idle) && after >= IDLE_CONNECTION_MAX, "{error} {after:?}");
    let (error, after) = read_slowly(&[0, 0]).await;
    assert!(
        matches!(error, ReadError::Slow { length: None }) && after < 2 * FRAME_DEADLINE,
        "{error} {after:?}"
    );
    let (error, after) = read_slowly(&[0, 0, 0, 9, 1]).await;
    assert!(
        matches!(error, ReadError::Slow { length: Some(9) }) && after < 2 * FRAME_DEADLINE,
        "{error} {after:?}"
    );
    // A long frame may take longer.
    let (error, after) = read_slowly(&[1, 0, 0, 0]).await;
    assert!(matches!(error, ReadError::Slow { .. }) && after > 2 * FRAME_DEADLINE, "{error} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn large_frame_leaves_no_large_buffer_behind() {
    let (mut sender, mut receiver) = duplex(2 * SMALL_FRAME_BYTES);
    let budget = FrameBudget::new(UNFINISHED_BYTES);
    let mut content = Vec::new();
    for length in [SMALL_FRAME_BYTES + 1, 3] {
        sender.write_all(&u32::try_from(length).expect("fits").to_be_bytes()).await.expect("room");
        sender.write_all(&vec![1; length]).await.expect("room");
        budget.read_frame(&mut receiver, FRAME_BYTES_MAX, &mut content).await.expect("complete");
        assert_eq!(content.len(), length);
    }
    assert!(content.capacity() <= SMALL_FRAME_BYTES);
}

proptest! {
    #[test]
    fn frames_within_the_budget_are_those_of_the_stream(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6),
    ) {
        let mut stream = Vec::new();
        for content in &contents {
            stream.extend_from_slice(&u32::try_from(content.len()).expect("short").to_be_bytes());
            stream.extend_from_slice(content);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let read = runtime.block_on(async {
            let (budget, mut reader) = (FrameBudget::new(UNFINISHED_BYTES), &stream[..]);
            let (mut read, mut content) = (Vec::new(), Vec::new());
            while budget.read_frame(&mut reader, 1000, &mut content).await.is_ok() {
                read.push(content.clone());
            }
            read
        });
        prop_assert_eq!(read, contents);
    }
}
