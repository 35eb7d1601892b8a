//! A task leaves an absent supervisor early only if its host is lost.

use std::time::Duration;

use super::{
    Invariant,
    healthy_tasks_stay::{HEALTHY_AFTER, SILENCE_MIN, moved},
};
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::tree::memory::listener::Commit;
use stormkeeper_model::SupervisorId;

/// Settling time of a leader, which begins with its term or later.
const SETTLE: Duration = Duration::from_secs(15);

/// Time for which supervisors that vanished together hold back the loss of hosts. The leader counts
/// 30 s from the moment at which it sees the absence.
const TOGETHER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct LostHosts;

impl Invariant for LostHosts {
    fn name(&self) -> &'static str {
        "lost hosts"
    }

    fn commit(&mut self, model: &ClusterModel, commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        for (id, slot, worker) in moved(model, commit) {
            let Some(absent_since) = absent_since(model, &slot.supervisor) else { continue };
            let is_recent = |since: Duration| model.now.saturating_sub(since) < SILENCE_MIN;
            // Without a heartbeat for a long time, it is lost whatever happened to its supervisor.
            let heartbeats = worker.tasks.iter().filter_map(|task| model.heartbeats.get(&(id.clone(), task)));
            let ran = heartbeats.into_iter().any(|heartbeat| {
                heartbeat.until.is_none_or(is_recent)
                    && heartbeat.until.unwrap_or(model.now).saturating_sub(heartbeat.since) >= HEALTHY_AFTER
            });
            if !ran || !is_recent(absent_since) {
                continue;
            }
            if let Some(objection) = objection_to_loss(model, &slot.supervisor) {
                return Err(format!("the worker in {slot} of {id} was moved, although {objection}"));
            }
        }
        Ok(())
    }
}

fn absent_since(model: &ClusterModel, id: &SupervisorId) -> Option<Duration> {
    model.supervisors.get(id)?.until
}

/// Returns the reason why the host of this supervisor must not be treated as lost. Decisions may
/// have been under way for as long as [`HEALTHY_AFTER`], so later changes are no reasons.
pub(super) fn objection_to_loss(model: &ClusterModel, id: &SupervisorId) -> Option<String> {
    let is_new = |since: Duration| model.now.saturating_sub(since) < HEALTHY_AFTER;
    let registration = model.supervisors.get(id)?;
    if is_new(registration.since) {
        return None;
    }
    if registration.until.is_none() {
        return Some("its supervisor is registered".to_owned());
    }
    if model.stopped.contains(id) {
        return Some("its supervisor has announced its stop".to_owned());
    }
    if model.now.saturating_sub(model.term_since) < SETTLE {
        return Some("the leader has not settled".to_owned());
    }
    let workers = model.assignments.iter().flat_map(|(topology, assignment)| {
        let here = assignment.workers.iter().filter(|(slot, _)| slot.supervisor == *id);
        here.flat_map(move |(_, worker)| worker.tasks.iter().map(move |task| (topology, task)))
    });
    let is_alive = |(topology, task)| model.heartbeat(topology, task).is_some_and(|one| !is_new(one.since));
    if workers.into_iter().any(is_alive) {
        return Some("a worker of its host has a heartbeat".to_owned());
    }
    let has_tasks = |id: &SupervisorId| {
        model.assignments.values().any(|assignment| assignment.supervisors().any(|other| other == id))
    };
    // A leader does not know who vanished before its term and had no tasks.
    let has_vanished = |other: &&SupervisorId| {
        absent_since(model, other).is_some_and(|since| {
            let is_known = since >= model.term_since || has_tasks(other);
            is_known && !is_new(since) && model.now.saturating_sub(since) < TOGETHER
        }) && !model.stopped.contains(*other)
    };
    let n_vanished = model.supervisors.keys().filter(has_vanished).count();
    let n_all = model.supervisors.len();
    (n_vanished * 2 > n_all).then(|| format!("{n_vanished} of {n_all} supervisors vanished together"))
}
