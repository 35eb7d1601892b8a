//! Wire format between workers.
//!
//! ```text
//! sender    "SKTP" version:u16  frame(Hello)                frame(batch) frame(batch) …
//! receiver                                   frame(HelloReply)
//! frame   = length:u32 MessagePack[length]
//! batch   = [[origin…], [[origin index, values, [task…]]…]]
//! origin  = [task, component, stream]
//! ```
//!
//! An entry of a tracked tuple has a fourth element, its anchors: `[acker, root, edge, acker, …]`. Builds
//! that do not track tuples reject such a batch; they run no worker of a tracked topology.
//!
//! The last origin of a batch may be a stamp, which is the origin of no tuple. Its component is
//! `__stamp`, and its stream consists of two wall-clock times in µs, `emitted-sent`: the time at
//! which the oldest tuple of the batch was emitted, and the time at which the frame was created. A
//! receiver that does not know stamps treats a stamp as an ordinary origin.
//!
//! The origin before the stamp, or the last one, may be the sequence of the frame, in the same way: its
//! component is `__sequence`, and its stream `sender-number`. The sender draws its number at random for
//! each connection, and numbers the frames of a connection from 1. A frame that was received before, or
//! does not follow the one before it on its connection, is rejected.
//!
//! A receiver that rejects a frame sends `frame(HelloReply::Refused(reason))` and closes the connection.
//! It sends nothing else after its reply to the handshake.
//!
//! Numbers are big-endian. A batch contains each name once, and the values of a tuple once for
//! all receiving tasks of the worker.

mod batch;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, io, sync::Arc, time::Duration};

use batch::Batch;
use rmp_serde::decode::Error as DecodeError;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::replay::Sequence;
use crate::limits::{BATCH_TUPLES_MAX, FRAME_BYTES_MAX, FRAME_DEPTH_MAX, IDLE_CONNECTION_MAX};
use stormkeeper_metrics::messagepack;
use stormkeeper_model::{
    ComponentId, Slot, StreamId, TaskId, TopologyId,
    clock::{Clock, Monotonic},
};
use stormkeeper_stream::{Anchor, Anchors, Origin, Tuple, Value};

/// First bytes of a connection, so that any other protocol on this port is detected at once.
pub(super) const MAGIC: [u8; 4] = *b"SKTP";

/// Version of the protocol after the magic number.
pub(super) const VERSION: u16 = 1;

/// Longest handshake: ids have at most 200 bytes each.
pub(crate) const MAX_HANDSHAKE_BYTES: usize = 4 << 10;

/// Length at which a frame is closed and sent: larger writes do not increase throughput, and cost
/// latency and memory.
const FULL_FRAME_BYTES: usize = 128 << 10;

/// A tuple and its receiving task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Addressed {
    pub(super) task: TaskId,
    pub(super) tuple: Tuple,
}

/// First frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Topology of the tuples.
    pub(crate) topology: TopologyId,
    /// Slot of the worker that the connection is meant for.
    pub(crate) to: Slot,
    /// Slot of the sending worker.
    pub(crate) from: Slot,
}

/// Receiver's reply to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HelloReply {
    Welcome,
    /// Reason of the refusal; the receiver closes the connection.
    Refused(String),
}

/// Failure to read a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("a frame of {length} bytes exceeds the limit of {limit} bytes")]
    Oversized { length: usize, limit: usize },
    #[error("nothing arrived for {IDLE_CONNECTION_MAX:?}")]
    Idle,
    #[error("a frame{} was not complete in time", .length.map(|length| format!(" of {length} bytes")).unwrap_or_default())]
    Slow { length: Option<usize> },
}

/// Reads the content of the next frame into `content`.
///
/// Not cancel-safe: a call that is dropped may have consumed a part of a frame.
pub(crate) async fn read_frame(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
    content: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let length = reader.read_u32().await.map_err(ReadError::Io)? as usize;
    if length > limit {
        return Err(ReadError::Oversized { length, limit });
    }
    read_content(reader, length, content).await
}

