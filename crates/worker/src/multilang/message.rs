//! Messages between a worker and the child process of a component.

use serde::Serialize;

use super::{batch::Batch, fields::Fields, frame, repair, repair::Repaired, salvage};
use stormkeeper_model::{StreamId, TaskId};
use stormkeeper_stream::Value;

/// Message to a child, other than the handshake. The reply to an emit is a bare list of task ids.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ToChild<'a> {
    /// Tuple for a bolt.
    Tuple {
        /// Id used by acks, fails and anchors.
        id: &'a str,
        /// Emitting component; `None` for a heartbeat.
        comp: Option<&'a str>,
        /// Stream of the tuple.
        stream: &'a str,
        /// Emitting task; -1 for the system.
        task: i64,
        /// Values of the tuple.
        tuple: &'a [Value],
    },
    /// Command for a spout.
    Command {
        /// Command name.
        command: SpoutCommand,
        /// Id of the emit that an ack refers to; empty text for other commands.
        id: &'a Value,
    },
    /// The command `next` for a spout that takes batches.
    Next {
        /// Always [`SpoutCommand::Next`].
        command: SpoutCommand,
        /// Number of tuples after which the spout is to stop.
        room: usize,
    },
    /// Tasks that received an emit.
    TaskIds(&'a [TaskId]),
}

/// Command to a spout, which replies to each command with `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoutCommand {
    /// Emit tuples, if there are any.
    Next,
    /// The tree of a tuple is complete.
    Ack,
    /// A tuple was failed by a bolt, timed out, or was refused.
    Fail,
    /// The topology is active: `next` will follow.
    Activate,
    /// No `next` until `activate`.
    Deactivate,
}

/// Message from a child.
#[derive(Debug, Clone, PartialEq)]
pub enum FromChild {
    /// Reply to the handshake; `None` if the pid is not a number.
    Pid(Option<u32>),
    /// Emitted tuple.
    Emit(Emit),
    /// A bolt has processed a tuple.
    Ack(ReturnedId),
    /// A bolt could not process a tuple.
    Fail(ReturnedId),
    /// A bolt needs more time for a tuple.
    ResetTimeout(ReturnedId),
    /// Error, log line or metric.
    Notice(ComponentNotice),
    /// A spout has executed a command; a bolt is alive.
    Sync,
    /// A spout that takes batches has executed `next`, perhaps several times.
    Called(Calls),
    /// Many messages, which the child takes apart; one that stands for none is a sign of life.
    Batch(Batch),
}

/// Calls of a spout for one `next`: one, or several in a row of which all but the last emitted a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Number of calls, 1 or more.
    pub n: u32,
    /// True if the last call emitted nothing.
    pub is_last_empty: bool,
}

impl Calls {
    /// Limit of the number; a larger one is no answer to `next`.
    pub const MAX: u32 = 100_000;
}

/// Message of a child that does not affect tuples.
#[derive(Debug, Clone, PartialEq)]
pub enum ComponentNotice {
    /// Error to report as a task error.
    Error(String),
    /// Line for the worker's log.
    Log {
        /// Log level.
        level: LogLevel,
        /// Text of the line.
        text: String,
    },
    /// Update of a user metric.
    Metrics {
        /// Name of the metric.
        name: String,
        /// `params` of the message.
        value: Value,
    },
}

impl ComponentNotice {
    /// Returns the notice of a component that was asked to stop, and whose stdin was closed for that:
    /// libraries that take the end of stdin for an error say so, and nothing is wrong.
    pub(crate) fn of_stopped(self) -> Self {
        match self {
            Self::Error(text) => Self::Log { level: LogLevel::Warn, text },
            other => other,
        }
    }
}

/// Tuple emitted by a child.
#[derive(Debug, Clone, PartialEq)]
pub struct Emit {
    /// Message id of a spout; `None` if the spout does not want an ack.
    pub id: Option<Value>,
    /// Stream; `None` for the default stream.
    pub stream: Option<StreamId>,
    /// Input tuples of the bolt from which this tuple was derived.
    pub anchors: Vec<ReturnedId>,
    /// Receiving task of a direct emit.
    pub direct: Option<TaskId>,
    /// Values of the tuple.
    pub values: Vec<Value>,
    /// Reply that the child waits for.
    pub reply: EmitReply,
}

/// Reply that a child expects to an emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmitReply {
    /// Ids of the receiving tasks.
    TaskIds,
    /// No reply.
    None,
}

/// Id of an input tuple as the bolt returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnedId {
    /// Number of a tuple.
    Number(u64),
    /// Text that is no number, which no tuple has for its id.
    Text(String),
}

