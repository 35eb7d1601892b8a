//! A received tuple, as a component sees it.

use std::{fmt, sync::Arc};

use stormkeeper_model::{ComponentId, StreamId, TaskId};
use stormkeeper_stream::{Batch, Row, Value, ValueRef};

/// A received tuple. Its values are read by the position or by the name of their field.
///
/// ```
/// # use stormkeeper_worker::component::{Error, Tuple};
/// # fn length(tuple: &Tuple<'_>) -> Result<usize, Error> {
/// let word = tuple.str("word")?;
/// let count = tuple.i64(1)?;
/// # Ok(word.len() + count as usize)
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Tuple<'a> {
    row: Row<'a>,
    fields: &'a Arc<[String]>,
}

/// A tuple that is kept beyond the call that received it. Whether it is acked does not depend on it: see
/// [`BoltOutput::hold`](super::BoltOutput::hold).
#[derive(Debug)]
pub struct OwnedTuple {
    // Has one row.
    batch: Batch,
    fields: Arc<[String]>,
}

impl OwnedTuple {
    /// The tuple, to be read.
    ///
    /// # Panics
    /// Never: there is one.
    pub fn tuple(&self) -> Tuple<'_> {
        let (row, _) = self.batch.row_at(0).expect("it was made with a row");
        Tuple { row, fields: &self.fields }
    }
}

/// A field: its position, or its name as the emitting component declares it.
pub trait Field: fmt::Debug {
    /// Returns its position among `fields`.
    fn position(&self, fields: &[String]) -> Option<usize>;
}

impl Field for usize {
    fn position(&self, _: &[String]) -> Option<usize> {
        Some(*self)
    }
}

impl Field for &str {
    fn position(&self, fields: &[String]) -> Option<usize> {
        fields.iter().position(|field| field == self)
    }
}

/// Error of reading a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The stream has no such field.
    #[error("stream {stream} of {component} has no field {field}; its fields are {fields}")]
    Missing {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
        /// The field.
        field: String,
        /// Fields of the stream.
        fields: String,
    },
    /// The value has another type.
    #[error("field {field} of stream {stream} of {component} is {found} and not {wanted}")]
    Type {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
        /// The field.
        field: String,
        /// Type of the value.
        found: &'static str,
        /// Type that was asked for.
        wanted: &'static str,
    },
}

impl<'a> Tuple<'a> {
    pub(super) fn new(row: Row<'a>, fields: &'a Arc<[String]>) -> Self {
        Self { row, fields }
    }

