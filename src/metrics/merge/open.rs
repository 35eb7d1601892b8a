//! A contribution that is still added to.

use super::{IndexMap, Metric, sum::Sum};
use crate::{
    metrics::{Contribution, Leaf, MetricId, Minute, Point, Snapshot, contribution::Cuts, rollup::LEVELS},
    model::TopologyId,
};

#[derive(Debug)]
pub(super) struct Open {
    minute: Minute,
    cuts: Vec<Cuts>,
    /// What came, mostly each id once: told apart when it is closed.
    leaves: Vec<(MetricId, Point)>,
    /// Where in `lifted` each metric above a leaf stands.
    places: IndexMap<u32>,
    lifted: Vec<Lifted>,
}

/// A metric above others, with what came from those that stand directly below it and are
/// leaves; the rest follows when it is closed.
#[derive(Debug)]
struct Lifted {
    index: u32,
    sum: Sum,
}

impl Open {
    pub(super) fn new(minute: Minute) -> Self {
        Self { minute, cuts: Vec::new(), leaves: Vec::new(), places: IndexMap::default(), lifted: Vec::new() }
    }

    pub(super) fn minute(&self) -> Minute {
        self.minute
    }

    /// How many points it will have at most.
    pub(super) fn len(&self) -> usize {
        self.leaves.len() + self.lifted.len()
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
        self.leaves.reserve(indices.len());
        for (Leaf { point, .. }, &index) in snapshot.leaves.into_iter().zip(indices) {
            let metric = &metrics[index as usize];
            if point.kind() != metric.kind || point.check().is_err() {
                left_out += 1;
                continue;
            }
            for parent in &metric.parents {
                let place = self.place(*parent, metrics);
                self.lifted[place as usize].sum.add(&point);
            }
            self.leaves.push((metric.id, point));
        }
        left_out
    }

    /// Where a metric stands, with all above it made to stand somewhere.
    fn place(&mut self, index: u32, metrics: &[Metric]) -> u32 {
        if let Some(place) = self.places.get(&index) {
            return *place;
        }
        let place = u32::try_from(self.lifted.len()).expect("there are fewer than names");
        self.lifted.push(Lifted { index, sum: Sum::default() });
        self.places.insert(index, place);
        for parent in &metrics[index as usize].parents {
            self.place(*parent, metrics);
        }
        place
    }

    /// Sums up level by level, and names points by the ids that they are contributed under.
    pub(super) fn close(mut self, topology: &TopologyId, metrics: &[Metric]) -> Contribution {
        let mut levels: [Vec<usize>; LEVELS] = Default::default();
        for (place, lifted) in self.lifted.iter().enumerate() {
            levels[metrics[lifted.index as usize].level].push(place);
        }
        let mut points = self.leaves;
        points.reserve(self.lifted.len());
        for place in levels.into_iter().flatten() {
            // All below it was added; what is above stands on a later level.
            let Lifted { index, sum } = &mut self.lifted[place];
            let (metric, sum) = (&metrics[*index as usize], std::mem::take(sum));
            for parent in &metric.parents {
                self.lifted[self.places[parent] as usize].sum.add_sum(&sum);
            }
            points.extend(sum.into_point().map(|point| (metric.id, point)));
        }
        let points = each_once(points);
        Contribution { topology: topology.clone(), minute: self.minute, cuts: self.cuts, points }
    }
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
