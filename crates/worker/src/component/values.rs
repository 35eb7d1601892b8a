//! Values of an emit.

use super::EmitError;
use crate::limits::VALUE_DEPTH_MAX;
use stormkeeper_stream::Value;

/// Values of a tuple that is being emitted, in the order of the declared fields.
#[derive(Debug, Default)]
pub struct Values(pub(super) Vec<Value>);

impl Values {
    /// Adds the value of the next field.
    pub fn push(&mut self, value: impl Into<Value>) {
        self.0.push(value.into());
    }
}

/// Values that can be emitted: a tuple such as `(word, 1)`, an array, or a list of [`Value`]s.
pub trait EmitValues {
    /// Number of values, if it is known before; a hint.
    const COUNT: usize = 0;

    /// Adds the values, in the order of the fields.
    fn write_to(self, values: &mut Values);
}

impl EmitValues for Vec<Value> {
    fn write_to(self, values: &mut Values) {
        if values.0.is_empty() {
            values.0 = self;
        } else {
            values.0.extend(self);
        }
    }
}

impl<V: Into<Value>, const N: usize> EmitValues for [V; N] {
    const COUNT: usize = N;

    fn write_to(self, values: &mut Values) {
        self.into_iter().for_each(|value| values.push(value));
    }
}

impl EmitValues for () {
    fn write_to(self, _: &mut Values) {}
}

macro_rules! tuples {
    ($($count:literal: $($value:ident)+;)+) => {$(
        impl<$($value: Into<Value>),+> EmitValues for ($($value,)+) {
            const COUNT: usize = $count;

            fn write_to(self, values: &mut Values) {
                #[expect(non_snake_case, reason = "named as their types")]
                let ($($value,)+) = self;
                $(values.push($value);)+
            }
        }
    )+};
}

tuples! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
}

/// Collects the values of one emit.
///
/// # Errors
/// [`EmitError::TooDeep`], as for messages of commands: no frame may be nested deeper.
pub(super) fn collect<V: EmitValues>(emitted: V) -> Result<Vec<Value>, EmitError> {
    let mut values = Values(Vec::with_capacity(V::COUNT));
    emitted.write_to(&mut values);
    match values.0.iter().all(|value| is_nested_at_most(value, VALUE_DEPTH_MAX)) {
        true => Ok(values.0),
        false => Err(EmitError::TooDeep),
    }
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

    #[test]
    fn values_keep_their_order_and_kind() {
        let expected = vec![Value::from("a"), Value::Int(1), Value::Bool(true), Value::Float(0.5)];
        let collect = |emitted: Result<Vec<Value>, EmitError>| emitted.expect("shallow");
        assert_eq!(collect(super::collect(("a", 1, true, 0.5))), expected);
        assert_eq!(collect(super::collect(expected.clone())), expected);
        assert_eq!(collect(super::collect(["a", "b"])), [Value::from("a"), Value::from("b")]);
        assert_eq!(collect(super::collect(())), []);
        assert_eq!(
            collect(super::collect((u64::MAX, vec![Value::Null]))),
            [Value::UInt(u64::MAX), Value::List(vec![Value::Null])]
        );
    }

    #[test]
    fn values_that_no_frame_carries_are_refused() {
        let nested = |depth| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
        assert!(collect((nested(VALUE_DEPTH_MAX),)).is_ok());
        let error = collect((1, nested(VALUE_DEPTH_MAX + 1))).expect_err("too deep").to_string();
        assert!(error.contains("nested more than"), "{error}");
    }
}
