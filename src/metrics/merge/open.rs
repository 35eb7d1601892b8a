//! A contribution that is still added to.

use super::{IndexMap, Metric, Pair, sum::Adder};
use crate::{
    metrics::{Contribution, Leaf, MetricId, Minute, Point, Snapshot, contribution::Cuts, rollup::LEVELS},
    model::TopologyId,
};

/// No part is the last one.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Open {
    minute: Minute,
    cuts: Vec<Cuts>,
    /// What came, mostly each id once: told apart when it is closed. What stands above follows
    /// behind it then.
    points: Vec<(MetricId, Point)>,
    /// Where in `lifted` each metric above a leaf stands.
    places: IndexMap<u32>,
    lifted: Vec<Lifted>,
    parts: Vec<Part>,
    /// A snapshot had no room: it is left as it is.
    is_full: bool,
}

/// A metric above others.
#[derive(Debug)]
struct Lifted {
    index: u32,
    /// Where those stand that it adds to.
    above: Pair,
    /// The last of its parts.
    part: u32,
}

/// One of the points that a metric is the sum of.
#[derive(Debug)]
struct Part {
    point: u32,
    /// The one that came before it.
    before: u32,
}

impl Open {
    pub(super) fn new(minute: Minute) -> Self {
        Self {
            minute,
            cuts: Vec::new(),
            points: Vec::new(),
            places: IndexMap::default(),
            lifted: Vec::new(),
            parts: Vec::new(),
            is_full: false,
        }
    }

    /// Whether snapshots of this minute may go into it.
    pub(super) fn takes(&self, minute: Minute) -> bool {
        self.minute == minute && !self.is_full
    }

    pub(super) fn set_full(&mut self) {
        self.is_full = true;
    }

    /// How many points it will have at most.
    pub(super) fn len(&self) -> usize {
        self.points.len() + self.lifted.len()
    }

    /// Whether this metric stands above a leaf of it.
    pub(super) fn has_lifted(&self, index: u32) -> bool {
        self.places.contains_key(&index)
    }

    /// Adds the leaves, whose metrics are `indices`; answers how many were left out.
    pub(super) fn add(&mut self, snapshot: Snapshot, indices: &[u32], metrics: &[Metric]) -> u64 {
        let number = snapshot.number;
        match self.cuts.iter_mut().rev().find(|cuts| cuts.worker == snapshot.worker) {
            Some(cuts) if cuts.last + 1 == number => cuts.last = number,
            Some(_) | None => {
                self.cuts.push(Cuts { worker: snapshot.worker, first: number, last: number });
            }
        }
        let mut left_out = 0;
        self.points.reserve(indices.len());
        for (Leaf { point, .. }, &index) in snapshot.leaves.into_iter().zip(indices) {
            let metric = &metrics[index as usize];
            if point.kind() != metric.kind || point.check().is_err() {
                left_out += 1;
                continue;
            }
            for parent in metric.parents.iter() {
                let place = self.place(parent, metrics);
                self.add_part(place, self.points.len());
            }
            self.points.push((metric.id, point));
        }
        left_out
    }

    /// Where a metric stands, with all above it made to stand somewhere.
    fn place(&mut self, index: u32, metrics: &[Metric]) -> u32 {
        if let Some(place) = self.places.get(&index) {
            return *place;
        }
        let place = count(self.lifted.len());
        self.lifted.push(Lifted { index, above: Pair::default(), part: NONE });
        self.places.insert(index, place);
        for parent in metrics[index as usize].parents.iter() {
            let above = self.place(parent, metrics);
            self.lifted[place as usize].above.push(above);
        }
        place
    }

    fn add_part(&mut self, place: u32, point: usize) {
        let last = &mut self.lifted[place as usize].part;
        self.parts.push(Part { point: count(point), before: *last });
        *last = count(self.parts.len() - 1);
    }

    /// Sums up level by level, and names points by the ids that they are contributed under.
    pub(super) fn close(
        mut self,
        topology: &TopologyId,
        metrics: &[Metric],
        adder: &mut Adder,
    ) -> Contribution {
        let mut levels: [Vec<u32>; LEVELS] = Default::default();
        for (place, lifted) in (0..).zip(&self.lifted) {
            levels[metrics[lifted.index as usize].level].push(place);
        }
        self.points.reserve(self.lifted.len());
        for place in levels.into_iter().flatten() {
            // All below it was added; what is above stands on a later level.
            let Lifted { index, above, part } = self.lifted[place as usize];
            let Some(sum) = adder.sum(self.parts_of(part)) else { continue };
            for above in above.iter() {
                self.add_part(above, self.points.len());
            }
            self.points.push((metrics[index as usize].id, sum));
        }
        let points = each_once(self.points);
        Contribution { topology: topology.clone(), minute: self.minute, cuts: self.cuts, points }
    }

    /// The points from this part on, back to the first.
    fn parts_of(&self, part: u32) -> impl Iterator<Item = &Point> + Clone {
        let part = self.parts.get(part as usize);
        let all = std::iter::successors(part, |part| self.parts.get(part.before as usize));
        all.map(|part| &self.points[part.point as usize].1)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("the points of a minute are fewer than names, and those have numbers")
}

/// Merges those of the same id. There are none but when a launch was cut twice, or a task moved
/// within the minute.
fn each_once(mut points: Vec<(MetricId, Point)>) -> Vec<(MetricId, Point)> {
    // Points are large: to sort the ids alone is several times faster.
    let mut ids: Vec<MetricId> = points.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if ids.is_sorted_by(|a, b| a < b) {
        return points;
    }
    points.sort_unstable_by_key(|(id, _)| *id);
    points.dedup_by(|(id, point), (kept_id, kept)| {
        let is_same = id == kept_id;
        if is_same {
            // One metric is of one kind, which was compared with its name's.
            let merged = kept.merge(point);
            debug_assert!(merged, "points of one metric are of one kind");
        }
        is_same
    });
    points
}
