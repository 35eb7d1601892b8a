//! Placement where tasks request resources and supervisors have a capacity.
//!
//! Slots are dealt as without requests, each where one of the topology's tasks has room. Then the
//! tasks are dealt, topology by topology, and a task without room in the workers of its topology gets
//! another worker, also beyond the number that the topology requests. A worker that gets no task is
//! not started.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Member, TopologyDraft, Worker, even};
use crate::{
    problem::{Keep, Solution, Unplaced},
    room::{self, Room},
    slots::SlotTable,
};
use stormkeeper_model::{resources::TaskRequest, task_set::TaskSet};

/// Places the tasks that have no slot, within the resources that the kept tasks leave.
pub(super) fn solve<'p>(
    mut drafts: Vec<TopologyDraft<'p>>,
    mut slots: SlotTable<'p>,
    mut room: Room<'p>,
) -> Solution {
    let requests: Vec<Vec<TaskRequest>> = drafts.iter().map(|draft| room::requests(draft.topology)).collect();
    for (draft, requests) in drafts.iter().zip(&requests) {
        for worker in &draft.workers {
            for member in &worker.tasks {
                room.take(slots.supervisor(worker.slot), requests[member.component]);
            }
        }
    }
    deal_slots(&mut drafts, &requests, &mut slots, &room);
    let place = |(draft, requests): (TopologyDraft<'p>, Vec<TaskRequest>)| {
        let id = draft.topology.id.clone();
        (id, Limited { draft, requests, slots: &mut slots, room: &mut room }.place())
    };
    Solution { placements: drafts.into_iter().zip(requests).map(place).collect() }
}

/// Deals free slots as without requests, to a topology only where one of its tasks has room.
fn deal_slots(
    drafts: &mut [TopologyDraft<'_>],
    requests: &[Vec<TaskRequest>],
    slots: &mut SlotTable<'_>,
    room: &Room<'_>,
) {
    let mut waiting: BTreeSet<(usize, usize)> =
        drafts.iter().enumerate().filter(|(_, d)| d.wants_more()).map(|(n, d)| (d.n_open(), n)).collect();
    while let Some((_, n)) = waiting.pop_first() {
        let draft = &mut drafts[n];
        let wanted: BTreeSet<usize> = draft.unassigned.iter().map(|member| member.component).collect();
        let has_room = |at| wanted.iter().any(|component| room.fits(at, requests[n][*component]));
        let Some(slot) = slots.pick_with_room(&mut draft.criteria, has_room) else { continue };
        draft.workers.push(new_worker(slot));
        if draft.wants_more() {
            waiting.insert((draft.n_open(), n));
        }
    }
}

fn new_worker(slot: usize) -> Worker {
    Worker { slot, tasks: Vec::new(), open_for_placement: true, is_new: true, restarts: true }
}

/// One topology, and what the topologies before it have left.
struct Limited<'a, 'p> {
    draft: TopologyDraft<'p>,
    requests: Vec<TaskRequest>,
    slots: &'a mut SlotTable<'p>,
    room: &'a mut Room<'p>,
}

impl Limited<'_, '_> {
    fn place(mut self) -> crate::Placement {
        let mut members = std::mem::take(&mut self.draft.unassigned);
        if self.place_evenly(&members) {
            return self.draft.placement(self.slots, None);
        }
        // Large tasks first: small ones fit into what they leave.
        members.sort_by_key(|member| {
            let request = self.requests[member.component];
            (Reverse(request.memory_mb), Reverse(request.cpu_percent), member.component, member.task)
        });
        let mut unplaced = Vec::new();
        for member in members {
            if !self.place_one(member) {
                unplaced.push(member);
            }
        }
        for worker in self.draft.workers.iter().filter(|worker| worker.tasks.is_empty()) {
            self.slots.release(worker.slot);
        }
        self.draft.workers.retain(|worker| !worker.tasks.is_empty());
        let unplaced = unplaced.first().map(|first| {
            let request = self.requests[first.component];
            let reason = self.room.shortage(self.slots, self.draft.topology, first.component, request);
            let tasks: TaskSet = unplaced.iter().map(|member| member.task).collect();
            Unplaced { tasks, reason: reason.unwrap_or_else(|| self.slots.shortage()) }
        });
        self.draft.placement(self.slots, unplaced)
    }

    /// Places the tasks of a rebalance as if there were no resources. Returns whether it has, and it has not
    /// if a supervisor has no room for its part.
    fn place_evenly(&mut self, members: &[Member]) -> bool {
        if self.draft.topology.keep != Keep::EvenSpread || self.draft.workers.is_empty() {
            return false;
        }
        let dealt = even::deal(&self.draft, members);
        let mut totals: BTreeMap<usize, TaskRequest> = BTreeMap::new();
        for (worker, tasks) in self.draft.workers.iter().zip(&dealt) {
            let total = totals.entry(self.slots.supervisor(worker.slot)).or_default();
            for request in tasks.iter().map(|member| self.requests[member.component]) {
                total.memory_mb = total.memory_mb.saturating_add(request.memory_mb);
                total.cpu_percent = total.cpu_percent.saturating_add(request.cpu_percent);
            }
        }
        let fits = totals.iter().all(|(supervisor, total)| self.room.fits(*supervisor, *total));
        if fits {
            totals.into_iter().for_each(|(supervisor, total)| self.room.take(supervisor, total));
            self.draft.workers.iter_mut().zip(dealt).for_each(|(worker, tasks)| worker.tasks = tasks);
        }
        fits
    }

    /// Adds a task to a new worker, else to another one that may restart for it, else to one more.
    fn place_one(&mut self, member: Member) -> bool {
        let is_lost = self.draft.lost.contains(member.task);
        let request = self.requests[member.component];
        let best = |new_only: bool| {
            let takes = |worker: &&(usize, &Worker)| {
                let worker = worker.1;
                let may = worker.is_new || (!new_only && (worker.restarts || !is_lost));
                may && worker.open_for_placement
                    && self.room.fits(self.slots.supervisor(worker.slot), request)
            };
            let all: Vec<(usize, &Worker)> = self.draft.workers.iter().enumerate().collect();
            let best = all.iter().filter(takes).min_by_key(|(_, worker)| {
                let same = worker.tasks.iter().filter(|other| other.component == member.component).count();
                let had =
                    self.draft.former.get(&worker.slot).is_some_and(|tasks| tasks.contains(member.task));
                (same, worker.tasks.len(), !had, worker.slot)
            });
            best.map(|(n, _)| *n)
        };
        let chosen = best(true).or_else(|| best(false)).or_else(|| {
            let (slots, room) = (&mut *self.slots, &*self.room);
            let slot = slots.pick_with_room(&mut self.draft.criteria, |at| room.fits(at, request))?;
            self.draft.workers.push(new_worker(slot));
            Some(self.draft.workers.len() - 1)
        });
        let Some(n) = chosen else { return false };
        let worker = &mut self.draft.workers[n];
        worker.tasks.push(member);
        self.room.take(self.slots.supervisor(worker.slot), request);
        true
    }
}
