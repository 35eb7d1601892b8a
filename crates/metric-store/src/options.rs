//! Options of the metric store.

use std::time::Duration;

use stormkeeper_metrics::{MetricId, Window};
use stormkeeper_model::clock::Clock;

/// Options of the metric store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Clock of this nimbus.
    pub clock: Clock,
    /// Retention of points.
    pub retention: Retention,
    /// Maximum number of names of one topology.
    pub names_per_topology_max: usize,
    /// Approximate size in bytes to which the log is truncated.
    pub log_bytes_max: u64,
    /// Approximate age to which the log is truncated.
    pub log_age_max: Duration,
    /// Exporters; an entry of the queue is removed when all of them acknowledged it.
    pub exporters: Vec<String>,
    /// Maximum number of leases of one exporter.
    pub leases_max: usize,
    /// Duration of a lease.
    pub lease_timeout: Duration,
    /// Pause of an exporter after a nack; longer for an entry that the exporter nacked several
    /// times.
    pub nack_pause: Duration,
    /// Maximum number of queue entries of one topology; beyond it the oldest is dropped.
    pub pending_per_topology_max: usize,
    /// Approximate maximum number of bytes to export; beyond it the oldest entry is dropped.
    pub pending_bytes_max: u64,
    /// Size of RocksDB's block cache in bytes; RocksDB uses about twice of it in all.
    pub cache_bytes: usize,
    /// Derives ids from names; a test replaces it to provoke collisions.
    pub id_of: fn(&str, u32) -> MetricId,
}

/// Retention of buckets, by width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Retention of one-minute buckets.
    pub m1: Duration,
    /// Retention of ten-minute buckets.
    pub m10: Duration,
    /// Retention of two-hour buckets.
    pub h2: Duration,
    /// Retention of one-day buckets.
    pub d1: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Retention {
    /// Returns the retention of buckets of this window.
    pub const fn of(&self, window: Window) -> Duration {
        match window {
            Window::M1 => self.m1,
            Window::M10 => self.m10,
            Window::H2 => self.h2,
            Window::D1 => self.d1,
        }
    }

    /// Returns the retention of buckets of this window, in minutes.
    pub fn minutes(&self, window: Window) -> u32 {
        u32::try_from(self.of(window).as_secs() / 60).unwrap_or(u32::MAX)
    }

    /// Returns the longest retention, after which all points of a metric have expired.
    pub fn longest_minutes(&self) -> u32 {
        Window::ALL.into_iter().map(|window| self.minutes(window)).max().unwrap_or_default()
    }
}

impl Default for Retention {
    /// One-minute buckets for more than a day, so that a day can be shown by the minute; days for a
    /// year.
    fn default() -> Self {
        Self { m1: 2 * DAY, m10: 7 * DAY, h2: 30 * DAY, d1: 365 * DAY }
    }
}

impl Options {
    /// Default options.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            retention: Retention::default(),
            names_per_topology_max: 200_000,
            // A follower that was away for less time than this catches up without a checkpoint.
            log_bytes_max: 512 << 20,
            log_age_max: Duration::from_secs(6 * 60 * 60),
            exporters: Vec::new(),
            leases_max: 4,
            lease_timeout: Duration::from_secs(120),
            nack_pause: Duration::from_secs(5),
            // JStorm's `topology.max.pending.metric.num`.
            pending_per_topology_max: 200,
            pending_bytes_max: 1 << 30,
            cache_bytes: 128 << 20,
            id_of: MetricId::of,
        }
    }
}
