//! Tests of the wire format: batches are decoded unchanged, and damaged frames are rejected.

use proptest::prelude::*;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    limits::{BATCH_TUPLES_MAX, FRAME_BYTES_MAX},
    queue::{Inbox, inbox_with},
};
use stormkeeper_model::{TaskId, clock::Clock};
use stormkeeper_stream::{Origin, Tuple, Value, test_support::any_value};

fn origin(task: u32, stream: &str) -> Arc<Origin> {
    let component = format!("c{task}").parse().expect("valid");
    Arc::new(Origin { task: TaskId(task), component, stream: stream.parse().expect("valid") })
}

/// A tuple and its receiving task.
type Addressed = (TaskId, Tuple);

fn to(task: u32, tuple: &Tuple) -> Addressed {
    (TaskId(task), tuple.clone())
}

/// Returns a queue of tuples, each for one task.
fn queued(tuples: &[Addressed]) -> Inbox {
    inbox_with(tuples.iter().map(|(task, tuple)| (std::slice::from_ref(task), tuple)))
}

/// Reads a batch into `out`, as tuples for one task each.
fn read_batch(content: &[u8], out: &mut Vec<Addressed>) -> Result<Marks, BatchError> {
    let mut batch = ReceivedBatch::default();
    let read = batch.read(content);
    out.clear();
    for row in batch.rows(content) {
        out.extend(row.tasks.iter().map(|task| (task, row.to_tuple())));
    }
    read
}

fn content(frame: &BatchFrame) -> &[u8] {
    let (length, content) = frame.bytes().split_at(LENGTH_BYTES);
    assert_eq!(length, u32::try_from(content.len()).expect("short").to_be_bytes());
    content
}

/// Returns the decoded frames of what is queued, and the number of tuples that were left out.
fn round_trip(mut queued: Inbox, limit: usize) -> (Vec<Vec<Addressed>>, usize) {
    let (mut frames, mut n_oversized, mut frame) = (Vec::new(), 0, BatchFrame::default());
    while !queued.is_empty() {
        n_oversized += frame.fill_to(&mut queued, None, limit);
        if frame.n_tuples() > 0 {
            assert!(content(&frame).len() <= limit);
            let mut read = Vec::new();
            read_batch(content(&frame), &mut read).expect("a batch");
            assert_eq!(read.len(), frame.n_tuples());
            frames.push(read);
        }
    }
    (frames, n_oversized)
}

proptest! {
    #[test]
    fn every_batch_reads_back(
        tuples in prop::collection::vec(
            (0u32..3, prop::collection::vec(any_value(), 0..3), prop::collection::vec(0u32..9, 1..4)),
            0..12,
        ),
    ) {
        let origins = [origin(1, "default"), origin(2, "default"), origin(2, "other")];
        let tuples: Vec<(Vec<TaskId>, Tuple)> = tuples
            .into_iter()
            .map(|(from, values, tasks)| {
                let tuple = Tuple::new(origins[from as usize].clone(), values);
                (tasks.into_iter().map(TaskId).collect(), tuple)
            })
            .collect();
        let queued = inbox_with(tuples.iter().map(|(tasks, tuple)| (&tasks[..], tuple)));
        let (frames, n_oversized) = round_trip(queued, FRAME_BYTES_MAX);
        prop_assert_eq!(n_oversized, 0);
        let each = tuples.iter().flat_map(|(tasks, tuple)| tasks.iter().map(|task| (*task, tuple.clone())));
        prop_assert_eq!(frames.concat(), each.collect::<Vec<_>>());
    }

    #[test]
    fn garbage_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        // The bytes may happen to be a valid batch.
        let _read = read_batch(&bytes, &mut out);
        let _hello = read_message::<Hello>(&bytes);
    }

    #[test]
    fn changed_byte_does_not_panic(at in 0usize..80, byte in any::<u8>()) {
        let tuple = Tuple::new(origin(1, "default"), vec!["word".into(), Value::Int(7)]);
        let mut frame = BatchFrame::default();
        frame.fill(&mut queued(&[to(4, &tuple), to(5, &tuple)]), None);
        let mut bytes = content(&frame).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _read = read_batch(&bytes, &mut Vec::new());
    }
}

