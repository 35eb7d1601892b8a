//! What a component and its worker say to each other, as types.

use serde::{Deserialize, Serialize};

use crate::multilang::frame;
use stormkeeper_model::{StreamId, TaskId};
use stormkeeper_stream::Value;

/// A message to a child besides the handshake and the answer to an emit, which is a bare
/// list of task ids.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ToChild<'a> {
    /// A tuple for a bolt.
    Tuple {
        /// What acks, fails and anchors refer to.
        id: &'a str,
        /// The emitting component; none for a heartbeat.
        comp: Option<&'a str>,
        /// The stream.
        stream: &'a str,
        /// The emitting task; -1 for the system.
        task: i64,
        /// The values.
        tuple: &'a [Value],
    },
    /// Something for a spout to do.
    Command {
        /// What to do.
        command: SpoutCommand,
        /// The emit that it is about; empty text for the others.
        id: &'a Value,
    },
    /// The tasks that an emit went to.
    TaskIds(&'a [TaskId]),
}

/// What a spout is asked to do. It answers each with `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoutCommand {
    /// Emit something, if there is anything.
    Next,
    /// A tuple is fully processed.
    Ack,
    /// The topology is active: `next` will follow.
    Activate,
    /// No `next` until `activate`.
    Deactivate,
}

/// A message from a child.
#[derive(Debug, Clone, PartialEq)]
pub enum FromChild {
    /// The answer to the handshake.
    Pid(u32),
    /// A tuple.
    Emit(Emit),
    /// A bolt is done with a tuple.
    Ack(ReturnedId),
    /// A bolt could not handle a tuple.
    Fail(ReturnedId),
    /// Something for people.
    Remark(Remark),
    /// A spout is done with a command; a bolt is alive.
    Sync,
}

/// What a child says that concerns people and not tuples.
#[derive(Debug, Clone, PartialEq)]
pub enum Remark {
    /// An error to report.
    Error(String),
    /// A line for the log.
    Log {
        /// How important it is.
        level: LogLevel,
        /// The line.
        text: String,
    },
    /// A metric's new value.
    Metrics {
        /// The metric's name.
        name: String,
        /// Its value.
        value: Value,
    },
}

/// A tuple that a child emits.
#[derive(Debug, Clone, PartialEq)]
pub struct Emit {
    /// What a spout calls it; none when it does not want to hear of it again.
    pub id: Option<Value>,
    /// The stream; none for the default one.
    pub stream: Option<StreamId>,
    /// The tuples of a bolt's input that it came from.
    pub anchors: Vec<ReturnedId>,
    /// The receiver, for a direct emit.
    pub direct: Option<TaskId>,
    /// The values.
    pub values: Vec<Value>,
    /// Whether the child waits for the tasks that it went to.
    pub answer: Answer,
}

/// What a child expects after an emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The tasks that it went to.
    TaskIds,
    /// Nothing.
    None,
}

/// The id of an input tuple as a bolt gave it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnedId(pub String);

/// The levels of `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2, also when none is given.
    Info,
    /// 3
    Warn,
    /// 4
    Error,
}

/// A message that the protocol does not know.
#[derive(Debug, thiserror::Error)]
#[error("it sent a message that cannot be understood ({reason}): {shown}")]
pub struct Invalid {
    /// What is wrong.
    pub reason: String,
    /// The bytes, shortened.
    pub shown: String,
}

/// Every field of every message, so that one pass reads it whatever the order of its fields.
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
    /// What the message is called in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pid(_) => "pid",
            Self::Emit(_) => "emit",
            Self::Ack(_) => "ack",
            Self::Fail(_) => "fail",
            Self::Remark(Remark::Error(_)) => "error",
            Self::Remark(Remark::Log { .. }) => "log",
            Self::Remark(Remark::Metrics { .. }) => "metrics",
            Self::Sync => "sync",
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`Invalid`] when it is not JSON or not a message of the protocol.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let invalid = |reason: String| Invalid { reason, shown: frame::shorten(bytes) };
        // A list would be read as the fields in order, which no child means.
        if bytes.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
            return Err(invalid("it is no JSON object".to_owned()));
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        fields.into_message().map_err(|missing| invalid(format!("{missing} is missing or of the wrong kind")))
    }
}

