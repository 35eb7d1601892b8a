//! Messages in a byte stream: JSON that may span lines, then a line that is only `end`.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

/// The longest message accepted from a child: what the transport can carry to another
/// worker in one frame. A child that never ends its message must not fill memory.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How much of a bad message an error shows: enough to recognise it in a log line.
const SHOWN_BYTES: usize = 200;

/// How much room is made before reading: a pipe's own capacity, so that one read empties it.
const READ_BYTES: usize = 64 << 10;

/// Bytes that are not messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line stands where a message should begin, and none begins like this.
    #[error("it printed what is no message: {shown}")]
    NotAMessage {
        /// The bytes, shortened.
        shown: String,
    },
    /// The message does not end within the limit.
    #[error("it sent more than {limit} bytes without a line \"end\": {shown}")]
    TooLong {
        /// The limit.
        limit: usize,
        /// Its beginning, shortened.
        shown: String,
    },
}

/// Cuts a stream of bytes into messages, however the bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    // Before this position there is no line end that was not looked at.
    scanned: usize,
    // Where the line that is being scanned begins.
    line_start: usize,
    // Whether the message at the start of the buffer has shown its first byte.
    begun: bool,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl Decoder {
    /// A decoder that refuses messages longer than `limit`.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, line_start: 0, begun: false, limit }
    }

    /// Where to append what was read; there is room for a large read.
    pub fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// What has arrived of a message that is not complete, shortened.
    pub fn rest(&self) -> Option<String> {
        (!self.buffer.trim_ascii().is_empty()).then(|| shorten(&self.buffer))
    }

    /// The next whole message, without its delimiter.
    ///
    /// # Errors
    /// [`Error`]; nothing that follows can be trusted then.
    pub fn next_message(&mut self) -> Result<Option<BytesMut>, Error> {
        while let Some(offset) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line_end = self.scanned + offset;
            self.scanned = line_end + 1;
            let line = &self.buffer[self.line_start..line_end];
            if matches!(line, b"end" | b"end\r") {
                let mut message = self.buffer.split_to(self.scanned);
                message.truncate(self.line_start);
                (self.scanned, self.line_start, self.begun) = (0, 0, false);
                return Ok(Some(message));
            }
            if !self.begun {
                match line.trim_ascii().first() {
                    None => {}
                    Some(b'{' | b'[') => self.begun = true,
                    // Said at once: the delimiter of a stray line may never come.
                    Some(_) => return Err(Error::NotAMessage { shown: shorten(line) }),
                }
            }
            self.line_start = self.scanned;
        }
        self.scanned = self.buffer.len();
        if self.buffer.len() > self.limit {
            return Err(Error::TooLong { limit: self.limit, shown: shorten(&self.buffer) });
        }
        Ok(None)
    }
}

/// Appends one message and its delimiter to `buffer`.
pub fn encode(message: &impl Serialize, buffer: &mut BytesMut) {
    serde_json::to_writer(buffer.writer(), message).expect("messages are JSON values in memory");
    buffer.put_slice(b"\nend\n");
}

/// Bytes for an error: readable, on one line, and short.
pub fn shorten(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let text = String::from_utf8_lossy(shown).escape_debug().to_string();
    match bytes.len() > SHOWN_BYTES {
        true => format!("{text}… ({} bytes)", bytes.len()),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<String>, Error> {
        decoder.space().extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.next_message()? {
            messages.push(String::from_utf8_lossy(&message).trim().to_owned());
        }
        Ok(messages)
    }

    #[test]
    fn a_message_ends_with_a_line_end_and_nothing_else_does() {
        let check = |bytes: &str, expected: &[&str]| {
            assert_eq!(
                decode_all(&mut Decoder::default(), bytes.as_bytes()).expect("messages"),
                expected,
                "{bytes:?}"
            );
        };
        check("{\"a\":1}\nend\n", &["{\"a\":1}"]);
        check("{\"a\":1}\r\nend\r\n", &["{\"a\":1}"]);
        check("{\n\n\"a\":\n1}\nend\n[1]\nend\n{", &["{\n\n\"a\":\n1}", "[1]"]);
        check("\n\n{}\nend\n", &["{}"]);
        check("{\"a\":\n\"end\"}\n end\nend \nendend\nend\n", &["{\"a\":\n\"end\"}\n end\nend \nendend"]);
        check("end\n", &[""]);
        check("{}\nend", &[]);
    }

    #[test]
    fn a_stray_line_is_told_at_once() {
        let error = decode_all(&mut Decoder::default(), b"{}\nend\nhello there\n").expect_err("garbage");
        assert_eq!(error, Error::NotAMessage { shown: "hello there".to_owned() });
    }

    #[test]
    fn a_message_without_end_is_refused_at_the_limit() {
        let mut decoder = Decoder::new(1000);
        assert_eq!(decode_all(&mut decoder, &[b'{'; 1000]), Ok(vec![]));
        let error = decode_all(&mut decoder, b"{").expect_err("too long");
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
        assert!(error.to_string().ends_with("{{{… (1001 bytes)"), "{error}");
    }

    #[test]
    fn what_is_left_at_the_end_is_shown() {
        let mut decoder = Decoder::default();
        assert_eq!(decode_all(&mut decoder, b"{}\nend\n"), Ok(vec!["{}".to_owned()]));
        assert_eq!(decoder.rest(), None);
        assert_eq!(decode_all(&mut decoder, b"\x00half"), Ok(vec![]));
        assert_eq!(decoder.rest().as_deref(), Some("\\0half"));
    }

    proptest! {
        #[test]
        fn messages_read_back_wherever_the_stream_is_cut(
            texts in prop::collection::vec(any::<String>(), 1..8),
            pretty in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let messages: Vec<serde_json::Value> =
                texts.iter().map(|text| serde_json::json!({ "command": "log", "msg": text })).collect();
            let mut stream = BytesMut::new();
            for message in &messages {
                match pretty {
                    true => {
                        stream.extend_from_slice(&serde_json::to_vec_pretty(message).expect("JSON"));
                        stream.extend_from_slice(b"\nend\n");
                    }
                    false => encode(message, &mut stream),
                }
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in cuts.windows(2) {
                read.extend(decode_all(&mut decoder, &stream[piece[0]..piece[1]]).expect("messages"));
            }
            let read: Vec<serde_json::Value> =
                read.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
            prop_assert_eq!(read, messages);
            prop_assert_eq!(decoder.rest(), None);
        }
    }
}
