//! What a nimbus is told about metrics.

use std::{sync::Arc, time::Duration};

use crate::{
    archive::Retention,
    plugin::{self, MetricUploader},
};

/// How a nimbus keeps metrics and sends them on.
#[derive(Debug, Clone)]
pub struct MetricOptions {
    /// How long history is kept.
    pub retention: Retention,
    /// The most names of one topology.
    pub names_per_topology_max: usize,
    /// The most minutes of one topology that wait for external stores.
    pub pending_per_topology_max: usize,
    /// The most bytes that wait for external stores.
    pub pending_bytes_max: u64,
    /// How long after its end a minute is sent.
    pub close_delay: Duration,
    /// How long a new leader waits for a nimbus that has metrics which were safe and which it
    /// lacks, before it goes on without them.
    pub takeover_grace: Duration,
    /// The share of values that go into a histogram's buckets where a topology does not say.
    pub sample_rate: f64,
    /// The plugins that are asked for by name.
    pub plugins: plugin::Options,
    /// Uploaders besides those: of programs that use this crate as a library.
    pub more_uploaders: Vec<Arc<dyn MetricUploader>>,
    /// How often things are done.
    pub pace: Pace,
}

/// How often things are done. Another one than the default is for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The archive that could not be opened is tried again.
    pub open: Duration,
    /// A follower that has all asks the leader for more.
    pub pull_idle: Duration,
    /// A follower that knows of more asks for it.
    pub pull_busy: Duration,
    /// A new leader that waits for others asks them again.
    pub takeover: Duration,
    /// The leader writes up to where the log is safe at most so often.
    pub mark: Duration,
    /// The leader writes count and digest of metas that changed.
    pub flush: Duration,
    /// After a look at the topologies: what changed until then is told together.
    pub gather: Duration,
    /// A follower compares them with its own.
    pub check: Duration,
    /// An uploader that could not be started, or refused something, is left alone.
    pub upload_pause: Duration,
    /// What waits for a time of day looks at the clock at least this often: it may be set.
    pub clock: Duration,
    /// How long a call of an uploader may take, besides uploads.
    pub upload_call: Duration,
    /// How long one upload may take.
    pub upload: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(60),
            pull_idle: Duration::from_secs(5),
            pull_busy: Duration::from_secs(2),
            takeover: Duration::from_secs(2),
            mark: Duration::from_secs(1),
            flush: Duration::from_secs(15),
            // After a change, others often follow at once: of each task that beats, for one.
            gather: Duration::from_secs(1),
            check: Duration::from_secs(60),
            clock: Duration::from_secs(60),
            upload_pause: Duration::from_secs(5),
            upload_call: Duration::from_secs(30),
            upload: Duration::from_secs(120),
        }
    }
}
