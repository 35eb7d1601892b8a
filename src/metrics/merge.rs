//! Snapshots of many workers to contributions: levels made, points added up, minutes apart.
//!
//! It is told names once and keeps for each which ids it adds to, so that a snapshot costs two
//! look-ups per leaf; the levels above are summed once for each contribution.
//!
//! - A cut is in one contribution, with all of its points.
//! - Contributions come in the order in which they are to be sent: the cuts of one launch stand
//!   in them by their numbers, whatever the clock of the worker did.
//! - Nothing is kept of a snapshot once [`Merger::contributions`] has answered. Whoever may
//!   have to send it again keeps it and adds it again.

mod open;
mod sum;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    num::NonZeroU32,
};

use open::Open;
use sum::Adder;

use super::{
    Contribution, MetricId, MetricName, MetricType, Minute, Snapshot,
    rollup::{self, level},
};
use crate::model::{TopologyId, WorkerId};

/// The most points of one contribution: at some 60 bytes each, a body of a few megabytes.
pub const POINTS_MAX: usize = 100_000;

/// The most names that are kept: twenty times what nimbus takes of a topology by default. More
/// are not learnt, and what is cut of them is not taken in.
pub const NAMES_MAX: usize = 4_000_000;

/// Makes contributions of the snapshots of one topology's workers.
#[derive(Debug)]
pub struct Merger {
    topology: TopologyId,
    metrics: Vec<Metric>,
    by_name: HashMap<MetricName, u32>,
    by_id: IdMap<u32>,
    open: Vec<Open>,
    /// The contribution that a launch's last cut went into, and the number of that cut.
    last: HashMap<WorkerId, (usize, u64)>,
    refused: u64,
    stamp: u32,
    points_max: usize,
}

/// A metric that it was told of, or that stands above one.
#[derive(Debug)]
struct Metric {
    id: MetricId,
    kind: MetricType,
    level: usize,
    parents: Pair,
    /// When it was last counted as new; see [`Merger::n_new`].
    stamp: u32,
    /// The metric that came after it in the last snapshot that had both.
    next: u32,
}

/// At most two places in a list: no metric adds to more others directly.
#[derive(Debug, Default, Clone, Copy)]
struct Pair([Option<NonZeroU32>; 2]);

impl Pair {
    fn push(&mut self, place: u32) {
        // One more than the place, so that none is 0.
        let free = self.0.iter_mut().find(|one| one.is_none());
        *free.expect("no metric adds to three others") = NonZeroU32::new(place + 1);
    }

    fn iter(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().flatten().map(|place| place.get() - 1)
    }
}

/// What came of telling names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// Metrics of the levels above that were not known, to be registered like the others.
    pub lifted: Vec<(MetricId, MetricName)>,
    /// Told names whose ids another metric has here. They are not learnt: tell them with
    /// another id.
    pub conflicts: Vec<(MetricId, MetricName)>,
    /// How many were not learnt because there are [`NAMES_MAX`].
    pub refused: usize,
}

/// Why a snapshot was not added. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// It is of another topology.
    #[error("a snapshot of {0} among those of {1}")]
    Topology(TopologyId, TopologyId),
    /// It holds metrics whose names nobody told.
    #[error("a snapshot of worker {worker} holds {} metrics without names", ids.len())]
    Unknown {
        /// Whose it is.
        worker: WorkerId,
        /// Their ids.
        ids: Vec<MetricId>,
    },
    /// It was added before, or one with a later number was.
    #[error("cut {number} of worker {worker} comes after cut {last}")]
    Order {
        /// Whose it is.
        worker: WorkerId,
        /// Its number.
        number: u64,
        /// The last that was added.
        last: u64,
    },
}

impl Merger {
    /// For snapshots of this topology.
    pub fn new(topology: TopologyId) -> Self {
        Self {
            topology,
            metrics: Vec::new(),
            by_name: HashMap::new(),
            by_id: IdMap::default(),
            open: Vec::new(),
            last: HashMap::new(),
            refused: 0,
            stamp: 0,
            points_max: POINTS_MAX,
        }
    }

