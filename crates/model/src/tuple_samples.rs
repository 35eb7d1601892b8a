//! Samples of the tuples of running components, which operators ask for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ComponentId, Timestamp};

/// Name of the file in the directory of a worker's logs that has the tuples of its samples, one a line.
/// Its older parts have the suffix `.1` and so on.
pub const SAMPLES_FILE: &str = "worker.samples";

/// Sample of the tuples that a component receives and emits. It ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TupleSample {
    /// Each task shows its first tuple and then one of so many, of what it receives and of what it emits.
    pub one_in: u32,
    /// Maximum number of tuples that each worker shows in a second, of all components together.
    pub per_sec: u32,
    /// Time for which a worker shows tuples once it has read this, by its own clock.
    pub for_secs: u64,
    /// End, by the clock of the leader that accepted it.
    #[serde(rename = "until_ms")]
    pub until: Timestamp,
}

/// Samples of the components of a topology.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TupleSamples(pub BTreeMap<ComponentId, TupleSample>);

impl TupleSamples {
    /// Returns the samples that have not ended at `now`.
    pub fn at(&self, now: Timestamp) -> Self {
        let lasts = |(_, sample): &(&ComponentId, &TupleSample)| sample.until > now;
        Self(self.0.iter().filter(lasts).map(|(component, sample)| (component.clone(), *sample)).collect())
    }

    /// Returns the time at which the first sample ends.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.0.values().map(|sample| sample.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_ends_at_its_time() {
        let sample = |millis| TupleSample {
            one_in: 100,
            per_sec: 20,
            for_secs: 60,
            until: Timestamp::from_millis(millis),
        };
        let id = |text: &str| text.parse::<ComponentId>().expect("valid");
        let samples = TupleSamples([(id("split"), sample(10)), (id("count"), sample(20))].into());
        assert_eq!(samples.next_end(), Some(Timestamp::from_millis(10)));
        assert_eq!(samples.at(Timestamp::from_millis(9)), samples);
        let later = samples.at(Timestamp::from_millis(10));
        assert_eq!(later, TupleSamples([(id("count"), sample(20))].into()));
        assert_eq!(later.at(Timestamp::from_millis(20)).next_end(), None);
    }
}
