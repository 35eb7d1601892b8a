//! JSON objects in which a key occurs once.
//!
//! JSON leaves open what a repeated key means, and most readers take the last value: a value that was
//! written for a name would be lost without a word.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

/// Values by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique<K: Ord, V>(pub BTreeMap<K, V>);

impl<'de, K, V> Deserialize<'de> for Unique<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        map(deserializer).map(Self)
    }
}

/// Reads an object, for fields of requests.
///
/// # Errors
/// Errors of the values, and a key that occurs twice.
pub fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Reader(PhantomData))
}

struct Reader<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Reader<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(key) = object.next_key::<K>()? {
            if values.contains_key(&key) {
                return Err(A::Error::custom(format_args!("{TWICE}{key}")));
            }
            let value = object.next_value()?;
            values.insert(key, value);
        }
        Ok(values)
    }
}

/// Begin of the error of a repeated key.
const TWICE: &str = "there are two values for ";

/// Returns the key that an error names as repeated. The text of other errors may have a part of a value.
pub fn repeated(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let key = text.strip_prefix(TWICE)?;
    Some(key.strip_suffix(&place).unwrap_or(key).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CredentialsRequest, RebalanceRequest};

    #[test]
    fn repeated_key_is_refused_and_named_with_its_place() {
        let read = |text: &str| serde_json::from_str::<Unique<String, String>>(text);
        let Unique(values) = read(r#"{"b": "1", "a": "2"}"#).expect("valid");
        assert_eq!(values.into_keys().collect::<Vec<_>>(), ["a", "b"]);
        let error = read("{\"a\": \"1\",\n \"b\": \"2\", \"a\": \"3\"}").expect_err("twice");
        assert_eq!((repeated(&error).as_deref(), error.line()), (Some("a"), 2));
        let error = read(r#"{"a": ["s3cr3t"]}"#).expect_err("no text");
        assert_eq!(repeated(&error), None);
    }

    #[test]
    fn requests_of_people_with_a_repeated_key_are_refused() {
        let credentials = serde_json::from_str::<CredentialsRequest>(r#"{"set": {"a": "1", "a": "2"}}"#);
        let rebalance = serde_json::from_str::<RebalanceRequest>(r#"{"parallelism": {"a": 1, "a": 2}}"#);
        for error in [credentials.expect_err("twice"), rebalance.expect_err("twice")] {
            assert_eq!(repeated(&error).as_deref(), Some("a"), "{error}");
        }
        serde_json::from_str::<RebalanceRequest>(r#"{"parallelism": {"a": 1, "b": 2}}"#).expect("valid");
    }
}
