//! Dialect of many tuples in one message, for components that accept it in the handshake.
//!
//! ```text
//!  {"batch":[[17,"split","default",4,1,["a","b"]]]}           to a bolt: tuples 17 and 18 of task 4
//!  {"command":"batch","outcomes":[["ack",[1,2]],["fail",[3]]]}  to a spout, which answers with one sync
//!  {"command":"batch","emits":[[null,1,["a","b"],["17",2]]],"settled":[["ack",[[17,2]]]]}  from both
//! ```
//!
//! A batch says nothing that single messages cannot say. [`BatchWriter`] writes tuples, and [`Batch`]
//! takes a batch of a child apart, so that nobody else knows of it: each tuple of a batch is checked,
//! refused and counted as if it had come alone.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{
    child::Received,
    fields,
    message::{Emit, EmitReply, FromChild, Parsed, Refused, RefusedEmit, ReturnedId, SpoutCommand},
};
use stormkeeper_model::StreamId;
use stormkeeper_stream::{Origin, Tuple, Value};

/// Name of the dialect in the handshake.
pub const NAME: &str = "batch-1";

/// Maximum number of acks and fails in a batch, ranges included: as many as are tracked. With more, the
/// batch is refused.
const SETTLED_MAX: u64 = 1_000_000;

/// Maximum number of outcomes in one message to a spout, which does nothing else meanwhile.
pub const OUTCOMES_MAX: usize = 256;

/// Outcomes of a spout's tuples, in their order.
#[derive(Debug, PartialEq, Serialize)]
pub struct Outcomes {
    command: &'static str,
    outcomes: Vec<(SpoutCommand, Vec<Value>)>,
}

impl Outcomes {
    /// Returns the message of some outcomes.
    pub fn of(each: impl IntoIterator<Item = (SpoutCommand, Value)>) -> Self {
        let mut outcomes: Vec<(SpoutCommand, Vec<Value>)> = Vec::new();
        for (command, id) in each {
            match outcomes.last_mut() {
                Some((last, ids)) if *last == command => ids.push(id),
                Some(_) | None => outcomes.push((command, vec![id])),
            }
        }
        Self { command: "batch", outcomes }
    }
}

/// Writes tuples into a batch, as long as they come one after another.
#[derive(Debug, Default)]
pub struct BatchWriter {
    open: Option<Group>,
}

/// Tuples of one origin with ascending ids and as many values.
#[derive(Debug)]
struct Group {
    origin: Arc<Origin>,
    arity: usize,
    next: u64,
}

impl BatchWriter {
    /// Appends a tuple, which has at least one value, to the batch in `out`.
    #[inline]
    pub fn add(&mut self, id: u64, tuple: &Tuple, out: &mut BytesMut) {
        let (origin, arity) = (tuple.origin(), tuple.values().len());
        let is_next = |group: &Group| group.next == id && group.arity == arity && group.origin == *origin;
        match &mut self.open {
            Some(group) if is_next(group) => {
                group.next += 1;
                out.put_u8(b',');
            }
            open => {
                out.put_slice(if open.is_some() { b"]]," } else { b"{\"batch\":[" });
                let Origin { task, component, stream } = &**origin;
                write(&(id, component.as_str(), stream.as_str(), task.0, arity), out);
                // The list goes on with the values.
                out.truncate(out.len() - 1);
                out.put_slice(b",[");
                *open = Some(Group { origin: Arc::clone(origin), arity, next: id + 1 });
            }
        }
        for (index, value) in tuple.values().iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            write(value, out);
        }
    }

    /// Ends the batch, if there is one.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            out.put_slice(b"]]]}\nend\n");
        }
    }
}

fn write(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("values are JSON, and memory can be written");
}

/// Batch of a child: the messages that it stands for, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    // The last one comes first.
    runs: Vec<Run>,
    settled: Vec<(Settle, Vec<Value>)>,
    // Ids of a range that are left.
    range: Range<u64>,
    has_changed_text: bool,
}

/// Tuples on one stream.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    stream: Result<Option<StreamId>, String>,
    arity: usize,
    values: VecDeque<Value>,
    // Anchors and the number of tuples that have them; the last ones come first.
    anchors: Vec<(Vec<ReturnedId>, usize)>,
    ids: Option<VecDeque<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Settle {
    Ack,
    Fail,
}

impl Batch {
    /// Reads the fields of a batch.
    ///
    /// # Errors
    /// The defect: the whole batch is refused, and what it acks is acked by nobody.
    pub(super) fn read(emits: Option<Value>, settled: Option<Value>) -> Result<Self, String> {
        let list = |value: Option<Value>, name: &str| match value {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => Ok(items),
            Some(_) => Err(format!("field {name} must be a list")),
        };
        let mut runs = Vec::new();
        for run in list(emits, "emits")?.into_iter().rev() {
            runs.push(Run::read(run)?);
        }
        let (mut groups, mut n_settled) = (Vec::new(), 0_u64);
        for group in list(settled, "settled")?.into_iter().rev() {
            let (kind, ids) = settled_group(group)?;
            for id in &ids {
                n_settled = n_settled.saturating_add(range_of(id).map_or(1, |range| range.end - range.start));
            }
            groups.push((kind, ids));
        }
        if n_settled > SETTLED_MAX {
            return Err(format!("a batch must not settle more than {SETTLED_MAX} tuples"));
        }
        Ok(Self { runs, settled: groups, range: 0..0, has_changed_text: false })
    }

    /// Marks the batch as one with changed texts, which its first message says then.
    pub(super) fn with_changed_text(mut self, has_changed_text: bool) -> Self {
        self.has_changed_text = has_changed_text;
        self
    }

