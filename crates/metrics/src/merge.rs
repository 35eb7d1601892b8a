//! Merges reports of many workers into metric batches: rolls up levels, adds points, separates
//! minutes.
//!
//! The merger learns each name once and keeps the ids that the metric adds to, so that a report
//! costs two look-ups per leaf; the levels above are summed once for each batch.
//!
//! - A report is in one batch, with all of its points.
//! - Batches come in the order in which they must be sent: the reports of one launch are in order
//!   of their sequence numbers, whatever the clock of the worker did.
//! - The merger keeps nothing of a report after [`Merger::batches`] has returned. A caller
//!   that may have to send a report again must keep it and add it again.

mod open_batch;
mod sum;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    num::NonZeroU32,
};

use open_batch::OpenBatch;
use sum::Adder;

use super::{
    MetricBatch, MetricId, MetricName, MetricReport, MetricType, Minute,
    rollup::{self, level},
};
use stormkeeper_model::{TopologyId, WorkerId};

/// Limit on points of one batch: at some 60 bytes each, a body of a few megabytes.
pub const POINTS_MAX: usize = 100_000;

/// Limit on known names: twenty times the number that nimbus accepts of a topology by default.
/// Further names are not learned, and reports' points of those metrics are ignored.
pub const NAMES_MAX: usize = 4_000_000;

/// Merges the reports of one topology's workers into metric batches.
#[derive(Debug)]
pub struct Merger {
    topology: TopologyId,
    metrics: Vec<Metric>,
    by_name: HashMap<MetricName, u32>,
    by_id: IdMap<u32>,
    open: Vec<OpenBatch>,
    /// For each launch, the index of the batch that has its last report, and that report's
    /// sequence number.
    last: HashMap<WorkerId, (usize, u64)>,
    n_left_out: u64,
    stamp: u32,
    points_max: usize,
}

/// A metric that reports contain, or that is above such a metric.
#[derive(Debug)]
struct Metric {
    id: MetricId,
    kind: MetricType,
    level: usize,
    parents: Parents,
    /// Stamp of the pass that last counted the metric as new; see [`Merger::n_new`].
    stamp: u32,
    /// The metric after this one in the last report that had both.
    next: u32,
}

/// At most two indices: no metric adds to more than two others directly.
#[derive(Debug, Default, Clone, Copy)]
struct Parents([Option<NonZeroU32>; 2]);

impl Parents {
    fn push(&mut self, place: u32) {
        // Stored as index + 1, so that `None` takes no space.
        let free = self.0.iter_mut().find(|one| one.is_none());
        *free.expect("no metric adds to three others") = NonZeroU32::new(place + 1);
    }

    fn iter(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().flatten().map(|place| place.get() - 1)
    }
}

/// Result of learning names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Learned {
    /// Metrics of the levels above that were unknown; register them like the learned names.
    pub rolled_up: Vec<(MetricId, MetricName)>,
    /// Names whose ids belong to another metric here. These are not learned: pass them again with
    /// another id.
    pub conflicts: Vec<(MetricId, MetricName)>,
    /// Number of names that were not learned because there are [`NAMES_MAX`].
    pub n_ignored: usize,
}

/// Error of adding a report; nothing of the report was added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The report is of another topology.
    #[error("the report is of topology {0}, not of {1}")]
    Topology(TopologyId, TopologyId),
    /// The report contains metrics whose names are unknown.
    #[error("the report of worker {worker} contains {} metrics without names", ids.len())]
    Unknown {
        /// The reporting launch.
        worker: WorkerId,
        /// Ids of the metrics.
        ids: Vec<MetricId>,
    },
    /// This report, or one with a higher sequence number, was added before.
    #[error("report {number} of worker {worker} is out of order: report {last} was added before it")]
    Order {
        /// The reporting launch.
        worker: WorkerId,
        /// Sequence number of the report.
        number: u64,
        /// Sequence number of the last report that was added.
        last: u64,
    },
}

impl Merger {
    /// A merger for reports of this topology.
    pub fn new(topology: TopologyId) -> Self {
        Self {
            topology,
            metrics: Vec::new(),
            by_name: HashMap::new(),
            by_id: IdMap::default(),
            open: Vec::new(),
            last: HashMap::new(),
            n_left_out: 0,
            stamp: 0,
            points_max: POINTS_MAX,
        }
    }

    /// Learns the names of leaves and of the levels above them. Passing a name again changes
    /// nothing; with another id the metric is known by both ids, and sent under the first.
    pub fn names(&mut self, names: &[(MetricId, MetricName)]) -> Learned {
        let mut learned = Learned::default();
        for (id, name) in names {
            match (self.by_name.get(name).copied(), self.by_id.get(id).copied()) {
                (Some(known), Some(has_id)) if known == has_id => {}
                (Some(known), None) => {
                    self.by_id.insert(*id, known);
                }
                (_, Some(_)) => learned.conflicts.push((*id, name.clone())),
                (None, None) => {
                    self.learn(*id, name, &mut learned);
                }
            }
        }
        learned
    }

