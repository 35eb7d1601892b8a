//! Messages in MessagePack, for components that ask for it: each message is a map, and the next one
//! follows without a delimiter.
//!
//! The fields are those of the JSON messages. A whole number that does not fit into 64 bits is binary
//! data with its decimal digits; there is no other binary data.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{
    fields::Fields,
    frame::{self, Error, Part},
    message::{ComponentNotice, FromChild, Parsed, Refused},
};
use crate::limits::VALUE_DEPTH_MAX;
use stormkeeper_stream::Value;

/// Levels of a message around the values of a tuple.
const MESSAGE_DEPTH: usize = 3;

/// Appends a message.
pub(super) fn encode(message: &impl Serialize, out: &mut BytesMut) {
    let mut serializer = rmp_serde::Serializer::new(out.writer()).with_struct_map();
    message.serialize(&mut serializer).expect("messages are MessagePack, and memory can be written");
}

/// Parses one message.
///
/// # Errors
/// [`Refused`] if it is no message of the protocol, or has a number that a tuple cannot carry.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    let refused = |reason, emit| Refused { reason, shown: frame::shorten(bytes), emit, meant: None };
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(VALUE_DEPTH_MAX + MESSAGE_DEPTH);
    let read = serde::Deserialize::deserialize(&mut deserializer);
    let mut fields: Fields = read.map_err(|error| refused(format!("not valid: {error}"), None))?;
    let emit = fields.refused_emit();
    let message = fields.take_message().map_err(|reason| refused(reason, emit.clone()))?;
    let values = match &message {
        FromChild::Emit(emit) => &*emit.values,
        FromChild::Notice(ComponentNotice::Metrics { value, .. }) => std::slice::from_ref(value),
        _ => &[],
    };
    if values.iter().any(has_not_finite) {
        return Err(refused("NaN and infinity are not JSON: emit null or text instead".to_owned(), emit));
    }
    Ok(Parsed { message, has_changed_text: false, takes_batches: false })
}

fn has_not_finite(value: &Value) -> bool {
    match value {
        Value::Float(value) => !value.is_finite(),
        Value::List(values) => values.iter().any(has_not_finite),
        Value::Map(values) => values.values().any(has_not_finite),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::BigInt(_) | Value::Text(_) => {
            false
        }
    }
}

/// Splits a byte stream into messages; the bytes may arrive in any pieces.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: BytesMut,
    // Bytes of the message at the start of the buffer that were examined, and the number of values that
    // must follow to complete it.
    scanned: usize,
    open: u64,
    limit: usize,
}

impl Decoder {
    /// Creates a decoder that rejects messages longer than `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, open: 1, limit }
    }

    /// Returns the buffer to append read bytes to.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the next complete message, or bytes between two messages that cannot begin one.
    ///
    /// # Errors
    /// [`Error`], after which the rest of the stream cannot be trusted.
    pub(super) fn next_part(&mut self) -> Result<Option<Part>, Error> {
        if self.scanned == 0 {
            let n_stray = self.buffer.iter().take_while(|byte| !begins_map(**byte)).count();
            if n_stray > 0 {
                return Ok(Some(Part::Stray(self.buffer.split_to(n_stray))));
            }
        }
        while self.open > 0 {
            let Some((length, inner)) = self.buffer.get(self.scanned..).and_then(head) else { break };
            self.scanned = self.scanned.saturating_add(length);
            self.open = self.open - 1 + inner;
            if self.scanned > self.limit {
                break;
            }
        }
        if self.scanned > self.limit {
            return Err(Error::TooLong { limit: self.limit, shown: frame::shorten(&self.buffer) });
        }
        if self.open > 0 || self.scanned > self.buffer.len() {
            return Ok(None);
        }
        let message = self.buffer.split_to(self.scanned);
        (self.scanned, self.open) = (0, 1);
        Ok(Some(Part::Message(message)))
    }
}

fn begins_map(byte: u8) -> bool {
    matches!(byte, 0x80..=0x8f | 0xde | 0xdf)
}

/// Returns the length of the value that begins here, without the values in it, and the number of
/// those; `None` if its length is not known yet.
fn head(bytes: &[u8]) -> Option<(usize, u64)> {
    let (first, rest) = bytes.split_first()?;
    let number = |n_bytes: usize| {
        rest.get(..n_bytes).map(|bytes| bytes.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte)))
    };
    // Data of at most 4 GiB fits into a usize on every machine of 64 bits.
    let data = |n_bytes: usize, more: usize| {
        number(n_bytes).map(|n| (1 + more + n_bytes + usize::try_from(n).unwrap_or(usize::MAX >> 1), 0))
    };
    match first {
        0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => Some((1, 0)),
        0x80..=0x8f => Some((1, 2 * u64::from(first & 0x0f))),
        0x90..=0x9f => Some((1, u64::from(first & 0x0f))),
        0xa0..=0xbf => Some((1 + usize::from(first & 0x1f), 0)),
        0xc4 | 0xd9 => data(1, 0),
        0xc5 | 0xda => data(2, 0),
        0xc6 | 0xdb => data(4, 0),
        0xc7 => data(1, 1),
        0xc8 => data(2, 1),
        0xc9 => data(4, 1),
        0xca | 0xce | 0xd2 => Some((5, 0)),
        0xcb | 0xcf | 0xd3 => Some((9, 0)),
        0xcc | 0xd0 => Some((2, 0)),
        0xcd | 0xd1 => Some((3, 0)),
        0xd4 => Some((3, 0)),
        0xd5 => Some((4, 0)),
        0xd6 => Some((6, 0)),
        0xd7 => Some((10, 0)),
        0xd8 => Some((18, 0)),
        0xdc => number(2).map(|n| (3, n)),
        0xdd => number(4).map(|n| (5, n)),
        0xde => number(2).map(|n| (3, 2 * n)),
        0xdf => number(4).map(|n| (5, 2 * n)),
    }
}

#[cfg(test)]
mod tests;
