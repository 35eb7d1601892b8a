//! Fields of the messages of a child, read as Storm's serializer reads them: `null` stands for an
//! absent field, task 0 for no task, and an empty stream for the default stream; of a field that
//! occurs twice, the last counts; unknown fields are ignored.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    batch::{self, Batch},
    message::{Calls, ComponentNotice, Emit, EmitReply, FromChild, LogLevel, RefusedEmit, ReturnedId},
};
use stormkeeper_model::{StreamId, TaskId};
use stormkeeper_stream::Value;

/// Fields of all messages, so that one pass parses a message with any order of fields.
#[derive(Debug, Default)]
pub(super) struct Fields {
    command: Option<Value>,
    pid: Option<Value>,
    id: Option<Value>,
    stream: Option<Value>,
    anchors: Option<Value>,
    task: Option<Value>,
    tuple: Option<Value>,
    need_task_ids: Option<Value>,
    msg: Option<Value>,
    level: Option<Value>,
    name: Option<Value>,
    params: Option<Value>,
    dialect: Option<Value>,
    emits: Option<Value>,
    settled: Option<Value>,
    calls: Option<Value>,
    empty: Option<Value>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<Field>()? {
                    let field = match name {
                        Field::Command => &mut fields.command,
                        Field::Pid => &mut fields.pid,
                        Field::Id => &mut fields.id,
                        Field::Stream => &mut fields.stream,
                        Field::Anchors => &mut fields.anchors,
                        Field::Task => &mut fields.task,
                        Field::Tuple => &mut fields.tuple,
                        Field::NeedTaskIds => &mut fields.need_task_ids,
                        Field::Msg => &mut fields.msg,
                        Field::Level => &mut fields.level,
                        Field::Name => &mut fields.name,
                        Field::Params => &mut fields.params,
                        Field::Dialect => &mut fields.dialect,
                        Field::Emits => &mut fields.emits,
                        Field::Settled => &mut fields.settled,
                        Field::Calls => &mut fields.calls,
                        Field::Empty => &mut fields.empty,
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    // `null` is no value.
                    *field = map.next_value()?;
                }
                Ok(fields)
            }
        }
        from.deserialize_map(Map)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Command,
    Pid,
    Id,
    Stream,
    Anchors,
    Task,
    Tuple,
    NeedTaskIds,
    Msg,
    Level,
    Name,
    Params,
    Dialect,
    Emits,
    Settled,
    Calls,
    Empty,
    #[serde(other)]
    Other,
}

impl Fields {
    /// Returns the fields of a message that was read as one value.
    pub(super) fn of(message: Value) -> Self {
        let Value::Map(mut map) = message else { return Self::default() };
        let mut take = |name| map.remove(name).filter(|value| *value != Value::Null);
        Self {
            command: take("command"),
            pid: take("pid"),
            id: take("id"),
            stream: take("stream"),
            anchors: take("anchors"),
            task: take("task"),
            tuple: take("tuple"),
            need_task_ids: take("need_task_ids"),
            msg: take("msg"),
            level: take("level"),
            name: take("name"),
            params: take("params"),
            dialect: take("dialect"),
            emits: take("emits"),
            settled: take("settled"),
            calls: take("calls"),
            empty: take("empty"),
        }
    }

    /// Returns what a refused emit needs, if this is an emit.
    pub(super) fn refused_emit(&self) -> Option<RefusedEmit> {
        let is_emit = self.command() == Some("emit");
        let anchors = || self.anchors.clone().map(anchors_in).unwrap_or_default();
        is_emit.then(|| RefusedEmit { id: self.id.clone(), anchors: anchors(), reply: self.reply() })
    }

    /// Returns the name of the metric, if this is an update of a metric.
    pub(super) fn metric_name(&self) -> Option<String> {
        (self.command() == Some("metrics")).then(|| as_text(self.name.clone()))
    }

    /// Returns whether the child that answers the handshake accepts batches.
    pub(super) fn takes_batches(&self) -> bool {
        self.command.is_none() && matches!(&self.dialect, Some(Value::Text(name)) if name == batch::NAME)
    }

    fn command(&self) -> Option<&str> {
        match &self.command {
            Some(Value::Text(command)) => Some(command),
            _ => None,
        }
    }

    /// Returns the reply that an emit waits for. A direct emit has none: the child named the task.
    fn reply(&self) -> EmitReply {
        let is_direct = !matches!(self.task, None | Some(Value::Int(0)));
        match is_direct || self.need_task_ids == Some(Value::Bool(false)) {
            true => EmitReply::None,
            false => EmitReply::TaskIds,
        }
    }

