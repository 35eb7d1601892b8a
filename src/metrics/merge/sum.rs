//! Sums of points under construction: buckets side by side, because adding to a place that is
//! known is ten times faster than looking for it in a map.

use std::collections::BTreeMap;

use crate::metrics::{
    Point,
    point::{Histogram, Meter, Timer},
};

/// What was added to one metric.
#[derive(Debug, Default)]
pub(super) enum Sum {
    #[default]
    Nothing,
    /// Of a counter, gauge or meter.
    Plain(Point),
    Histogram(Spread),
    Timer(Spread, Meter),
}

/// The widest range of buckets that is kept side by side: 32 doublings, from a microsecond to
/// an hour. It takes 8 KiB.
const RANGE_MAX: usize = 1024;

/// A histogram. Its buckets stand side by side; those out of that range, if any, in the rest.
#[derive(Debug)]
pub(super) struct Spread {
    rest: Histogram,
    /// The index of the first of `counts`.
    first: i16,
    counts: Vec<u64>,
}

impl Sum {
    /// Adds a point of the same metric.
    pub(super) fn add(&mut self, point: &Point) {
        match (&mut *self, point) {
            (Self::Plain(sum), point) => {
                // One metric is of one kind, which was compared with its name's.
                let merged = sum.merge(point);
                debug_assert!(merged, "points of one metric are of one kind");
            }
            (Self::Histogram(sum), Point::Histogram(point)) => sum.add_point(point),
            (Self::Timer(sum, meter), Point::Timer(point)) => {
                sum.add_point(&point.histogram);
                meter.merge(&point.meter);
            }
            (Self::Nothing, Point::Histogram(point)) => *self = Self::Histogram(Spread::of(point)),
            (Self::Nothing, Point::Timer(point)) => {
                *self = Self::Timer(Spread::of(&point.histogram), point.meter);
            }
            (Self::Nothing, Point::Counter(_) | Point::Gauge(_) | Point::Meter(_)) => {
                *self = Self::Plain(point.clone());
            }
            (Self::Histogram(_) | Self::Timer(..), _) => {
                debug_assert!(false, "points of one metric are of one kind");
            }
        }
    }

    /// Adds another sum of the same metric.
    pub(super) fn add_sum(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) => {}
            (_, Self::Plain(point)) => self.add(point),
            (Self::Histogram(sum), Self::Histogram(other)) => sum.add(other),
            (Self::Timer(sum, meter), Self::Timer(other, other_meter)) => {
                sum.add(other);
                meter.merge(other_meter);
            }
            (Self::Nothing, Self::Histogram(other)) => *self = Self::Histogram(other.copy()),
            (Self::Nothing, Self::Timer(other, meter)) => *self = Self::Timer(other.copy(), *meter),
            (Self::Plain(_) | Self::Histogram(_) | Self::Timer(..), _) => {
                debug_assert!(false, "points of one metric are of one kind");
            }
        }
    }

    /// The sum as a point; none when nothing was added.
    pub(super) fn into_point(self) -> Option<Point> {
        match self {
            Self::Nothing => None,
            Self::Plain(point) => Some(point),
            Self::Histogram(sum) => Some(Point::Histogram(sum.into_histogram())),
            Self::Timer(sum, meter) => Some(Point::Timer(Timer { histogram: sum.into_histogram(), meter })),
        }
    }
}

impl Spread {
    fn of(point: &Histogram) -> Self {
        let mut sum = Self { rest: Histogram::default(), first: 0, counts: Vec::new() };
        sum.add_point(point);
        sum
    }

    fn copy(&self) -> Self {
        Self { rest: self.rest.clone(), first: self.first, counts: self.counts.clone() }
    }

    fn add_point(&mut self, point: &Histogram) {
        self.rest.merge(&without_buckets(point));
        self.add_buckets(&point.buckets);
    }

    fn add_buckets(&mut self, buckets: &BTreeMap<i16, u64>) {
        let (Some((&least, _)), Some((&greatest, _))) = (buckets.first_key_value(), buckets.last_key_value())
        else {
            return;
        };
        if !self.reach(least, greatest) {
            buckets.iter().for_each(|(index, n)| self.add_one(*index, *n));
            return;
        }
        for (index, n) in buckets {
            let place = usize::from(index.abs_diff(self.first));
            self.counts[place] = self.counts[place].saturating_add(*n);
        }
    }

    fn add(&mut self, other: &Self) {
        self.rest.merge(&without_buckets(&other.rest));
        self.add_buckets(&other.rest.buckets);
        if other.counts.is_empty() {
            return;
        }
        if self.reach(other.first, other.last()) {
            let place = usize::from(other.first.abs_diff(self.first));
            for (mine, n) in self.counts[place..].iter_mut().zip(&other.counts) {
                *mine = mine.saturating_add(*n);
            }
        } else {
            other.each().for_each(|(index, n)| self.add_one(index, n));
        }
    }

    /// Adds to one bucket, wherever it stands.
    fn add_one(&mut self, index: i16, n: u64) {
        let has_place = !self.counts.is_empty() && (self.first..=self.last()).contains(&index);
        let count = match has_place {
            true => &mut self.counts[usize::from(index.abs_diff(self.first))],
            false => self.rest.buckets.entry(index).or_default(),
        };
        *count = count.saturating_add(n);
    }

    /// Makes places for these buckets and all between; false when there would be too many.
    fn reach(&mut self, least: i16, greatest: i16) -> bool {
        if self.counts.is_empty() {
            self.first = least;
        }
        let first = self.first.min(least);
        let last = if self.counts.is_empty() { greatest } else { self.last().max(greatest) };
        let n = usize::from(last.abs_diff(first)) + 1;
        if n > RANGE_MAX {
            return false;
        }
        let before = usize::from(self.first.abs_diff(first));
        if before > 0 {
            self.counts.splice(0..0, std::iter::repeat_n(0, before));
            self.first = first;
        }
        self.counts.resize(n, 0);
        true
    }

    /// The index of the last of `counts`, which has one.
    fn last(&self) -> i16 {
        // Within the range of indices, so nothing wraps around.
        self.first.wrapping_add_unsigned((self.counts.len() - 1) as u16)
    }

    /// The buckets side by side that hold something.
    fn each(&self) -> impl Iterator<Item = (i16, u64)> {
        (self.first..).zip(&self.counts).filter(|(_, n)| **n > 0).map(|(index, n)| (index, *n))
    }

    fn into_histogram(mut self) -> Histogram {
        let mut histogram = std::mem::take(&mut self.rest);
        // Buckets that came before their places were made stand in both.
        let apart = std::mem::take(&mut histogram.buckets);
        histogram.buckets = self.each().collect();
        for (index, n) in apart {
            let count = histogram.buckets.entry(index).or_default();
            *count = count.saturating_add(n);
        }
        histogram
    }
}

fn without_buckets(point: &Histogram) -> Histogram {
    let Histogram { count, sum, min, max, zeros, .. } = *point;
    Histogram { count, sum, min, max, zeros, ..Histogram::default() }
}
