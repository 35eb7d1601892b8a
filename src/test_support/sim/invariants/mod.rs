//! What must hold at every moment of a run.
//!
//! | file | property | from | what it checks |
//! | --- | --- | --- | --- |
//! | `terms` | At most one leader has an effect in a term. | design, leadership | A term is begun together with `/leader`; whatever checks `/term` is of the process that won that term. |
//! | `fencing` | No write of an old term lands, and only leaders write what leaders own. | design, leadership | A commit on a leader's path begins with the check of the current term; the others write their own ephemerals, errors and the fixed parents only. |
//! | `slots` | No slot holds two workers. | supervisor | At every launch no other process is in that slot. |
//! | `tasks` | No live task runs in two assigned slots. | placement | Processes that are assigned run the tasks of their slot and share none. |
//! | `moves` | A healthy task never moves. | design, quiet failover | An assignment changes a worker that has been beating for a while only for a rebalance, a kill, or a drain. |
//! | `signals` | A healthy worker that is wanted is left alone. | supervisor | A signal goes to none that is assigned, well and up. |
//! | `removal` | A topology's record goes last. | design, removal | When `/storms/{id}` is deleted nothing else of it is left. |
//! | `names` | A name is one topology. | submit | No two records have the same name. |
//! | `errors` | The list of errors loses nothing within its bound. | task errors | The znodes of a task's errors are its newest ten, in order; what a worker was told is stored, was. |
//!
//! Two more hold when faults have stopped for a while: `gone` (a killed topology leaves
//! nothing) and `whole` (any other has all of its tasks running, once).

mod errors;
mod fencing;
mod gone;
mod moves;
mod names;
mod removal;
mod signals;
mod slots;
mod tasks;
mod terms;
#[cfg(test)]
mod tests;
mod whole;

use std::fmt;

pub(super) use self::{gone::is_gone, whole::is_whole};

use crate::{
    test_support::sim::{
        facts::{Facts, MachineEvent},
        journal::Party,
    },
    tree::memory::listen::Commit,
};

/// A property, and what was found that is against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub invariant: &'static str,
    /// What was found.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.reason)
    }
}

/// One property. What it is shown happens after what `facts` says.
trait Invariant: fmt::Debug + Send {
    fn name(&self) -> &'static str;

    /// Something took effect in the tree.
    fn commit(&mut self, _facts: &Facts, _commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        Ok(())
    }

    /// Something happened on a machine.
    fn machine(&mut self, _facts: &Facts, _event: &MachineEvent) -> Result<(), String> {
        Ok(())
    }

    /// How things are now, after either.
    fn state(&mut self, _facts: &Facts) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Checks(Vec<Box<dyn Invariant>>);

impl Checks {
    pub(super) fn all() -> Self {
        Self(vec![
            Box::new(terms::Terms),
            Box::new(fencing::Fencing),
            Box::new(slots::Slots),
            Box::new(tasks::Tasks),
            Box::new(moves::Moves),
            Box::new(signals::Signals),
            Box::new(removal::Removal),
            Box::new(names::Names),
            Box::new(errors::Errors::default()),
        ])
    }

    pub(super) fn commit(
        &mut self,
        facts: &Facts,
        commit: &Commit<'_>,
        party: &Party,
    ) -> Result<(), Violation> {
        self.each(|check| check.commit(facts, commit, party))
    }

    pub(super) fn machine(&mut self, facts: &Facts, event: &MachineEvent) -> Result<(), Violation> {
        self.each(|check| check.machine(facts, event))
    }

    pub(super) fn state(&mut self, facts: &Facts) -> Result<(), Violation> {
        self.each(|check| check.state(facts))
    }

    fn each(&mut self, look: impl Fn(&mut dyn Invariant) -> Result<(), String>) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|check| {
            look(&mut **check).map_err(|reason| Violation { invariant: check.name(), reason })
        })
    }
}
