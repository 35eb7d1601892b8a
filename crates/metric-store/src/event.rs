//! What happened to topologies and tasks, kept for as long as their metrics are.

use serde::{Deserialize, Serialize};

use stormkeeper_model::{ComponentId, HostName, Port, TaskId, Timestamp, TopologyId, TopologyName};

/// Something to keep, and to send to external stores. Telling one again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A topology was submitted.
    TopologyStarted {
        /// Which.
        topology: TopologyId,
        /// Its name.
        name: TopologyName,
        /// When.
        at: Timestamp,
        /// By whom, if it is known.
        by: Option<String>,
        /// How many of the values of a histogram are sampled, 0 to 1.
        sample_rate: f64,
    },
    /// A topology's sample rate is another one.
    SampleRateChanged {
        /// Which.
        topology: TopologyId,
        /// The rate from now on.
        sample_rate: f64,
        /// When.
        at: Timestamp,
        /// By whom, if it is known.
        by: Option<String>,
    },
    /// A topology was killed.
    TopologyKilled {
        /// Which.
        topology: TopologyId,
        /// When.
        at: Timestamp,
        /// By whom, if it is known.
        by: Option<String>,
        /// Why.
        reason: String,
    },
    /// A task has a place, and none before or another one.
    TaskPlaced {
        /// Its topology.
        topology: TopologyId,
        /// Which.
        task: TaskId,
        /// Its component.
        component: ComponentId,
        /// The host it runs on.
        host: HostName,
        /// The port of its worker.
        port: Port,
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// A task has no place any more.
    TaskGone {
        /// Its topology.
        topology: TopologyId,
        /// Which.
        task: TaskId,
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The topology that it happened to.
    pub fn topology(&self) -> &TopologyId {
        match self {
            Self::TopologyStarted { topology, .. }
            | Self::SampleRateChanged { topology, .. }
            | Self::TopologyKilled { topology, .. }
            | Self::TaskPlaced { topology, .. }
            | Self::TaskGone { topology, .. } => topology,
        }
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::TopologyStarted { at, .. }
            | Self::SampleRateChanged { at, .. }
            | Self::TopologyKilled { at, .. }
            | Self::TaskPlaced { at, .. }
            | Self::TaskGone { at, .. } => *at,
        }
    }
}

/// Where one task ran, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackEntry {
    /// The task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// The host it ran on.
    pub host: HostName,
    /// The port of its worker.
    pub port: Port,
    /// Since when.
    pub from: Timestamp,
    /// Until when; absent while it is there.
    pub to: Option<Timestamp>,
    /// Why it came there.
    pub reason: String,
    /// Why it went; empty while it is there.
    pub ended: String,
}

/// One topology, from its submission on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its id.
    pub topology: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// When it was submitted.
    pub started: Timestamp,
    /// By whom, if it is known.
    pub started_by: Option<String>,
    /// When it was killed; absent while it was not.
    pub killed: Option<Timestamp>,
    /// By whom, if it is known.
    pub killed_by: Option<String>,
    /// Why; empty while it was not.
    pub reason: String,
    /// How many of the values of a histogram are sampled, 0 to 1.
    pub sample_rate: f64,
}
