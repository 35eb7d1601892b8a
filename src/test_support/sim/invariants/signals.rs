//! A healthy worker that is wanted is left alone by its supervisor.

use super::Invariant;
use crate::test_support::sim::facts::{Facts, MachineEvent};

#[derive(Debug)]
pub(super) struct Signals;

impl Invariant for Signals {
    fn name(&self) -> &'static str {
        "signals"
    }

    fn machine(&mut self, facts: &Facts, event: &MachineEvent) -> Result<(), String> {
        let MachineEvent::Signalled { worker, signal } = event else { return Ok(()) };
        match facts.processes.get(worker) {
            Some(process) if process.is_well && facts.is_assigned(process) => {
                Err(format!("{worker} is assigned and well, and got {signal}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
