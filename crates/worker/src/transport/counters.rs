//! Counters of the transport.

use std::sync::atomic::{AtomicU64, Ordering};

use super::TransportMetrics;

/// Counts since the worker started, shared by all parts of the transport. Each is exact;
/// a reading of several counts is not one instant.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) refused_connections: AtomicU64,
    pub(super) refused_frames: AtomicU64,
    pub(super) refused_tuples: AtomicU64,
    pub(super) unroutable: AtomicU64,
    pub(super) oversized: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) reconnects: AtomicU64,
    // Tuples that were put in the queue of a peer, and that left it, in whichever way.
    queued: AtomicU64,
    unqueued: AtomicU64,
    pub(super) transport_metrics: Option<TransportMetrics>,
}

/// A reading of [`Counters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tuples whose frame was completely written to a peer.
    pub sent: u64,
    /// Tuples received from peers and put in an inbox.
    pub received: u64,
    /// Incoming connections that were refused: foreign protocol, another topology or slot,
    /// or too many connections.
    pub refused_connections: u64,
    /// Frames that were too large or unreadable. Each ended its connection.
    pub refused_frames: u64,
    /// Tuples received for a task that this worker does not run.
    pub refused_tuples: u64,
    /// Tuples emitted to a task that neither this worker nor a peer runs.
    pub unroutable: u64,
    /// Tuples not sent because they are too large for a frame.
    pub oversized: u64,
    /// Tuples still queued for a peer when the peer left the assignment or this worker stopped.
    pub dropped: u64,
    /// Reconnects to a peer after a connection broke.
    pub reconnects: u64,
}

impl Counters {
    /// Creates counters that also record metrics.
    pub(crate) fn with_metrics(transport_metrics: TransportMetrics) -> Self {
        Self { transport_metrics: Some(transport_metrics), ..Self::default() }
    }

    /// Counts tuples that were put in the queue of a peer.
    pub(crate) fn queued(&self, n: u64) {
        self.queued.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts tuples that left the queue of a peer: their frame was written, or they were dropped.
    pub(crate) fn unqueued(&self, n: u64) {
        self.unqueued.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the number of tuples in the queues of peers, those of unwritten frames included.
    pub(crate) fn n_unsent(&self) -> u64 {
        // Read in this order, and corrected: a tuple may leave before it is counted as queued.
        let unqueued = self.unqueued.load(Ordering::Relaxed);
        self.queued.load(Ordering::Relaxed).saturating_sub(unqueued)
    }

    /// Reads all counts.
    pub fn read(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.sent),
            received: read(&self.received),
            refused_connections: read(&self.refused_connections),
            refused_frames: read(&self.refused_frames),
            refused_tuples: read(&self.refused_tuples),
            unroutable: read(&self.unroutable),
            oversized: read(&self.oversized),
            dropped: read(&self.dropped),
            reconnects: read(&self.reconnects),
        }
    }
}

/// Adds `n` to a count. Returns the count if it must be logged again: at each doubling, so that
/// many refusals cannot flood the log.
pub(super) fn add(count: &AtomicU64, n: u64) -> Option<u64> {
    let before = count.fetch_add(n, Ordering::Relaxed);
    let after = before.wrapping_add(n);
    (n > 0 && before.checked_ilog2() != after.checked_ilog2()).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_logged_at_each_doubling() {
        let count = AtomicU64::new(0);
        let logged: Vec<u64> = (0..20).filter_map(|_| add(&count, 1)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16]);
        assert_eq!(add(&count, 100), Some(120));
        assert_eq!(add(&count, 0), None);
    }
}
