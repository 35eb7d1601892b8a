//! Free slots, and topologies that have fewer workers than they request, and since when.

use std::collections::{BTreeMap, BTreeSet};

use super::update_since;
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{Slot, TopologyId, clock::Monotonic, status::TopologyStatus};

/// Times of what growing back waits for. A leader counts from its own first observation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Growth {
    /// Slots of present supervisors without a worker, and since when; empty while no topology grows back.
    free: BTreeMap<Slot, Monotonic>,
    /// Topologies that grow back, are short of workers and wait for no change, and since when.
    short: BTreeMap<TopologyId, Monotonic>,
}

impl Growth {
    pub(super) fn observe(&mut self, view: &ClusterView, now: Monotonic) {
        let short: Vec<&TopologyId> = view.topologies.keys().filter(|id| is_short(view, id)).collect();
        update_since(&mut self.short, short.into_iter(), now);
        if !view.topologies.values().any(|record| record.value.grow_back_secs.is_some()) {
            self.free.clear();
            return;
        }
        let offered = view.supervisors.iter().flat_map(|(supervisor, record)| {
            record.ports.iter().map(|port| Slot { supervisor: supervisor.clone(), port: *port })
        });
        let used = view.assignments.values().flat_map(|assignment| assignment.value.workers.keys());
        let used: BTreeSet<&Slot> = used.collect();
        let free: Vec<Slot> = offered.filter(|slot| !used.contains(slot)).collect();
        update_since(&mut self.free, free.iter(), now);
    }

    /// Returns the time since which a topology could use more workers, if it could and grows back.
    pub(crate) fn short_since(&self, id: &TopologyId) -> Option<Monotonic> {
        self.short.get(id).copied()
    }

    /// The free slots, and since when each is free.
    pub(crate) fn free(&self) -> impl Iterator<Item = (&Slot, Monotonic)> {
        self.free.iter().map(|(slot, since)| (slot, *since))
    }
}

fn is_short(view: &ClusterView, id: &TopologyId) -> bool {
    let (Some(record), Some(tasks), Some(assignment)) =
        (view.topologies.get(id), view.tasks.get(id), view.assignments.get(id))
    else {
        return false;
    };
    let wanted = (record.value.workers.max(1) as usize).min(tasks.value.components.n_tasks());
    let is_steady = match record.value.status {
        TopologyStatus::Active | TopologyStatus::Inactive => record.value.pending.is_none(),
        TopologyStatus::Rebalancing | TopologyStatus::Killed => false,
    };
    record.value.grow_back_secs.is_some() && is_steady && assignment.value.workers.len() < wanted
}
