//! Distribution of values, and of durations.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Meter, Rates, Shared, stripe};
use crate::{live::Total, point};
use stormkeeper_model::clock::Monotonic;

/// Number of parts that collect values: a thread locks the part of its stripe, which it rarely
/// shares.
const PARTS: usize = 4;

/// Values, with exact count, sum and bounds, and a sample of the values in buckets.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    on: AtomicBool,
    shared: Shared,
    // Each guards the values that some threads added since the last report; held for a few
    // instructions.
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Part {
    values: point::Histogram,
    sampler: Sampler,
    /// Number and sum of the values that were taken.
    taken: Total,
}

impl Histogram {
    /// A histogram without values.
    pub fn new(shared: &Shared) -> Self {
        Self::switched(true, shared)
    }

    pub(crate) fn switched(on: bool, shared: &Shared) -> Self {
        Self(Arc::new(Inner {
            on: AtomicBool::new(on),
            shared: shared.clone(),
            parts: std::array::from_fn(|_| Mutex::new(Part::new())),
        }))
    }

    /// Adds a value. A value that is not finite is rejected and counted.
    #[inline]
    pub fn update(&self, value: f64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !value.is_finite() {
            return self.0.shared.reject();
        }
        let mut part = self.part();
        part.values.count_value(value);
        if part.sampler.takes(&self.0.shared) {
            part.values.sample(value);
        }
    }

    /// Adds a value that a [`Sampler`] of the caller has chosen: it goes into the buckets. A value that is
    /// not finite is rejected and counted.
    pub fn update_sampled(&self, value: f64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !value.is_finite() {
            return self.0.shared.reject();
        }
        let mut part = self.part();
        part.values.count_value(value);
        part.values.sample(value);
    }

    /// Adds `n` values of which only the sum is known, and that a [`Sampler`] of the caller has not chosen:
    /// each counts as their mean. A sum that is not finite is rejected and counted.
    pub fn update_many(&self, n: u64, sum: f64) {
        if n == 0 || !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !sum.is_finite() {
            return self.0.shared.reject();
        }
        self.part().values.count_many(n, sum);
    }

    #[inline]
    fn part(&self) -> MutexGuard<'_, Part> {
        self.0.parts[stripe::of_this_thread() % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the values since the last call. Each value is in exactly one result.
    pub fn take(&self) -> point::Histogram {
        let mut all = point::Histogram::default();
        for part in &self.0.parts {
            let values = part.lock().unwrap_or_else(PoisonError::into_inner).take();
            if all.count == 0 {
                all = values;
            } else {
                all.merge(&values);
            }
        }
        all
    }

    /// Returns number and sum of all values since the histogram was created, and takes none.
    pub fn total(&self) -> Total {
        let mut total = Total::default();
        for part in &self.0.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(part.taken);
            total.add(of(&part.values));
        }
        total
    }

    pub(crate) fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }
}

fn of(values: &point::Histogram) -> Total {
    Total { n: values.count, sum: values.sum }
}

impl Part {
    fn new() -> Self {
        Self { values: point::Histogram::default(), sampler: Sampler::default(), taken: Total::default() }
    }

    fn take(&mut self) -> point::Histogram {
        self.taken.add(of(&self.values));
        std::mem::take(&mut self.values)
    }
}

/// Choice of the values that go into buckets. All values have the same chance, independently: instead of a
/// random number per value, the number of values to skip is drawn.
#[derive(Debug)]
pub struct Sampler {
    /// Number of values to skip before the next sampled value.
    pass: u64,
    /// Bits of the sample rate with which `pass` was drawn.
    rate: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        // No sample rate has these bits, so the first value draws.
        Self { pass: 0, rate: u64::MAX }
    }
}

impl Sampler {
    /// Returns whether the next value is one of the sampled ones.
    #[inline]
    pub fn takes(&mut self, shared: &Shared) -> bool {
        let rate = shared.rate_bits();
        if self.rate == rate && self.pass > 0 {
            self.pass -= 1;
            return false;
        }
        self.draws(rate)
    }

    fn draws(&mut self, rate: u64) -> bool {
        let share = f64::from_bits(rate);
        if self.rate != rate {
            self.rate = rate;
            self.pass = draw(share);
            if self.pass > 0 {
                self.pass -= 1;
                return false;
            }
        }
        self.pass = draw(share);
        true
    }
}

/// Draws the number of values to skip before the next sampled value.
fn draw(share: f64) -> u64 {
    if share >= 1.0 {
        return 0;
    }
    if share <= 0.0 {
        return u64::MAX;
    }
    // From (0, 1]; the conversion saturates.
    let dice = 1.0 - fastrand::f64();
    (dice.ln() / (-share).ln_1p()) as u64
}

/// Distribution of durations, and their rate.
#[derive(Debug, Clone)]
pub struct Timer {
    histogram: Histogram,
    meter: Meter,
}

impl Timer {
    /// A timer that measures from `now` on.
    pub fn new(shared: &Shared, now: Monotonic) -> Self {
        Self::switched(true, shared, now)
    }

    pub(crate) fn switched(on: bool, shared: &Shared, now: Monotonic) -> Self {
        Self { histogram: Histogram::switched(on, shared), meter: Meter::switched(on, now) }
    }

    /// Adds one event that took `took`.
    #[inline]
    pub fn update(&self, took: Duration) {
        self.histogram.update(took.as_secs_f64() * 1e6);
        self.meter.mark();
    }

    /// Number of events since the timer was created.
    pub fn read(&self) -> u64 {
        self.meter.read()
    }

    /// Rates of the events, as [`Meter::rates`].
    pub fn rates(&self, now: Monotonic) -> Rates {
        self.meter.rates(now)
    }

    /// Takes the durations since the last call, in µs.
    pub fn take(&self) -> point::Histogram {
        self.histogram.take()
    }

    pub(crate) fn switch(&self, on: bool) {
        self.histogram.switch(on);
        self.meter.switch(on);
    }
}
