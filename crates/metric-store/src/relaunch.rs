//! Readings of launches that follow each other within a minute: the last launch's reading of a leaf
//! counts, on every level. Counts of all launches add up.
//!
//! Stored points are sums, so a batch replaces a stored reading by subtracting it: once on the leaf,
//! and once on each level above. The subtraction is part of the entry of the metric log.

use std::collections::HashMap;

use super::Error;
use stormkeeper_metrics::{MetricBatch, MetricId, Minute, Point};
use stormkeeper_model::{Term, Timestamp};

/// Minutes for which the start times of launches are remembered. In an older minute, a reading that
/// arrives replaces the stored one.
const MINUTES_MAX: u32 = 10;

/// Leaf, minute of its reading, and start time of the launch that read it.
pub(super) type Reading = (MetricId, Minute, Timestamp);

/// Start times of the launches whose readings this leader has stored, in memory: one entry of each
/// leaf that had a reading in the last [`MINUTES_MAX`] minutes, so at most one of each registered
/// metric.
#[derive(Debug)]
pub(super) struct LastLaunches {
    term: Option<Term>,
    /// From this minute on, all stored readings are in `by_leaf`: they were stored in this term.
    complete_from: Minute,
    by_leaf: HashMap<MetricId, (Minute, Timestamp)>,
}

impl LastLaunches {
    pub(super) fn new() -> Self {
        Self { term: None, complete_from: Minute(u32::MAX), by_leaf: HashMap::new() }
    }

    /// Begins again if `term` is another term than before. `ahead` is the last minute that another
    /// leader may have accepted.
    pub(super) fn begin(&mut self, term: Term, ahead: Minute) {
        if self.term != Some(term) {
            *self = Self { term: Some(term), complete_from: ahead.plus(1), by_leaf: HashMap::new() };
        }
    }

    /// Remembers the readings of a stored batch. `now` is the current minute.
    pub(super) fn record(&mut self, stored: &[Reading], now: Minute) {
        let oldest = now.minus(MINUTES_MAX);
        if oldest > self.complete_from {
            self.complete_from = oldest;
            self.by_leaf.retain(|_, (minute, _)| *minute >= oldest);
        }
        for &(leaf, at, started) in stored {
            let last = self.by_leaf.entry(leaf).or_insert((at, started));
            *last = (*last).max((at, started));
        }
    }

    /// Relation of the reading of a launch that started at `started` to the stored readings.
    fn relation(&self, leaf: MetricId, at: Minute, started: Timestamp) -> Relation {
        match self.by_leaf.get(&leaf) {
            Some((minute, last)) if *minute >= at && *last > started => Relation::Earlier,
            Some((minute, last)) if *minute == at && *last == started => Relation::Same,
            Some((minute, _)) if *minute >= at => Relation::Later,
            Some(_) | None if at >= self.complete_from => Relation::Only,
            Some(_) | None => Relation::Later,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Nothing is stored for this minute.
    Only,
    /// Of the launch whose reading is stored.
    Same,
    /// A stored reading is replaced.
    Later,
    /// A stored reading stays.
    Earlier,
}

/// Reads what the store has; see [`settle`].
pub(super) trait Stored {
    /// Returns the point of a leaf in a minute.
    fn point(&self, leaf: MetricId, minute: Minute) -> Result<Option<Point>, Error>;

    /// Returns the ids of the levels above a leaf.
    fn above(&self, leaf: MetricId) -> Result<Vec<MetricId>, Error>;
}

/// Changes the points of `batch`, sorted by id, so that each leaf has the reading of its last launch
/// once they are added to the stored points of `minute`. Returns the readings that count, to be
/// [recorded](LastLaunches::record) when the batch is stored.
pub(super) fn settle(
    batch: &mut MetricBatch,
    minute: Minute,
    launches: &LastLaunches,
    stored: &impl Stored,
) -> Result<Vec<Reading>, Error> {
    let MetricBatch { points, readings, .. } = batch;
    debug_assert!(points.is_sorted_by_key(|(id, _)| *id), "found by binary search");
    let mut counted = Vec::new();
    for of_launch in std::mem::take(readings) {
        let started = of_launch.started;
        for leaf in of_launch.leaves {
            let Some(reading) = point_of(points, leaf).cloned() else { continue };
            let Some(at) = reading.read_at() else { continue };
            let relation = launches.relation(leaf, at, started);
            if relation != Relation::Earlier {
                counted.push((leaf, at, started));
            }
            if matches!(relation, Relation::Only | Relation::Same) {
                continue;
            }
            let Some(before) = stored.point(leaf, minute)?.filter(|before| before.read_at() == Some(at))
            else {
                continue;
            };
            let replaced = if relation == Relation::Earlier { &reading } else { &before };
            for id in std::iter::once(leaf).chain(stored.above(leaf)?) {
                if let Some(point) = point_of(points, id) {
                    point.retract(replaced);
                }
            }
        }
    }
    Ok(counted)
}

fn point_of(points: &mut [(MetricId, Point)], id: MetricId) -> Option<&mut Point> {
    let index = points.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(&mut points[index].1)
}
