//! Looks of a leader at workers that drain: a kill or a rebalance need not wait for its deadline once all of
//! them have processed what they had.

use std::{collections::BTreeMap, time::Duration};

use tracing::debug;

use super::LeaderLoop;
use stormkeeper_coordination::cluster::{record::TopologyRecord, view::ClusterView};
use stormkeeper_model::{Slot, TaskId, Timestamp, TopologyId, assignment::Assignment, clock::Monotonic};

/// Period of the looks.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Most topologies at which one look looks; the others go on at their deadlines, or when these are done.
pub(super) const TOPOLOGIES_MAX: usize = 50;

/// Looks of one term.
#[derive(Debug, Default)]
pub(super) struct DrainLooks {
    looked: Option<Monotonic>,
}

/// Returns the topologies that wait for their workers to drain.
fn draining(view: &ClusterView, now: Timestamp) -> impl Iterator<Item = (&TopologyId, &Assignment)> {
    let waits = move |record: &TopologyRecord| {
        record.pending.as_ref().is_some_and(|pending| pending.deadline() > now)
    };
    let waiting = view.topologies.iter().filter(move |(_, record)| waits(&record.value));
    let assigned = move |id| Some((id, &view.assignments.get(id)?.value));
    waiting.filter_map(move |(id, _)| assigned(id)).take(TOPOLOGIES_MAX)
}

/// Returns one task of each worker that has a heartbeat: a worker says the same for all of its tasks.
fn tasks_to_read(view: &ClusterView, id: &TopologyId, assignment: &Assignment) -> BTreeMap<TaskId, Slot> {
    let Some(alive) = view.heartbeats.get(id) else { return BTreeMap::new() };
    let first = |(slot, worker): (&Slot, &stormkeeper_model::assignment::AssignedWorker)| {
        Some((worker.tasks.iter().find(|task| alive.contains(*task))?, slot.clone()))
    };
    assignment.workers.iter().filter_map(first).collect()
}

impl LeaderLoop {
    /// Reads which workers have drained, if a topology waits for that and the last look was a while ago.
    /// Returns whether one waits.
    pub(super) async fn look_at_drains(&mut self, view: &ClusterView, now: Monotonic) -> bool {
        let wall = self.context.clock.now();
        if draining(view, wall).next().is_none() {
            if self.drains.looked.take().is_some() {
                self.liveness.note_drained(BTreeMap::new());
            }
            return false;
        }
        if self.drains.looked.is_some_and(|looked| now.since(looked) < LOOK_PERIOD) {
            return true;
        }
        let mut drained = BTreeMap::new();
        for (id, assignment) in draining(view, wall) {
            let slots = tasks_to_read(view, id, assignment);
            let tasks: Vec<TaskId> = slots.keys().copied().collect();
            let beats = match self.context.store.heartbeats_of(id, &tasks).await {
                Ok(beats) => beats,
                Err(error) => {
                    debug!(topology = %id, %error, "cannot read which workers have drained; looking again");
                    continue;
                }
            };
            let of_slot = |(task, slot): (&TaskId, &Slot)| {
                let beat = beats.get(task).filter(|beat| beat.port == slot.port)?;
                Some((slot.clone(), beat.drained_for?))
            };
            drained.insert(id.clone(), slots.iter().filter_map(of_slot).collect());
        }
        self.drains.looked = Some(now);
        self.liveness.note_drained(drained);
        true
    }
}
