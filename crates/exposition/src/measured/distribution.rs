//! Values in the units of families.

use crate::Distribution;
use stormkeeper_metrics::{percentile::middle, point::Histogram};

/// Returns `value` times `scale`, exact for whole results of whole numbers.
pub(super) fn scaled(value: f64, scale: f64) -> f64 {
    if scale < 1.0 { value / (1.0 / scale).round() } else { value * scale }
}

/// Returns the distribution of the sampled values of a histogram.
///
/// Each bucket becomes the nearest bucket of the other unit, as 2^(i/32) µs is no such power of
/// seconds: a percentile is at most 1.5 % off, instead of 1.1 %. Each value of a bucket counts as
/// its middle in the sum. So all numbers of the result only grow while the histogram grows.
pub(super) fn distribution(histogram: &Histogram, scale: f64, bounds: &'static [f64]) -> Distribution {
    let shift = (scale.log2() * 32.0).round() as i32 + 1;
    let mut distribution = Distribution {
        count: histogram.zeros,
        sum: 0.0,
        zeros: histogram.zeros,
        native: Vec::with_capacity(histogram.buckets.len()),
        bounds,
        cumulative: vec![histogram.zeros; bounds.len()],
    };
    for (index, n) in histogram.buckets.iter() {
        let value = middle(index) * scale;
        distribution.count = distribution.count.saturating_add(n);
        distribution.sum += value * n as f64;
        distribution.native.push((i32::from(index) + shift, n));
        for (bound, count) in bounds.iter().zip(&mut distribution.cumulative) {
            if value <= *bound {
                *count = count.saturating_add(n);
            }
        }
    }
    distribution
}
