//! Bodies of writes.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use stormkeeper_model::{ComponentId, TopologyId};

/// Answer to activate, deactivate, rebalance, kill and submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormOperation")]
pub struct Operation {
    topology_operation: String,
    topology_id: TopologyId,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Operation {
    /// Returns the answer to an operation that was accepted.
    pub fn accepted(operation: impl Into<String>, id: TopologyId) -> Self {
        Self {
            topology_operation: operation.into(),
            topology_id: id,
            status: "success",
            warnings: Vec::new(),
        }
    }

    /// Adds warnings, which Storm does not have.
    pub fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

/// Body of a rebalance. All of it is optional; fields that are unknown are ignored, as in Storm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormRebalance")]
pub struct Rebalance {
    #[serde(default)]
    rebalance_options: Option<Options>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormOptions")]
struct Options {
    #[serde(default)]
    num_workers: Option<Number>,
    #[serde(default)]
    executors: Option<BTreeMap<ComponentId, Number>>,
}

impl Rebalance {
    /// Returns the wanted number of workers.
    pub fn workers(&self) -> Option<u32> {
        Some(self.rebalance_options.as_ref()?.num_workers?.0)
    }

    /// Returns the wanted number of tasks of each component.
    pub fn parallelism(&self) -> BTreeMap<ComponentId, u32> {
        let executors = self.rebalance_options.iter().filter_map(|options| options.executors.as_ref());
        executors.flatten().map(|(component, Number(n))| (component.clone(), *n)).collect()
    }
}

/// Whole number, or a text of digits, as Storm's own page sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number(u32);

impl JsonSchema for Number {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StormNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                { "type": "string", "pattern": "^[0-9]{1,10}$" },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a text of digits")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                let unfit = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(Number).map_err(|_| unfit())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let unfit = |_| E::invalid_value(de::Unexpected::Str(text), &self);
                text.trim().parse().map(Number).map_err(unfit)
            }
        }
        from.deserialize_any(Digits)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rebalance_takes_numbers_and_texts_of_digits() {
        let body = json!({
            "rebalanceOptions": {"numWorkers": 2, "executors": {"spout": "5", "count": 3}, "later": true},
            "callback": "foo",
        });
        let rebalance: Rebalance = serde_json::from_value(body).expect("a rebalance");
        let id = |text: &str| -> ComponentId { text.parse().expect("valid") };
        assert_eq!(rebalance.workers(), Some(2));
        assert_eq!(rebalance.parallelism(), [(id("count"), 3), (id("spout"), 5)].into());
        for nothing in [json!({}), json!({"rebalanceOptions": null}), json!({"rebalanceOptions": {}})] {
            let rebalance: Rebalance = serde_json::from_value(nothing).expect("a rebalance");
            assert_eq!((rebalance.workers(), rebalance.parallelism().len()), (None, 0));
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bad in [json!(-1), json!(1.5), json!("x"), json!(""), json!(5_000_000_000_u64), json!([])] {
            let body = json!({"rebalanceOptions": {"numWorkers": bad}});
            let error = serde_json::from_value::<Rebalance>(body).expect_err("no number").to_string();
            assert!(error.contains("expected a whole number, or a text of digits"), "{bad}: {error}");
        }
    }

    #[test]
    fn operation_is_answered_as_storm_does() {
        let answer = Operation::accepted("kill", "wc-1-2".parse().expect("valid"));
        let mut expected = json!({"topologyOperation": "kill", "topologyId": "wc-1-2", "status": "success"});
        assert_eq!(serde_json::to_value(&answer).expect("JSON"), expected);
        expected["warnings"] = json!(["a"]);
        assert_eq!(serde_json::to_value(answer.with_warnings(vec!["a".to_owned()])).expect("JSON"), expected);
    }
}
