//! Values of an emit.

use super::EmitError;
use crate::limits::VALUE_DEPTH_MAX;
use stormkeeper_stream::{Encoded, Value, ValueWriter};

/// Values of a tuple that is being emitted, in the order of the declared fields.
#[derive(Debug, Default)]
pub struct Values {
    encoded: ValueWriter,
    is_too_deep: bool,
}

impl Values {
    /// Adds the value of the next field.
    pub fn push(&mut self, value: impl EmitValue) {
        value.write_to(self);
    }

    /// Encodes the values of one emit. The memory of earlier ones is used again.
    ///
    /// # Errors
    /// [`EmitError::TooDeep`], as for messages of commands: no frame may be nested deeper.
    pub(super) fn write(&mut self, emitted: impl EmitValues) -> Result<(), EmitError> {
        self.encoded.shrink(KEPT_BYTES);
        self.is_too_deep = false;
        emitted.write_to(self);
        if self.is_too_deep { Err(EmitError::TooDeep) } else { Ok(()) }
    }

    pub(super) fn encoded(&self) -> Encoded<'_> {
        self.encoded.encoded()
    }
}

/// Memory that is kept for the values of the next emit.
const KEPT_BYTES: usize = 64 << 10;

/// A value that can be emitted.
pub trait EmitValue {
    /// Adds the value.
    fn write_to(self, values: &mut Values);
}

impl EmitValue for &str {
    fn write_to(self, values: &mut Values) {
        values.encoded.text(self);
    }
}

impl EmitValue for String {
    fn write_to(self, values: &mut Values) {
        values.encoded.text(&self);
    }
}

impl EmitValue for &String {
    fn write_to(self, values: &mut Values) {
        values.encoded.text(self);
    }
}

impl EmitValue for &Value {
    fn write_to(self, values: &mut Values) {
        match is_nested_at_most(self, VALUE_DEPTH_MAX) {
            true => values.encoded.value(self),
            false => values.is_too_deep = true,
        }
    }
}

impl EmitValue for Value {
    fn write_to(self, values: &mut Values) {
        (&self).write_to(values);
    }
}

/// A list.
impl EmitValue for Vec<Value> {
    fn write_to(self, values: &mut Values) {
        Value::List(self).write_to(values);
    }
}

/// Null if there is none.
impl<V: EmitValue> EmitValue for Option<V> {
    fn write_to(self, values: &mut Values) {
        match self {
            Some(value) => value.write_to(values),
            None => values.encoded.null(),
        }
    }
}

macro_rules! numbers {
    ($($method:ident: $($number:ty)+;)+) => {$($(
        impl EmitValue for $number {
            fn write_to(self, values: &mut Values) {
                values.encoded.$method(self.into());
            }
        }
    )+)+};
}

numbers! {
    bool: bool;
    int: i8 i16 i32 i64;
    uint: u8 u16 u32 u64;
    float: f32 f64;
}

/// Values that can be emitted: a tuple such as `(word, 1)`, an array, or a list of [`Value`]s.
pub trait EmitValues {
    /// Adds the values, in the order of the fields.
    fn write_to(self, values: &mut Values);
}

impl EmitValues for Vec<Value> {
    fn write_to(self, values: &mut Values) {
        self.iter().for_each(|value| values.push(value));
    }
}

impl EmitValues for &[Value] {
    fn write_to(self, values: &mut Values) {
        self.iter().for_each(|value| values.push(value));
    }
}

impl<V: EmitValue, const N: usize> EmitValues for [V; N] {
    fn write_to(self, values: &mut Values) {
        self.into_iter().for_each(|value| values.push(value));
    }
}

impl EmitValues for () {
    fn write_to(self, _: &mut Values) {}
}

macro_rules! tuples {
    ($($($value:ident)+;)+) => {$(
        impl<$($value: EmitValue),+> EmitValues for ($($value,)+) {
            fn write_to(self, values: &mut Values) {
                #[expect(non_snake_case, reason = "named as their types")]
                let ($($value,)+) = self;
                $(values.push($value);)+
            }
        }
    )+};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}

/// Returns whether lists and maps are nested at most `depth` deep; looks no deeper.
fn is_nested_at_most(value: &Value, depth: usize) -> bool {
    match value {
        Value::List(values) => depth > 0 && values.iter().all(|value| is_nested_at_most(value, depth - 1)),
        Value::Map(values) => depth > 0 && values.values().all(|value| is_nested_at_most(value, depth - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(emitted: impl EmitValues) -> Result<Vec<Value>, EmitError> {
        // Also after an emit before.
        let mut values = Values::default();
        values.write(("before", 1))?;
        values.write(emitted).map(|()| values.encoded().to_values())
    }

    #[test]
    fn values_keep_their_order_and_kind() {
        let expected = vec![Value::from("a"), Value::Int(1), Value::Bool(true), Value::Float(0.5)];
        let written = |emitted: Result<Vec<Value>, EmitError>| emitted.expect("shallow");
        assert_eq!(written(write(("a", 1, true, 0.5))), expected);
        assert_eq!(written(write(expected.clone())), expected);
        assert_eq!(written(write(&expected[..])), expected);
        assert_eq!(written(write(["a", "b"])), [Value::from("a"), Value::from("b")]);
        assert_eq!(written(write(())), []);
        assert_eq!(
            written(write((u64::MAX, vec![Value::Null], None::<i64>, Some("x")))),
            [Value::UInt(u64::MAX), Value::List(vec![Value::Null]), Value::Null, Value::from("x")]
        );
    }

    #[test]
    fn values_that_no_frame_carries_are_refused() {
        let nested = |depth| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
        assert!(write((nested(VALUE_DEPTH_MAX),)).is_ok());
        let error = write((1, nested(VALUE_DEPTH_MAX + 1))).expect_err("too deep").to_string();
        assert!(error.contains("nested more than"), "{error}");
    }
}
