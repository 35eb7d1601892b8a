//! Launch parameters of a worker, from its supervisor and from the program that it runs in.

use std::io;

use crate::{component::Components, limits::UNFINISHED_BYTES};
use stormkeeper_access::{file::WatchedFile, secret::WorkerKeys, tls::worker::WorkerTls};
use stormkeeper_model::Port;
use stormkeeper_runtime::{net::ListenOn, proc};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Launch parameters of one worker.
#[derive(Debug, Clone)]
pub struct Options {
    /// The launch as the supervisor specified it. When the assignment no longer has this slot with
    /// this start, the worker stops.
    pub spec: LaunchSpec,
    /// Whether the worker reports metrics.
    pub metrics: MetricReports,
    /// Addresses on which the worker listens for tuples.
    pub listen_on: ListenOn,
    /// Limit of the bytes of all unfinished frames of other workers.
    pub unfinished_bytes: usize,
    /// Keys of its topology, if its supervisor may have a cluster secret.
    pub keys: Option<WatchedFile<Option<WorkerKeys>>>,
    /// Use of TLS between workers; without it connections are plain.
    pub tls: Option<WatchedFile<Option<WorkerTls>>>,
    /// Components whose code is in this program.
    pub components: Components,
    /// Reads the resource usage of the worker and its components; a simulation replaces it.
    pub usage: fn() -> io::Result<proc::ProcessTree>,
}

/// Metric reports of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricReports {
    /// In the period of the launch spec, unless the topology disables metrics.
    #[default]
    On,
    /// None: there are no metrics except the counts in task heartbeats.
    Off,
}

impl Options {
    /// Port at which the worker listens for tuples.
    pub fn port(&self) -> Port {
        self.spec.slot.port
    }
}

impl From<LaunchSpec> for Options {
    /// Options of a worker in a process of its own.
    fn from(spec: LaunchSpec) -> Self {
        Self {
            spec,
            metrics: MetricReports::default(),
            listen_on: ListenOn::default(),
            unfinished_bytes: UNFINISHED_BYTES,
            keys: None,
            tls: None,
            components: Components::default(),
            usage: proc::of_own_tree,
        }
    }
}
