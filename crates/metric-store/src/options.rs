//! What can be set.

use std::time::Duration;

use stormkeeper_metrics::{MetricId, Window};
use stormkeeper_model::clock::Clock;

/// How the archive works.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the time is.
    pub clock: Clock,
    /// How long history is kept.
    pub retention: Retention,
    /// The most names of one topology.
    pub names_per_topology_max: usize,
    /// The log is trimmed to about so many bytes.
    pub log_bytes_max: u64,
    /// The log is trimmed to about this age.
    pub log_age_max: Duration,
    /// Who uploads; an entry of the queue is gone when all of them acknowledged it.
    pub uploaders: Vec<String>,
    /// How many entries one uploader may have at once.
    pub uploading_max: usize,
    /// How long an uploader may take for one.
    pub upload_timeout: Duration,
    /// How long an uploader is left alone after it refused; longer for an entry that it
    /// refused several times.
    pub upload_pause: Duration,
    /// The most entries of the queue of one topology; the oldest is dropped.
    pub pending_per_topology_max: usize,
    /// The most bytes that are to be uploaded, about; the oldest is dropped.
    pub pending_bytes_max: u64,
    /// How many bytes RocksDB may use for what it has read; about twice of it in all.
    pub cache_bytes: usize,
    /// Ids of names; a test gives one that collides.
    pub id_of: fn(&str, u32) -> MetricId,
}

/// How long buckets of each width are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Of one minute.
    pub m1: Duration,
    /// Of ten minutes.
    pub m10: Duration,
    /// Of two hours.
    pub h2: Duration,
    /// Of one day.
    pub d1: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Retention {
    /// For buckets of this window.
    pub const fn of(&self, window: Window) -> Duration {
        match window {
            Window::M1 => self.m1,
            Window::M10 => self.m10,
            Window::H2 => self.h2,
            Window::D1 => self.d1,
        }
    }

    /// For buckets of this window, in minutes.
    pub fn minutes(&self, window: Window) -> u32 {
        u32::try_from(self.of(window).as_secs() / 60).unwrap_or(u32::MAX)
    }

    /// The longest of them: after that nothing of a metric is left.
    pub fn longest_minutes(&self) -> u32 {
        Window::ALL.into_iter().map(|window| self.minutes(window)).max().unwrap_or_default()
    }
}

impl Default for Retention {
    /// Minutes for more than a day, so that a day can be shown by the minute; days for a year.
    fn default() -> Self {
        Self { m1: 2 * DAY, m10: 7 * DAY, h2: 30 * DAY, d1: 365 * DAY }
    }
}

impl Options {
    /// What is usual.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            retention: Retention::default(),
            names_per_topology_max: 200_000,
            // A follower that was away for less than this catches up without a checkpoint.
            log_bytes_max: 512 << 20,
            log_age_max: Duration::from_secs(6 * 60 * 60),
            uploaders: Vec::new(),
            uploading_max: 4,
            upload_timeout: Duration::from_secs(120),
            upload_pause: Duration::from_secs(5),
            // JStorm's `topology.max.pending.metric.num`.
            pending_per_topology_max: 200,
            pending_bytes_max: 1 << 30,
            cache_bytes: 128 << 20,
            id_of: MetricId::of,
        }
    }
}
