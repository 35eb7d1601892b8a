//! Values in their encoding: MessagePack, one value after the other.
//!
//! A tuple keeps this form from the component that emits it to the one that receives it, in queues and
//! between workers. Values are written by a [`ValueWriter`] and read where they lie.
//!
//! The encoding is that of [`Value`] through serde: a whole number beyond 64 bits is binary data with its
//! decimal digits, and there is no other binary data; there are no extension types. What comes from another
//! process is checked by [`Encoded::split_checked`] first.

mod parse;
#[cfg(test)]
mod tests;

use rmp::Marker;

use crate::Value;
use parse::{Head, check, head, skip};

pub use parse::Malformed;

/// Values being encoded.
#[derive(Debug, Default)]
pub struct ValueWriter {
    bytes: Vec<u8>,
    n: usize,
}

impl ValueWriter {
    /// The encoding of `values`.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut writer = Self::default();
        writer.values(values);
        writer
    }

    /// Removes all values and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.n = 0;
    }

    /// Returns the values.
    #[inline]
    pub fn encoded(&self) -> Encoded<'_> {
        Encoded { n: self.n, bytes: &self.bytes }
    }

    /// Gives memory back if more than `bytes` are reserved. The values are removed.
    #[inline]
    pub fn shrink(&mut self, bytes: usize) {
        self.clear();
        if self.bytes.capacity() > bytes {
            self.bytes.shrink_to(bytes);
        }
    }

    /// Adds null.
    #[inline]
    pub fn null(&mut self) {
        self.next().push(Marker::Null.to_u8());
    }

    /// Adds a boolean.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        write_bool(self.next(), value);
    }

    /// Adds a whole number.
    #[inline]
    pub fn int(&mut self, value: i64) {
        write_int(self.next(), value);
    }

    /// Adds a whole number that is not negative.
    #[inline]
    pub fn uint(&mut self, value: u64) {
        write_uint(self.next(), value);
    }

    /// Adds a number with a fraction.
    #[inline]
    pub fn float(&mut self, value: f64) {
        write_float(self.next(), value);
    }

    /// Adds text.
    #[inline]
    pub fn text(&mut self, value: &str) {
        write_text(self.next(), value);
    }

    /// Adds a value of any kind.
    pub fn value(&mut self, value: &Value) {
        write_value(self.next(), value);
    }

    /// Adds all of `values`.
    pub fn values<'a>(&mut self, values: impl IntoIterator<Item = &'a Value>) {
        values.into_iter().for_each(|value| self.value(value));
    }

    #[inline]
    fn next(&mut self) -> &mut Vec<u8> {
        self.n += 1;
        &mut self.bytes
    }
}

const IN_MEMORY: &str = "writing to memory does not fail";

#[inline]
fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

#[inline]
fn write_int(out: &mut Vec<u8>, value: i64) {
    rmp::encode::write_sint(out, value).expect(IN_MEMORY);
}

#[inline]
fn write_uint(out: &mut Vec<u8>, value: u64) {
    rmp::encode::write_uint(out, value).expect(IN_MEMORY);
}

#[inline]
fn write_float(out: &mut Vec<u8>, value: f64) {
    rmp::encode::write_f64(out, value).expect(IN_MEMORY);
}

#[inline]
fn write_text(out: &mut Vec<u8>, value: &str) {
    rmp::encode::write_str(out, value).expect(IN_MEMORY);
}

/// Number of elements for the encoding, which knows no longer list.
fn length(n: usize) -> u32 {
    u32::try_from(n).expect("a list in memory has less than four billion elements")
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(Marker::Null.to_u8()),
        Value::Bool(value) => write_bool(out, *value),
        Value::Int(value) => write_int(out, *value),
        Value::UInt(value) => write_uint(out, *value),
        Value::BigInt(digits) => rmp::encode::write_bin(out, digits.as_bytes()).expect(IN_MEMORY),
        Value::Float(value) => write_float(out, *value),
        Value::Text(text) => write_text(out, text),
        Value::List(values) => {
            rmp::encode::write_array_len(out, length(values.len())).expect(IN_MEMORY);
            values.iter().for_each(|value| write_value(out, value));
        }
        Value::Map(values) => {
            rmp::encode::write_map_len(out, length(values.len())).expect(IN_MEMORY);
            for (key, value) in values {
                write_text(out, key);
                write_value(out, value);
            }
        }
    }
}

/// Writes the head of a list of `n` values; their encoding follows.
pub fn write_list_head(out: &mut Vec<u8>, n: usize) {
    rmp::encode::write_array_len(out, length(n)).expect(IN_MEMORY);
}

