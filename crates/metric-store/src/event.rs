//! Events of topologies and tasks, kept as long as their metrics.

use serde::{Deserialize, Serialize};

use stormkeeper_model::{ComponentId, HostName, Port, TaskId, Timestamp, TopologyId, TopologyName};

/// Event that is recorded and sent to external stores. Recording an event again has no effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HistoryEvent {
    /// A topology was submitted.
    TopologyStarted {
        /// Id of the topology.
        topology: TopologyId,
        /// Name of the topology.
        name: TopologyName,
        /// Time of the submission.
        at: Timestamp,
        /// User who submitted it, if known.
        by: Option<String>,
        /// Share of the values that a histogram samples, 0 to 1.
        sample_rate: f64,
    },
    /// The sample rate of a topology changed.
    SampleRateChanged {
        /// Id of the topology.
        topology: TopologyId,
        /// New rate, 0 to 1.
        sample_rate: f64,
        /// Time of the change.
        at: Timestamp,
        /// User who changed it, if known.
        by: Option<String>,
    },
    /// A topology was killed.
    TopologyKilled {
        /// Id of the topology.
        topology: TopologyId,
        /// Time of the kill.
        at: Timestamp,
        /// User who killed it, if known.
        by: Option<String>,
        /// Reason as the user sees it.
        reason: String,
    },
    /// A task was placed for the first time, or moved.
    TaskPlaced {
        /// Id of the topology.
        topology: TopologyId,
        /// Id of the task.
        task: TaskId,
        /// Component of the task.
        component: ComponentId,
        /// Host of the worker.
        host: HostName,
        /// Port of the worker.
        port: Port,
        /// Time of the placement.
        at: Timestamp,
        /// Reason of the placement.
        reason: String,
    },
    /// A task has no placement any more.
    TaskGone {
        /// Id of the topology.
        topology: TopologyId,
        /// Id of the task.
        task: TaskId,
        /// Time of the removal.
        at: Timestamp,
        /// Reason of the removal.
        reason: String,
    },
}

impl HistoryEvent {
    /// Returns the topology of the event.
    pub fn topology(&self) -> &TopologyId {
        match self {
            Self::TopologyStarted { topology, .. }
            | Self::SampleRateChanged { topology, .. }
            | Self::TopologyKilled { topology, .. }
            | Self::TaskPlaced { topology, .. }
            | Self::TaskGone { topology, .. } => topology,
        }
    }

    /// Returns the time of the event.
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

/// Placement of one task, and its duration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackEntry {
    /// Id of the task.
    pub task: TaskId,
    /// Component of the task.
    pub component: ComponentId,
    /// Host of the worker.
    pub host: HostName,
    /// Port of the worker.
    pub port: Port,
    /// Begin of the placement.
    pub from: Timestamp,
    /// End of the placement; absent while the task is there.
    pub to: Option<Timestamp>,
    /// Reason of the placement.
    pub reason: String,
    /// Reason of its end; empty while the task is there.
    pub ended: String,
}

/// History of one topology, from its submission on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Id of the topology.
    pub topology: TopologyId,
    /// Name of the topology.
    pub name: TopologyName,
    /// Time of the submission.
    pub started: Timestamp,
    /// User who submitted it, if known.
    pub started_by: Option<String>,
    /// Time of the kill; absent unless it was killed.
    pub killed: Option<Timestamp>,
    /// User who killed it, if known.
    pub killed_by: Option<String>,
    /// Reason of the kill; empty unless it was killed.
    pub reason: String,
    /// Share of the values that a histogram samples, 0 to 1.
    pub sample_rate: f64,
}
