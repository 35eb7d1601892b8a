//! What is measured and what is not, as it can be changed while a topology runs.

use std::collections::BTreeSet;

use super::{MetricName, builtin};

/// How many of its values a histogram sorts into buckets, when nobody says otherwise.
pub const SAMPLE_RATE: f64 = 0.1;

/// The switches of all metrics of a process. Names are short ones, such as `EmitTime`.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Whether anything is measured: `topology.enable.metrics`.
    pub on: bool,
    /// Measured although disabled: `topology.enabled.metric.names`.
    pub enabled: BTreeSet<String>,
    /// Not measured: `topology.disabled.metric.names`.
    pub disabled: BTreeSet<String>,
    /// The share of values in buckets, 0 to 1: `topology.metric.sample.rate`.
    pub sample_rate: f64,
    /// Written to the log at every cut: `topology.debug.metric.names`, when
    /// `topology.enable.metric.debug` is on.
    pub debug: BTreeSet<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            on: true,
            enabled: BTreeSet::new(),
            disabled: BTreeSet::new(),
            sample_rate: SAMPLE_RATE,
            debug: BTreeSet::new(),
        }
    }
}

impl Control {
    /// Whether the metric is measured. What is enabled by name is, also when it is disabled by
    /// name or by default.
    pub fn measures(&self, name: &MetricName) -> bool {
        let short = name.short_name();
        self.on
            && (self.enabled.contains(short)
                || !(self.disabled.contains(short) || builtin::is_off_by_default(name)))
    }

    /// Whether its points are written to the log.
    pub fn debugs(&self, name: &MetricName) -> bool {
        self.debug.contains(name.short_name())
    }
}
