//! Instruments with which tasks measure. Clones share one instrument; any thread may use any
//! instrument.
//!
//! No instrument reads a clock or starts anything: the code that collects a report passes the time
//! in. A disabled instrument does nothing, at the cost of one load.

mod counter;
mod gauge;
mod histogram;
mod meter;
mod stripe;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use counter::Counter;
pub use gauge::Gauge;
pub use histogram::{Histogram, Sampler, Timer};
pub use meter::{Meter, Rates};

/// Shared state of the instruments of one registry: the sample rate, and the number of rejected
/// values.
#[derive(Debug, Clone)]
pub struct Shared(Arc<SharedState>);

#[derive(Debug)]
struct SharedState {
    /// Bits of the share of values that go into buckets.
    rate: AtomicU64,
    n_rejected: AtomicU64,
}

impl Shared {
    /// State with a sample rate: the share of values that histograms sort into buckets, 0 to 1.
    pub fn new(rate: f64) -> Self {
        let state = SharedState { rate: AtomicU64::new(0), n_rejected: AtomicU64::new(0) };
        let shared = Self(Arc::new(state));
        shared.set_sample_rate(rate);
        shared
    }

    /// Sets the sample rate, from the next value on. NaN counts as 0.
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

    fn reject(&self) {
        self.0.n_rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of values that were rejected because they are infinite or NaN.
    pub fn n_rejected(&self) -> u64 {
        self.0.n_rejected.load(Ordering::Relaxed)
    }
}
