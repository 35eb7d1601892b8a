//! One line of a sample: a tuple as JSON.

use std::io;

use serde::{Serialize, Serializer, ser::SerializeSeq as _};
use serde_json::value::RawValue;

use stormkeeper_model::{ComponentId, StreamId, TaskId, Timestamp};
use stormkeeper_stream::{AnchorList, Encoded, Origin, Value, ValueRef};

/// Maximum bytes of the values in a line; longer ones are cut.
pub(super) const VALUES_MAX: usize = 4096;

/// Maximum bytes of encoded values that are looked at: lists are decoded before they can be cut.
pub(super) const ENCODED_MAX: usize = 256 << 10;

/// Maximum number of receivers and of trees in a line.
pub(super) const LISTED_MAX: usize = 16;

/// Direction of a tuple.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// The task received it.
    Received {
        /// Emitting task and stream.
        origin: &'a Origin,
        /// Its trees.
        trees: AnchorList<'a>,
    },
    /// The task emitted it.
    Emitted {
        /// Emitting task and stream.
        origin: &'a Origin,
        /// The receiving tasks.
        to: &'a [TaskId],
        /// Its trees.
        trees: AnchorList<'a>,
    },
}

/// Values of a tuple.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// As they were emitted or lie in a batch.
    Encoded(Encoded<'a>),
    /// As they are.
    Plain(&'a [Value]),
}

/// A line, apart from the tuple.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) until: Timestamp,
    pub(super) component: &'a ComponentId,
    pub(super) task: TaskId,
    pub(super) n_left_out: u64,
}

/// The object that is written.
#[derive(Serialize)]
struct Shown<'a> {
    time: String,
    until_ms: Timestamp,
    component: &'a ComponentId,
    task: TaskId,
    way: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<From<'a>>,
    stream: &'a StreamId,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Box<RawValue>>,
    // The beginning of values that are too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    values_cut: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a [TaskId]>,
    #[serde(skip_serializing_if = "is_zero")]
    more_receivers: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trees: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    more_trees: usize,
    #[serde(skip_serializing_if = "is_none_left_out")]
    left_out: u64,
}

#[derive(Serialize)]
struct From<'a> {
    component: &'a ComponentId,
    task: TaskId,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_left_out(n: &u64) -> bool {
    *n == 0
}

impl Line<'_> {
    /// Returns the line with its end.
    pub(super) fn text(&self, way: Way<'_>, values: Values<'_>) -> String {
        let (name, origin, to, trees) = match way {
            Way::Received { origin, trees } => ("received", origin, None, trees),
            Way::Emitted { origin, to, trees } => ("emitted", origin, Some(to), trees),
        };
        let n_to = to.map_or(0, <[TaskId]>::len);
        let from = to.is_none().then_some(From { component: &origin.component, task: origin.task });
        let (values, values_cut) = values.shown();
        let n_trees = trees.len();
        let roots = trees.iter().take(LISTED_MAX).map(|anchor| format!("{:016x}", anchor.root));
        let trees: Vec<String> = roots.collect();
        let shown = Shown {
            time: self.at.to_string(),
            until_ms: self.until,
            component: self.component,
            task: self.task,
            way: name,
            from,
            stream: &origin.stream,
            values,
            values_cut,
            to: to.map(|to| &to[..to.len().min(LISTED_MAX)]),
            more_receivers: n_to.saturating_sub(LISTED_MAX),
            more_trees: n_trees.saturating_sub(trees.len()),
            trees,
            left_out: self.n_left_out,
        };
        // Ids, numbers and JSON that was written before: none of it can fail.
        let mut text = serde_json::to_string(&shown).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Values<'_> {
    /// Returns the values as JSON, or else the beginning of that.
    fn shown(self) -> (Option<Box<RawValue>>, Option<String>) {
        if let Self::Encoded(encoded) = self
            && encoded.bytes().len() > ENCODED_MAX
        {
            return (None, Some(format!("({} bytes)", encoded.bytes().len())));
        }
        let mut written = Bounded(Vec::new());
        let whole = serde_json::to_writer(&mut written, &self).is_ok();
        let text = String::from_utf8(written.0).unwrap_or_else(|error| {
            // Cut within a character.
            let end = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(end);
            String::from_utf8(bytes).unwrap_or_default()
        });
        match whole.then(|| RawValue::from_string(text.clone()).ok()).flatten() {
            Some(values) => (Some(values), None),
            None => (None, Some(text)),
        }
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(values) => values.serialize(serializer),
            Self::Encoded(encoded) => {
                let mut list = serializer.serialize_seq(Some(encoded.len()))?;
                for value in encoded.iter() {
                    match value {
                        ValueRef::Text(text) => list.serialize_element(text)?,
                        value => list.serialize_element(&value.to_value())?,
                    }
                }
                list.end()
            }
        }
    }
}

/// Writer that fails once it has [`VALUES_MAX`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(VALUES_MAX - self.0.len());
        self.0.extend_from_slice(&bytes[..n]);
        // At the limit a writer of all fails.
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
