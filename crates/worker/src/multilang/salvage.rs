//! Parts of a message that is not JSON: enough to answer an emit, and to go on after a `sync`, `ack` or
//! `fail`.
//!
//! A component that waits for the reply to an emit would wait for ever if the emit is refused without
//! one. So the top level of a refused message is read with tolerance: names and where their values
//! begin and end, whatever is within the values.

use super::{
    fields,
    message::{EmitReply, FromChild, RefusedEmit},
    repair,
};
use stormkeeper_stream::Value;

/// Values of the top level of a message, as they stand there; of a name that occurs twice, the last.
#[derive(Debug, Default)]
struct Found<'a> {
    command: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    anchors: Option<&'a [u8]>,
    task: Option<&'a [u8]>,
    need_task_ids: Option<&'a [u8]>,
    // True if the end of the top level was found.
    is_complete: bool,
}

/// Returns what a refused emit needs, if the message seems to be an emit. One pass without recursion.
///
/// An id that cannot be read is `None`. Where text or brackets do not end, the rest of the message
/// counts as within them, and names are searched for as they are usually written.
pub(super) fn refused_emit(message: &[u8]) -> Option<RefusedEmit> {
    let found = find(message);
    let written = |name: &str, value: &str| !found.is_complete && is_written(message, name, value);
    let is_emit = match found.command {
        Some(command) => unquoted(command) == Some(b"emit"),
        None => written("\"command\"", "\"emit\""),
    };
    let is_direct = found.task.is_some_and(|task| !matches!(task, b"0" | b"null" | b"None"));
    let needs_none = match found.need_task_ids {
        Some(needs) => needs.eq_ignore_ascii_case(b"false"),
        None => written("\"need_task_ids\"", "false"),
    };
    let reply = if is_direct || needs_none { EmitReply::None } else { EmitReply::TaskIds };
    let anchors = || found.anchors.and_then(anchors).map(fields::anchors_in).unwrap_or_default();
    is_emit.then(|| RefusedEmit { id: found.id.and_then(id), anchors: anchors(), reply })
}

/// Returns the `sync`, `ack` or `fail` that the message seems to be: for the latter two its id must be
/// readable.
pub(super) fn meant(message: &[u8]) -> Option<FromChild> {
    let found = find(message);
    let returned = || fields::tuple_id(found.id.and_then(id)).ok();
    match unquoted(found.command?)? {
        b"sync" => Some(FromChild::Sync),
        b"ack" => returned().map(FromChild::Ack),
        b"fail" => returned().map(FromChild::Fail),
        _ => None,
    }
}

fn id(text: &[u8]) -> Option<Value> {
    match text {
        [b'\'', ..] => Some(String::from_utf8_lossy(unquoted(text)?).as_ref().into()),
        _ => Value::from_json(&repair::repair(text).text).ok().filter(|id| *id != Value::Null),
    }
}

/// Reads anchors, also as Python prints a list of texts.
fn anchors(text: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(text).replace('\'', "\"");
    Value::from_json(&text).ok()
}

/// Returns the content of a text without escapes.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    let [first @ (b'"' | b'\''), content @ .., last] = text else { return None };
    (first == last && !content.contains(&b'\\')).then_some(content)
}

/// Returns whether the message has `name`, a colon and `value`, wherever that is.
fn is_written(message: &[u8], name: &str, value: &str) -> bool {
    let ends = message.windows(name.len()).enumerate().filter(|(_, part)| *part == name.as_bytes());
    ends.map(|(at, _)| message[at + name.len()..].trim_ascii_start()).any(|rest| {
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(value.as_bytes()))
    })
}

fn find(message: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    let Some(begin) = message.iter().position(|byte| *byte == b'{') else { return found };
    let rest = message[begin + 1..].trim_ascii_start();
    // A dictionary as Python prints it has single quotes.
    let mut scanner = Scanner { rest, has_single_quotes: rest.starts_with(b"'") };
    loop {
        match scanner.rest {
            [] => return found,
            [b'}', ..] => {
                found.is_complete = true;
                return found;
            }
            [byte, ..] if scanner.is_quote(*byte) || matches!(byte, b'[' | b'{') => {
                let Some(name) = scanner.value() else { return found };
                let Some(value) = scanner.rest.trim_ascii_start().strip_prefix(b":") else { continue };
                scanner.rest = value.trim_ascii_start();
                let Some(value) = scanner.value() else { return found };
                match unquoted(name) {
                    Some(b"command") => found.command = Some(value),
                    Some(b"id") => found.id = Some(value),
                    Some(b"anchors") => found.anchors = Some(value),
                    Some(b"task") => found.task = Some(value),
                    Some(b"need_task_ids") => found.need_task_ids = Some(value),
                    Some(_) | None => {}
                }
            }
            [_, rest @ ..] => scanner.rest = rest,
        }
    }
}

struct Scanner<'a> {
    rest: &'a [u8],
    has_single_quotes: bool,
}

impl<'a> Scanner<'a> {
    fn is_quote(&self, byte: u8) -> bool {
        byte == b'"' || byte == b'\'' && self.has_single_quotes
    }

