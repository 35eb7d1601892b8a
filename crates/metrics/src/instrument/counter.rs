//! Event counter: exact, and cheap enough for every tuple.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::stripe;

/// A monotonic counter; each report subtracts the value of the previous report.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Stripes>);

#[derive(Debug)]
struct Stripes {
    on: AtomicBool,
    stripes: [Stripe; stripe::STRIPES],
}

/// One cache line, so that threads do not contend for it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl Counter {
    /// An enabled counter at 0.
    pub fn new() -> Self {
        Self::switched(true)
    }

    /// A counter that is enabled, or that ignores all increments.
    pub(crate) fn switched(on: bool) -> Self {
        Self(Arc::new(Stripes {
            on: AtomicBool::new(on),
            stripes: std::array::from_fn(|_| Stripe::default()),
        }))
    }

    /// Counts one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        let mine = stripe::of_this_thread();
        let stripe = &self.0.stripes[mine].0;
        if mine == stripe::SHARED {
            stripe.fetch_add(n, Ordering::Relaxed);
        } else {
            // No other thread writes to this stripe.
            stripe.store(stripe.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Returns the total. Never less than an earlier result.
    pub fn read(&self) -> u64 {
        self.0.stripes.iter().fold(0, |sum, stripe| sum.wrapping_add(stripe.0.load(Ordering::Relaxed)))
    }

    pub(crate) fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }
}
