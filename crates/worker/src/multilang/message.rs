//! Messages between a worker and the child process of a component.

use serde::{Deserialize, Serialize};

use crate::multilang::frame;
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
    /// Tasks that received an emit.
    TaskIds(&'a [TaskId]),
}

/// Command to a spout, which replies to each command with `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoutCommand {
    /// Emit tuples, if there are any.
    Next,
    /// A tuple was fully processed.
    Ack,
    /// The topology is active: `next` will follow.
    Activate,
    /// No `next` until `activate`.
    Deactivate,
}

/// Message from a child.
#[derive(Debug, Clone, PartialEq)]
pub enum FromChild {
    /// Reply to the handshake.
    Pid(u32),
    /// Emitted tuple.
    Emit(Emit),
    /// A bolt has processed a tuple.
    Ack(ReturnedId),
    /// A bolt could not process a tuple.
    Fail(ReturnedId),
    /// Error, log line or metric.
    Notice(ComponentNotice),
    /// A spout has executed a command; a bolt is alive.
    Sync,
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
pub struct ReturnedId(pub String);

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

/// Message that is not valid in the protocol.
#[derive(Debug, thiserror::Error)]
#[error("invalid multilang message ({reason}): {shown}")]
pub struct Invalid {
    /// Description of the error.
    pub reason: String,
    /// Bytes of the message, shortened.
    pub shown: String,
}

/// Fields of all messages, so that one pass parses a message with any order of fields.
#[derive(Deserialize)]
struct Fields {
    command: Option<Command>,
    pid: Option<u32>,
    id: Option<Value>,
    stream: Option<StreamId>,
    anchors: Option<Value>,
    task: Option<TaskId>,
    tuple: Option<Vec<Value>>,
    need_task_ids: Option<bool>,
    msg: Option<Value>,
    level: Option<Value>,
    name: Option<Value>,
    params: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Emit,
    Ack,
    Fail,
    Error,
    Log,
    Metrics,
    Sync,
}

impl FromChild {
    /// Returns the message's name for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pid(_) => "pid",
            Self::Emit(_) => "emit",
            Self::Ack(_) => "ack",
            Self::Fail(_) => "fail",
            Self::Notice(ComponentNotice::Error(_)) => "error",
            Self::Notice(ComponentNotice::Log { .. }) => "log",
            Self::Notice(ComponentNotice::Metrics { .. }) => "metrics",
            Self::Sync => "sync",
        }
    }

    /// Parses one message.
    ///
    /// # Errors
    /// [`Invalid`] if `bytes` is not JSON or not a message of the protocol.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let invalid = |reason: String| Invalid { reason, shown: frame::shorten(bytes) };
        // serde would accept a list as the fields in order, which no child intends.
        if bytes.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
            return Err(invalid("not a JSON object".to_owned()));
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        fields
            .into_message()
            .map_err(|missing| invalid(format!("field {missing} is missing or has the wrong type")))
    }
}

impl Fields {
    /// Returns the message, or the name of the missing field.
    fn into_message(self) -> Result<FromChild, &'static str> {
        let Some(command) = self.command else {
            return self.pid.map(FromChild::Pid).ok_or("command");
        };
        Ok(match command {
            Command::Emit => FromChild::Emit(Emit {
                id: self.id,
                stream: self.stream,
                anchors: match self.anchors {
                    None => Vec::new(),
                    Some(Value::List(ids)) => {
                        ids.into_iter().map(returned_id).collect::<Option<_>>().ok_or("anchors")?
                    }
                    Some(id) => vec![returned_id(id).ok_or("anchors")?],
                },
                // A direct emit has no reply: the child named the task.
                reply: match self.need_task_ids.unwrap_or(true) && self.task.is_none() {
                    true => EmitReply::TaskIds,
                    false => EmitReply::None,
                },
                direct: self.task,
                values: self.tuple.ok_or("tuple")?,
            }),
            Command::Ack => FromChild::Ack(self.id.and_then(returned_id).ok_or("id")?),
            Command::Fail => FromChild::Fail(self.id.and_then(returned_id).ok_or("id")?),
            Command::Error => FromChild::Notice(ComponentNotice::Error(as_text(self.msg))),
            Command::Log => FromChild::Notice(ComponentNotice::Log {
                level: log_level(self.level),
                text: as_text(self.msg),
            }),
            Command::Metrics => FromChild::Notice(ComponentNotice::Metrics {
                name: self.name.map(|name| as_text(Some(name))).ok_or("name")?,
                value: self.params.unwrap_or(Value::Null),
            }),
            Command::Sync => FromChild::Sync,
        })
    }
}

