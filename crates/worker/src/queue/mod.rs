//! Queues of tuples: from each emitter to each receiver a lane of its own.
//!
//! ```text
//!  emitter ─ Lane ─┐
//!  emitter ─ Lane ─┼─ Inbox ─ receiver
//!  emitter ─ Lane ─┘
//! ```
//!
//! - A lane has two batches behind one lock: the emitter appends to the first, and the receiver swaps both
//!   when it has emptied its own. So the receiver takes whatever is there with one lock, and a tuple can be
//!   received from the moment of its emit: nothing waits until a batch is full, and there is no timer.
//! - Tuples of one lane keep their order. The receiver takes the lanes in turn, a batch of each.
//! - A lane is bounded by [`Capacity`]. A row that does not fit waits with its emitter until the receiver
//!   swaps; a lane without rows takes a row of any size.
//! - Memory: a lane holds at most one batch that is being filled, and an inbox one that is being read. An
//!   inbox therefore holds at most (number of its emitters + 1) × [`Capacity::bytes`], plus rows that are
//!   larger than that.
//!
//! Whoever holds a lock does not wait and runs no foreign code.

mod inbox;
mod lane;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

#[cfg(any(test, feature = "fuzzing"))]
use {stormkeeper_model::TaskId, stormkeeper_stream::Tuple};

pub use inbox::Inbox;
use lane::LaneState;
pub(crate) use lane::{Lane, Refused};

/// Capacity of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Limit of tuples, counted once per receiving task.
    pub(crate) tuples: usize,
    /// Limit of bytes.
    pub(crate) bytes: usize,
}

/// Parts that emitters and receiver share.
#[derive(Debug)]
struct Shared {
    capacity: Capacity,
    lanes: Mutex<Lanes>,
    // True if the receiver's copy of the lanes is out of date.
    has_changed: AtomicBool,
    // The receiver waits for it when all lanes are empty.
    arrived: Notify,
    // Number of lanes and of inlets, which can open lanes.
    n_senders: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lanes {
    open: Vec<Arc<LaneState>>,
    // The receiver is gone.
    is_closed: bool,
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_sender(&self) {
        self.n_senders.fetch_add(1, Ordering::Relaxed);
    }

    fn remove_sender(&self) {
        // The receiver sees all that was sent before it sees that there is no sender.
        if self.n_senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.arrived.notify_one();
        }
    }

    fn n_tuples(&self) -> usize {
        self.lanes().open.iter().map(|lane| lane.n_tuples()).sum()
    }

    fn fill(&self) -> f64 {
        let fullest = self.lanes().open.iter().map(|lane| lane.n_tuples()).max().unwrap_or_default();
        (fullest as f64 / self.capacity.tuples as f64).min(1.0)
    }
}

/// Creates a queue: what opens its lanes, and its receiving end.
pub(crate) fn queue(capacity: Capacity) -> (Inlet, Inbox) {
    let shared = Arc::new(Shared {
        capacity,
        lanes: Mutex::default(),
        has_changed: AtomicBool::new(false),
        arrived: Notify::new(),
        n_senders: AtomicUsize::new(0),
    });
    (Inlet::new(Arc::clone(&shared)), Inbox::new(shared))
}

/// Opens lanes to an inbox.
#[derive(Debug)]
pub(crate) struct Inlet(Arc<Shared>);

impl Inlet {
    fn new(shared: Arc<Shared>) -> Self {
        shared.add_sender();
        Self(shared)
    }

    /// Opens a lane for one emitter.
    pub(crate) fn lane(&self) -> Lane {
        Lane::open(&self.0)
    }

    /// Returns a view of what waits in the queue, which does not keep it open.
    pub(crate) fn gauge(&self) -> QueueGauge {
        QueueGauge(Arc::downgrade(&self.0))
    }

    /// Returns whether an emitter waits for room.
    #[cfg(test)]
    pub(crate) fn is_full(&self) -> bool {
        self.0.lanes().open.iter().any(|lane| lane.is_full())
    }
}

impl Clone for Inlet {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.remove_sender();
    }
}

/// View of what waits in a queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueGauge(Weak<Shared>);

impl QueueGauge {
    fn shared(&self) -> Option<Arc<Shared>> {
        self.0.upgrade().filter(|shared| shared.n_senders.load(Ordering::Relaxed) > 0)
    }

    /// Returns the fill level of the fullest lane, 0 to 1; `None` once no tuple can come any more.
    pub(crate) fn fill(&self) -> Option<f64> {
        Some(self.shared()?.fill())
    }

    /// Returns the number of tuples that wait in lanes; `None` once no tuple can come any more.
    pub(crate) fn n_tuples(&self) -> Option<usize> {
        Some(self.shared()?.n_tuples())
    }
}

/// Returns an inbox that holds these tuples, each for its tasks.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn inbox_with<'a>(tuples: impl IntoIterator<Item = (&'a [TaskId], &'a Tuple)>) -> Inbox {
    let (inlet, inbox) = queue(Capacity { tuples: usize::MAX, bytes: usize::MAX });
    let mut lane = inlet.lane();
    for (tasks, tuple) in tuples {
        lane.push_tuple(tasks, tuple).expect("there is room");
    }
    inbox
}
