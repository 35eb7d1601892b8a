//! What a supervisor says about itself, for whoever runs it.

use std::collections::BTreeMap;

use crate::{
    model::{Port, SupervisorId, TopologyId, WorkerId},
    supervisor::process::ProcessId,
};

/// The condition of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which one.
    pub supervisor: SupervisorId,
    /// Whether its orders were read since it started.
    pub has_orders: bool,
    /// Its slots.
    pub slots: BTreeMap<Port, SlotStatus>,
    /// What an operator should look at; empty when all is well.
    pub problems: Vec<String>,
}

/// The condition of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// The name of its state.
    pub state: &'static str,
    /// The topology that it runs or is to run.
    pub topology: Option<TopologyId>,
    /// The launch, while it is or may be there.
    pub worker: Option<WorkerId>,
    /// Its process, while it is there.
    pub process: Option<ProcessId>,
    /// Why it did last what it did.
    pub reason: Option<String>,
}
