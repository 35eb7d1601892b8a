//! Solver: from a problem and the previous solution to the next one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    problem::{Keep, Placement, Problem, Solution, TopologyDemand, Unplaced},
    room::Room,
    slots::{SlotCriteria, SlotTable},
};
use stormkeeper_model::{TaskId, task_set::TaskSet};

mod even;
mod limited;

/// Places every task of every topology, or gives the reason why a task has no slot.
///
/// Kept tasks use their slots first; if two topologies name the same slot, the older one has it.
/// Then free slots are dealt, and last the tasks without a slot. `previous` may contain anything:
/// slots and tasks that do not exist are ignored.
pub fn solve(problem: &Problem, previous: &Solution) -> Solution {
    let mut slots = SlotTable::new(problem);
    let nothing = Placement::default();
    let mut drafts = Vec::with_capacity(problem.topologies.len());
    for topology in &problem.topologies {
        let before = previous.placements.get(&topology.id).unwrap_or(&nothing);
        drafts.push(TopologyDraft::keep(topology, before, problem, &mut slots));
    }
    if let Some(room) = Room::new(problem) {
        return limited::solve(drafts, slots, room);
    }
    deal_slots(&mut drafts, &mut slots);
    let placements = drafts.into_iter().map(|draft| (draft.topology.id.clone(), draft.place(&slots)));
    Solution { placements: placements.collect() }
}

/// Deals free slots to the topologies that need more workers, each time to the one with the
/// fewest, the oldest among equals.
fn deal_slots(drafts: &mut [TopologyDraft<'_>], slots: &mut SlotTable<'_>) {
    let mut waiting: BTreeSet<(usize, usize)> =
        drafts.iter().enumerate().filter(|(_, d)| d.wants_more()).map(|(n, d)| (d.n_open(), n)).collect();
    while let Some((_, n)) = waiting.pop_first() {
        let draft = &mut drafts[n];
        let Some(slot) = slots.pick(&mut draft.criteria) else { break };
        draft.workers.push(Worker {
            slot,
            tasks: Vec::new(),
            open_for_placement: true,
            is_new: true,
            restarts: true,
        });
        if draft.wants_more() {
            waiting.insert((draft.n_open(), n));
        }
    }
}

/// A topology during its placement.
struct TopologyDraft<'a> {
    topology: &'a TopologyDemand,
    workers: Vec<Worker>,
    /// Tasks without a slot, in the order of components and tasks.
    unassigned: Vec<Member>,
    /// The unassigned tasks that had a slot before, or waited for one.
    lost: TaskSet,
    criteria: SlotCriteria,
    /// Of a rebalance: the tasks that each slot had.
    former: BTreeMap<usize, TaskSet>,
}

struct Worker {
    slot: usize,
    tasks: Vec<Member>,
    /// True if it may get more tasks.
    open_for_placement: bool,
    /// True for a new worker.
    is_new: bool,
    /// True if its process restarts in any case: it is new or has lost a task.
    restarts: bool,
}

/// A task with the ordinal of its component.
#[derive(Clone, Copy)]
struct Member {
    task: TaskId,
    component: usize,
}

impl<'a> TopologyDraft<'a> {
    /// Keeps the workers that stay, and marks their slots as used.
    fn keep(
        topology: &'a TopologyDemand,
        before: &Placement,
        problem: &Problem,
        slots: &mut SlotTable<'_>,
    ) -> Self {
        let components = topology.tasks.0.values().enumerate();
        let mut members: Vec<Member> = components
            .flat_map(|(component, tasks)| tasks.iter().map(move |task| Member { task, component }))
            .collect();
        let mut draft = Self {
            topology,
            workers: Vec::new(),
            unassigned: Vec::new(),
            lost: TaskSet::default(),
            criteria: slots.criteria(&topology.id, problem),
            former: BTreeMap::new(),
        };
        let Keep::Healthy(healthy) = &topology.keep else {
            let workers = before.workers.iter();
            draft.former =
                workers.filter_map(|(slot, tasks)| Some((slots.find(slot)?, tasks.clone()))).collect();
            draft.criteria.preferred =
                draft.former.iter().map(|(slot, tasks)| (*slot, tasks.len())).collect();
            draft.unassigned = members;
            return draft;
        };
        members.sort_unstable_by_key(|member| member.task);
        let mut placed = vec![false; members.len()];
        for (slot, tasks) in &before.workers {
            let Some(slot) = slots.find(slot) else { continue };
            if !slots.may_stay(slot) {
                continue;
            }
            let mut stay = Vec::new();
            for task in tasks.iter().filter(|task| healthy.contains(*task)) {
                let Ok(n) = members.binary_search_by_key(&task, |member| member.task) else { continue };
                if !std::mem::replace(&mut placed[n], true) {
                    stay.push(members[n]);
                }
            }
            if stay.is_empty() {
                draft.criteria.avoided.insert(slot);
                continue;
            }
            slots.take(slot);
            slots.count(&mut draft.criteria, slot);
            let (open_for_placement, restarts) = (slots.open_for_placement(slot), stay.len() < tasks.len());
            draft.workers.push(Worker { slot, tasks: stay, open_for_placement, is_new: false, restarts });
        }
        draft.unassigned =
            members.into_iter().zip(placed).filter(|(_, placed)| !placed).map(|(m, _)| m).collect();
        draft.unassigned.sort_by_key(|member| (member.component, member.task));
        let unplaced = before.unplaced.iter().map(|unplaced| &unplaced.tasks);
        let known: TaskSet = before.workers.values().chain(unplaced).flat_map(|tasks| tasks.iter()).collect();
        draft.lost =
            draft.unassigned.iter().map(|member| member.task).filter(|task| known.contains(*task)).collect();
        draft
    }