    /// Takes the value at the beginning of the rest: a text, what is in brackets, or else a word.
    /// `None` if it does not end.
    fn value(&mut self) -> Option<&'a [u8]> {
        let length = match self.rest.first()? {
            byte if self.is_quote(*byte) => self.text_length(0)?,
            b'[' | b'{' => self.brackets_length()?,
            _ => {
                let is_end = |byte: &u8| {
                    matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace() || self.is_quote(*byte)
                };
                self.rest.iter().position(is_end).unwrap_or(self.rest.len())
            }
        };
        let (value, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(value)
    }

    /// Length of the text that begins at `begin`, with its quotes.
    fn text_length(&self, begin: usize) -> Option<usize> {
        let quote = self.rest.get(begin)?;
        let mut at = begin + 1;
        loop {
            match self.rest.get(at)? {
                b'\\' => at += 2,
                byte if byte == quote => return Some(at + 1 - begin),
                _ => at += 1,
            }
        }
    }

    fn brackets_length(&self) -> Option<usize> {
        let (mut at, mut depth) = (0, 0_usize);
        loop {
            match self.rest.get(at)? {
                byte if self.is_quote(*byte) => {
                    at += self.text_length(at)?;
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::multilang::message::FromChild;

    fn check(message: &str, expected: Option<(Option<Value>, EmitReply)>) {
        let expected = expected.map(|(id, reply)| RefusedEmit { id, anchors: vec![], reply });
        assert_eq!(refused_emit(message.as_bytes()), expected, "{message}");
    }

    #[test]
    fn id_and_reply_of_an_emit_are_found_whatever_is_within_its_values() {
        let seven = || Some((Some(Value::Int(7)), EmitReply::TaskIds));
        check(r#"{"command":"emit","id":7,"tuple":[01,{"id":8},"\x\" ]}",}}"#, seven());
        check(r#"{"command":"emit","id":7,"tuple":[01,{"id":8},"\x\" ]}"]}"#, seven());
        check(r#"{"tuple":[+1],"command" : "emit" , "id" : 7}"#, seven());
        check(r#"{"command":"emit" "tuple":[1] "id":7,}"#, seven());
        check(r#"{"id":1,"command":"emit","tuple":[1,,],"id":7} and more"#, seven());
        check(r#"{'command': 'emit', 'id': 7, 'tuple': ["it's"], 'task': None}"#, seven());
        let word = Some(Value::from("a\u{fffd}"));
        check(r#"{"command":"emit","id":"a\udce9","tuple":[.5]}"#, Some((word, EmitReply::TaskIds)));
        check(
            r#"{'command': 'emit', 'id': 'x', 'need_task_ids': False}"#,
            Some((Some(Value::from("x")), EmitReply::None)),
        );
        check(r#"{"command":"emit","task":3,"tuple":[.5]}"#, Some((None, EmitReply::None)));
        check(r#"{"command":"emit","task":0,"id":null,"tuple":[.5]}"#, Some((None, EmitReply::TaskIds)));
    }

    #[test]
    fn emit_whose_id_cannot_be_read_has_a_reply() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        for id in ["01", "1e400", "nope", "\"\\x\"", &deep(128), &deep(100_000)] {
            check(
                &format!(r#"{{"command":"emit","id":{id},"tuple":[1]}}"#),
                Some((None, EmitReply::TaskIds)),
            );
        }
        // Text and brackets that do not end.
        check(r#"{"tuple":["a],"command":"emit","id":7}"#, Some((None, EmitReply::TaskIds)));
        check(r#"{"tuple":[1,"command": "emit","need_task_ids": false"#, Some((None, EmitReply::None)));
        check(r#"{"command":"emit","id":7,"tuple":["a}"#, Some((Some(Value::Int(7)), EmitReply::TaskIds)));
    }

    #[test]
    fn other_messages_have_no_reply() {
        for other in [
            r#"{"command":"log","msg":"\x {\"command\":\"emit\"}"}"#,
            r#"{"command":"ack","id":01}"#,
            r#"{"msg":01}"#,
            "{",
            "",
            "emit",
        ] {
            check(other, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            refused_emit(&bytes);
        }

        #[test]
        fn any_brackets_and_quotes_are_accepted(text in r#"[{"\[\]}'\\,: 1]{0,40}"#) {
            refused_emit(text.as_bytes());
        }

        #[test]
        fn emit_of_a_reader_of_json_is_found_as_it_reads_it(
            id in stormkeeper_stream::test_support::any_value(),
            needs in any::<Option<bool>>(),
            task in prop::option::of(0..3_u32),
            text in any::<String>(),
        ) {
            // NaN is refused after the message was read.
            let tuple = serde_json::json!([text]).to_string().replace(']', ",NaN]");
            let id = serde_json::to_string(&id).expect("JSON");
            let (needs, task) = (serde_json::json!(needs), serde_json::json!(task));
            let message = format!(
                r#"{{"id":{id},"tuple":{tuple},"command":"emit","task":{task},"need_task_ids":{needs}}}"#
            );
            let refused = FromChild::parse(message.as_bytes()).expect_err("NaN");
            prop_assert_eq!(refused_emit(message.as_bytes()), refused.emit, "{}", message);
        }
    }
}