    /// Takes the message. After an error the fields of an emit are still there, for
    /// [`refused_emit`](Self::refused_emit).
    ///
    /// # Errors
    /// The defect of a field.
    pub(super) fn take_message(&mut self) -> Result<FromChild, String> {
        let command = match (&self.command, &self.pid) {
            (Some(Value::Text(command)), _) => command.as_str(),
            (Some(_), _) => return Err("field command must be text".to_owned()),
            (None, Some(pid)) => return Ok(FromChild::Pid(as_pid(pid))),
            (None, None) => return Err("field command is missing".to_owned()),
        };
        Ok(match command {
            "emit" => FromChild::Emit(self.take_emit()?),
            "ack" => FromChild::Ack(tuple_id(self.id.take())?),
            "fail" => FromChild::Fail(tuple_id(self.id.take())?),
            "reset_timeout" => FromChild::ResetTimeout(tuple_id(self.id.take())?),
            "error" => FromChild::Notice(ComponentNotice::Error(as_text(self.msg.take()))),
            "log" => FromChild::Notice(ComponentNotice::Log {
                level: log_level(self.level.as_ref()),
                text: as_text(self.msg.take()),
            }),
            "metrics" => FromChild::Notice(ComponentNotice::Metrics {
                name: self.name.take().map(|name| as_text(Some(name))).ok_or("field name is missing")?,
                value: self.params.take().unwrap_or(Value::Null),
            }),
            "sync" => self.calls().map_or(FromChild::Sync, FromChild::Called),
            "batch" => Batch::read(self.emits.take(), self.settled.take())
                .map(FromChild::Batch)
                .map_err(|reason| format!("not a valid batch: {reason}"))?,
            other => return Err(format!("unknown command {other:?}")),
        })
    }

    fn calls(&self) -> Option<Calls> {
        let Some(Value::Int(n)) = self.calls else { return None };
        let n = u32::try_from(n).ok().filter(|n| (1..=Calls::MAX).contains(n))?;
        Some(Calls { n, is_last_empty: self.empty == Some(Value::Bool(true)) })
    }

    fn take_emit(&mut self) -> Result<Emit, String> {
        let stream = stream(self.stream.as_ref())?;
        let is_id = |value: &Value| matches!(value, Value::Text(_) | Value::Int(_));
        let are_ids = match &self.anchors {
            None => true,
            Some(Value::List(ids)) => ids.iter().all(is_id),
            Some(id) => is_id(id),
        };
        if !are_ids {
            return Err("field anchors must be an id or a list of ids".to_owned());
        }
        let direct = match self.task {
            None | Some(Value::Int(0)) => None,
            Some(Value::Int(task)) => {
                Some(TaskId(u32::try_from(task).map_err(|_| "field task must be the number of a task")?))
            }
            Some(_) => return Err("field task must be the number of a task".to_owned()),
        };
        let reply = self.reply();
        let values = match self.tuple.take() {
            Some(Value::List(values)) => values,
            None => return Err("field tuple is missing".to_owned()),
            Some(_) => return Err("field tuple must be a list".to_owned()),
        };
        let anchors = self.anchors.take().map(anchors_in).unwrap_or_default();
        Ok(Emit { id: self.id.take(), stream, anchors, direct, values, reply })
    }
}

/// Returns the stream of an emit; `None` is the default stream.
pub(super) fn stream(name: Option<&Value>) -> Result<Option<StreamId>, String> {
    match name {
        None => Ok(None),
        Some(Value::Text(stream)) if stream.is_empty() => Ok(None),
        Some(Value::Text(stream)) => {
            stream.parse().map(Some).map_err(|error| format!("field stream: {error}"))
        }
        Some(_) => Err("field stream must be text".to_owned()),
    }
}

fn as_pid(pid: &Value) -> Option<u32> {
    match pid {
        Value::Int(pid) => u32::try_from(*pid).ok(),
        Value::Text(pid) => pid.trim().parse().ok(),
        Value::Null
        | Value::Bool(_)
        | Value::UInt(_)
        | Value::BigInt(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

pub(super) fn tuple_id(id: Option<Value>) -> Result<ReturnedId, String> {
    let id = id.ok_or("field id is missing")?;
    returned_id(id).ok_or_else(|| "field id must be text or a whole number".to_owned())
}

/// Returns the anchors of an emit that can be read.
pub(super) fn anchors_in(anchors: Value) -> Vec<ReturnedId> {
    match anchors {
        Value::List(ids) => ids.into_iter().filter_map(returned_id).collect(),
        id => returned_id(id).into_iter().collect(),
    }
}

/// Parses a tuple id. Ids are sent as text; ids that a language turned into numbers are accepted.
fn returned_id(value: Value) -> Option<ReturnedId> {
    match value {
        Value::Text(text) => Some(text.into()),
        Value::Int(number) => Some(
            u64::try_from(number).map_or_else(|_| ReturnedId::Text(number.to_string()), ReturnedId::Number),
        ),
        Value::Null
        | Value::Bool(_)
        | Value::UInt(_)
        | Value::BigInt(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => None,
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

fn log_level(level: Option<&Value>) -> LogLevel {
    match level {
        Some(Value::Int(0)) => LogLevel::Trace,
        Some(Value::Int(1)) => LogLevel::Debug,
        Some(Value::Int(3)) => LogLevel::Warn,
        Some(Value::Int(4)) => LogLevel::Error,
        _ => LogLevel::Info,
    }
}
