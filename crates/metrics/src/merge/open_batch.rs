//! A metric batch that still accepts reports.

use std::collections::{BTreeMap, HashMap};

use super::{IndexMap, Metric, Parents, sum::Adder};
use crate::{
    Leaf, MetricBatch, MetricId, MetricReport, Minute, Point,
    batch::{LaunchReadings, SequenceRange},
    rollup::LEVELS,
};
use stormkeeper_model::{Timestamp, TopologyId};

/// Index that means "no part".
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct OpenBatch {
    minute: Minute,
    reports: Vec<SequenceRange>,
    /// Points of the leaves, mostly each id once: duplicates are merged when the batch is closed.
    /// The points of the levels above are then appended.
    points: Vec<(MetricId, Point)>,
    /// For each report, the end of its leaves in `points`, and the start time of its launch.
    launches: Vec<(usize, Timestamp)>,
    /// Set of the metrics of the leaves with readings, as bits by index.
    read: Vec<u64>,
    /// True once two leaves have a reading of the same metric.
    is_read_twice: bool,
    /// Index in `nodes` of each metric above a leaf.
    places: IndexMap<u32>,
    nodes: Vec<RollupNode>,
    parts: Vec<Part>,
    /// True once a report had no room: the batch accepts no more reports.
    is_full: bool,
}

/// A metric above others.
#[derive(Debug)]
struct RollupNode {
    index: u32,
    /// Indices of the nodes that this node adds to.
    above: Parents,
    /// Index of the last of its parts.
    part: u32,
}

/// One of the points whose sum is the point of a metric.
#[derive(Debug)]
struct Part {
    point: u32,
    /// Index of the part before this one.
    before: u32,
}

impl OpenBatch {
    pub(super) fn new(minute: Minute) -> Self {
        Self {
            minute,
            reports: Vec::new(),
            points: Vec::new(),
            launches: Vec::new(),
            read: Vec::new(),
            is_read_twice: false,
            places: IndexMap::default(),
            nodes: Vec::new(),
            parts: Vec::new(),
            is_full: false,
        }
    }

    /// Returns whether reports of this minute may be added.
    pub(super) fn accepts(&self, minute: Minute) -> bool {
        self.minute == minute && !self.is_full
    }

    pub(super) fn set_full(&mut self) {
        self.is_full = true;
    }

    /// Upper bound of the number of points when closed.
    pub(super) fn len(&self) -> usize {
        self.points.len() + self.nodes.len()
    }

    /// Returns whether this metric is above a leaf of the batch.
    pub(super) fn has_rolled_up(&self, index: u32) -> bool {
        self.places.contains_key(&index)
    }

    /// Adds the leaves, whose metrics are `indices`; returns the number of leaves left out.
    pub(super) fn add(&mut self, report: MetricReport, indices: &[u32], metrics: &[Metric]) -> u64 {
        let number = report.number;
        match self.reports.iter_mut().rev().find(|reports| reports.worker == report.worker) {
            Some(reports) if reports.last + 1 == number => reports.last = number,
            Some(_) | None => {
                self.reports.push(SequenceRange { worker: report.worker, first: number, last: number });
            }
        }
        let mut left_out = 0;
        self.points.reserve(indices.len());
        for (Leaf { point, .. }, &index) in report.leaves.into_iter().zip(indices) {
            let metric = &metrics[index as usize];
            if point.kind() != metric.kind || point.check().is_err() {
                left_out += 1;
                continue;
            }
            for parent in metric.parents.iter() {
                let place = self.place(parent, metrics);
                self.add_part(place, self.points.len());
            }
            if point.read_at().is_some() {
                self.is_read_twice |= !insert(&mut self.read, index);
            }
            self.points.push((metric.id, point));
        }
        self.launches.push((self.points.len(), report.started));
        left_out
    }

    /// Index of the node of a metric; creates the node and all nodes above it if necessary.
    fn place(&mut self, index: u32, metrics: &[Metric]) -> u32 {
        if let Some(place) = self.places.get(&index) {
            return *place;
        }
        let place = count(self.nodes.len());
        self.nodes.push(RollupNode { index, above: Parents::default(), part: NONE });
        self.places.insert(index, place);
        for parent in metrics[index as usize].parents.iter() {
            let above = self.place(parent, metrics);
            self.nodes[place as usize].above.push(above);
        }
        place
    }

    fn add_part(&mut self, place: u32, point: usize) {
        let last = &mut self.nodes[place as usize].part;
        self.parts.push(Part { point: count(point), before: *last });
        *last = count(self.parts.len() - 1);
    }

