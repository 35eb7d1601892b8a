//! Framing of messages: JSON that may span lines, then a line `end`.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use crate::limits::MESSAGE_BYTES_MAX;

/// Bytes of an invalid message that an error shows: enough to recognise it in a log line.
const SHOWN_BYTES: usize = 200;

/// Room reserved before a read: a pipe's capacity, so that one read empties the pipe.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Byte order mark, which a runtime such as .NET writes before its first text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Byte stream that is not a sequence of messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message does not end within the limit.
    #[error("a message exceeds {limit} bytes without a line \"end\": {shown}")]
    TooLong {
        /// Limit in bytes.
        limit: usize,
        /// Beginning of the message, shortened.
        shown: String,
    },
}

/// Part of the stream of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A message, without its delimiter.
    Message(BytesMut),
    /// A line between two messages that cannot begin a message, such as the output of a `print`.
    Stray(BytesMut),
}

/// Splits a byte stream into messages; the bytes may arrive in any pieces.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    // All line ends before this position were examined.
    scanned: usize,
    // Start of the line that is being scanned.
    line_start: usize,
    // True if the first byte of the message at the start of the buffer was seen.
    begun: bool,
    // True if a stray line came last: the delimiter that may follow it ends no message.
    after_stray: bool,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MESSAGE_BYTES_MAX)
    }
}

impl Decoder {
    /// Creates a decoder that rejects messages longer than `limit`.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, line_start: 0, begun: false, after_stray: false, limit }
    }

    /// Returns the buffer to append read bytes to, with room for a large read.
    pub fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// Discards everything that was received and not returned.
    pub fn discard(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Returns the received part of an incomplete message, shortened.
    pub fn rest(&self) -> Option<String> {
        (!self.buffer.trim_ascii().is_empty()).then(|| shorten(&self.buffer))
    }

    /// Completes the last line at the end of the stream, if it is a delimiter without a line end.
    /// Returns whether a message may have been completed by it.
    pub fn end_of_stream(&mut self) -> bool {
        let is_delimiter = matches!(&self.buffer[self.line_start..], b"end" | b"end\r");
        if is_delimiter {
            self.buffer.put_u8(b'\n');
        }
        is_delimiter
    }

    /// Returns the next complete message or stray line.
    ///
    /// # Errors
    /// [`Error`], after which the rest of the stream cannot be trusted.
    pub fn next_part(&mut self) -> Result<Option<Part>, Error> {
        while let Some(offset) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line_end = self.scanned + offset;
            self.scanned = line_end + 1;
            let line = &self.buffer[self.line_start..line_end];
            if matches!(line, b"end" | b"end\r") {
                // Also here, or the limit would depend on how the stream arrives.
                self.check_length(self.line_start)?;
                let mut message = self.buffer.split_to(self.scanned);
                message.truncate(self.line_start);
                (self.scanned, self.line_start, self.begun) = (0, 0, false);
                if std::mem::take(&mut self.after_stray) && message.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(Part::Message(message)));
            }
            if !self.begun {
                let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
                match line.trim_ascii().first() {
                    None => {}
                    Some(b'{' | b'[') => self.begun = true,
                    // Returned at once: the delimiter after a stray line may never come.
                    Some(_) => {
                        // Also here, or the limit would depend on how the stream arrives.
                        self.check_length(line_end)?;
                        let mut stray = self.buffer.split_to(self.scanned);
                        stray.truncate(line_end);
                        (self.scanned, self.line_start, self.after_stray) = (0, 0, true);
                        return Ok(Some(Part::Stray(stray)));
                    }
                }
            }
            self.line_start = self.scanned;
        }
        self.scanned = self.buffer.len();
        // The last line belongs to the message unless it is the beginning of the delimiter.
        let is_delimiter = b"end\r".starts_with(&self.buffer[self.line_start..]);
        self.check_length(if is_delimiter { self.line_start } else { self.buffer.len() })?;
        Ok(None)
    }

    /// Checks the length of the message, or of the part of it that was received.
    fn check_length(&self, length: usize) -> Result<(), Error> {
        match length > self.limit {
            true => Err(Error::TooLong { limit: self.limit, shown: shorten(&self.buffer) }),
            false => Ok(()),
        }
    }
}

/// Appends one message and its delimiter to `buffer`.
pub fn encode(message: &impl Serialize, buffer: &mut BytesMut) {
    serde_json::to_writer(buffer.writer(), message).expect("messages are JSON values in memory");
    buffer.put_slice(b"\nend\n");
}

