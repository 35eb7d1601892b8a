//! Values for property tests.

use proptest::prelude::*;

use crate::Value;

/// Any value, also nested, with every kind of number.
pub fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-200i64..200).prop_map(Value::from),
        prop::num::f64::ZERO.prop_map(Value::from),
        (prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL).prop_map(Value::from),
        (-1000i32..1000).prop_map(|n| Value::from(f64::from(n))),
        any::<String>().prop_map(Value::from),
        "-?[1-9][0-9]{20,40}".prop_map(|digits| Value::BigInt(digits.into())),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::Map),
        ]
    })
}