    /// Sums up level by level, and assigns to each point the id under which it is sent.
    pub(super) fn close(
        mut self,
        topology: &TopologyId,
        metrics: &[Metric],
        adder: &mut Adder,
    ) -> MetricBatch {
        let readings = self.settle_readings();
        let mut levels: [Vec<u32>; LEVELS] = Default::default();
        for (place, node) in (0..).zip(&self.nodes) {
            levels[metrics[node.index as usize].level].push(place);
        }
        self.points.reserve(self.nodes.len());
        for place in levels.into_iter().flatten() {
            // All lower levels are added already; the parents are on later levels.
            let RollupNode { index, above, part } = self.nodes[place as usize];
            let Some(sum) = adder.sum(self.parts_of(part)) else { continue };
            for above in above.iter() {
                self.add_part(above, self.points.len());
            }
            self.points.push((metrics[index as usize].id, sum));
        }
        let points = merge_duplicates(self.points);
        let (topology, minute, reports) = (topology.clone(), self.minute, self.reports);
        MetricBatch { topology, minute, reports, points, readings }
    }

    /// Retracts the readings of leaves of which a later launch has a reading of the same minute,
    /// before they are summed. Returns the readings that remain.
    fn settle_readings(&mut self) -> Vec<LaunchReadings> {
        let mut readings: BTreeMap<Timestamp, Vec<MetricId>> = BTreeMap::new();
        let mut last: HashMap<MetricId, (Minute, Timestamp)> = HashMap::new();
        for (id, at, started) in self.leaf_readings().filter(|_| self.is_read_twice) {
            let last = last.entry(id).or_insert((at, started));
            *last = (*last).max((at, started));
        }
        let mut replaced = Vec::new();
        let mut first = 0;
        for &(end, started) in &self.launches {
            let mut leaves = Vec::new();
            for (index, (id, point)) in (first..).zip(&self.points[first..end]) {
                let Some(at) = point.read_at() else { continue };
                match last.get(id) {
                    Some(&(last_at, last)) if last_at == at && last > started => replaced.push(index),
                    Some(&(last_at, _)) if last_at > at => {}
                    Some(_) | None => leaves.push(*id),
                }
            }
            if !leaves.is_empty() {
                readings.entry(started).or_default().append(&mut leaves);
            }
            first = end;
        }
        for index in replaced {
            let point = &mut self.points[index].1;
            point.retract(&point.clone());
        }
        let listed = |(started, mut leaves): (Timestamp, Vec<MetricId>)| {
            if self.is_read_twice {
                leaves.sort_unstable();
                leaves.dedup();
            }
            LaunchReadings { started, leaves }
        };
        readings.into_iter().map(listed).collect()
    }

    /// The leaves with readings: id, minute of the reading, start time of the launch.
    fn leaf_readings(&self) -> impl Iterator<Item = (MetricId, Minute, Timestamp)> {
        let starts = std::iter::once(0).chain(self.launches.iter().map(|(end, _)| *end));
        let leaves = self.launches.iter().zip(starts);
        leaves.flat_map(|(&(end, started), first)| {
            self.points[first..end]
                .iter()
                .filter_map(move |(id, point)| Some((*id, point.read_at()?, started)))
        })
    }

    /// The points from this part on, back to the first.
    fn parts_of(&self, part: u32) -> impl Iterator<Item = &Point> + Clone {
        let part = self.parts.get(part as usize);
        let all = std::iter::successors(part, |part| self.parts.get(part.before as usize));
        all.map(|part| &self.points[part.point as usize].1)
    }
}

/// Adds `index` to a set of bits. Returns false if the set had it.
fn insert(set: &mut Vec<u64>, index: u32) -> bool {
    let (word, bit) = (index as usize / 64, 1 << (index % 64));
    if set.len() <= word {
        set.resize(word + 1, 0);
    }
    let is_new = set[word] & bit == 0;
    set[word] |= bit;
    is_new
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("a minute has fewer points than there are names, which have 32-bit indices")
}

/// Merges points of the same id. There are duplicates only if a launch reported twice, or a task
/// moved, within the minute.
fn merge_duplicates(mut points: Vec<(MetricId, Point)>) -> Vec<(MetricId, Point)> {
    // Points are large: sorting the ids alone is several times faster.
    let mut ids: Vec<MetricId> = points.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if ids.is_sorted_by(|a, b| a < b) {
        return points;
    }
    points.sort_unstable_by_key(|(id, _)| *id);
    points.dedup_by(|(id, point), (kept_id, kept)| {
        let is_same = id == kept_id;
        if is_same {
            // A metric has one type, which was compared with the type of its name.
            let merged = kept.merge(point);
            debug_assert!(merged, "points of one metric have one type");
        }
        is_same
    });
    points
}
