//! Serializer of a component's messages, selected by `topology.multilang.serializer`.

use bytes::BytesMut;
use serde::Serialize;

use super::{
    frame::{self, Error, Part},
    message::{FromChild, Parsed, Refused},
    messagepack,
};
use crate::limits::MESSAGE_BYTES_MAX;

/// Serializer of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// JSON and a line `end`: the multilang protocol as everybody speaks it.
    #[default]
    Json,
    /// MessagePack without a delimiter, as of Pyleus and pystorm.
    MessagePack,
}

impl Codec {
    /// Returns the serializer of this name: a short one, or the name of a class for Storm.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json"
            | "org.apache.storm.multilang.JsonSerializer"
            | "backtype.storm.multilang.JsonSerializer" => Some(Self::Json),
            "msgpack" | "com.yelp.pyleus.serializer.MessagePackSerializer" => Some(Self::MessagePack),
            _ => None,
        }
    }

    /// Appends a message to `out`.
    pub(super) fn encode(self, message: &impl Serialize, out: &mut BytesMut) {
        match self {
            Self::Json => frame::encode(message, out),
            Self::MessagePack => messagepack::encode(message, out),
        }
    }

    /// Parses one message.
    ///
    /// # Errors
    /// [`Refused`] if it is no message of the protocol.
    pub(super) fn parse(self, bytes: &[u8]) -> Result<Parsed, Refused> {
        match self {
            Self::Json => FromChild::parse(bytes),
            Self::MessagePack => messagepack::parse(bytes),
        }
    }

    /// Returns a decoder of a stream of messages.
    pub(super) fn decoder(self) -> Decoder {
        match self {
            Self::Json => Decoder::Json(frame::Decoder::default()),
            Self::MessagePack => Decoder::MessagePack(messagepack::Decoder::new(MESSAGE_BYTES_MAX)),
        }
    }
}

/// Splits the output of a child into messages.
#[derive(Debug)]
pub(super) enum Decoder {
    Json(frame::Decoder),
    MessagePack(messagepack::Decoder),
}

impl Decoder {
    /// Returns the buffer to append read bytes to, with room for a large read.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        match self {
            Self::Json(decoder) => decoder.space(),
            Self::MessagePack(decoder) => {
                decoder.buffer().reserve(frame::READ_BYTES);
                decoder.buffer()
            }
        }
    }

    /// Discards everything that was received and not returned.
    pub(super) fn discard(&mut self) {
        match self {
            Self::Json(decoder) => decoder.discard(),
            Self::MessagePack(decoder) => *decoder = messagepack::Decoder::new(MESSAGE_BYTES_MAX),
        }
    }

    /// Returns the received part of an incomplete message, shortened.
    pub(super) fn rest(&mut self) -> Option<String> {
        match self {
            Self::Json(decoder) => decoder.rest(),
            Self::MessagePack(decoder) => {
                let rest = &*decoder.buffer();
                (!rest.is_empty()).then(|| frame::shorten(rest))
            }
        }
    }

    /// Completes the last message at the end of the stream, if it lacks nothing but a line end. Returns
    /// whether a message may have been completed by it.
    pub(super) fn end_of_stream(&mut self) -> bool {
        match self {
            Self::Json(decoder) => decoder.end_of_stream(),
            Self::MessagePack(_) => false,
        }
    }

    /// Returns the next complete message, or bytes between two messages that cannot begin one.
    ///
    /// # Errors
    /// [`Error`], after which the rest of the stream cannot be trusted.
    pub(super) fn next_part(&mut self) -> Result<Option<Part>, Error> {
        match self {
            Self::Json(decoder) => decoder.next_part(),
            Self::MessagePack(decoder) => decoder.next_part(),
        }
    }
}
