//! Options of the metrics service.

use std::time::Duration;

use crate::export::exporters;
use stormkeeper_metric_store::{Medium, Retention};
use stormkeeper_runtime::proc;

/// Options for the storage, replication and export of metrics on a nimbus.
#[derive(Debug, Clone)]
pub struct MetricOptions {
    /// Medium of the metric store and of its checkpoints.
    pub medium: Medium,
    /// Reads the resource usage of this process; a simulation replaces it.
    pub usage: fn() -> Option<proc::Usage>,
    /// Retention of the history.
    pub retention: Retention,
    /// Maximum number of metric names of one topology.
    pub names_per_topology_max: usize,
    /// Maximum number of minutes of one topology that wait for external stores.
    pub pending_per_topology_max: usize,
    /// Maximum number of bytes that wait for external stores.
    pub pending_bytes_max: u64,
    /// Delay after the end of a minute before the minute is exported.
    pub close_delay: Duration,
    /// Longest time that a new leader waits for a replica with committed entries that the leader is
    /// missing, before an unclean takeover.
    pub takeover_grace: Duration,
    /// Share of values that enter a histogram's buckets, unless a topology sets its own.
    pub sample_rate: f64,
    /// Plugins that the configuration names.
    pub exporters: exporters::ExporterOptions,
    /// Intervals, pauses and timeouts.
    pub intervals: Intervals,
}

/// Intervals, pauses and timeouts of the metrics service. Only tests change the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Pause before a metric store that could not be opened is opened again.
    pub reopen: Duration,
    /// Pause of a follower that has every entry, before it fetches from the leader again.
    pub fetch_idle: Duration,
    /// Pause of a follower that is missing entries of the leader.
    pub fetch_lagging: Duration,
    /// Pause of a new leader before it polls the other nimbuses again.
    pub takeover_poll: Duration,
    /// Minimum interval between two publications of the high watermark.
    pub publish_high_watermark: Duration,
    /// Interval at which the leader publishes changed metric-meta fingerprints.
    pub publish_metas: Duration,
    /// Pause after the history was recorded: changes until then are recorded together.
    pub record_pause: Duration,
    /// Interval at which a follower compares its metas with the leader's fingerprints.
    pub check_metas: Duration,
    /// Pause of an exporter that could not be started, or that failed.
    pub export_pause: Duration,
    /// Longest wait for a time of day, as the clock may be set.
    pub clock_check: Duration,
    /// Timeout of a call of an exporter, except for exports.
    pub exporter_call: Duration,
    /// Timeout of one export.
    pub export_timeout: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            reopen: Duration::from_secs(60),
            fetch_idle: Duration::from_secs(5),
            fetch_lagging: Duration::from_secs(2),
            takeover_poll: Duration::from_secs(2),
            publish_high_watermark: Duration::from_secs(1),
            publish_metas: Duration::from_secs(15),
            // One change is often followed by others at once, such as the heartbeats of all tasks.
            record_pause: Duration::from_secs(1),
            check_metas: Duration::from_secs(60),
            clock_check: Duration::from_secs(60),
            export_pause: Duration::from_secs(5),
            exporter_call: Duration::from_secs(30),
            export_timeout: Duration::from_secs(120),
        }
    }
}

#[cfg(any(test, feature = "test-support"))]
impl MetricOptions {
    /// Options of a test: no exporters, small bounds.
    pub fn of_test() -> Self {
        Self {
            medium: Medium::Disk,
            usage: proc::of_this_process,
            retention: Retention::of_test(),
            names_per_topology_max: 100_000,
            pending_per_topology_max: 100,
            pending_bytes_max: 1 << 30,
            close_delay: Duration::from_secs(20),
            takeover_grace: Duration::from_secs(600),
            sample_rate: 0.1,
            exporters: exporters::ExporterOptions {
                exporters: "none".to_owned(),
                ..exporters::ExporterOptions::of_test()
            },
            intervals: Intervals::default(),
        }
    }
}