#[test]
fn copies_share_their_values_on_the_wire() {
    let tuple = Tuple::new(origin(1, "default"), vec!["x".repeat(1000).into()]);
    let mut frame = BatchFrame::default();
    let tasks = [4, 5, 6].map(TaskId);
    frame.fill(&mut inbox_with([(&tasks[..], &tuple)]), None);
    assert_eq!(frame.n_tuples(), 3);
    assert!(frame.bytes().len() < 1100, "{} bytes", frame.bytes().len());
    let mut batch = ReceivedBatch::default();
    batch.read(content(&frame)).expect("a batch");
    let rows: Vec<Vec<TaskId>> = batch.rows(content(&frame)).map(|row| row.tasks.iter().collect()).collect();
    assert_eq!(rows, [tasks]);
}

#[test]
fn stamp_is_sent_with_a_batch_and_belongs_to_no_tuple() {
    let clock = Clock::manual(stormkeeper_model::Timestamp::from_millis(5_000));
    let tuple = Tuple::new(origin(1, "default"), vec![Value::Int(7)]).at(Some(clock.monotonic()));
    clock.advance(Duration::from_millis(20));
    let mut frame = BatchFrame::default();
    frame.fill(&mut queued(&[to(4, &tuple)]), Some(&clock));
    let mut read = Vec::new();
    let marks = read_batch(content(&frame), &mut read).expect("a batch");
    let (emitted, sent) = (Some(Duration::from_millis(5_000)), Duration::from_millis(5_020));
    assert_eq!(marks, Marks { stamp: Some(Stamp { emitted, sent }), sequence: None });
    assert_eq!(read, [to(4, &tuple)]);
}

#[test]
fn frames_of_a_sender_are_numbered_with_and_without_a_stamp() {
    let clock = Clock::manual(stormkeeper_model::Timestamp::from_millis(5_000));
    let tuple = Tuple::new(origin(1, "default"), vec![Value::Int(7)]);
    let (mut frame, mut senders) = (BatchFrame::numbered(), Vec::new());
    for (number, clock) in [(1, None), (2, Some(&clock)), (3, None)] {
        frame.fill(&mut queued(&[to(4, &tuple)]), clock);
        let mut read = Vec::new();
        let marks = read_batch(content(&frame), &mut read).expect("a batch");
        assert_eq!(read, [to(4, &tuple)]);
        assert_eq!(marks.stamp.is_some(), clock.is_some());
        let sequence = marks.sequence.expect("numbered");
        assert_eq!(sequence.number, number);
        senders.push(sequence.sender);
    }
    assert!(senders.iter().all(|sender| *sender == senders[0]));
}

#[test]
fn unsent_frame_gets_the_number_of_the_next_connection() {
    let clock = Clock::manual(stormkeeper_model::Timestamp::from_millis(5_000));
    let tuple = Tuple::new(origin(1, "default"), vec![Value::Int(7)]);
    for clock in [None, Some(&clock)] {
        let (mut frame, mut senders) = (BatchFrame::numbered(), std::collections::BTreeSet::new());
        let mut check = |frame: &BatchFrame, number| {
            let mut read = Vec::new();
            let sequence =
                read_batch(content(frame), &mut read).expect("a batch").sequence.expect("numbered");
            assert_eq!((read, sequence.number), (vec![to(4, &tuple)], number));
            senders.insert(sequence.sender);
        };
        for number in 1..4 {
            frame.fill(&mut queued(&[to(4, &tuple)]), clock);
            check(&frame, number);
        }
        frame.begin_connection();
        check(&frame, 1);
        frame.clear();
        frame.begin_connection();
        frame.fill(&mut queued(&[to(4, &tuple)]), clock);
        check(&frame, 1);
        assert_eq!(senders.len(), 3);
    }
}

#[test]
fn long_batch_becomes_several_frames() {
    let tuple = |n: i64| Tuple::new(origin(1, "default"), vec![n.into(), "x".repeat(1000).into()]);
    let batch: Vec<Addressed> = (0..1000).map(|n| to(4, &tuple(n))).collect();
    let (frames, _) = round_trip(queued(&batch), FRAME_BYTES_MAX);
    assert!(frames.len() > 5, "{} frames", frames.len());
    assert_eq!(frames.concat(), batch);
}