/// Reads the content of a frame of `length` bytes into `content`.
///
/// Not cancel-safe: as [`read_frame`].
pub(super) async fn read_content(
    reader: &mut (impl AsyncRead + Unpin),
    length: usize,
    content: &mut Vec<u8>,
) -> Result<(), ReadError> {
    content.clear();
    // The buffer grows with the received bytes, not with the announced length.
    let read = reader.take(length as u64).read_to_end(content).await.map_err(ReadError::Io)?;
    match read == length {
        true => Ok(()),
        false => Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Returns a frame that contains `message`.
pub(crate) fn frame_of(message: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_BYTES];
    write_to(&mut frame, message);
    close_frame(&mut frame);
    frame
}

const LENGTH_BYTES: usize = size_of::<u32>();

fn write_to(bytes: &mut Vec<u8>, message: &(impl Serialize + ?Sized)) {
    rmp_serde::encode::write(bytes, message).expect("writing plain values to memory does not fail");
}

fn close_frame(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - LENGTH_BYTES).expect("a frame has at most 16 MiB");
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A batch of tuples as a frame, under construction or ready to be sent.
#[derive(Debug, Default)]
pub(super) struct BatchFrame {
    bytes: Vec<u8>,
    entries: Vec<u8>,
    n_tuples: usize,
    oldest: Option<Monotonic>,
    // The sequence of the last frame, of a sender that numbers its frames.
    sequence: Option<Sequence>,
    // Position of the text of the sequence in `bytes`.
    sequence_at: usize,
}

impl BatchFrame {
    /// Frames of a sender that numbers them.
    pub(super) fn numbered() -> Self {
        let sequence = Sequence { sender: fastrand::u64(..), number: 0 };
        Self { sequence: Some(sequence), ..Self::default() }
    }

    /// Frames of the sender of `sequence` after its frame with that number.
    #[cfg(test)]
    pub(super) fn after(sequence: Sequence) -> Self {
        Self { sequence: Some(sequence), ..Self::default() }
    }

    /// Takes a new sender's number for the frames of the next connection, an unsent frame included:
    /// what a receiver holds against the old number does not concern the new connection.
    pub(super) fn begin_connection(&mut self) {
        let Some(sequence) = &mut self.sequence else { return };
        *sequence = Sequence { sender: fastrand::u64(..), number: u64::from(self.n_tuples > 0) };
        if self.n_tuples > 0 {
            let text = sequence.to_text();
            self.bytes[self.sequence_at..][..text.len()].copy_from_slice(text.as_bytes());
        }
    }

    /// Returns the bytes to send; empty if the frame has no tuple.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of tuples, counted once per receiving task.
    pub(super) fn n_tuples(&self) -> usize {
        self.n_tuples
    }

    /// Clears the frame for the next batch.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.n_tuples = 0;
    }

    /// Takes tuples from the front of `batch` until the frame is full or `batch` is empty.
    /// Returns the number of tuples that were taken and left out because each is too large.
    /// With a `clock`, the frame is stamped.
    pub(super) fn fill(&mut self, batch: &mut Vec<Addressed>, clock: Option<&Clock>) -> usize {
        self.fill_to(batch, clock, FRAME_BYTES_MAX)
    }

    fn fill_to(&mut self, batch: &mut Vec<Addressed>, clock: Option<&Clock>, limit: usize) -> usize {
        // Reserves room for sequence and stamp, which are written last.
        let n_marks = usize::from(clock.is_some()) + usize::from(self.sequence.is_some());
        let limit = limit - (n_marks * MARK_BYTES_MAX).min(limit / 2);
        self.clear();
        self.oldest = None;
        self.entries.clear();
        let mut origins = Origins::default();
        let (mut taken, mut n_entries, mut n_oversized) = (0, 0, 0);
        while taken < batch.len() && self.entries.len() < FULL_FRAME_BYTES {
            let tuple = &batch[taken].tuple;
            let copies = batch[taken..].iter().take_while(|other| other.tuple.is_copy_of(tuple)).count();
            let before = (self.entries.len(), origins.bytes.len(), origins.n);
            let receivers = Receivers(&batch[taken..taken + copies]);
            match tuple.anchors() {
                [] => write_to(&mut self.entries, &(origins.index(tuple), tuple.values(), receivers)),
                anchors => {
                    let entry = (origins.index(tuple), tuple.values(), receivers, AnchorNumbers(anchors));
                    write_to(&mut self.entries, &entry);
                }
            }
            if ENVELOPE_BYTES + origins.bytes.len() + self.entries.len() <= limit {
                n_entries += 1;
                self.n_tuples += copies;
                if self.oldest.is_none() {
                    // Tuples are nearly in the order in which they were emitted.
                    self.oldest = tuple.emitted_at();
                }
            } else {
                self.entries.truncate(before.0);
                if n_entries > 0 {
                    // The tuple may fit in the next frame; this frame does not need its origin.
                    origins.bytes.truncate(before.1);
                    origins.n = before.2;
                    break;
                }
                n_oversized += copies;
            }
            taken += copies;
        }
        batch.drain(..taken);
        if n_entries > 0 {
            if let Some(sequence) = &mut self.sequence {
                sequence.number += 1;
                sequence.write_to(&mut origins);
                self.sequence_at = ORIGINS_AT + origins.bytes.len() - SEQUENCE_BYTES;
            }
            if let Some(clock) = clock {
                Stamp::of(self.oldest, clock).write_to(&mut origins);
            }
            self.close(&origins, n_entries);
        }
        n_oversized
    }

    fn close(&mut self, origins: &Origins, n_entries: u32) {
        self.bytes.reserve(ENVELOPE_BYTES + origins.bytes.len() + self.entries.len());
        self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        self.bytes.push(ARRAY_OF_TWO);
        open_array(&mut self.bytes, origins.n);
        self.bytes.extend_from_slice(&origins.bytes);
        open_array(&mut self.bytes, n_entries);
        self.bytes.extend_from_slice(&self.entries);
        close_frame(&mut self.bytes);
    }
}

