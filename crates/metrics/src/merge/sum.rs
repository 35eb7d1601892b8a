//! Sum of the points of one metric, with reused buffers: adding to an array by bucket index is ten
//! times faster than merging bucket lists.

use crate::{
    Buckets, Point,
    point::{Histogram, Timer},
};

/// Widest range of buckets summed in the array: 32 doublings, from a microsecond to an hour.
const RANGE_MAX: usize = 1024;

/// The reused buffers.
#[derive(Debug)]
pub(super) struct Adder {
    /// Number of values in each bucket of the range.
    counts: Vec<u64>,
    /// The non-empty buckets.
    found: Vec<(i16, u64)>,
}

impl Adder {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; RANGE_MAX], found: vec![(0, 0); RANGE_MAX] }
    }

    /// The sum of points of one metric; `None` without points.
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
                    // A metric has one type, which was compared with the type of its name.
                    let merged = sum.merge(point);
                    debug_assert!(merged, "points of one metric have one type");
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
        // The positions of empty buckets are unpredictable, so the loop is branch-free.
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
