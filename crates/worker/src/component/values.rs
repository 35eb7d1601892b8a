//! Values of an emit.

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

/// What can be emitted: a tuple of Rust values such as `(word, 1)`, an array, or a list of [`Value`]s.
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
pub(super) fn collect<V: EmitValues>(emitted: V) -> Vec<Value> {
    let mut values = Values(Vec::with_capacity(V::COUNT));
    emitted.write_to(&mut values);
    values.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_and_kind() {
        let expected = vec![Value::from("a"), Value::Int(1), Value::Bool(true), Value::Float(0.5)];
        assert_eq!(collect(("a", 1, true, 0.5)), expected);
        assert_eq!(collect(expected.clone()), expected);
        assert_eq!(collect(["a", "b"]), [Value::from("a"), Value::from("b")]);
        assert_eq!(collect(()), []);
        assert_eq!(
            collect((u64::MAX, vec![Value::Null])),
            [Value::UInt(u64::MAX), Value::List(vec![Value::Null])]
        );
    }
}