/// Formats bytes for an error: readable, on one line, and short.
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
        while let Some(part) = decoder.next_part()? {
            messages.push(match part {
                Part::Message(message) => String::from_utf8_lossy(&message).trim().to_owned(),
                Part::Stray(line) => format!("stray {}", String::from_utf8_lossy(&line).trim()),
            });
        }
        Ok(messages)
    }

    #[test]
    fn only_an_end_line_ends_a_message() {
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
        check("\u{feff}{\"pid\":1}\nend\n\u{feff}\n{}\nend\n", &["\u{feff}{\"pid\":1}", "\u{feff}\n{}"]);
        check("{\"a\":\n\"end\"}\n end\nend \nendend\nend\n", &["{\"a\":\n\"end\"}\n end\nend \nendend"]);
        check("end\n", &[""]);
        check("{}\nend", &[]);
    }

    #[test]
    fn stray_line_costs_only_itself() {
        let check = |bytes: &str, expected: &[&str]| {
            assert_eq!(decode_all(&mut Decoder::default(), bytes.as_bytes()).expect("parts"), expected);
        };
        check("{}\nend\nhello there\n", &["{}", "stray hello there"]);
        check("hello {\"a\":1}\nend\n{}\nend\n", &["stray hello {\"a\":1}", "{}"]);
        check("one\n\ntwo\r\n{}\nend\nend\n", &["stray one", "stray two", "{}", ""]);
    }

    #[test]
    fn delimiter_without_a_line_end_ends_the_last_message() {
        for (last, is_message) in [("{}\nend", true), ("{}\nend\r", true), ("{}\nen", false), ("{}", false)] {
            let mut decoder = Decoder::default();
            assert_eq!(decode_all(&mut decoder, last.as_bytes()), Ok(Vec::new()));
            assert_eq!(decoder.end_of_stream(), is_message, "{last}");
            let rest = decode_all(&mut decoder, b"").expect("parts");
            assert_eq!(rest.len(), usize::from(is_message), "{last}");
        }
    }

    #[test]
    fn message_without_end_is_rejected_at_the_limit() {
        let mut decoder = Decoder::new(1000);
        assert_eq!(decode_all(&mut decoder, &[b'{'; 1000]), Ok(vec![]));
        let error = decode_all(&mut decoder, b"{").expect_err("too long");
        assert!(error.to_string().contains("exceeds 1000 bytes"), "{error}");
        assert!(error.to_string().ends_with("{{{… (1001 bytes)"), "{error}");
    }

    #[test]
    fn limit_does_not_depend_on_the_pieces_of_the_stream() {
        for (length, is_accepted) in [(1000, true), (1001, false)] {
            let stream = [vec![b' '; length - 3], b"{}\nend\r\n".to_vec()].concat();
            for size in [1, 7, stream.len()] {
                let mut decoder = Decoder::new(1000);
                let read: Result<Vec<_>, _> =
                    stream.chunks(size).map(|piece| decode_all(&mut decoder, piece)).collect();
                assert_eq!(read.is_ok(), is_accepted, "{length} bytes, {size} at a time: {read:?}");
            }
        }
    }

    #[test]
    fn incomplete_message_is_shown() {
        let mut decoder = Decoder::default();
        assert_eq!(decode_all(&mut decoder, b"{}\nend\n"), Ok(vec!["{}".to_owned()]));
        assert_eq!(decoder.rest(), None);
        assert_eq!(decode_all(&mut decoder, b"\x00half"), Ok(vec![]));
        assert_eq!(decoder.rest().as_deref(), Some("\\0half"));
    }

    proptest! {
        #[test]
        fn messages_are_decoded_however_the_stream_is_split(
            texts in prop::collection::vec(any::<String>(), 1..8),
            pretty in any::<bool>(),
            splits in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
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
            let mut splits: Vec<usize> = splits.iter().map(|split| split.index(stream.len())).collect();
            splits.extend([0, stream.len()]);
            splits.sort_unstable();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in splits.windows(2) {
                read.extend(decode_all(&mut decoder, &stream[piece[0]..piece[1]]).expect("messages"));
            }
            let read: Vec<serde_json::Value> =
                read.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
            prop_assert_eq!(read, messages);
            prop_assert_eq!(decoder.rest(), None);
        }
    }
}
