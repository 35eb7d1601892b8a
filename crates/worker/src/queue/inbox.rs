//! Receiving end of a queue.

use std::sync::{Arc, atomic::Ordering};

use super::{Shared, lane::LaneState};
use stormkeeper_stream::{Batch, Row, Tuple};

/// Receiving end of a queue of tuples.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
    // Copy of the lanes; the next one to look at.
    lanes: Vec<Arc<LaneState>>,
    next: usize,
    // The batch that is being read, the byte at which its next row begins, and its tuples that were read.
    batch: Batch,
    at: usize,
    n_read: usize,
}

impl Inbox {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, lanes: Vec::new(), next: 0, batch: Batch::default(), at: 0, n_read: 0 }
    }

    /// Waits until there is a tuple. Returns false if there is none and none can come any more.
    ///
    /// # Cancellation safety
    /// A call that is dropped loses nothing.
    pub(crate) async fn ready(&mut self) -> bool {
        loop {
            if self.has_row() {
                return true;
            }
            // Looked at before the lanes: whoever sent, and is gone, sent before that.
            let is_over = self.shared.n_senders.load(Ordering::Acquire) == 0;
            self.refresh();
            // Each lane that is empty notifies from now on.
            if (0..self.lanes.len()).any(|_| self.take_next(true)) {
                return true;
            }
            if is_over {
                return false;
            }
            if !self.shared.has_changed.load(Ordering::Acquire) {
                self.shared.arrived.notified().await;
            }
        }
    }

    /// Returns the next row, if one is there.
    #[inline]
    pub(crate) fn next_row(&mut self) -> Option<Row<'_>> {
        if !self.has_row() && !self.take_any() {
            return None;
        }
        self.next_in_batch()
    }

    /// Returns the next row of the batch that is being read, if there is one.
    #[inline]
    pub(crate) fn next_in_batch(&mut self) -> Option<Row<'_>> {
        let (row, next) = self.batch.row_at(self.at)?;
        self.at = next;
        self.n_read += row.n_tuples();
        Some(row)
    }

    /// Returns the next row, if one is there, and leaves it.
    pub(crate) fn peek(&mut self) -> Option<Row<'_>> {
        if !self.has_row() && !self.take_any() {
            return None;
        }
        self.batch.row_at(self.at).map(|(row, _)| row)
    }

    /// Takes the row that [`peek`](Self::peek) has returned.
    pub(crate) fn skip(&mut self) {
        let _peeked = self.next_in_batch();
    }

    /// Waits for tuples, and takes at most `limit`. Returns how many, 0 if none can come any more.
    ///
    /// # Cancellation safety
    /// A call that is dropped has taken nothing.
    pub async fn recv_many(&mut self, out: &mut Vec<Tuple>, limit: usize) -> usize {
        if limit == 0 || !self.ready().await {
            return 0;
        }
        let before = out.len();
        while out.len() - before < limit
            && let Some(row) = self.next_row()
        {
            out.push(row.to_tuple());
        }
        out.len() - before
    }

    /// Waits for the next tuple; `None` if none can come any more.
    ///
    /// # Cancellation safety
    /// A call that is dropped has taken nothing.
    pub async fn recv(&mut self) -> Option<Tuple> {
        if self.ready().await { self.try_recv() } else { None }
    }

    /// Returns the next tuple if one is there.
    pub fn try_recv(&mut self) -> Option<Tuple> {
        self.next_row().map(|row| row.to_tuple())
    }

    /// Returns the number of tuples that wait. Tuples that come meanwhile may be left out.
    pub fn len(&self) -> usize {
        self.n_in_batch() + self.shared.n_tuples()
    }

    /// Returns the number of tuples left in the batch that is being read.
    #[inline]
    pub(crate) fn n_in_batch(&self) -> usize {
        self.batch.n_tuples() - self.n_read
    }

    /// Returns whether no tuple waits.
    pub fn is_empty(&self) -> bool {
        !self.has_row() && self.shared.n_tuples() == 0
    }

    /// Returns whether an emitter waits for room.
    #[cfg(test)]
    pub(crate) fn is_full(&self) -> bool {
        self.shared.lanes().open.iter().any(|lane| lane.is_full())
    }

    /// Refuses further tuples. Those that are there can still be taken.
    pub(crate) fn close(&mut self) {
        let mut lanes = self.shared.lanes();
        lanes.is_closed = true;
        lanes.open.iter().for_each(|lane| lane.close());
    }

    #[inline]
    fn has_row(&self) -> bool {
        self.n_read < self.batch.n_tuples()
    }

    /// Takes the batch of a lane that has one.
    fn take_any(&mut self) -> bool {
        self.refresh();
        (0..self.lanes.len()).any(|_| self.take_next(false))
    }

    /// Takes the batch of the next lane, if it has one. An empty lane notifies of its next row if `waits`.
    fn take_next(&mut self, waits: bool) -> bool {
        self.next = if self.next + 1 < self.lanes.len() { self.next + 1 } else { 0 };
        let lane = &self.lanes[self.next];
        if !waits && lane.n_tuples() == 0 {
            return false;
        }
        self.batch.clear(self.shared.capacity.bytes);
        (self.at, self.n_read) = (0, 0);
        lane.take(&mut self.batch)
    }

    /// Follows the lanes that were opened, and forgets those that are over.
    fn refresh(&mut self) {
        if !self.shared.has_changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut lanes = self.shared.lanes();
        lanes.open.retain(|lane| !lane.is_over());
        self.lanes.clone_from(&lanes.open);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.close();
    }
}