    /// Returns whether the batch stands for no message: a sign of life.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.settled.is_empty() && self.range.is_empty()
    }

    #[inline]
    fn next_settled(&mut self) -> Option<Result<FromChild, String>> {
        loop {
            let message = match self.settled.last()?.0 {
                Settle::Ack => FromChild::Ack,
                Settle::Fail => FromChild::Fail,
            };
            if let Some(id) = self.range.next() {
                return Some(Ok(message(ReturnedId::Number(id))));
            }
            let (_, ids) = self.settled.last_mut()?;
            match ids.pop() {
                None => drop(self.settled.pop()),
                Some(id) => match range_of(&id) {
                    Some(range) => self.range = range,
                    None => return Some(fields::tuple_id(Some(id)).map(message)),
                },
            }
        }
    }
}

impl Iterator for Batch {
    type Item = Received;

    #[inline]
    fn next(&mut self) -> Option<Received> {
        let refused =
            |reason: String, emit| Refused { shown: "in a batch".to_owned(), reason, emit, meant: None };
        let next = loop {
            let Some(run) = self.runs.last_mut() else {
                break self.next_settled()?.map_err(|reason| refused(reason, None));
            };
            match run.next() {
                None => drop(self.runs.pop()),
                Some(Ok(emit)) => break Ok(FromChild::Emit(emit)),
                Some(Err((reason, emit))) => break Err(refused(reason, Some(emit))),
            }
        };
        let has_changed_text = std::mem::take(&mut self.has_changed_text);
        Some(next.map(|message| Parsed { message, has_changed_text, takes_batches: false }))
    }
}

impl Run {
    fn read(run: Value) -> Result<Self, String> {
        let wrong = || "a run must be [stream, arity, values, anchors, ids]".to_owned();
        let Value::List(parts) = run else { return Err(wrong()) };
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Null);
        let (stream, arity, values, anchors, ids) = (next(), next(), next(), next(), next());
        let (Value::Int(arity), Value::List(values)) = (arity, values) else { return Err(wrong()) };
        let arity = usize::try_from(arity).ok().filter(|arity| *arity > 0).ok_or_else(wrong)?;
        let n_tuples = values.len() / arity;
        if n_tuples * arity != values.len() {
            return Err(format!("{} values cannot be tuples of {arity}", values.len()));
        }
        let anchors = anchors_of(anchors).ok_or_else(wrong)?;
        let n_anchored = anchors.iter().try_fold(0_usize, |n, (_, more)| n.checked_add(*more));
        if n_anchored != Some(n_tuples) {
            return Err(format!("the anchors of a run must be those of its {n_tuples} tuples"));
        }
        let ids = match ids {
            Value::Null => None,
            Value::List(ids) if ids.len() == n_tuples => Some(ids.into()),
            _ => return Err(wrong()),
        };
        let stream = fields::stream(Some(&stream).filter(|stream| **stream != Value::Null));
        Ok(Self { stream, arity, values: values.into(), anchors, ids })
    }

    #[inline]
    fn next(&mut self) -> Option<Result<Emit, (String, RefusedEmit)>> {
        if self.values.is_empty() {
            return None;
        }
        let values = self.values.drain(..self.arity).collect();
        let id = self.ids.as_mut().and_then(VecDeque::pop_front).filter(|id| *id != Value::Null);
        while self.anchors.last().is_some_and(|(_, left)| *left == 0) {
            self.anchors.pop();
        }
        let anchors = self.anchors.last_mut().map_or_else(Vec::new, |(ids, left)| {
            *left -= 1;
            ids.clone()
        });
        let reply = EmitReply::None;
        Some(match &self.stream {
            Ok(stream) => Ok(Emit { id, stream: stream.clone(), anchors, direct: None, values, reply }),
            Err(reason) => Err((reason.clone(), RefusedEmit { id, anchors, reply })),
        })
    }
}

/// Reads anchors and their numbers of tuples: `[anchor, n, …]`, each anchor null, an id, or some ids.
fn anchors_of(value: Value) -> Option<Vec<(Vec<ReturnedId>, usize)>> {
    let Value::List(items) = value else { return None };
    let mut anchors = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(anchor) = items.next() {
        let Some(Value::Int(n)) = items.next() else { return None };
        let n = usize::try_from(n).ok()?;
        let is_id = |value: &Value| matches!(value, Value::Text(_) | Value::Int(_));
        let is_valid = match &anchor {
            Value::List(ids) => ids.iter().all(is_id),
            Value::Null => true,
            id => is_id(id),
        };
        let ids = is_valid.then(|| fields::anchors_in(anchor))?;
        anchors.push((ids, n));
    }
    anchors.reverse();
    Some(anchors)
}

/// Reads `[command, ids]`; the last id comes first.
fn settled_group(group: Value) -> Result<(Settle, Vec<Value>), String> {
    let wrong = || "settled tuples must be [\"ack\" or \"fail\", ids]".to_owned();
    let Value::List(mut parts) = group else { return Err(wrong()) };
    let (Some(Value::List(mut ids)), Some(Value::Text(command)), true) =
        (parts.pop(), parts.pop(), parts.is_empty())
    else {
        return Err(wrong());
    };
    ids.reverse();
    match command.as_str() {
        "ack" => Ok((Settle::Ack, ids)),
        "fail" => Ok((Settle::Fail, ids)),
        _ => Err(wrong()),
    }
}

/// Returns the ids of `[first, n]`.
fn range_of(id: &Value) -> Option<Range<u64>> {
    let Value::List(range) = id else { return None };
    let [Value::Int(first), Value::Int(n)] = range.as_slice() else { return None };
    let (first, n) = (u64::try_from(*first).ok()?, u64::try_from(*n).ok()?);
    Some(first..first.checked_add(n)?)
}

#[cfg(test)]
mod tests;
