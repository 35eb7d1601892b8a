//! Bytes that reach a worker: from its children, and from other workers.

use bytes::{BufMut as _, BytesMut};

use stormkeeper_model::TaskId;
use stormkeeper_stream::{Tuple, Value};
use stormkeeper_worker::{
    multilang::{
        frame::{self, Decoder, Part},
        message::{ComponentNotice, FromChild},
    },
    transport::fuzzing as wire,
};

use crate::check_error;

/// Limit of a message, small enough that inputs reach it.
const MESSAGE_BYTES: usize = 4096;

/// Messages of a batch that are looked at: a few bytes stand for a million acks.
const BATCH_MESSAGES: usize = 1000;

/// Reads a stream of messages from a child, in pieces whose size is the first byte of the input.
///
/// The messages do not depend on the pieces. A value of a tuple reads back from JSON. Neither a
/// message nor an error is larger than the limits allow.
///
/// # Panics
/// If a property does not hold.
pub fn multilang_frame(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = messages(stream, stream.len().max(1));
    let in_pieces = messages(stream, usize::from(*size).max(1));
    assert_eq!(whole, in_pieces, "messages depend on the pieces of the stream");
    for message in &whole.0 {
        assert!(message.len() <= MESSAGE_BYTES, "a message of {} bytes", message.len());
        match FromChild::parse(message) {
            Ok(parsed) => check_message(&parsed.message, message),
            Err(error) => {
                check_error(&error.to_string());
                let reasons = [
                    "not a JSON object",
                    "field ",
                    "unknown command ",
                    "NaN and infinity",
                    "not a valid batch",
                ];
                let says_what = reasons.iter().any(|reason| error.reason.contains(reason));
                assert!(says_what || error.reason.contains(" column "), "an error without position: {error}");
            }
        }
    }
}

/// Returns the complete messages of a stream, and whether it ended with an error.
fn messages(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut messages) = (Decoder::new(MESSAGE_BYTES), Vec::new());
    for piece in stream.chunks(size) {
        decoder.space().put_slice(piece);
        loop {
            match decoder.next_part() {
                Ok(Some(Part::Message(message) | Part::Stray(message))) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => {
                    check_error(&error.to_string());
                    return (messages, true);
                }
            }
        }
        decoder.rest().iter().for_each(|rest| check_error(rest));
    }
    (messages, false)
}

fn check_message(parsed: &FromChild, message: &[u8]) {
    let values: &[Value] = match parsed {
        FromChild::Emit(emit) => &emit.values,
        FromChild::Notice(ComponentNotice::Metrics { value, .. }) => std::slice::from_ref(value),
        FromChild::Notice(ComponentNotice::Error(text) | ComponentNotice::Log { text, .. }) => {
            // Re-encoded numbers may be longer, such as 1e300.
            assert!(text.len() <= 512 * message.len(), "{} bytes of text", text.len());
            &[]
        }
        FromChild::Pid(_)
        | FromChild::Ack(_)
        | FromChild::Fail(_)
        | FromChild::ResetTimeout(_)
        | FromChild::Sync
        | FromChild::Called(_) => &[],
        FromChild::Batch(batch) => {
            let some = batch.clone().take(BATCH_MESSAGES);
            return some.filter_map(Result::ok).for_each(|one| check_message(&one.message, message));
        }
    };
    assert!(n_values(values) <= message.len(), "more values than bytes");
    let mut encoded = BytesMut::new();
    frame::encode(&values, &mut encoded);
    let text = encoded.strip_suffix(b"\nend\n").expect("the delimiter");
    let text = std::str::from_utf8(text).expect("JSON");
    assert_eq!(Value::from_json(text).expect("values read back"), Value::List(values.to_vec()));
}

fn n_values(values: &[Value]) -> usize {
    let inner = |value: &Value| match value {
        Value::List(values) => n_values(values),
        Value::Map(values) => values.values().map(|value| n_values(std::slice::from_ref(value))).sum(),
        _ => 0,
    };
    values.len() + values.iter().map(inner).sum::<usize>()
}

/// Reads a connection between workers: frames, and each of them as every kind of message.
///
/// A frame is no larger than its limit. A batch reads back. A rejected batch leaves no tuple
/// behind.
///
/// # Panics
/// If a property does not hold.
pub fn worker_wire(data: &[u8]) {
    const LIMIT: usize = 64 << 10;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (frames, error) = runtime.block_on(wire::read_frames(data, LIMIT));
    check_error(&error);
    assert!(frames.iter().map(|frame| frame.len() + size_of::<u32>()).sum::<usize>() <= data.len());
    for content in frames.iter().map(Vec::as_slice).chain([data]) {
        check_batch(content);
        for message in wire::reread_messages(content) {
            let again = wire::reread_messages(&message);
            assert!(again.contains(&message), "a message does not read back");
        }
    }
}

fn check_batch(content: &[u8]) {
    let (tuples, read) = wire::read_batch(content);
    if let Err(error) = read {
        check_error(&error);
        assert!(tuples.is_empty(), "a rejected batch leaves {} tuples behind", tuples.len());
        return;
    }
    assert!(tuples.len() <= wire::MAX_BATCH_TUPLES);
    assert!(tuples.iter().all(|(_, tuple)| n_values(tuple.values()) <= content.len()));
    let contents = wire::write_batches(tuples.clone());
    let mut again = Vec::new();
    for content in contents {
        let (tuples, read) = wire::read_batch(&content);
        read.expect("a written batch is read");
        again.extend(tuples);
    }
    assert_eq!(tuples.len(), again.len(), "tuples are lost");
    for (one, other) in tuples.iter().zip(&again) {
        assert!(is_same(one, other), "{one:?} reads back as {other:?}");
    }
}

/// Compares bytes, because NaN is not equal to itself.
fn is_same((task, tuple): &(TaskId, Tuple), (other_task, other): &(TaskId, Tuple)) -> bool {
    let bytes = |tuple: &Tuple| rmp_serde::to_vec(tuple.values()).expect("values are MessagePack");
    task == other_task
        && tuple.source() == other.source()
        && tuple.component() == other.component()
        && tuple.stream() == other.stream()
        && bytes(tuple) == bytes(other)
}
