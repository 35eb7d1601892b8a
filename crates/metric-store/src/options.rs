//! Options of the metric store.

use std::time::Duration;

use super::Medium;
use stormkeeper_metrics::{MetricId, Window};
use stormkeeper_model::clock::Clock;

/// Options of the metric store. Those that an operator can set have their defaults in the table of
/// configuration keys only.
#[derive(Debug, Clone)]
pub struct Options {
    /// Medium of the database.
    pub medium: Medium,
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

impl Retention {
    /// Retention of a test, shorter for two hours and a day than that of a nimbus.
    #[cfg(any(test, feature = "test-support"))]
    pub const fn of_test() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        let [m1, m10, h2, d1] = [2, 7, 30, 365];
        Self {
            m1: Duration::from_secs(m1 * DAY),
            m10: Duration::from_secs(m10 * DAY),
            h2: Duration::from_secs(h2 * DAY),
            d1: Duration::from_secs(d1 * DAY),
        }
    }

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

impl Options {
    /// Size to which the log of a nimbus is truncated: a follower that was away for less catches up
    /// without a checkpoint.
    pub const LOG_BYTES_MAX: u64 = 512 << 20;

    /// Age to which the log of a nimbus is truncated.
    pub const LOG_AGE_MAX: Duration = Duration::from_secs(6 * 60 * 60);

    /// Size of the block cache of a nimbus.
    pub const CACHE_BYTES: usize = 128 << 20;

    /// Options of a test: no exporters, and limits that a test can reach.
    #[cfg(any(test, feature = "test-support"))]
    pub fn of_test(clock: Clock) -> Self {
        Self {
            medium: Medium::Disk,
            clock,
            retention: Retention::of_test(),
            names_per_topology_max: 200_000,
            log_bytes_max: Self::LOG_BYTES_MAX,
            log_age_max: Self::LOG_AGE_MAX,
            exporters: Vec::new(),
            lease_timeout: Duration::from_secs(120),
            nack_pause: Duration::from_secs(5),
            pending_per_topology_max: 200,
            pending_bytes_max: 1 << 30,
            cache_bytes: Self::CACHE_BYTES,
            id_of: MetricId::of,
        }
    }
}