#[test]
fn tuple_too_large_for_a_frame_is_left_out_with_its_copies() {
    let small = Tuple::new(origin(1, "default"), vec![Value::Int(1)]);
    let large = Tuple::new(origin(2, "large"), vec!["x".repeat(300).into()]);
    let fitting = Tuple::new(origin(3, "fitting"), vec!["x".repeat(180).into()]);
    let (one, both) = ([TaskId(4)], [TaskId(4), TaskId(5)]);
    let queued =
        inbox_with([(&one[..], &small), (&both[..], &large), (&one[..], &fitting), (&one[..], &small)]);
    let (frames, n_oversized) = round_trip(queued, 256);
    assert_eq!(n_oversized, 2);
    assert_eq!(frames.concat(), [to(4, &small), to(4, &fitting), to(4, &small)]);
}

#[test]
fn too_many_tuples_and_too_deep_values_are_rejected() {
    let tuple = Tuple::new(origin(1, "default"), vec![]);
    let mut frame = BatchFrame::default();
    frame.fill(&mut inbox_with([(&vec![TaskId(4); BATCH_TUPLES_MAX + 1][..], &tuple)]), None);
    let error = read_batch(content(&frame), &mut Vec::new()).expect_err("too many");
    assert!(error.to_string().contains("more tuples"), "{error}");
    // Arrays in arrays, a million deep.
    let error = read_batch(&vec![0x91; 1 << 20], &mut Vec::new()).expect_err("too deep");
    assert!(!error.to_string().is_empty());
    let one_origin = [0x92, 0x91, 0x93, 0x01, 0xa1, b'a', 0xa1, b'b', 0x91, 0x93, 0x00];
    let entry = [&one_origin[..], &vec![0x91; 1 << 20]].concat();
    let error = read_batch(&entry, &mut Vec::new()).expect_err("too deep");
    assert!(error.to_string().contains("too deep"), "{error}");
}

#[test]
fn rejected_batch_leaves_no_tuples() {
    let tuple = Tuple::new(origin(1, "default"), vec![Value::Int(7)]);
    let mut frame = BatchFrame::default();
    frame.fill(&mut queued(&[to(4, &tuple), to(5, &tuple)]), None);
    let whole = content(&frame).to_vec();
    let mut read = vec![to(1, &tuple)];
    read_batch(&whole[..whole.len() - 1], &mut read).expect_err("truncated");
    assert_eq!(read, []);
    let error = read_batch(&[&whole[..], &[0xc0]].concat(), &mut read).expect_err("too long");
    assert!(error.to_string().contains("bytes follow the batch"), "{error}");
    assert_eq!(read, []);
}

#[test]
fn values_nested_as_deep_as_json_allows_are_decoded() {
    let json = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let value: Value = serde_json::from_str(&json).expect("as deep as JSON allows");
    let tuple = Tuple::new(origin(1, "default"), vec![value]);
    let (frames, _) = round_trip(queued(&[to(4, &tuple)]), FRAME_BYTES_MAX);
    assert_eq!(frames.concat(), [to(4, &tuple)]);
}

#[tokio::test]
async fn truncated_and_oversized_frames_are_different_errors() {
    let mut content = Vec::new();
    let mut truncated: &[u8] = &[0, 0, 0, 9, 1, 2];
    let error = read_frame(&mut truncated, 100, &mut content).await.expect_err("truncated");
    assert!(matches!(error, ReadError::Io(_)), "{error}");
    let mut long: &[u8] = &[0xff; 64];
    let error = read_frame(&mut long, 100, &mut content).await.expect_err("long");
    assert!(matches!(error, ReadError::Oversized { length: 0xffff_ffff, limit: 100 }), "{error}");
    let mut whole: &[u8] = &[0, 0, 0, 2, 1, 2];
    read_frame(&mut whole, 100, &mut content).await.expect("whole");
    assert_eq!(content, [1, 2]);
}