    /// Number of workers that may get tasks.
    fn n_open(&self) -> usize {
        self.workers.iter().filter(|worker| worker.open_for_placement).count()
    }

    /// Returns whether another worker would have a task to run: a topology whose tasks all have
    /// a slot does not grow.
    fn wants_more(&self) -> bool {
        let n_new = self.workers.iter().filter(|worker| worker.is_new).count();
        if n_new >= self.unassigned.len() {
            return false;
        }
        let any_lost = !self.lost.is_empty();
        let can_take = |worker: &Worker| worker.open_for_placement && (worker.restarts || !any_lost);
        !self.workers.iter().any(can_take) || self.workers.len() < self.topology.workers as usize
    }

    /// Deals the tasks without a slot. They go to new workers, if there are any: a running worker
    /// that gets another task has to restart. So an intact worker gets no tasks that were lost
    /// elsewhere, which rather wait for a slot; tasks that never had a slot may be added to it.
    fn place(mut self, slots: &SlotTable<'_>) -> Placement {
        if self.topology.keep == Keep::EvenSpread && !self.workers.is_empty() {
            let members = std::mem::take(&mut self.unassigned);
            let dealt = even::deal(&self, &members);
            self.workers.iter_mut().zip(dealt).for_each(|(worker, tasks)| worker.tasks = tasks);
            return self.placement(slots, None);
        }
        let any_new = self.workers.iter().any(|worker| worker.is_new);
        let (lost, new): (Vec<Member>, Vec<Member>) =
            self.unassigned.iter().copied().partition(|member| self.lost.contains(member.task));
        let mut unplaced = TaskSet::default();
        for (members, may_join) in [(lost, false), (new, true)] {
            let can_take = |worker: &Worker| match any_new {
                true => worker.is_new,
                false => worker.open_for_placement && (worker.restarts || may_join),
            };
            let mut open: Vec<&mut Worker> =
                self.workers.iter_mut().filter(|worker| can_take(worker)).collect();
            open.sort_by_key(|worker| worker.slot);
            if open.is_empty() {
                unplaced = unplaced.iter().chain(members.iter().map(|member| member.task)).collect();
                continue;
            }
            for component in members.chunk_by(|a, b| a.component == b.component) {
                deal_tasks(component, &mut open);
            }
        }
        let unplaced = (!unplaced.is_empty()).then(|| Unplaced { tasks: unplaced, reason: slots.shortage() });
        self.placement(slots, unplaced)
    }

    fn placement(&self, slots: &SlotTable<'_>, unplaced: Option<Unplaced>) -> Placement {
        let tasks = |worker: &Worker| -> TaskSet { worker.tasks.iter().map(|member| member.task).collect() };
        let workers = self.workers.iter().map(|worker| (slots.slot(worker.slot), tasks(worker)));
        Placement { workers: workers.collect(), unplaced }
    }
}

/// Deals tasks of one component to workers: each to the one with the fewest tasks of that
/// component, and among equals to the one with the fewest tasks in total.
fn deal_tasks(tasks: &[Member], workers: &mut [&mut Worker]) {
    let Some(component) = tasks.first().map(|member| member.component) else { return };
    let mut order: BTreeSet<(usize, usize, usize)> = workers
        .iter()
        .enumerate()
        .map(|(n, worker)| {
            let same = worker.tasks.iter().filter(|member| member.component == component).count();
            (same, worker.tasks.len(), n)
        })
        .collect();
    for &member in tasks {
        let (same, all, n) = order.pop_first().expect("there is a worker to deal to");
        workers[n].tasks.push(member);
        order.insert((same + 1, all + 1, n));
    }
}
