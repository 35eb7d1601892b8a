//! Properties that must hold at every moment of a run.
//!
//! | file | property | from | check |
//! | --- | --- | --- | --- |
//! | `terms` | At most one leader has an effect in a term, and no term begins twice. | design, leadership | A term begins together with `/leader`, above all terms before, also after `/term` was deleted; a commit that checks `/term` comes from the process that won that term. |
//! | `fencing` | No write of an old term is committed, and only the leader writes the leader's paths. | design, leadership | A commit on a leader's path begins with the check of the current term; other processes write only their own ephemerals, errors and announced stops, and the fixed parents. |
//! | `slots` | No slot holds two workers. | supervisor | At every launch no other process is in that slot. |
//! | `tasks` | No live task runs in two assigned slots. | placement | Assigned processes run the tasks of their slot and share none. |
//! | `healthy_tasks_stay` | A healthy task never moves. | design, quiet failover | An assignment changes a worker that has had heartbeats for a while only for a rebalance by an operator or a recorded grow-back, a kill, a drain, or the loss of its host. |
//! | `lost_hosts` | A task leaves an absent supervisor early only if its host is lost. | design, liveness | An assignment changes a worker that ran a short time ago on a supervisor that is absent only if the supervisor has not announced a stop, no worker there has a heartbeat, the leader has settled, and not more than half of the supervisors vanished together. |
//! | `signals` | A healthy assigned worker is not signalled. | supervisor | No signal goes to a process that is assigned and does not hang. |
//! | `removal` | A topology's record is removed last. | design, removal | When `/storms/{id}` is deleted, no other znode of the topology exists. |
//! | `unique_names` | A name belongs to one topology. | submit | No two records have the same name. |
//! | `quotas` | No owner gets more than its quota. | submit | When a topology is submitted, its owner has at most as many topologies and tasks as the quota of the run allows. |
//! | `errors` | The list of errors loses nothing within its bound. | task errors | The znodes of a task's errors are its newest ten, in order; an error that was confirmed to a worker is stored. |
//! | `committed` | A committed entry of the metric log is on every later leader, unless an unclean takeover was recorded. | replication | When a leader writes `/metric-log`, its log has every entry that an answer or `/metric-log` named as committed, except those up to `discarded_through` that it was missing at a recorded unclean takeover. |
//! | `quarantine` | A quarantined database is never deleted. | replication | No quarantined database is removed or renamed, and no database that has a committed entry which the current database is missing is removed. |
//!
//! Four more hold some time after the faults have ended: `no_residue` (a killed topology leaves nothing),
//! `converged` (any other topology has all of its tasks running, once), `counters` (all metric stores
//! have what the tasks and workers counted, on every level, and the external store has no more), and
//! `stores` (all metric stores have the same content). The journal itself finds a `livelock`: so many
//! events in one second of the run that time hardly advances.

mod committed_entries_survive;
mod converged;
mod counters;
mod errors;
mod fencing;
mod healthy_tasks_stay;
mod lost_hosts;
mod no_residue;
mod quarantine_stays;
mod quotas;
mod removal;
mod signals;
mod slots;
mod stores_converge;
mod tasks;
mod terms;
#[cfg(test)]
mod tests;
mod unique_names;

use std::fmt;

pub(super) use self::{
    converged::check_converged,
    counters::{Difference, check_counters, check_exports},
    no_residue::check_no_residue,
    stores_converge::check_stores_converge,
};

use crate::{
    journal::Party,
    metric_log::MetricLogEvent,
    model::{ClusterModel, MachineEvent},
};
use stormkeeper_coordination::tree::memory::listener::Commit;

/// A violated property, with the observation that violates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the property.
    pub invariant: &'static str,
    /// The observation.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.reason)
    }
}

/// One property. Each check receives the model before the checked event, except for `state`.
trait Invariant: fmt::Debug + Send {
    fn name(&self) -> &'static str;

    /// Checks a commit in the tree.
    fn commit(&mut self, _model: &ClusterModel, _commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        Ok(())
    }

    /// Checks an event on a machine.
    fn machine(&mut self, _model: &ClusterModel, _event: &MachineEvent) -> Result<(), String> {
        Ok(())
    }

    /// Checks an event of the metric logs.
    fn metric_log(&mut self, _model: &ClusterModel, _event: &MetricLogEvent) -> Result<(), String> {
        Ok(())
    }

    /// Checks the state after a commit or an event.
    fn state(&mut self, _model: &ClusterModel) -> Result<(), String> {
        Ok(())
    }
}

/// All invariants.
#[derive(Debug)]
pub(super) struct Checks(Vec<Box<dyn Invariant>>);

impl Checks {
    pub(super) fn all() -> Self {
        Self(vec![
            Box::new(terms::Terms),
            Box::new(fencing::Fencing),
            Box::new(slots::Slots),
            Box::new(tasks::Tasks),
            Box::new(healthy_tasks_stay::Moves),
            Box::new(lost_hosts::LostHosts),
            Box::new(signals::Signals),
            Box::new(removal::Removal),
            Box::new(unique_names::Names),
            Box::new(quotas::Quotas),
            Box::new(errors::Errors::default()),
            Box::new(committed_entries_survive::Committed::default()),
            Box::new(quarantine_stays::Quarantine::default()),
        ])
    }

    pub(super) fn commit(
        &mut self,
        model: &ClusterModel,
        commit: &Commit<'_>,
        party: &Party,
    ) -> Result<(), Violation> {
        self.each(|check| check.commit(model, commit, party))
    }

    pub(super) fn machine(&mut self, model: &ClusterModel, event: &MachineEvent) -> Result<(), Violation> {
        self.each(|check| check.machine(model, event))
    }

    pub(super) fn metric_log(
        &mut self,
        model: &ClusterModel,
        event: &MetricLogEvent,
    ) -> Result<(), Violation> {
        self.each(|check| check.metric_log(model, event))
    }

    pub(super) fn state(&mut self, model: &ClusterModel) -> Result<(), Violation> {
        self.each(|check| check.state(model))
    }

    fn each(&mut self, run: impl Fn(&mut dyn Invariant) -> Result<(), String>) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|check| {
            run(&mut **check).map_err(|reason| Violation { invariant: check.name(), reason })
        })
    }
}
