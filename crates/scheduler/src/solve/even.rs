//! Placement of the tasks of a rebalance: even over the workers, with as few changes as that allows.
//!
//! The workers have their slots already. A spread is even if the workers differ by at most one task of
//! each component, and by at most one task in total.
//!
//! 1. Workers in a former slot keep all of their tasks, one after the other, as long as the rest can
//!    still be spread evenly over the rest of the workers. Their processes go on.
//! 2. Each of the others gets its number of tasks of each component, where a worker that has more of the
//!    component is first among equals. It keeps as many of its tasks as that, and what is left fills up
//!    the others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Member, TopologyDraft};
use stormkeeper_model::TaskId;

/// Returns the tasks of each worker of `draft`, which has at least one. All tasks of the topology are
/// placed; `members` are in the order of components and tasks.
pub(super) fn deal(draft: &TopologyDraft<'_>, members: &[Member]) -> Vec<Vec<Member>> {
    let by_task: BTreeMap<TaskId, Member> = members.iter().map(|member| (member.task, *member)).collect();
    let mut seen = BTreeSet::new();
    let former: Vec<Vec<Member>> = draft
        .workers
        .iter()
        .map(|worker| {
            let tasks = draft.former.get(&worker.slot).into_iter().flat_map(|tasks| tasks.iter());
            // Damaged records may name a task twice.
            tasks.filter_map(|task| by_task.get(&task).copied()).filter(|m| seen.insert(m.task)).collect()
        })
        .collect();
    let mut spread = Spread::new(members, draft.topology.tasks.0.len(), draft.workers.len());
    let is_kept: Vec<bool> = former.iter().map(|tasks| spread.keep(tasks)).collect();
    let others: Vec<usize> = (0..former.len()).filter(|n| !is_kept[*n]).collect();
    let mut quotas = spread.quotas(others.iter().map(|n| former[*n].as_slice()));

    let mut placed: BTreeSet<TaskId> = BTreeSet::new();
    let mut dealt: Vec<Vec<Member>> = former;
    for (n, tasks) in dealt.iter_mut().enumerate() {
        if let Ok(other) = others.binary_search(&n) {
            tasks.retain(|member| take_one(&mut quotas[other][member.component]));
        }
        placed.extend(tasks.iter().map(|member| member.task));
    }
    let rest = members.iter().filter(|member| !placed.contains(&member.task)).copied();
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for member in rest {
        // Workers are filled up in their order.
        let next = open.entry(member.component).or_insert(0);
        while let Some(quota) = quotas.get_mut(*next) {
            if take_one(&mut quota[member.component]) {
                dealt[others[*next]].push(member);
                break;
            }
            *next += 1;
        }
    }
    dealt
}

fn take_one(quota: &mut usize) -> bool {
    let has_one = *quota > 0;
    *quota -= usize::from(has_one);
    has_one
}

/// Tasks that are to be spread evenly over workers.
struct Spread {
    // Least number of tasks of each component in a worker; the most is one more, or the same if they divide.
    per_worker: Vec<Range>,
    total_per_worker: Range,
    // Without those of kept workers.
    left: Vec<usize>,
    total_left: usize,
    n_workers: usize,
}

#[derive(Clone, Copy)]
struct Range {
    least: usize,
    most: usize,
}

impl Range {
    fn of(n_tasks: usize, n_workers: usize) -> Self {
        Self { least: n_tasks / n_workers.max(1), most: n_tasks.div_ceil(n_workers.max(1)) }
    }

    /// Returns whether a worker may have `n` of `left` tasks, and `others` workers the rest.
    fn allows(self, n: usize, left: usize, others: usize) -> bool {
        let rest = left.checked_sub(n);
        (self.least..=self.most).contains(&n)
            && rest.is_some_and(|rest| (self.least * others..=self.most * others).contains(&rest))
    }
}

impl Spread {
    fn new(members: &[Member], n_components: usize, n_workers: usize) -> Self {
        let left = count(members, n_components);
        Self {
            per_worker: left.iter().map(|n| Range::of(*n, n_workers)).collect(),
            total_per_worker: Range::of(members.len(), n_workers),
            left,
            total_left: members.len(),
            n_workers,
        }
    }

    /// Leaves a worker with its `tasks` if the rest can be spread evenly over the others.
    fn keep(&mut self, tasks: &[Member]) -> bool {
        let (counts, others) = (count(tasks, self.left.len()), self.n_workers.saturating_sub(1));
        let of_each = counts.iter().zip(&self.left).zip(&self.per_worker);
        let may_stay = self.total_per_worker.allows(tasks.len(), self.total_left, others)
            && of_each.into_iter().all(|((n, left), range)| range.allows(*n, *left, others));
        if may_stay {
            self.n_workers = others;
            self.total_left -= tasks.len();
            self.left.iter_mut().zip(counts).for_each(|(left, n)| *left -= n);
        }
        may_stay
    }

    /// Number of tasks of each component for each of the workers that are left, which have `former` tasks.
    fn quotas<'m>(&self, former: impl Iterator<Item = &'m [Member]>) -> Vec<Vec<usize>> {
        let former: Vec<Vec<usize>> = former.map(|tasks| count(tasks, self.left.len())).collect();
        let mut quotas: Vec<Vec<usize>> = vec![Vec::with_capacity(self.left.len()); former.len()];
        let mut n_more = vec![0_usize; former.len()];
        for (component, (left, range)) in self.left.iter().zip(&self.per_worker).enumerate() {
            let mut order: Vec<usize> = (0..former.len()).collect();
            order.sort_by_key(|n| (n_more[*n], former[*n][component] <= range.least, *n));
            let mut n_extra = left.saturating_sub(range.least * former.len());
            for n in order {
                let extra = usize::from(take_one(&mut n_extra));
                n_more[n] += extra;
                quotas[n].push(range.least + extra);
            }
        }
        quotas
    }
}

/// Number of `tasks` of each component.
fn count(tasks: &[Member], n_components: usize) -> Vec<usize> {
    let mut counts = vec![0; n_components];
    tasks.iter().for_each(|member| counts[member.component] += 1);
    counts
}
