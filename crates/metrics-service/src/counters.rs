//! Counters of the parts since the start, for the status.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::CounterValues;

/// Counters of the ingest.
#[derive(Debug, Default)]
pub(crate) struct IngestCounters {
    pub(crate) batches: AtomicU64,
    pub(crate) points: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) overlapping: AtomicU64,
    pub(crate) retry_later: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) undecodable: AtomicU64,
    pub(crate) registrations: AtomicU64,
    pub(crate) registrations_rejected: AtomicU64,
}

/// Counters of the replication.
#[derive(Debug, Default)]
pub(crate) struct ReplicationCounters {
    pub(crate) checkpoints: AtomicU64,
    pub(crate) metas_repaired: AtomicU64,
}

/// Adds `n` to a counter.
pub(crate) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Returns the values of all counters.
pub(crate) fn values(ingest: &IngestCounters, replication: &ReplicationCounters) -> CounterValues {
    CounterValues {
        batches: read(&ingest.batches),
        points: read(&ingest.points),
        duplicates: read(&ingest.duplicates),
        overlapping: read(&ingest.overlapping),
        retry_later: read(&ingest.retry_later),
        rejected: read(&ingest.rejected),
        undecodable: read(&ingest.undecodable),
        registrations: read(&ingest.registrations),
        registrations_rejected: read(&ingest.registrations_rejected),
        checkpoints: read(&replication.checkpoints),
        metas_repaired: read(&replication.metas_repaired),
    }
}
