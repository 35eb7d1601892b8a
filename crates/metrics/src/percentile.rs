//! Summary of a histogram: percentiles, mean and spread.
//!
//! The buckets are those of a base-2 exponential histogram of schema 5: thirty-two for each
//! doubling, each with its upper bound. A value is represented by the harmonic middle of its
//! bucket, which is at most 1.083 % off, whatever the value was; bounds, count and sum are exact.
//! Buckets add up over tasks and over time, so the same error bound holds for percentiles of a
//! topology or of a day.

use super::point::Histogram;

/// Buckets for each doubling: schema 5.
const PER_DOUBLING: f64 = 32.0;

/// Summary of a histogram for display.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of values. Exact.
    pub count: u64,
    /// Minimum; 0 without values. Exact.
    pub min: f64,
    /// Maximum; 0 without values. Exact.
    pub max: f64,
    /// Mean; 0 without values. Exact.
    pub mean: f64,
    /// Standard deviation of the sampled values; `None` without sampled values. Estimated: a
    /// sampled value counts as the middle of its bucket, values of 0 or less count as 0.
    pub stddev: Option<f64>,
    /// Percentiles of the sampled values; `None` without sampled values.
    pub percentiles: Option<Percentiles>,
}

/// The percentiles that are shown everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p95: f64,
    pub p98: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Bucket index of a positive number: the `i` with `2^(i/32) < value <= 2^((i+1)/32)`. Values
/// beyond the first or the last bucket are in that bucket.
pub fn bucket(value: f64) -> i16 {
    // The conversion saturates at both ends.
    ((value.log2() * PER_DOUBLING).ceil() - 1.0) as i16
}

/// Representative value of a bucket: its relative distance to the lower and to the upper bound is
/// the same.
pub fn middle(bucket: i16) -> f64 {
    // 2 l u / (l + u) with u = l * 2^(1/32), without overflow.
    let step = (1.0 / PER_DOUBLING).exp2();
    (f64::from(bucket) / PER_DOUBLING).exp2() * (2.0 * step / (1.0 + step))
}

impl Histogram {
    /// Sorts a value into its bucket.
    pub(super) fn sample(&mut self, value: f64) {
        if value > 0.0 {
            self.buckets.add(bucket(value), 1);
        } else {
            self.zeros += 1;
        }
    }

    /// Number of sampled values, including values of 0 or less.
    pub fn n_sampled(&self) -> u64 {
        self.buckets.iter().fold(self.zeros, |sum, (_, n)| sum.saturating_add(n))
    }

