//! From a problem and the previous solution to the next one.

use std::collections::BTreeSet;

use crate::{
    model::{TaskId, task_set::TaskSet},
    schedule::{
        problem::{Keep, Placement, Problem, Solution, Topology, Unplaced},
        slots::{Claim, SlotTable},
    },
};

/// Places every task of every topology, or says why not.
///
/// What is kept claims its slots first, the oldest topology before the others should two
/// name the same slot. Then free slots are dealt, and last the tasks without a slot.
/// `previous` may hold anything: slots and tasks that do not exist are as if absent.
pub fn solve(problem: &Problem, previous: &Solution) -> Solution {
    let mut slots = SlotTable::new(problem);
    let nothing = Placement::default();
    let mut drafts = Vec::with_capacity(problem.topologies.len());
    for topology in &problem.topologies {
        let before = previous.placements.get(&topology.id).unwrap_or(&nothing);
        drafts.push(Draft::keep(topology, before, &mut slots));
    }
    deal_slots(&mut drafts, &mut slots);
    let placements = drafts.into_iter().map(|draft| (draft.topology.id.clone(), draft.place(&slots)));
    Solution { placements: placements.collect() }
}

/// Gives free slots to the topologies that want more workers, each time to the one with the
/// fewest, the oldest among equals.
fn deal_slots(drafts: &mut [Draft<'_>], slots: &mut SlotTable<'_>) {
    let mut waiting: BTreeSet<(usize, usize)> =
        drafts.iter().enumerate().filter(|(_, d)| d.wants_more()).map(|(n, d)| (d.n_open(), n)).collect();
    while let Some((_, n)) = waiting.pop_first() {
        let draft = &mut drafts[n];
        let Some(slot) = slots.pick(&mut draft.claim) else { break };
        draft.workers.push(Worker { slot, tasks: Vec::new(), accepts: true, fresh: true, starts_anew: true });
        if draft.wants_more() {
            waiting.insert((draft.n_open(), n));
        }
    }
}

/// A topology while it is being placed.
struct Draft<'a> {
    topology: &'a Topology,
    workers: Vec<Worker>,
    /// Tasks without a slot, in the order of components and tasks.
    homeless: Vec<Member>,
    /// Those of them that had a slot before, or waited for one.
    lost: TaskSet,
    claim: Claim,
}

struct Worker {
    slot: usize,
    tasks: Vec<Member>,
    /// Whether it can be given more tasks.
    accepts: bool,
    /// Whether nothing of it ran before.
    fresh: bool,
    /// Whether its process starts anew in any case, as it is fresh or has lost a task.
    starts_anew: bool,
}

/// A task with the ordinal of its component.
#[derive(Clone, Copy)]
struct Member {
    task: TaskId,
    component: usize,
}

impl<'a> Draft<'a> {
    /// Takes the slots of what stays.
    fn keep(topology: &'a Topology, before: &Placement, slots: &mut SlotTable<'_>) -> Self {
        let components = topology.tasks.0.values().enumerate();
        let mut members: Vec<Member> = components
            .flat_map(|(component, tasks)| tasks.iter().map(move |task| Member { task, component }))
            .collect();
        let mut draft = Self {
            topology,
            workers: Vec::new(),
            homeless: Vec::new(),
            lost: TaskSet::default(),
            claim: slots.claim(),
        };
        let Keep::Healthy(healthy) = &topology.keep else {
            draft.claim.preferred = before.workers.keys().filter_map(|slot| slots.find(slot)).collect();
            draft.homeless = members;
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
                draft.claim.avoided.insert(slot);
                continue;
            }
            slots.take(slot);
            slots.count(&mut draft.claim, slot);
            let (accepts, starts_anew) = (slots.accepts(slot), stay.len() < tasks.len());
            draft.workers.push(Worker { slot, tasks: stay, accepts, fresh: false, starts_anew });
        }
        draft.homeless =
            members.into_iter().zip(placed).filter(|(_, placed)| !placed).map(|(m, _)| m).collect();
        draft.homeless.sort_by_key(|member| (member.component, member.task));
        let unplaced = before.unplaced.iter().map(|unplaced| &unplaced.tasks);
        let known: TaskSet = before.workers.values().chain(unplaced).flat_map(|tasks| tasks.iter()).collect();
        draft.lost =
            draft.homeless.iter().map(|member| member.task).filter(|task| known.contains(*task)).collect();
        draft
    }

    /// Workers that can be given tasks.
    fn n_open(&self) -> usize {
        self.workers.iter().filter(|worker| worker.accepts).count()
    }

    /// Whether another worker would have a task to run: a topology whose tasks all have a
    /// slot does not grow.
    fn wants_more(&self) -> bool {
        let n_fresh = self.workers.iter().filter(|worker| worker.fresh).count();
        if n_fresh >= self.homeless.len() {
            return false;
        }
        let any_lost = !self.lost.is_empty();
        let takes = |worker: &Worker| worker.accepts && (worker.starts_anew || !any_lost);
        !self.workers.iter().any(takes) || self.workers.len() < self.topology.workers as usize
    }

    /// Deals the tasks without a slot. They go to the workers that are new, if there are
    /// any: a running worker that gets another task has to start again. So a whole one gets
    /// none for the sake of tasks that were lost elsewhere, which rather wait for a slot;
    /// tasks that never had one may join it.
    fn place(mut self, slots: &SlotTable<'_>) -> Placement {
        let any_fresh = self.workers.iter().any(|worker| worker.fresh);
        let (lost, new): (Vec<Member>, Vec<Member>) =
            self.homeless.iter().copied().partition(|member| self.lost.contains(member.task));
        let mut unplaced = TaskSet::default();
        for (members, may_join) in [(lost, false), (new, true)] {
            let takes = |worker: &Worker| match any_fresh {
                true => worker.fresh,
                false => worker.accepts && (worker.starts_anew || may_join),
            };
            let mut open: Vec<&mut Worker> = self.workers.iter_mut().filter(|worker| takes(worker)).collect();
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
        let tasks = |worker: &Worker| -> TaskSet { worker.tasks.iter().map(|member| member.task).collect() };
        let workers = self.workers.iter().map(|worker| (slots.slot(worker.slot), tasks(worker)));
        Placement { workers: workers.collect(), unplaced }
    }
}

/// Gives tasks of one component to workers: each to one with the fewest tasks of that
/// component, and of those to one with the fewest tasks at all.
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
