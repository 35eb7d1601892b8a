//! How values are distributed, and how long things take.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Meter, Rates, Shared, lane};
use crate::{clock::Monotonic, metrics::point};

/// How many parts its values are gathered in: a thread locks the part of its lane, which is
/// mostly its own.
const PARTS: usize = 4;

/// Values, with exact count, sum and bounds; a sample of them in buckets.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    on: AtomicBool,
    shared: Shared,
    // Each guards what some threads added since the last cut; held for a few instructions.
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Part {
    values: point::Histogram,
    /// So many values are passed over before the next one is sampled.
    pass: u64,
    /// The bits of the rate that `pass` was drawn with.
    rate: u64,
}

impl Histogram {
    /// One without values.
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

    /// Takes in a value. What is no finite number is refused and counted.
    #[inline]
    pub fn update(&self, value: f64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !value.is_finite() {
            return self.0.shared.refuse();
        }
        let rate = self.0.shared.rate_bits();
        let mut part =
            self.0.parts[lane::of_this_thread() % PARTS].lock().unwrap_or_else(PoisonError::into_inner);
        part.values.count_value(value);
        if part.rate == rate && part.pass > 0 {
            part.pass -= 1;
        } else {
            part.maybe_sample(rate, value);
        }
    }

    /// What came since this was last called. Each value is in exactly one answer.
    pub fn take(&self) -> point::Histogram {
        let mut all = point::Histogram::default();
        for part in &self.0.parts {
            let values = std::mem::take(&mut part.lock().unwrap_or_else(PoisonError::into_inner).values);
            if all.count == 0 {
                all = values;
            } else {
                all.merge(&values);
            }
        }
        all
    }

    pub(crate) fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }
}

impl Part {
    fn new() -> Self {
        // A rate that there is not: the first value draws.
        Self { values: point::Histogram::default(), pass: 0, rate: u64::MAX }
    }

    /// Samples the value when it is its turn: each has the same chance, on its own. Instead of
    /// throwing dice for every value, the number of those to pass over is drawn.
    fn maybe_sample(&mut self, rate: u64, value: f64) {
        let share = f64::from_bits(rate);
        if self.rate != rate {
            self.rate = rate;
            self.pass = draw(share);
            if self.pass > 0 {
                self.pass -= 1;
                return;
            }
        }
        self.values.sample(value);
        self.pass = draw(share);
    }
}

/// How many values are passed over before the next one that is sampled.
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

/// How long something takes, and how often it happens.
#[derive(Debug, Clone)]
pub struct Timer {
    histogram: Histogram,
    meter: Meter,
}

impl Timer {
    /// One that measures from `now` on.
    pub fn new(shared: &Shared, now: Monotonic) -> Self {
        Self::switched(true, shared, now)
    }

    pub(crate) fn switched(on: bool, shared: &Shared, now: Monotonic) -> Self {
        Self { histogram: Histogram::switched(on, shared), meter: Meter::switched(on, now) }
    }

    /// It happened, and took so long.
    #[inline]
    pub fn update(&self, took: Duration) {
        self.histogram.update(took.as_secs_f64() * 1e6);
        self.meter.mark();
    }

    /// How often it happened since it was made.
    pub fn read(&self) -> u64 {
        self.meter.read()
    }

    /// How often it happens, as [`Meter::rates`].
    pub fn rates(&self, now: Monotonic) -> Rates {
        self.meter.rates(now)
    }

    /// What came since this was last called, in µs.
    pub fn take(&self) -> point::Histogram {
        self.histogram.take()
    }

    pub(crate) fn switch(&self, on: bool) {
        self.histogram.switch(on);
        self.meter.switch(on);
    }
}