/// Encoded values, which are known to be well-formed.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    n: usize,
    bytes: &'a [u8],
}

/// A value where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number up to `i64::MAX`.
    Int(i64),
    /// A whole number above `i64::MAX`.
    UInt(u64),
    /// A whole number of more than 64 bits, as decimal digits.
    BigInt(&'a str),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// A list.
    List(Elements<'a>),
    /// A map.
    Map(Elements<'a>),
}

/// Encoded elements of a list or of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elements<'a> {
    n: usize,
    bytes: &'a [u8],
}

const CHECKED: &str = "encoded values were checked when they were received, or are our own";

/// Reads the value at the front of `bytes`, which is well-formed, and removes it.
#[inline]
fn read<'a>(bytes: &mut &'a [u8]) -> ValueRef<'a> {
    match head(bytes).expect(CHECKED) {
        Head::Null => ValueRef::Null,
        Head::Bool(value) => ValueRef::Bool(value),
        Head::Int(value) => ValueRef::Int(value),
        Head::UInt(value) => ValueRef::UInt(value),
        Head::Float(value) => ValueRef::Float(value),
        Head::Text(text) => ValueRef::Text(str::from_utf8(text).expect(CHECKED)),
        Head::Digits(digits) => ValueRef::BigInt(str::from_utf8(digits).expect(CHECKED)),
        Head::List(n) => ValueRef::List(Elements { n, bytes: split(bytes, n) }),
        Head::Map(n) => ValueRef::Map(Elements { n, bytes: split(bytes, 2 * n) }),
    }
}

/// Returns the bytes of the next `n` values, and removes them.
fn split<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let all = *bytes;
    skip(bytes, n).expect(CHECKED);
    &all[..all.len() - bytes.len()]
}

impl<'a> Encoded<'a> {
    /// Number of values.
    #[inline]
    pub fn len(self) -> usize {
        self.n
    }

    /// Returns whether there are none.
    pub fn is_empty(self) -> bool {
        self.n == 0
    }

    /// Returns their bytes: one value after the other.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the value at a position.
    #[inline]
    pub fn get(self, position: usize) -> Option<ValueRef<'a>> {
        if position >= self.n {
            return None;
        }
        let mut bytes = self.bytes;
        skip(&mut bytes, position).expect(CHECKED);
        Some(read(&mut bytes))
    }

    /// Returns all values in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = ValueRef<'a>> {
        let mut bytes = self.bytes;
        (0..self.n).map(move |_| read(&mut bytes))
    }

    /// Returns copies of all values.
    pub fn to_values(self) -> Vec<Value> {
        self.iter().map(ValueRef::to_value).collect()
    }

    /// Splits `n` values off the front of `bytes`, which may come from anywhere, with lists and maps nested
    /// at most `depth` deep.
    ///
    /// # Errors
    /// [`Malformed`]; `bytes` are then at some place within the values.
    pub fn split_checked(bytes: &mut &'a [u8], n: usize, depth: usize) -> Result<Self, Malformed> {
        let all = *bytes;
        (0..n).try_for_each(|_| check(bytes, depth))?;
        Ok(Self { n, bytes: &all[..all.len() - bytes.len()] })
    }

    /// Splits the head of a list off the front of `bytes`; its elements follow. Returns their number, or
    /// `None` if there is another value.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn split_list_head(bytes: &mut &'a [u8]) -> Result<Option<usize>, Malformed> {
        match head(bytes)? {
            Head::List(n) => Ok(Some(n)),
            _ => Ok(None),
        }
    }

    /// The `n` values in `bytes`, which are a copy of what [`split_checked`](Self::split_checked) or a
    /// [`ValueWriter`] has returned. Reading others panics.
    #[inline]
    pub fn checked_before(n: usize, bytes: &'a [u8]) -> Self {
        Self { n, bytes }
    }
}

impl ValueRef<'_> {
    /// Returns a copy of the value.
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::UInt(value) => Value::UInt(value),
            Self::BigInt(digits) => Value::BigInt(digits.into()),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::List(Elements { n, mut bytes }) => {
                Value::List((0..n).map(|_| read(&mut bytes).to_value()).collect())
            }
            Self::Map(Elements { n, mut bytes }) => {
                let entry = |_| {
                    let Head::Text(key) = head(&mut bytes).expect(CHECKED) else { unreachable!("{CHECKED}") };
                    let key = str::from_utf8(key).expect(CHECKED).to_owned();
                    (key, read(&mut bytes).to_value())
                };
                // The last of two equal keys counts.
                Value::Map((0..n).map(entry).collect())
            }
        }
    }
}