impl Fields {
    /// The message, or what it lacks.
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
                // A direct emit is never answered: the child named the task.
                answer: match self.need_task_ids.unwrap_or(true) && self.task.is_none() {
                    true => Answer::TaskIds,
                    false => Answer::None,
                },
                direct: self.task,
                values: self.tuple.ok_or("tuple")?,
            }),
            Command::Ack => FromChild::Ack(self.id.and_then(returned_id).ok_or("id")?),
            Command::Fail => FromChild::Fail(self.id.and_then(returned_id).ok_or("id")?),
            Command::Error => FromChild::Remark(Remark::Error(as_text(self.msg))),
            Command::Log => {
                FromChild::Remark(Remark::Log { level: log_level(self.level), text: as_text(self.msg) })
            }
            Command::Metrics => FromChild::Remark(Remark::Metrics {
                name: self.name.map(|name| as_text(Some(name))).ok_or("name")?,
                value: self.params.unwrap_or(Value::Null),
            }),
            Command::Sync => FromChild::Sync,
        })
    }
}

/// Ids are sent as text; languages that turn them into numbers are understood as well.
fn returned_id(value: Value) -> Option<ReturnedId> {
    match value {
        Value::Text(text) => Some(ReturnedId(text)),
        Value::Int(number) => Some(ReturnedId(number.to_string())),
        Value::Null | Value::Bool(_) | Value::UInt(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    }
}

/// A message meant for people may be any value.
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
        Emit { id: None, stream: None, anchors: vec![], direct: None, values, answer: Answer::TaskIds }
    }

    #[test]
    fn every_message_of_a_child_is_understood() {
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
                answer: Answer::None,
                ..emit(word())
            }),
        );
        check(
            r#"{"command":"emit","anchors":"1","task":9,"tuple":["a"]}"#,
            FromChild::Emit(Emit {
                anchors: vec![id("1")],
                direct: Some(TaskId(9)),
                answer: Answer::None,
                ..emit(word())
            }),
        );
        check(
            r#"{"command":"emit","anchors":["1","2"],"tuple":["a"]}"#,
            FromChild::Emit(Emit { anchors: vec![id("1"), id("2")], ..emit(word()) }),
        );
        let log = |level, text: &str| FromChild::Remark(Remark::Log { level, text: text.to_owned() });
        check(r#"{"command":"log","msg":"x"}"#, log(LogLevel::Info, "x"));
        check(r#"{"command":"log","msg":{"a":1},"level":4}"#, log(LogLevel::Error, r#"{"a":1}"#));
        check(r#"{"command":"error","msg":"x"}"#, FromChild::Remark(Remark::Error("x".to_owned())));
        check(
            r#"{"command":"metrics","name":"m","params":2}"#,
            FromChild::Remark(Remark::Metrics { name: "m".to_owned(), value: Value::Int(2) }),
        );
    }

    #[test]
    fn what_is_no_message_is_told_with_its_bytes() {
        let check = |text: &str, part: &str| {
            let error = FromChild::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(part) && error.contains(&frame::shorten(text.as_bytes())), "{error}");
        };
        check("", "EOF");
        check("[1]", "no JSON object");
        check("{}", "command is missing");
        check(r#"{"command":"dance"}"#, "dance");
        check(r#"{"command":"emit"}"#, "tuple is missing");
        check(r#"{"command":"emit","tuple":"a"}"#, "expected a sequence");
        check(r#"{"command":"ack"}"#, "id is missing");
        check(r#"{"command":"emit","tuple":[],"anchors":[{}]}"#, "anchors");
        check(r#"{"command":"emit","tuple":[],"stream":"a/b"}"#, "stream id");
    }

    #[test]
    fn messages_to_a_child_are_storms() {
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