/// Parses a tuple id. Ids are sent as text; ids that a language turned into numbers are accepted.
fn returned_id(value: Value) -> Option<ReturnedId> {
    match value {
        Value::Text(text) => Some(ReturnedId(text)),
        Value::Int(number) => Some(ReturnedId(number.to_string())),
        Value::Null | Value::Bool(_) | Value::UInt(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    }
}

/// Converts a message text to a string; it may be any JSON value.
fn as_text(value: Option<Value>) -> String {
    match value {
        Some(Value::Text(text)) => text,
        Some(other) => serde_json::to_string(&other).expect("values are JSON"),
        None => String::new(),
    }
}

fn log_level(level: Option<Value>) -> LogLevel {
    match level {
        Some(Value::Int(0)) => LogLevel::Trace,
        Some(Value::Int(1)) => LogLevel::Debug,
        Some(Value::Int(3)) => LogLevel::Warn,
        Some(Value::Int(4)) => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ReturnedId {
        ReturnedId(text.to_owned())
    }

    fn emit(values: Vec<Value>) -> Emit {
        Emit { id: None, stream: None, anchors: vec![], direct: None, values, reply: EmitReply::TaskIds }
    }

    #[test]
    fn every_child_message_is_parsed() {
        let check = |text: &str, expected: FromChild| {
            assert_eq!(FromChild::parse(text.as_bytes()).expect("understood"), expected, "{text}");
        };
        let word = || vec![Value::from("a")];
        check(r#"{"pid": 17}"#, FromChild::Pid(17));
        check(r#"{"command":"sync","id":""}"#, FromChild::Sync);
        check(r#"{"command":"ack","id":"7"}"#, FromChild::Ack(id("7")));
        check(r#"{"id":-3,"command":"fail"}"#, FromChild::Fail(id("-3")));
        check(r#"{"command":"emit","tuple":["a"]}"#, FromChild::Emit(emit(word())));
        check(
            r#"{"command":"emit","tuple":["a"],"stream":null,"task":null,"need_task_ids":null,"anchors":[]}"#,
            FromChild::Emit(emit(word())),
        );
        check(
            r#"{"command":"emit","id":{"n":1},"stream":"s","tuple":["a"],"need_task_ids":false}"#,
            FromChild::Emit(Emit {
                id: Some(Value::Map([("n".to_owned(), Value::Int(1))].into())),
                stream: Some("s".parse().expect("valid")),
                reply: EmitReply::None,
                ..emit(word())
            }),
        );
        check(
            r#"{"command":"emit","anchors":"1","task":9,"tuple":["a"]}"#,
            FromChild::Emit(Emit {
                anchors: vec![id("1")],
                direct: Some(TaskId(9)),
                reply: EmitReply::None,
                ..emit(word())
            }),
        );
        check(
            r#"{"command":"emit","anchors":["1","2"],"tuple":["a"]}"#,
            FromChild::Emit(Emit { anchors: vec![id("1"), id("2")], ..emit(word()) }),
        );
        let log =
            |level, text: &str| FromChild::Notice(ComponentNotice::Log { level, text: text.to_owned() });
        check(r#"{"command":"log","msg":"x"}"#, log(LogLevel::Info, "x"));
        check(r#"{"command":"log","msg":{"a":1},"level":4}"#, log(LogLevel::Error, r#"{"a":1}"#));
        check(r#"{"command":"error","msg":"x"}"#, FromChild::Notice(ComponentNotice::Error("x".to_owned())));
        check(
            r#"{"command":"metrics","name":"m","params":2}"#,
            FromChild::Notice(ComponentNotice::Metrics { name: "m".to_owned(), value: Value::Int(2) }),
        );
    }

    #[test]
    fn invalid_message_is_reported_with_its_bytes() {
        let check = |text: &str, part: &str| {
            let error = FromChild::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(part) && error.contains(&frame::shorten(text.as_bytes())), "{error}");
        };
        check("", "EOF");
        check("[1]", "not a JSON object");
        check("{}", "command is missing");
        check(r#"{"command":"dance"}"#, "dance");
        check(r#"{"command":"emit"}"#, "tuple is missing");
        check(r#"{"command":"emit","tuple":"a"}"#, "expected a sequence");
        check(r#"{"command":"ack"}"#, "id is missing");
        check(r#"{"command":"emit","tuple":[],"anchors":[{}]}"#, "anchors");
        check(r#"{"command":"emit","tuple":[],"stream":"a/b"}"#, "stream id");
    }

    #[test]
    fn messages_to_a_child_match_the_storm_protocol() {
        let check = |message: ToChild<'_>, expected: &str| {
            assert_eq!(serde_json::to_string(&message).expect("JSON"), expected);
        };
        check(
            ToChild::Tuple { id: "4", comp: Some("c"), stream: "s", task: 9, tuple: &[Value::from("x")] },
            r#"{"id":"4","comp":"c","stream":"s","task":9,"tuple":["x"]}"#,
        );
        check(
            ToChild::Tuple { id: "5", comp: None, stream: "__heartbeat", task: -1, tuple: &[] },
            r#"{"id":"5","comp":null,"stream":"__heartbeat","task":-1,"tuple":[]}"#,
        );
        check(
            ToChild::Command { command: SpoutCommand::Next, id: &Value::from("") },
            r#"{"command":"next","id":""}"#,
        );
        check(ToChild::TaskIds(&[TaskId(1), TaskId(2)]), "[1,2]");
    }
}
