//! Status of a supervisor, for its tests.

use std::collections::BTreeMap;

use crate::process::ProcessId;
use stormkeeper_model::{Port, SupervisorId, TopologyId, WorkerId};

/// Status of one supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The id of the supervisor.
    pub supervisor: SupervisorId,
    /// True if the supervisor assignments were read since the start.
    pub has_assignments: bool,
    /// Status of each slot, by port.
    pub slots: BTreeMap<Port, SlotStatus>,
    /// Problems that need an operator; empty when there are none.
    pub problems: Vec<String>,
}

/// State of a slot, and the launch in the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// The name of its state.
    pub state: &'static str,
    /// The topology that the slot runs or should run.
    pub topology: Option<TopologyId>,
    /// The last launch, while its process exists or may exist.
    pub worker: Option<WorkerId>,
    /// The process of the launch, while it exists.
    pub process: Option<ProcessId>,
    /// Reason of the last action.
    pub reason: Option<String>,
}
