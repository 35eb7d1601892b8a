//! Metric switches that can be changed while a topology runs.

use std::collections::BTreeSet;

use super::{MetricName, builtin};

/// Default share of values that a histogram sorts into buckets.
pub const SAMPLE_RATE: f64 = 0.1;

/// Switches of all metrics of a process. Names are short names, such as `EmitTime`.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// False if nothing is measured: `topology.enable.metrics`.
    pub on: bool,
    /// Metrics that are measured although disabled: `topology.enabled.metric.names`.
    pub enabled: BTreeSet<String>,
    /// Metrics that are not measured: `topology.disabled.metric.names`.
    pub disabled: BTreeSet<String>,
    /// Share of values that go into buckets, 0 to 1: `topology.metric.sample.rate`.
    pub sample_rate: f64,
    /// Metrics that every report writes to the log: `topology.debug.metric.names`, when
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
    /// Returns whether the metric is measured. A name in `enabled` overrides `disabled` and the
    /// metric's default.
    pub fn measures(&self, name: &MetricName) -> bool {
        let short = name.short_name();
        self.on
            && (self.enabled.contains(short)
                || !(self.disabled.contains(short) || builtin::is_off_by_default(name)))
    }

    /// Returns whether the metric's points are written to the log.
    pub fn debugs(&self, name: &MetricName) -> bool {
        self.debug.contains(name.short_name())
    }
}
