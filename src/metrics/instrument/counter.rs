//! How often something happened: exact, and cheap enough for every tuple.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::lane;

/// Counts. Only grows; whoever cuts subtracts what he read before.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Lanes>);

#[derive(Debug)]
struct Lanes {
    on: AtomicBool,
    lanes: [Lane; lane::LANES],
}

/// One cache line, so that threads do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl Counter {
    /// One that stands at 0 and counts.
    pub fn new() -> Self {
        Self::switched(true)
    }

    /// One that counts, or one that does nothing.
    pub(crate) fn switched(on: bool) -> Self {
        Self(Arc::new(Lanes { on: AtomicBool::new(on), lanes: std::array::from_fn(|_| Lane::default()) }))
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
        let mine = lane::of_this_thread();
        let lane = &self.0.lanes[mine].0;
        if mine == lane::SHARED {
            lane.fetch_add(n, Ordering::Relaxed);
        } else {
            // Nobody else writes to this lane.
            lane.store(lane.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// All that was counted. Never less than it answered before.
    pub fn read(&self) -> u64 {
        self.0.lanes.iter().fold(0, |sum, lane| sum.wrapping_add(lane.0.load(Ordering::Relaxed)))
    }

    pub(crate) fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }
}
