//! A healthy assigned worker is not signalled by its supervisor.

use super::Invariant;
use crate::model::{ClusterModel, MachineEvent};

#[derive(Debug)]
pub(super) struct Signals;

impl Invariant for Signals {
    fn name(&self) -> &'static str {
        "signals"
    }

    fn machine(&mut self, model: &ClusterModel, event: &MachineEvent) -> Result<(), String> {
        let MachineEvent::Signalled { worker, signal } = event else { return Ok(()) };
        match model.processes.get(worker) {
            Some(process) if process.is_responsive && model.is_assigned(process) => {
                Err(format!("{worker} is assigned and healthy, but received {signal}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