impl From<String> for ReturnedId {
    fn from(text: String) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

impl std::fmt::Display for ReturnedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Levels of `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2, also the default.
    Info,
    /// 3
    Warn,
    /// 4
    Error,
}

/// Message as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The message.
    pub message: FromChild,
    /// True if a text of the message was not valid Unicode, and was changed.
    pub has_changed_text: bool,
    /// True if the message is an answer to the handshake that accepts batches.
    pub takes_batches: bool,
}

/// Message that is not valid in the protocol. It is refused, or taken as what it seems to be, and the
/// child goes on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{} ({reason}): {shown}", self.verdict())]
pub struct Refused {
    /// Description of the error.
    pub reason: String,
    /// Bytes of the message, shortened.
    pub shown: String,
    /// The emit that was refused, if the message is an emit.
    pub emit: Option<RefusedEmit>,
    /// The `sync`, `ack` or `fail` that the message seems to be, which is carried out.
    pub meant: Option<Box<FromChild>>,
}

impl Refused {
    fn verdict(&self) -> String {
        match &self.meant {
            None => "refused a message".to_owned(),
            Some(meant) => format!("took a message that is not valid as {:?}", meant.name()),
        }
    }
}

/// Emit that was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedEmit {
    /// Message id of a spout.
    pub id: Option<Value>,
    /// Input tuples of a bolt from which the tuple was derived, as far as they can be read.
    pub anchors: Vec<ReturnedId>,
    /// Reply that the child waits for.
    pub reply: EmitReply,
}

impl FromChild {
    /// Returns the message's name for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pid(_) => "pid",
            Self::Emit(_) => "emit",
            Self::Ack(_) => "ack",
            Self::Fail(_) => "fail",
            Self::ResetTimeout(_) => "reset_timeout",
            Self::Notice(ComponentNotice::Error(_)) => "error",
            Self::Notice(ComponentNotice::Log { .. }) => "log",
            Self::Notice(ComponentNotice::Metrics { .. }) => "metrics",
            Self::Sync | Self::Called(_) => "sync",
            Self::Batch(_) => "batch",
        }
    }

    /// Returns the reply that the child waits for after this message.
    pub fn awaited_reply(&self) -> EmitReply {
        match self {
            Self::Emit(emit) => emit.reply,
            Self::Pid(_)
            | Self::Ack(_)
            | Self::Fail(_)
            | Self::ResetTimeout(_)
            | Self::Notice(_)
            | Self::Sync
            | Self::Called(_)
            | Self::Batch(_) => EmitReply::None,
        }
    }

    /// Parses one message, as the serializer of Storm reads it.
    ///
    /// # Errors
    /// [`Refused`] if `bytes` is not JSON, is not a message of the protocol, or has a number that a
    /// tuple cannot carry.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
        let bytes = bytes.strip_prefix(frame::BYTE_ORDER_MARK).unwrap_or(bytes);
        let refused = |reason, emit| Refused { reason, shown: frame::shorten(bytes), emit, meant: None };
        // serde would accept a list as the fields in order, which no child intends.
        if bytes.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
            return Err(refused("not a JSON object".to_owned(), None));
        }
        let (mut fields, repaired) = read(bytes).map_err(|error| Refused {
            meant: salvage::meant(bytes).map(Box::new),
            ..refused(in_plain_words(&error), salvage::refused_emit(bytes))
        })?;
        if repaired.as_ref().is_some_and(|repaired| repaired.has_not_finite) {
            let about = fields.metric_name().map(|name| format!("metric {name:?}: ")).unwrap_or_default();
            let reason = format!("{about}NaN and infinity are not JSON: emit null or text instead");
            let is_meant = |message: &FromChild| {
                matches!(message, FromChild::Sync | FromChild::Ack(_) | FromChild::Fail(_))
            };
            let emit = fields.refused_emit();
            let meant = fields.take_message().ok().filter(is_meant).map(Box::new);
            return Err(Refused { meant, ..refused(reason, emit) });
        }
        let message = fields.take_message();
        let message = message.map_err(|reason| refused(reason, fields.refused_emit()))?;
        let has_changed_text = repaired.is_some_and(|repaired| repaired.has_changed_text);
        Ok(match message {
            FromChild::Batch(batch) => Parsed {
                message: FromChild::Batch(batch.with_changed_text(has_changed_text)),
                has_changed_text: false,
                takes_batches: false,
            },
            message => Parsed { message, has_changed_text, takes_batches: fields.takes_batches() },
        })
    }
}

/// Describes an error of the reader of JSON to the author of a component.
fn in_plain_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let words = [
        ("EOF while parsing", "the JSON is not complete"),
        ("recursion limit exceeded", "lists and maps are nested more than 125 deep"),
        ("number out of range", "a number does not fit into a float of 64 bits"),
        ("trailing characters", "there is more text after the JSON"),
        ("control character", "a control character is within a text"),
    ];
    let found = words.iter().find(|(jargon, _)| text.contains(jargon));
    let place = text.rfind(" at line ").map_or("", |at| &text[at..]);
    found.map_or_else(|| format!("not JSON: {text}"), |(_, words)| format!("{words}{place}"))
}

/// Reads the fields of a message, as JSON or after a repair.
fn read(bytes: &[u8]) -> Result<(Fields, Option<Repaired>), serde_json::Error> {
    let has_odd_integer = repair::may_have_odd_integer(bytes);
    let read = |text: &str| match has_odd_integer {
        true => Value::from_json(text).map(Fields::of),
        false => serde_json::from_str(text),
    };
    let fields = match std::str::from_utf8(bytes) {
        Ok(text) if has_odd_integer => read(text),
        _ => serde_json::from_slice(bytes),
    };
    fields.map(|fields| (fields, None)).or_else(|error| {
        let repaired = repair::repair(bytes);
        read(&repaired.text).map(|fields| (fields, Some(repaired))).map_err(|_| error)
    })
}

#[cfg(test)]
mod tests;
