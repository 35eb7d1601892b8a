//! What a supervisor is told by its configuration.

use std::{path::PathBuf, time::Duration};

use crate::{cluster::record::Resources, model::Port};

/// Settings of a supervisor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its id, its ledger, localized blobs, workers' directories and logs live.
    pub local_dir: PathBuf,
    /// The host that its workers are reached at.
    pub host: String,
    /// Its slots.
    pub ports: Vec<Port>,
    /// What it offers to workers.
    pub resources: Resources,
    /// How long a worker may take from its launch to its first heartbeat.
    pub worker_start_timeout: Duration,
    /// How long a running worker may be silent before it is killed and started again.
    pub worker_timeout: Duration,
    /// How long a worker has between SIGTERM and SIGKILL.
    pub worker_shutdown_grace: Duration,
    /// How long a blob that no slot uses stays on disk.
    pub unused_blob_retention: Duration,
    /// How often everything is looked at again, should an event have been lost.
    pub reconcile_period: Duration,
}
