//! What a worker is told by its supervisor and by its configuration.

use std::{path::PathBuf, time::Duration};

use stormkeeper_model::{Port, Slot, Timestamp, TopologyId, WorkerId, topology::Settings};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Settings of one worker.
#[derive(Debug, Clone)]
pub struct Options {
    /// The topology that it works for.
    pub topology: TopologyId,
    /// The slot that it fills.
    pub slot: Slot,
    /// The `start` of its [`stormkeeper_model::assignment::AssignedWorker`]: when the assignment
    /// no longer has this slot with this start, the worker stops.
    pub start: Timestamp,
    /// This launch.
    pub worker: WorkerId,
    /// The host that it is reached at.
    pub host: String,
    /// Its own directory: `heartbeat`, `pids/`, `logs/`.
    pub dir: PathBuf,
    /// The unpacked blob: `topology.json` and `resources/`.
    pub code: PathBuf,
    /// `topology.*` settings of the host's configuration, for what the topology leaves open.
    pub defaults: Settings,
    /// How often the local heartbeat file is written.
    pub heartbeat_period: Duration,
    /// How often the beats of its tasks are refreshed at most.
    pub task_heartbeat_period: Duration,
    /// How long a component that is silent is left alone, unless the topology says.
    pub subprocess_timeout: Duration,
    /// The process group of its components.
    pub components: ComponentGroup,
    /// How often its metrics are reported; none when nothing is measured but what beats tell.
    pub metrics: Option<Duration>,
}

/// The process group that a worker's components run in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ComponentGroup {
    /// The worker's: its supervisor kills all of it at once.
    #[default]
    Workers,
    /// One each: a worker that runs inside another program shares its group with that, and a
    /// Ctrl-C at the terminal is for the program to pass on.
    Own,
}

impl Options {
    /// Where it listens for tuples.
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