    /// Learns the names of leaves, and with them the levels above. Telling one again changes
    /// nothing; under another id it is known by both, and contributed under the first.
    pub fn names(&mut self, names: &[(MetricId, MetricName)]) -> Told {
        let mut told = Told::default();
        for (id, name) in names {
            match (self.by_name.get(name).copied(), self.by_id.get(id).copied()) {
                (Some(known), Some(has_id)) if known == has_id => {}
                (Some(known), None) => {
                    self.by_id.insert(*id, known);
                }
                (_, Some(_)) => told.conflicts.push((*id, name.clone())),
                (None, None) => {
                    self.learn(*id, name, &mut told);
                }
            }
        }
        told
    }

    fn learn(&mut self, id: MetricId, name: &MetricName, told: &mut Told) -> Option<u32> {
        if self.metrics.len() >= NAMES_MAX {
            told.refused += 1;
            return None;
        }
        let index = u32::try_from(self.metrics.len()).expect("there are fewer than NAMES_MAX");
        let (kind, level) = (name.kind(), level(name));
        self.metrics.push(Metric { id, kind, level, parents: Pair::default(), stamp: 0, next: index });
        self.by_name.insert(name.clone(), index);
        self.by_id.insert(id, index);
        for parent in rollup::parents(name) {
            let above = match self.by_name.get(&parent) {
                Some(known) => Some(*known),
                None => {
                    let id = self.free_id(&parent);
                    told.lifted.push((id, parent.clone()));
                    self.learn(id, &parent, told)
                }
            };
            above.into_iter().for_each(|above| self.metrics[index as usize].parents.push(above));
        }
        Some(index)
    }

    fn free_id(&self, name: &MetricName) -> MetricId {
        let text = name.to_string();
        let mut probe = 0;
        loop {
            let id = MetricId::of(&text, probe);
            if !self.by_id.contains_key(&id) {
                return id;
            }
            probe += 1;
        }
    }

    /// Every name that it knows, with the id that it contributes it under: what to register
    /// with a new leader.
    pub fn known(&self) -> Vec<(MetricId, MetricName)> {
        let id = |index: u32| self.metrics[index as usize].id;
        let mut known: Vec<_> = self.by_name.iter().map(|(name, index)| (id(*index), name.clone())).collect();
        known.sort_unstable();
        known
    }

    /// From now on what comes or is lifted under the id `old` is contributed under `new`, as
    /// the leader said. False when it knows no metric of that id, or another one has `new`.
    pub fn rename(&mut self, old: MetricId, new: MetricId) -> bool {
        let Some(&index) = self.by_id.get(&old) else { return false };
        match self.by_id.get(&new) {
            Some(other) if *other != index => return false,
            Some(_) | None => {}
        }
        self.by_id.insert(new, index);
        self.metrics[index as usize].id = new;
        true
    }

    /// Adds a snapshot. Those of one launch are added in the order of their numbers; points of
    /// the wrong kind and such that are no numbers are left out and [counted](Self::refused).
    ///
    /// # Errors
    /// [`AddError`] when it cannot be added as a whole.
    pub fn add(&mut self, snapshot: &Snapshot) -> Result<(), AddError> {
        self.add_owned(snapshot.clone())
    }