    /// The emitting component.
    pub fn component(&self) -> &'a ComponentId {
        &self.row.origin.component
    }

    /// The emitting task.
    pub fn task(&self) -> TaskId {
        self.row.origin.task
    }

    /// The stream.
    pub fn stream(&self) -> &'a StreamId {
        &self.row.origin.stream
    }

    /// Names of the fields, in order.
    pub fn fields(&self) -> &'a [String] {
        self.fields
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.row.values.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a value of any type.
    ///
    /// # Errors
    /// [`FieldError::Missing`].
    pub fn value(&self, field: impl Field) -> Result<Value, FieldError> {
        self.get(&field).map(ValueRef::to_value)
    }

    /// Returns a text.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn str(&self, field: impl Field) -> Result<&'a str, FieldError> {
        match self.get(&field)? {
            ValueRef::Text(text) => Ok(text),
            other => Err(self.mismatch(&field, other, "text")),
        }
    }

    /// Returns a whole number.
    ///
    /// # Errors
    /// [`FieldError`], also for a number above `i64::MAX`.
    pub fn i64(&self, field: impl Field) -> Result<i64, FieldError> {
        match self.get(&field)? {
            ValueRef::Int(number) => Ok(number),
            other => Err(self.mismatch(&field, other, "a whole number of 64 bits")),
        }
    }

    /// Returns a whole number that is not negative.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn u64(&self, field: impl Field) -> Result<u64, FieldError> {
        match self.get(&field)? {
            ValueRef::UInt(number) => Ok(number),
            other @ ValueRef::Int(number) => u64::try_from(number)
                .map_err(|_| self.mismatch(&field, other, "a number that is not negative")),
            other => Err(self.mismatch(&field, other, "a whole number of 64 bits that is not negative")),
        }
    }

    /// Returns a number; a whole one is converted, which may round it.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn f64(&self, field: impl Field) -> Result<f64, FieldError> {
        match self.get(&field)? {
            ValueRef::Float(number) => Ok(number),
            ValueRef::Int(number) => Ok(number as f64),
            ValueRef::UInt(number) => Ok(number as f64),
            other => Err(self.mismatch(&field, other, "a number")),
        }
    }

    /// Returns a boolean.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn bool(&self, field: impl Field) -> Result<bool, FieldError> {
        match self.get(&field)? {
            ValueRef::Bool(value) => Ok(value),
            other => Err(self.mismatch(&field, other, "a boolean")),
        }
    }

    /// Returns all values, as a copy: to emit them again, for example.
    pub fn to_values(&self) -> Vec<Value> {
        self.row.values.to_values()
    }

    /// Returns a copy that lives longer than the call.
    pub fn to_owned_tuple(&self) -> OwnedTuple {
        let mut batch = Batch::default();
        batch.push(&self.row);
        OwnedTuple { batch, fields: Arc::clone(self.fields) }
    }

    fn get(&self, field: &impl Field) -> Result<ValueRef<'a>, FieldError> {
        let position = field.position(self.fields);
        position.and_then(|position| self.row.values.get(position)).ok_or_else(|| FieldError::Missing {
            component: self.component().clone(),
            stream: self.stream().clone(),
            field: format!("{field:?}"),
            fields: self.fields.join(", "),
        })
    }

    fn mismatch(&self, field: &impl Field, value: ValueRef<'a>, wanted: &'static str) -> FieldError {
        let found = match value {
            ValueRef::Null => "null",
            ValueRef::Bool(_) => "a boolean",
            ValueRef::Int(number) if number < 0 => "a negative number",
            ValueRef::Int(_) => "a whole number",
            ValueRef::UInt(_) => "a whole number above 2^63",
            ValueRef::BigInt(_) => "a whole number of more than 64 bits",
            ValueRef::Float(_) => "a number with a fraction",
            ValueRef::Text(_) => "text",
            ValueRef::List(_) => "a list",
            ValueRef::Map(_) => "a map",
        };
        let (component, stream) = (self.component().clone(), self.stream().clone());
        FieldError::Type { component, stream, field: format!("{field:?}"), found, wanted }
    }
}

#[cfg(test)]
mod tests {
    use stormkeeper_stream::ValueWriter;

    use super::*;

    #[test]
    fn fields_are_read_by_position_and_by_name_and_errors_name_them() {
        let origin = stormkeeper_stream::Origin {
            task: TaskId(3),
            component: "split".parse().expect("valid"),
            stream: StreamId::default_stream(),
        };
        let values = vec![
            Value::from("a"),
            Value::Int(-1),
            Value::Float(0.5),
            Value::Bool(true),
            Value::UInt(1 << 63),
        ];
        let tuple = stormkeeper_stream::Tuple::new(Arc::new(origin), values);
        let values = ValueWriter::of(tuple.values());
        let fields: Arc<[String]> = Arc::new(["word", "n", "share", "last", "hash"].map(str::to_owned));
        let tuple = Tuple::new(Row::of(&tuple, values.encoded()), &fields);
        let kept = tuple.to_owned_tuple();
        assert_eq!((kept.tuple().str("word"), kept.tuple().to_values()), (Ok("a"), tuple.to_values()));
        assert_eq!((tuple.str("word"), tuple.str(0)), (Ok("a"), Ok("a")));
        assert_eq!((tuple.i64("n"), tuple.f64("n"), tuple.f64(2)), (Ok(-1), Ok(-1.0), Ok(0.5)));
        assert_eq!(
            (tuple.bool(3), tuple.u64("hash"), tuple.value(1)),
            (Ok(true), Ok(1 << 63), Ok(Value::Int(-1)))
        );
        let text = |error: FieldError| error.to_string();
        let unknown = tuple.str("wrod").map_err(text).expect_err("unknown");
        assert_eq!(
            unknown,
            "stream default of split has no field \"wrod\"; its fields are word, n, share, last, hash"
        );
        assert!(tuple.i64(7).map_err(text).expect_err("unknown").contains("no field 7"));
        let wrong = tuple.str("n").map_err(text).expect_err("a number");
        assert_eq!(wrong, "field \"n\" of stream default of split is a negative number and not text");
        assert!(
            tuple.u64(1).is_err()
                && tuple.i64("hash").is_err()
                && tuple.bool(0).is_err()
                && tuple.f64(0).is_err()
        );
    }
}
