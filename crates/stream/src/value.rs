//! Values of a tuple.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};
use serde_json::value::RawValue;

/// A JSON-like value.
///
/// It reads back exactly from JSON and from MessagePack, with these rules:
///
/// - A number without fraction and exponent is whole; a float stays a float, also `1.0`.
/// - A whole number that fits neither `i64` nor `u64` is a [`Value::BigInt`], as of Python.
///   [`Value::from_json`] reads it from JSON; serde's own reader would round it to a float.
/// - JSON has no NaN and no infinity: they are written as `null`. MessagePack keeps them.
/// - A map is ordered by its keys; if a key occurs twice, the last value counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number up to `i64::MAX`.
    Int(i64),
    /// A whole number above `i64::MAX`. Smaller ones are [`Value::Int`]; `From<u64>` knows.
    UInt(u64),
    /// A whole number that fits neither `i64` nor `u64`, as decimal digits.
    BigInt(Box<str>),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by key.
    Map(BTreeMap<String, Value>),
}

/// Most elements reserved for a list from its announced length; a longer list grows as it is
/// read, so that a forged length costs nothing.
const MAX_RESERVED: usize = 1024;

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::UInt(value), Self::Int)
    }
}

macro_rules! from_smaller {
    ($($smaller:ty => $whole:ty),+) => {$(
        impl From<$smaller> for Value {
            fn from(value: $smaller) -> Self {
                <$whole>::from(value).into()
            }
        }
    )+};
}

from_smaller!(i8 => i64, i16 => i64, i32 => i64, u8 => u64, u16 => u64, u32 => u64, f32 => f64);

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Self::List(value)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            // JSON has no limit of numbers. MessagePack has one, and no other value is binary there.
            Self::BigInt(digits) if serializer.is_human_readable() => {
                RawValue::from_string(digits.to_string()).map_err(S::Error::custom)?.serialize(serializer)
            }
            Self::BigInt(digits) => serializer.serialize_bytes(digits.as_bytes()),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(values) => serializer.collect_map(values),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

impl Value {
    /// Reads a value from JSON without rounding whole numbers, whatever their size. Slower than serde's
    /// reader, so for JSON with such numbers only.
    ///
    /// # Errors
    /// If `json` is not JSON, or is nested as deep as serde's reader refuses.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        read_exactly(json, MAX_DEPTH)
    }
}

/// Deepest nesting of lists and maps that serde's reader accepts.
const MAX_DEPTH: usize = 127;

/// Reads a value that may be nested `depth` deep.
fn read_exactly(json: &str, depth: usize) -> Result<Value, serde_json::Error> {
    // White space of JSON only: the reader refuses other.
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    match json.as_bytes() {
        [b'[' | b'{', ..] if depth == 0 => Err(serde::de::Error::custom("recursion limit exceeded")),
        [b'[', ..] => {
            let values: Vec<&RawValue> = serde_json::from_str(json)?;
            let values = values.into_iter().map(|value| read_exactly(value.get(), depth - 1));
            values.collect::<Result<_, _>>().map(Value::List)
        }
        [b'{', ..] => {
            let entries: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
            let entries = entries.into_iter();
            let entries = entries.map(|(key, value)| Ok((key, read_exactly(value.get(), depth - 1)?)));
            entries.collect::<Result<_, _>>().map(Value::Map)
        }
        // A whole number, for which serde reads a float.
        b"-0" => Ok(Value::Int(0)),
        _ if is_big_int(json) => Ok(Value::BigInt(json.into())),
        _ => serde_json::from_str(json),
    }
}

