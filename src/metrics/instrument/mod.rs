//! What tasks count with. Clones share one instrument; any thread may use any of them.
//!
//! None reads a clock or starts anything: whoever cuts passes the time in. An instrument that
//! is switched off does nothing, at the cost of one load.

mod counter;
mod gauge;
mod histogram;
mod lane;
mod meter;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use counter::Counter;
pub use gauge::Gauge;
pub use histogram::{Histogram, Timer};
pub use meter::{Meter, Rates};

/// What the instruments of one registry share: the sample rate, and how many values were no
/// numbers.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Both>);

#[derive(Debug)]
struct Both {
    /// The bits of the share of values that go into buckets.
    rate: AtomicU64,
    refused: AtomicU64,
}

impl Shared {
    /// With the share of values that histograms sort into buckets, 0 to 1.
    pub fn new(rate: f64) -> Self {
        let both = Both { rate: AtomicU64::new(0), refused: AtomicU64::new(0) };
        let shared = Self(Arc::new(both));
        shared.set_sample_rate(rate);
        shared
    }

    /// Another sample rate, from the next value on. What is no number counts as 0.
    pub fn set_sample_rate(&self, rate: f64) {
        let rate = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
        self.0.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// The sample rate.
    pub fn sample_rate(&self) -> f64 {
        f64::from_bits(self.rate_bits())
    }

    fn rate_bits(&self) -> u64 {
        self.0.rate.load(Ordering::Relaxed)
    }

    fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many values were refused because they are infinite or no numbers.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}
