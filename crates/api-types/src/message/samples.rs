//! Samples of the tuples of a running topology.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{
    ComponentId, Timestamp,
    tuple_samples::{TupleSample, TupleSamples},
};

/// `POST /api/stormkeeper/v1/topology/{id or name}/samples`: lets the workers write a share of the
/// tuples that a component receives and emits into their file `worker.samples`, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SampleRequest {
    /// The component.
    pub component: ComponentId,
    /// Each task shows its first tuple and then one of so many; 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_in: Option<u32>,
    /// Maximum number of tuples that each worker shows in a second: 10 if absent, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_sec: Option<u32>,
    /// Time after which the sample ends: 60 s if absent, at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_secs: Option<u64>,
    /// True to end the sample of the component; the request has no other options then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// Samples that have not ended, by component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleList {
    /// The samples.
    pub components: BTreeMap<ComponentId, SampleView>,
}

/// Sample of the tuples of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleView {
    /// Each task shows one of so many tuples.
    pub one_in: u32,
    /// Maximum number of tuples that each worker shows in a second.
    pub per_sec: u32,
    /// End of the sample, which is in each of its lines too.
    pub until_ms: Timestamp,
}

impl From<TupleSample> for SampleView {
    fn from(TupleSample { one_in, per_sec, until, .. }: TupleSample) -> Self {
        Self { one_in, per_sec, until_ms: until }
    }
}

impl From<TupleSamples> for SampleList {
    fn from(TupleSamples(samples): TupleSamples) -> Self {
        Self {
            components: samples.into_iter().map(|(component, sample)| (component, sample.into())).collect(),
        }
    }
}