/// Returns whether a JSON number is whole and fits neither `i64` nor `u64`.
pub(crate) fn is_big_int(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    is_whole && !digits.starts_with('0') && !is_short()
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, a text, a list or a map with text keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E: serde::de::Error>(self, digits: &[u8]) -> Result<Value, E> {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| is_big_int(digits));
        digits.map(|digits| Value::BigInt(digits.into())).ok_or_else(|| E::custom("binary data is no value"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_RESERVED));
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            values.insert(key, value);
        }
        Ok(Value::Map(values))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::any_value;

    fn from_json(text: &str) -> Value {
        serde_json::from_str(text).expect("valid JSON")
    }

    proptest! {
        #[test]
        fn every_value_reads_back_from_json(value in any_value()) {
            let text = serde_json::to_string(&value).expect("written");
            prop_assert_eq!(Value::from_json(&text).expect("read"), value, "{}", text);
        }

        #[test]
        fn every_value_reads_back_from_messagepack(value in any_value()) {
            let bytes = rmp_serde::to_vec(&value).expect("written");
            prop_assert_eq!(rmp_serde::from_slice::<Value>(&bytes).expect("read"), value);
        }
    }

    #[test]
    fn numbers_keep_their_kind() {
        let check = |text: &str, expected: Value| assert_eq!(from_json(text), expected, "{text}");
        check("1", Value::Int(1));
        check("1.0", Value::Float(1.0));
        check("1e2", Value::Float(100.0));
        check("-9223372036854775808", Value::Int(i64::MIN));
        check("9223372036854775807", Value::Int(i64::MAX));
        check("9223372036854775808", Value::UInt(1 << 63));
        check("18446744073709551615", Value::UInt(u64::MAX));
        check("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0));
        check("-9223372036854775809", Value::Float(-9_223_372_036_854_775_808.0));
        assert_eq!(serde_json::to_string(&Value::Float(1.0)).expect("written"), "1.0");
    }

    #[test]
    fn big_integers_are_not_rounded() {
        let json = r#"[18446744073709551616,{"a":-9223372036854775809},[1e30,18446744073709551615]]"#;
        let value = Value::from_json(json).expect("read");
        let big = |digits: &str| Value::BigInt(digits.into());
        let expected = [
            big("18446744073709551616"),
            Value::Map([("a".to_owned(), big("-9223372036854775809"))].into()),
            Value::List(vec![Value::Float(1e30), Value::UInt(u64::MAX)]),
        ];
        assert_eq!(value, Value::List(expected.to_vec()));
        assert_eq!(serde_json::to_string(&value).expect("written"), json.replace("1e30", "1e+30"));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // As deep as serde's reader goes.
        for (depth, is_read) in [(127, true), (128, false), (200_000, false)] {
            assert_eq!(Value::from_json(&nested(depth)).is_ok(), is_read, "{depth}");
            assert_eq!(serde_json::from_str::<Value>(&nested(depth)).is_ok(), is_read, "{depth}");
        }
        let digits = "7".repeat(5000);
        assert_eq!(
            Value::from_json(&format!(" [{digits}] ")).expect("read"),
            Value::List(vec![big(&digits)])
        );
        for not_json in ["", "[01]", "[1e400]", "{1:2}", "[1", "99999999999999999999 1"] {
            assert!(Value::from_json(not_json).is_err(), "{not_json}");
        }
        // Binary data of another kind is no value.
        assert!(rmp_serde::from_slice::<Value>(&[0xc4, 2, b'1', b'2']).is_err());
    }

    #[test]
    fn nan_and_infinity_become_null_in_json_only() {
        for float in [f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(serde_json::to_string(&Value::Float(float)).expect("written"), "null");
            let bytes = rmp_serde::to_vec(&Value::Float(float)).expect("written");
            assert_eq!(rmp_serde::from_slice::<Value>(&bytes).expect("read"), Value::Float(float));
        }
    }

    #[test]
    fn a_forged_length_reserves_nothing() {
        // An array of 4,294,967,295 elements that ends at once.
        let read = rmp_serde::from_slice::<Value>(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
        assert!(read.is_err());
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let expected = Value::Map([("a".to_owned(), Value::Int(2))].into());
        assert_eq!(from_json(r#"{"a":1,"a":2}"#), expected);
    }
}