/// MessagePack markers of an array of two, and of an array whose length follows as a u32.
const ARRAY_OF_TWO: u8 = 0x92;
const ARRAY_32: u8 = 0xdd;

/// Bytes of a batch besides its origins and entries: the length and three array markers.
const ENVELOPE_BYTES: usize = LENGTH_BYTES + 1 + 2 * (1 + size_of::<u32>());

/// Position of the origins of a batch: after the length and two array markers.
const ORIGINS_AT: usize = LENGTH_BYTES + 1 + 1 + size_of::<u32>();

fn open_array(bytes: &mut Vec<u8>, length: u32) {
    bytes.push(ARRAY_32);
    bytes.extend_from_slice(&length.to_be_bytes());
}

/// Origins of a batch under construction; a tuple refers to its origin by index.
#[derive(Default)]
struct Origins {
    bytes: Vec<u8>,
    n: u32,
    // Keyed by address, which is stable while the batch holds the tuples. Equal origins at two
    // addresses are in the batch twice, which does no harm.
    known: HashMap<usize, u32>,
    last: Option<(usize, u32)>,
}

impl Origins {
    fn index(&mut self, tuple: &Tuple) -> u32 {
        let origin = tuple.origin();
        let address = Arc::as_ptr(origin).addr();
        // Most tuples of a batch come in runs from one task.
        if let Some((last, index)) = self.last
            && last == address
        {
            return index;
        }
        let index = *self.known.entry(address).or_insert_with(|| {
            write_to(&mut self.bytes, &(origin.task, &origin.component, &origin.stream));
            self.n += 1;
            self.n - 1
        });
        self.last = Some((address, index));
        index
    }
}

/// Times of a batch, by the sender's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Time at which the oldest tuple was emitted; `None` if unknown.
    pub(super) emitted: Option<Duration>,
    /// Time at which the frame was created.
    pub(super) sent: Duration,
}

/// Component of a stamp's origin.
const STAMP: &str = "__stamp";

/// Component of a sequence's origin.
const SEQUENCE: &str = "__sequence";

