//! Points of one metric added up, in room that is used again and again: to add to a place that
//! is known is ten times faster than to merge bucket by bucket.

use crate::metrics::{
    Buckets, Point,
    point::{Histogram, Timer},
};

/// The widest range of buckets that has places: 32 doublings, from a microsecond to an hour.
const RANGE_MAX: usize = 1024;

/// The room.
#[derive(Debug)]
pub(super) struct Adder {
    /// How many values are in each bucket of the range.
    counts: Vec<u64>,
    /// The buckets that hold something.
    found: Vec<(i16, u64)>,
}

impl Adder {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; RANGE_MAX], found: vec![(0, 0); RANGE_MAX] }
    }

    /// The sum of points of one metric; none of no points.
    pub(super) fn sum<'a>(&mut self, points: impl Iterator<Item = &'a Point> + Clone) -> Option<Point> {
        let first = points.clone().next()?;
        let histograms = points.clone().filter_map(|point| match point {
            Point::Histogram(histogram) => Some(histogram),
            Point::Timer(timer) => Some(&timer.histogram),
            Point::Counter(_) | Point::Gauge(_) | Point::Meter(_) => None,
        });
        Some(match first {
            Point::Histogram(_) => Point::Histogram(self.histogram(histograms)),
            Point::Timer(timer) => {
                let mut meter = timer.meter;
                for point in points.skip(1) {
                    if let Point::Timer(timer) = point {
                        meter.merge(&timer.meter);
                    }
                }
                Point::Timer(Timer { histogram: self.histogram(histograms), meter })
            }
            Point::Counter(_) | Point::Gauge(_) | Point::Meter(_) => {
                let mut sum = first.clone();
                for point in points.skip(1) {
                    // One metric is of one kind, which was compared with its name's.
                    let merged = sum.merge(point);
                    debug_assert!(merged, "points of one metric are of one kind");
                }
                sum
            }
        })
    }

    fn histogram<'a>(&mut self, all: impl Iterator<Item = &'a Histogram> + Clone) -> Histogram {
        let all = all.filter(|histogram| histogram.count > 0);
        let bounds = all.clone().filter_map(|histogram| histogram.buckets.bounds());
        let wide = bounds.reduce(|(least, most), (low, high)| (least.min(low), most.max(high)));
        let mut sum = Histogram::default();
        let Some((least, most)) = wide.filter(|(least, most)| usize::from(most.abs_diff(*least)) < RANGE_MAX)
        else {
            all.for_each(|histogram| sum.merge(histogram));
            return sum;
        };
        let n_places = usize::from(most.abs_diff(least)) + 1;
        let counts = &mut self.counts[..n_places];
        counts.fill(0);
        for histogram in all {
            sum.merge(&without_buckets(histogram));
            for (index, n) in histogram.buckets.iter() {
                let count = &mut counts[usize::from(index.abs_diff(least))];
                *count = count.saturating_add(n);
            }
        }
        // Which places are empty cannot be foreseen, so nothing branches on it.
        let mut n_found = 0;
        for (index, n) in (least..).zip(&*counts) {
            self.found[n_found] = (index, *n);
            n_found += usize::from(*n > 0);
        }
        sum.buckets = Buckets::ascending(&self.found[..n_found]);
        sum
    }
}

fn without_buckets(point: &Histogram) -> Histogram {
    let Histogram { count, sum, min, max, zeros, .. } = *point;
    Histogram { count, sum, min, max, zeros, ..Histogram::default() }
}