    /// As [`add`](Self::add), without a copy of the points.
    ///
    /// # Errors
    /// [`AddError`] when it cannot be added as a whole.
    pub fn add_owned(&mut self, snapshot: Snapshot) -> Result<(), AddError> {
        if snapshot.topology != self.topology {
            return Err(AddError::Topology(snapshot.topology, self.topology.clone()));
        }
        let mut first = 0;
        if let Some(&(open, last)) = self.last.get(&snapshot.worker) {
            if snapshot.number <= last {
                let Snapshot { worker, number, .. } = snapshot;
                return Err(AddError::Order { worker, number, last });
            }
            first = open;
        }
        let (indices, unknown) = self.indices(&snapshot);
        if !unknown.is_empty() {
            return Err(AddError::Unknown { worker: snapshot.worker, ids: unknown });
        }
        let open = self.room(first, snapshot.minute, &indices);
        self.last.insert(snapshot.worker.clone(), (open, snapshot.number));
        self.refused += self.open[open].add(snapshot, &indices, &self.metrics);
        Ok(())
    }

    /// The metrics of the leaves, and the ids that no metric has. A worker cuts its leaves in the
    /// same order again and again, so after one metric there is mostly the same other.
    fn indices(&mut self, snapshot: &Snapshot) -> (Vec<u32>, Vec<MetricId>) {
        let (mut indices, mut unknown) = (Vec::with_capacity(snapshot.leaves.len()), Vec::new());
        let mut before: Option<u32> = None;
        for leaf in &snapshot.leaves {
            let next = before.map(|before| self.metrics[before as usize].next);
            let index = match next.filter(|next| self.metrics[*next as usize].id == leaf.id) {
                Some(next) => next,
                None => match self.by_id.get(&leaf.id) {
                    Some(index) => *index,
                    None => {
                        unknown.push(leaf.id);
                        continue;
                    }
                },
            };
            if let Some(before) = before {
                self.metrics[before as usize].next = index;
            }
            before = Some(index);
            indices.push(index);
        }
        (indices, unknown)
    }

    /// The first contribution from `first` on that is of the snapshot's minute and has room.
    fn room(&mut self, first: usize, minute: Minute, indices: &[u32]) -> usize {
        for at in first..self.open.len() {
            if !self.open[at].takes(minute) {
                continue;
            }
            let most = indices.len() * (1 + LIFTED_MAX);
            let len = self.open[at].len();
            if len + most <= self.points_max || len + self.n_new(at, indices) <= self.points_max {
                return at;
            }
            self.open[at].set_full();
        }
        self.open.push(Open::new(minute));
        self.open.len() - 1
    }

    /// How many points these leaves and all above them would add to a contribution, at most.
    fn n_new(&mut self, open: usize, indices: &[u32]) -> usize {
        self.stamp = self.stamp.wrapping_add(1);
        let mut n = indices.len();
        let metrics = &self.metrics;
        let mut next: Vec<u32> =
            indices.iter().flat_map(|index| metrics[*index as usize].parents.iter()).collect();
        while let Some(index) = next.pop() {
            let metric = &mut self.metrics[index as usize];
            if metric.stamp != self.stamp && !self.open[open].has_lifted(index) {
                metric.stamp = self.stamp;
                n += 1;
                next.extend(metric.parents.iter());
            }
        }
        n
    }

    /// What was added since this was last called, in the order in which it is to be sent. None
    /// has more than [`POINTS_MAX`] points but one of a single cut that has more by itself.
    pub fn contributions(&mut self) -> Vec<Contribution> {
        self.last.clear();
        let open = std::mem::take(&mut self.open);
        let mut adder = Adder::new();
        open.into_iter().map(|open| open.close(&self.topology, &self.metrics, &mut adder)).collect()
    }

    /// How many points were left out, because they are no numbers or of another kind than
    /// their names say.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many names it knows.
    pub fn n_names(&self) -> usize {
        self.metrics.len()
    }
}

/// The most names above one leaf: task, component-stream, component, topology, cluster.
const LIFTED_MAX: usize = 5;

/// Ids are parts of a hash already.
#[derive(Debug, Default, Clone)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn write_u32(&mut self, index: u32) {
        // Indices follow one another; the multiplication spreads them over all bits.
        self.0 = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type IdMap<T> = HashMap<MetricId, T, BuildHasherDefault<IdHasher>>;
type IndexMap<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;
