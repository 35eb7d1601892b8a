//! Sending end of a queue.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::{Capacity, Inlet, Shared};
use stormkeeper_stream::{Batch, Row};
#[cfg(any(test, feature = "fuzzing"))]
use {
    stormkeeper_model::TaskId,
    stormkeeper_stream::{TaskList, Tuple, ValueWriter},
};

/// Way of one emitter to one inbox.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Arc<LaneState>,
    shared: Arc<Shared>,
    // The last row has left the batch more than half full.
    is_filling: bool,
    // Tuples of the batch after the last row.
    n_tuples: usize,
}

#[derive(Debug)]
pub(super) struct LaneState {
    filling: Mutex<Filling>,
    // Tuples of the batch that is being filled, to be looked at without the lock.
    n_tuples: AtomicUsize,
    // The emitter is gone.
    is_abandoned: AtomicBool,
    // The emitter waits for it when there is no room.
    room: Notify,
}

#[derive(Debug)]
struct Filling {
    batch: Batch,
    receiver_waits: bool,
    emitter_waits: bool,
    is_closed: bool,
}

/// Reason for which a lane does not take a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room; [`Lane::room`] waits for it.
    Full,
    /// The receiver is gone.
    Closed,
}

impl Lane {
    pub(super) fn open(shared: &Arc<Shared>) -> Self {
        shared.add_sender();
        let mut lanes = shared.lanes();
        let state = Arc::new(LaneState {
            filling: Mutex::new(Filling {
                batch: Batch::default(),
                // The receiver does not know the lane and may be waiting.
                receiver_waits: true,
                emitter_waits: false,
                is_closed: lanes.is_closed,
            }),
            n_tuples: AtomicUsize::new(0),
            is_abandoned: AtomicBool::new(false),
            room: Notify::new(),
        });
        if !lanes.is_closed {
            lanes.open.push(Arc::clone(&state));
            shared.has_changed.store(true, Ordering::Release);
        }
        drop(lanes);
        Self { state, shared: Arc::clone(shared), is_filling: false, n_tuples: 0 }
    }

    /// Appends a row if there is room.
    ///
    /// # Errors
    /// [`Refused`]; nothing was appended.
    #[inline]
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<(), Refused> {
        let mut filling = self.state.filling();
        if filling.is_closed {
            return Err(Refused::Closed);
        }
        let Capacity { tuples, bytes } = self.shared.capacity;
        let batch = &mut filling.batch;
        let n_tuples = batch.n_tuples() + row.n_tuples();
        if (n_tuples > tuples || batch.n_bytes() + row.n_bytes() > bytes) && !batch.is_empty() {
            filling.emitter_waits = true;
            return Err(Refused::Full);
        }
        batch.push(row);
        self.is_filling = n_tuples > tuples / 2 || batch.n_bytes() > bytes / 2;
        self.n_tuples = n_tuples;
        self.state.n_tuples.store(n_tuples, Ordering::Release);
        let wakes = std::mem::take(&mut filling.receiver_waits);
        drop(filling);
        if wakes {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// Returns whether the last row has left less than half of the room, or less than half of the room for
    /// `tuples`.
    #[inline]
    pub(crate) fn is_filling(&self, tuples: usize) -> bool {
        self.is_filling || self.n_tuples > tuples / 2
    }

    /// Returns whether there is room for a tuple of so many bytes and fewer than `tuples` wait, or the
    /// receiver is gone. If there is no room, [`room`](Self::room) waits for it.
    pub(crate) fn has_room(&self, n_bytes: usize, tuples: usize) -> bool {
        let mut filling = self.state.filling();
        let Capacity { tuples: most, bytes } = self.shared.capacity;
        let batch = &filling.batch;
        let fits = batch.n_tuples() < most && batch.n_bytes() + n_bytes <= bytes;
        let has_room = fits || batch.is_empty() || filling.is_closed;
        let is_short = batch.n_tuples() < tuples || filling.is_closed;
        filling.emitter_waits |= !has_room;
        has_room && is_short
    }

    /// Appends a tuple for `tasks` if there is room.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn push_tuple(&mut self, tasks: &[TaskId], tuple: &Tuple) -> Result<(), Refused> {
        let values = ValueWriter::of(tuple.values());
        self.push(&Row { tasks: TaskList::Given(tasks), ..Row::of(tuple, values.encoded()) })
    }

    /// Waits until there may be room, after [`Refused::Full`], or the receiver is gone.
    ///
    /// # Cancellation safety
    /// It only waits.
    pub(crate) async fn room(&self) {
        self.state.room.notified().await;
    }

    /// Returns whether the lane leads to the inbox of `inlet`.
    pub(crate) fn leads_to(&self, inlet: &Inlet) -> bool {
        Arc::ptr_eq(&self.shared, &inlet.0)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // What waits in the lane is received all the same.
        self.state.is_abandoned.store(true, Ordering::Release);
        self.shared.has_changed.store(true, Ordering::Release);
        self.shared.remove_sender();
    }
}

impl LaneState {
    #[inline]
    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of tuples that wait in the lane.
    pub(super) fn n_tuples(&self) -> usize {
        self.n_tuples.load(Ordering::Acquire)
    }

    /// Returns whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire) && self.n_tuples() == 0
    }

    /// Swaps the batch of the lane with `empty`. If there is nothing to take, the next row notifies the
    /// receiver.
    pub(super) fn take(&self, empty: &mut Batch) -> bool {
        let mut filling = self.filling();
        if filling.batch.is_empty() {
            filling.receiver_waits = true;
            return false;
        }
        std::mem::swap(&mut filling.batch, empty);
        self.n_tuples.store(0, Ordering::Release);
        let wakes = std::mem::take(&mut filling.emitter_waits);
        drop(filling);
        if wakes {
            self.room.notify_one();
        }
        true
    }

    /// Returns whether the emitter waits for room.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.filling().emitter_waits
    }

    /// Refuses all further rows.
    pub(super) fn close(&self) {
        self.filling().is_closed = true;
        self.room.notify_one();
    }
}