/// Length of a sequence's text: two numbers of twenty digits. It is fixed, so that the sequence of an
/// encoded frame can be replaced.
const SEQUENCE_BYTES: usize = 2 * 20 + 1;

/// Longest stamp or sequence: its component, two numbers of twenty digits, and markers.
const MARK_BYTES_MAX: usize = 64;

/// Content of a batch beside its tuples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) stamp: Option<Stamp>,
    pub(super) sequence: Option<Sequence>,
}

impl Marks {
    fn of(origins: &[Arc<Origin>]) -> Self {
        let Some((last, before)) = origins.split_last() else { return Self::default() };
        let stamp = Stamp::of_origin(last);
        let numbered = if stamp.is_some() { before.last() } else { Some(last) };
        Self { stamp, sequence: numbered.and_then(|origin| Sequence::of_origin(origin)) }
    }
}

impl Sequence {
    fn to_text(self) -> String {
        format!("{:020}-{:020}", self.sender, self.number)
    }

    fn write_to(self, origins: &mut Origins) {
        write_to(&mut origins.bytes, &(TaskId(0), SEQUENCE, self.to_text()));
        origins.n += 1;
    }

    fn of_origin(origin: &Origin) -> Option<Self> {
        if origin.component.as_str() != SEQUENCE {
            return None;
        }
        let (sender, number) = origin.stream.as_str().split_once('-')?;
        Some(Self { sender: sender.parse().ok()?, number: number.parse().ok()? })
    }
}

impl Stamp {
    fn of(oldest: Option<Monotonic>, clock: &Clock) -> Self {
        let (sent, now) = (clock.since_epoch(), clock.monotonic());
        Self { emitted: oldest.map(|oldest| sent.saturating_sub(now.since(oldest))), sent }
    }

    fn write_to(self, origins: &mut Origins) {
        let emitted = self.emitted.map_or(0, |emitted| emitted.as_micros());
        let stream = format!("{emitted}-{}", self.sent.as_micros());
        write_to(&mut origins.bytes, &(TaskId(0), STAMP, stream));
        origins.n += 1;
    }

    fn of_origin(origin: &Origin) -> Option<Self> {
        if origin.component.as_str() != STAMP {
            return None;
        }
        let (emitted, sent) = origin.stream.as_str().split_once('-')?;
        let (emitted, sent) = (emitted.parse().ok()?, sent.parse().ok()?);
        let emitted = Some(emitted).filter(|micros| *micros > 0).map(Duration::from_micros);
        Some(Self { emitted, sent: Duration::from_micros(sent) })
    }
}

/// Receiving tasks of the copies of one tuple.
struct Receivers<'a>(&'a [Addressed]);

impl Serialize for Receivers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|one| one.task))
    }
}

/// Anchors of a tuple, as a list of numbers.
struct AnchorNumbers<'a>(&'a [Anchor]);

impl Serialize for AnchorNumbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = |anchor: &Anchor| [u64::from(anchor.acker.0), anchor.root, anchor.edge];
        serializer.collect_seq(self.0.iter().flat_map(numbers).collect::<Vec<_>>())
    }
}

/// Clears `out` and reads a batch into it.
///
/// # Errors
/// Decoding error if `content` is not exactly one batch; `out` is then empty.
pub(super) fn read_batch(content: &[u8], out: &mut Vec<Addressed>) -> Result<Marks, DecodeError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(content);
    reader.set_max_depth(FRAME_DEPTH_MAX);
    out.clear();
    let read = Batch { out: &mut *out }.deserialize(&mut reader).and_then(|marks| {
        match IgnoredAny::deserialize(&mut reader) {
            Err(DecodeError::InvalidMarkerRead(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(marks)
            }
            Ok(IgnoredAny) | Err(_) => Err(DecodeError::custom("bytes follow the batch")),
        }
    });
    if read.is_err() {
        out.clear();
    }
    read
}

/// Reads a message of the handshake.
pub(crate) fn read_message<'de, T: Deserialize<'de>>(content: &'de [u8]) -> Result<T, DecodeError> {
    messagepack::decode(content)
}
