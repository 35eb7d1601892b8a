//! What a nimbus is told by its configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use crate::nimbus::{
    blobs::copies::Replication,
    measure::{MetricOptions, Pace},
};

/// Settings of a nimbus replica.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its id and its blobs live.
    pub local_dir: PathBuf,
    /// The host that it is reached at.
    pub host: String,
    /// Where its API listens. Port 0 takes any free one.
    pub api: SocketAddr,
    /// How often it decides, should no event wake it.
    pub monitor_period: Duration,
    /// How long a task may be without a beat before it is dead.
    pub task_timeout: Duration,
    /// How long a task may take from its assignment to its first beat.
    pub task_launch: Duration,
    /// How long a supervisor may be gone before its tasks, if they are gone too, move.
    pub supervisor_timeout: Duration,
    /// How long a new leader moves nothing, so that supervisors and workers can come back
    /// after an outage: the session timeout and a margin.
    pub settle: Duration,
    /// The most tasks that one round moves away from a lost place.
    pub max_moves_per_round: usize,
    /// How long a nimbus that lacks blobs of live topologies leaves it to others to lead.
    pub candidate_grace: Duration,
    /// The largest blob accepted.
    pub max_blob_bytes: u64,
    /// How long a blob that no topology uses stays on disk.
    pub blob_retention: Duration,
    /// How many nimbuses must have a topology before it is accepted, where it does not say.
    pub replication: Replication,
    /// How long a kill or rebalance waits when neither operator nor topology says.
    pub message_timeout: Duration,
    /// How it keeps metrics; without it there are none.
    pub metrics: Option<MetricOptions>,
}

#[cfg(test)]
impl Options {
    /// A nimbus of a test: on a free port of the loopback, without metrics.
    pub(crate) fn of_test(local_dir: PathBuf) -> Self {
        Self {
            local_dir,
            host: "127.0.0.1".to_owned(),
            api: ([127, 0, 0, 1], 0).into(),
            monitor_period: Duration::from_secs(10),
            task_timeout: Duration::from_secs(30),
            task_launch: Duration::from_secs(120),
            supervisor_timeout: Duration::from_secs(30),
            settle: Duration::from_secs(15),
            max_moves_per_round: 100,
            candidate_grace: Duration::from_secs(30),
            max_blob_bytes: 20_000,
            blob_retention: Duration::from_secs(600),
            replication: Replication::default(),
            message_timeout: Duration::from_secs(30),
            metrics: None,
        }
    }
}