    /// The least sampled value that at least the share `q` of all sampled values does not exceed,
    /// as the middle of its bucket, within the exact bounds. `None` without sampled values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let n = self.n_sampled();
        if n == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * n as f64).ceil() as u64).clamp(1, n);
        let mut seen = self.zeros;
        let mut value = 0.0;
        if seen < rank {
            for (index, n) in self.buckets.iter() {
                seen = seen.saturating_add(n);
                if seen >= rank {
                    value = middle(index);
                    break;
                }
            }
        }
        Some(self.within_bounds(value))
    }

    /// The mean of all values. Exact; 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// The estimated standard deviation: see [`Summary::stddev`].
    pub fn stddev(&self) -> Option<f64> {
        let n = self.n_sampled();
        if n == 0 {
            return None;
        }
        let values = || {
            let buckets = self.buckets.iter().map(|(index, n)| (middle(index), n as f64));
            std::iter::once((0.0, self.zeros as f64))
                .chain(buckets)
                .filter(|(_, n)| *n > 0.0)
                .map(|(value, n)| (self.within_bounds(value), n))
        };
        let mean = values().map(|(value, share)| value * (share / n as f64)).sum::<f64>();
        let variance =
            values().map(|(value, share)| (value - mean).powi(2) * (share / n as f64)).sum::<f64>();
        Some(variance.sqrt().min(f64::MAX))
    }

    /// Returns the summary for display.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            min: self.min,
            max: self.max,
            mean: self.mean(),
            stddev: self.stddev(),
            percentiles: self.percentiles(),
        }
    }

    /// Returns the percentiles; `None` without sampled values.
    pub fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles {
            p50: self.quantile(0.5)?,
            p75: self.quantile(0.75)?,
            p90: self.quantile(0.9)?,
            p95: self.quantile(0.95)?,
            p98: self.quantile(0.98)?,
            p99: self.quantile(0.99)?,
            p999: self.quantile(0.999)?,
        })
    }

    fn within_bounds(&self, value: f64) -> f64 {
        value.max(self.min).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The worst error of a schema-5 bucket is 1.083 %.
    const WORST: f64 = 0.0109;

    const SHARES: [f64; 7] = [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999];

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.count_value(*value);
            histogram.sample(*value);
        }
        histogram
    }

    /// The value of the same rank in the list of values.
    fn exact(values: &mut [f64], q: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
    }

    fn is_near(found: f64, exact: f64) -> bool {
        (found - exact).abs() <= WORST * exact.abs()
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        let value =
            prop_oneof![1e-3..1e3, 1.0..2.0, (1u32..5000).prop_map(f64::from), 1e-300..1e300, Just(0.0)];
        prop::collection::vec(value, 1..120)
    }

    proptest! {
        #[test]
        fn percentiles_are_within_the_documented_error(parts in prop::collection::vec(values(), 1..4)) {
            let mut merged = Histogram::default();
            parts.iter().for_each(|part| merged.merge(&of(part)));
            let mut all = parts.concat();
            for q in SHARES.into_iter().chain([0.0, 1.0]) {
                let (found, exact) = (merged.quantile(q).expect("sampled"), exact(&mut all, q));
                prop_assert!(is_near(found, exact), "{} of q {} for {}", found, q, exact);
            }
            prop_assert_eq!(merged.count, all.len() as u64);
            prop_assert_eq!((merged.min, merged.max), (all[0], all[all.len() - 1]));
        }

        #[test]
        fn a_value_lies_in_its_bucket(value in prop_oneof![1e-3f64..1e6, 1e-300..1e300]) {
            let index = f64::from(bucket(value));
            let slack = 1.0 + 1e-12;
            prop_assert!((index / 32.0).exp2() < value * slack && value <= ((index + 1.0) / 32.0).exp2() * slack);
        }

        #[test]
        fn the_standard_deviation_is_within_the_error(values in prop::collection::vec(1.0f64..10_000.0, 2..200)) {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let exact = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
            let found = of(&values).stddev().expect("sampled");
            // The largest possible error of a single value.
            prop_assert!((found - exact).abs() <= 10_000.0 * WORST, "{} for {}", found, exact);
        }
    }

    #[test]
    fn upper_bounds_belong_to_their_buckets() {
        let check = |value: f64, index| assert_eq!(bucket(value), index, "{value}");
        check(1.0, -1);
        check(1.0000001, 0);
        check(2.0, 31);
        check(4.0, 63);
        check(0.5, -33);
        check(2f64.powi(-1022), -32_705);
        check(f64::from_bits(1), i16::MIN);
        check(f64::MAX, i16::MAX);
    }

    #[test]
    fn quantiles_stay_within_the_exact_bounds() {
        assert_eq!(of(&[17.3]).quantile(0.5), Some(17.3));
        let all = of(&[-5.0, -1.0, 0.0]);
        assert_eq!((all.quantile(0.0), all.quantile(1.0)), (Some(0.0), Some(0.0)));
        assert_eq!(of(&[-5.0, -1.0]).quantile(0.5), Some(-1.0));
        assert_eq!(of(&[f64::MAX]).quantile(0.5), Some(f64::MAX));
    }

    #[test]
    fn without_sampled_values_there_are_no_percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.mean(), 0.0);
        histogram.count_value(4.0);
        histogram.count_value(8.0);
        let summary = histogram.summary();
        assert_eq!((summary.percentiles, summary.stddev), (None, None));
        assert_eq!((summary.count, summary.min, summary.max, summary.mean), (2, 4.0, 8.0, 6.0));
    }
}
