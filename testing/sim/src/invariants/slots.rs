//! No slot holds two workers.

use super::Invariant;
use crate::model::{ClusterModel, MachineEvent};

#[derive(Debug)]
pub(super) struct Slots;

impl Invariant for Slots {
    fn name(&self) -> &'static str {
        "slots"
    }

    fn machine(&mut self, model: &ClusterModel, event: &MachineEvent) -> Result<(), String> {
        let MachineEvent::Launched(process) = event else { return Ok(()) };
        match model.processes.values().find(|other| other.slot == process.slot) {
            Some(other) => Err(format!(
                "{} was launched in {}, where {} still runs",
                process.worker, process.slot, other.worker
            )),
            None => Ok(()),
        }
    }
}