    fn learn(&mut self, id: MetricId, name: &MetricName, learned: &mut Learned) -> Option<u32> {
        if self.metrics.len() >= NAMES_MAX {
            learned.n_ignored += 1;
            return None;
        }
        let index = u32::try_from(self.metrics.len()).expect("there are fewer than NAMES_MAX");
        let (kind, level) = (name.kind(), level(name));
        self.metrics.push(Metric { id, kind, level, parents: Parents::default(), stamp: 0, next: index });
        self.by_name.insert(name.clone(), index);
        self.by_id.insert(id, index);
        for parent in rollup::parents(name) {
            let above = match self.by_name.get(&parent) {
                Some(known) => Some(*known),
                None => {
                    let id = MetricId::free(&parent, |id| self.by_id.contains_key(id));
                    learned.rolled_up.push((id, parent.clone()));
                    self.learn(id, &parent, learned)
                }
            };
            above.into_iter().for_each(|above| self.metrics[index as usize].parents.push(above));
        }
        Some(index)
    }

    /// All known names, each with the id under which it is sent: the names to register with a new
    /// leader.
    pub fn known_names(&self) -> Vec<(MetricId, MetricName)> {
        let id = |index: u32| self.metrics[index as usize].id;
        let mut known: Vec<_> = self.by_name.iter().map(|(name, index)| (id(*index), name.clone())).collect();
        known.sort_unstable();
        known
    }

    /// Sends the metric known by `old` under the id `new` from now on, as the leader requested.
    /// Returns false if no metric has the id `old`, or another metric has `new`.
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

    /// Adds a report. Reports of one launch must be added in the order of their sequence numbers.
    /// Points of the wrong type or with numbers that are not finite are left out and
    /// [counted](Self::n_left_out).
    ///
    /// # Errors
    /// [`AddError`] if the report cannot be added as a whole.
    pub fn add(&mut self, report: &MetricReport) -> Result<(), AddError> {
        self.add_owned(report.clone())
    }

    /// As [`add`](Self::add), without a copy of the points.
    ///
    /// # Errors
    /// [`AddError`] if the report cannot be added as a whole.
    pub fn add_owned(&mut self, report: MetricReport) -> Result<(), AddError> {
        if report.topology != self.topology {
            return Err(AddError::Topology(report.topology, self.topology.clone()));
        }
        let mut first = 0;
        if let Some(&(open, last)) = self.last.get(&report.worker) {
            if report.number <= last {
                let MetricReport { worker, number, .. } = report;
                return Err(AddError::Order { worker, number, last });
            }
            first = open;
        }
        let (indices, unknown) = self.indices(&report);
        if !unknown.is_empty() {
            return Err(AddError::Unknown { worker: report.worker, ids: unknown });
        }
        let open = self.batch_for(first, report.minute, &indices);
        self.last.insert(report.worker.clone(), (open, report.number));
        self.n_left_out += self.open[open].add(report, &indices, &self.metrics);
        Ok(())
    }

    /// Finds the metrics of the leaves, and the ids without a metric. A worker reports its leaves
    /// in the same order each time, so the metric after a given metric is mostly the same.
    fn indices(&mut self, report: &MetricReport) -> (Vec<u32>, Vec<MetricId>) {
        let (mut indices, mut unknown) = (Vec::with_capacity(report.leaves.len()), Vec::new());
        let mut before: Option<u32> = None;
        for leaf in &report.leaves {
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

    /// Finds the first batch from `first` on that is of `minute` and has room, or adds a batch.
    fn batch_for(&mut self, first: usize, minute: Minute, indices: &[u32]) -> usize {
        for at in first..self.open.len() {
            if !self.open[at].accepts(minute) {
                continue;
            }
            let most = indices.len() * (1 + ANCESTORS_MAX);
            let len = self.open[at].len();
            if len + most <= self.points_max || len + self.n_new(at, indices) <= self.points_max {
                return at;
            }
            self.open[at].set_full();
        }
        self.open.push(OpenBatch::new(minute));
        self.open.len() - 1
    }

    /// Upper bound of the number of points that these leaves and all levels above add to a batch.
    fn n_new(&mut self, open: usize, indices: &[u32]) -> usize {
        self.stamp = self.stamp.wrapping_add(1);
        let mut n = indices.len();
        let metrics = &self.metrics;
        let mut next: Vec<u32> =
            indices.iter().flat_map(|index| metrics[*index as usize].parents.iter()).collect();
        while let Some(index) = next.pop() {
            let metric = &mut self.metrics[index as usize];
            if metric.stamp != self.stamp && !self.open[open].has_rolled_up(index) {
                metric.stamp = self.stamp;
                n += 1;
                next.extend(metric.parents.iter());
            }
        }
        n
    }

    /// Takes the batches of all reports since the last call, in the order in which they must be
    /// sent. A batch has at most [`POINTS_MAX`] points, unless a single report has more.
    pub fn batches(&mut self) -> Vec<MetricBatch> {
        self.last.clear();
        let open = std::mem::take(&mut self.open);
        let mut adder = Adder::new();
        open.into_iter().map(|open| open.close(&self.topology, &self.metrics, &mut adder)).collect()
    }

    /// Number of points that were left out, because a number is not finite or the type differs
    /// from that of the name.
    pub fn n_left_out(&self) -> u64 {
        self.n_left_out
    }

    /// Number of known names.
    pub fn n_names(&self) -> usize {
        self.metrics.len()
    }
}

/// Most names above one leaf: task, component-stream, component, topology, cluster.
const ANCESTORS_MAX: usize = 5;

/// Identity hasher: ids are parts of a hash already.
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
