//! Launch parameters of a worker, from its supervisor and its configuration.

use std::{path::PathBuf, time::Duration};

use stormkeeper_model::{Port, Slot, Timestamp, TopologyId, WorkerId, topology::Settings};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Launch parameters of one worker.
#[derive(Debug, Clone)]
pub struct Options {
    /// Topology that the worker runs tasks of.
    pub topology: TopologyId,
    /// Slot that the worker occupies.
    pub slot: Slot,
    /// `start` of the worker's [`stormkeeper_model::assignment::AssignedWorker`]. When the assignment
    /// no longer has this slot with this start, the worker stops.
    pub start: Timestamp,
    /// Id of this launch.
    pub worker: WorkerId,
    /// Host name at which peers reach the worker.
    pub host: String,
    /// Worker directory: `heartbeat`, `pids/`, `logs/`.
    pub dir: PathBuf,
    /// Unpacked topology package: `topology.json` and `resources/`.
    pub code: PathBuf,
    /// `topology.*` settings of the host's configuration, used where the topology sets none.
    pub defaults: Settings,
    /// Period of the local heartbeat file.
    pub heartbeat_period: Duration,
    /// Period at which all task heartbeats are refreshed.
    pub task_heartbeat_period: Duration,
    /// Longest silence of a child process before it is killed, unless the topology sets its own.
    pub subprocess_timeout: Duration,
    /// Process group of the child processes.
    pub components: ComponentGroup,
    /// Period of metric reports. `None` disables metrics, except the counts in task heartbeats.
    pub metrics: Option<Duration>,
}

/// Process group of a worker's child processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ComponentGroup {
    /// The worker's group: its supervisor kills the whole group at once.
    #[default]
    Workers,
    /// One group per child: a worker that runs inside another program shares its group with that
    /// program, and the program must pass on a Ctrl-C of the terminal.
    Own,
}

impl Options {
    /// Port at which the worker listens for tuples.
    pub fn port(&self) -> Port {
        self.slot.port
    }
}

impl From<LaunchSpec> for Options {
    fn from(spec: LaunchSpec) -> Self {
        let LaunchSpec {
            topology,
            slot,
            start,
            worker,
            host,
            dir,
            code,
            defaults,
            heartbeat_period,
            task_heartbeat_period,
            subprocess_timeout,
            metric_report_period,
            config_file: _,
            overrides: _,
        } = spec;
        Self {
            topology,
            slot,
            start,
            worker,
            host,
            dir,
            code,
            defaults,
            heartbeat_period,
            task_heartbeat_period,
            subprocess_timeout,
            components: ComponentGroup::default(),
            metrics: Some(metric_report_period),
        }
    }
}
