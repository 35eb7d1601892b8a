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
//! With bit 14 of the version, a sender announces that its frames of tuples may be [`compressed`].
//! Receivers of builds that do not know the bit refuse the version; the sender then connects without it.
//!
//! Numbers are big-endian. A batch contains each name once, and the values of a tuple once for
//! all receiving tasks of the worker.

mod batch;
pub(super) mod compressed;
mod frame;
mod marks;
#[cfg(test)]
mod tests;

use std::io;

use rmp_serde::decode::Error as DecodeError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(super) use batch::{BatchError, ReceivedBatch};
pub(super) use frame::BatchFrame;
pub(super) use marks::{Marks, Stamp};

use crate::limits::IDLE_CONNECTION_MAX;
use stormkeeper_metrics::messagepack;
use stormkeeper_model::{Slot, TopologyId};

/// First bytes of a connection, so that any other protocol on this port is detected at once.
pub(super) const MAGIC: [u8; 4] = *b"SKTP";

/// Version of the protocol after the magic number.
pub(super) const VERSION: u16 = 1;

/// Longest handshake: ids have at most 200 bytes each.
pub(crate) const MAX_HANDSHAKE_BYTES: usize = 4 << 10;

/// Length at which a frame is closed and sent: larger writes do not increase throughput, and cost
/// latency and memory.
const FULL_FRAME_BYTES: usize = 128 << 10;

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
    #[error("a compressed frame is damaged")]
    Damaged,
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

/// Reads a message of the handshake.
pub(crate) fn read_message<'de, T: Deserialize<'de>>(content: &'de [u8]) -> Result<T, DecodeError> {
    messagepack::decode(content)
}
