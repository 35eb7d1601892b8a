//! Limits on the requests that are ingested at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{RequestError, counters::count};
use stormkeeper_metrics::{messagepack, protocol::BODY_BYTES_MAX};
use stormkeeper_model::TopologyId;
use stormkeeper_runtime::blocking;

/// Maximum bytes of bodies in flight: 16 of the largest. All bodies of a real cluster are a few MiB.
const BODIES_BYTES_MAX: usize = 16 * BODY_BYTES_MAX;

/// Maximum number of bodies decoded at once: the other cores are for deciding and for reads.
const DECODES_MAX: usize = 2;

/// Maximum number of requests of one topology that are stored at once, so that one topology cannot
/// take every permit: a topology master sends one request after the other, and supervisors send a
/// few when workers died.
const REQUESTS_PER_TOPOLOGY_MAX: usize = 4;

/// Longest wait for a permit; then the sender must retry.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits the requests that are ingested at once.
#[derive(Debug)]
pub(super) struct IngestLimiter {
    /// One permit for each byte.
    bodies: Semaphore,
    decodes: Semaphore,
    // Guards the number of requests per topology that are being stored; held for a few instructions.
    in_flight: Mutex<BTreeMap<TopologyId, usize>>,
}

/// Permit for a body in flight. It grows with the bytes that have arrived, so a slow sender takes
/// little from others.
#[derive(Debug)]
pub struct BodyPermit<'a> {
    limiter: &'a IngestLimiter,
    retry_later: &'a AtomicU64,
    bytes: Option<SemaphorePermit<'a>>,
}

impl BodyPermit<'_> {
    /// Waits until the body may have `n` more bytes.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`] if the bodies in flight leave no room for them in time, and
    /// [`RequestError::Invalid`] if the body alone is too large.
    pub async fn grow(&mut self, n: usize) -> Result<(), RequestError> {
        let held = self.bytes.as_ref().map_or(0, SemaphorePermit::num_permits);
        if n > BODY_BYTES_MAX.saturating_sub(held) {
            return Err(RequestError::Invalid(format!("the body is larger than {BODY_BYTES_MAX} bytes")));
        }
        let full = || RequestError::Unavailable {
            reason: format!("the metric requests in flight have {BODIES_BYTES_MAX} bytes already"),
        };
        // A chunk is at most as large as a body.
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let Some(more) = acquire(&self.limiter.bodies, n).await else {
            count(self.retry_later, 1);
            return Err(full());
        };
        match &mut self.bytes {
            Some(bytes) => bytes.merge(more),
            None => self.bytes = Some(more),
        }
        Ok(())
    }
}

/// Permit for one request of a topology.
pub(super) struct TopologyPermit<'a> {
    limiter: &'a IngestLimiter,
    topology: TopologyId,
}

impl IngestLimiter {
    pub(super) fn new() -> Self {
        let in_flight = Mutex::default();
        Self { bodies: Semaphore::new(BODIES_BYTES_MAX), decodes: Semaphore::new(DECODES_MAX), in_flight }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyId, usize>> {
        self.in_flight.lock().expect("no one panics while holding the counts")
    }

    /// Returns a permit for a body that is about to be read.
    /// `retry_later` counts the bodies for which there is no room.
    pub(super) fn body_permit<'a>(&'a self, retry_later: &'a AtomicU64) -> BodyPermit<'a> {
        BodyPermit { limiter: self, retry_later, bytes: None }
    }

    /// Returns a permit to store one request of `topology`.
    pub(super) fn topology_permit(&self, topology: &TopologyId) -> Result<TopologyPermit<'_>, RequestError> {
        let mut in_flight = self.lock();
        let n = in_flight.entry(topology.clone()).or_default();
        if *n >= REQUESTS_PER_TOPOLOGY_MAX {
            let reason = format!(
                "{REQUESTS_PER_TOPOLOGY_MAX} requests of topology {topology} are being stored already"
            );
            return Err(RequestError::Unavailable { reason });
        }
        *n += 1;
        Ok(TopologyPermit { limiter: self, topology: topology.clone() })
    }

    /// Returns how many requests are being stored, or wait to be stored.
    pub(super) fn n_in_flight(&self) -> usize {
        self.lock().values().sum()
    }

    /// Decodes a body off the threads of async tasks.
    pub(super) async fn decode<T: DeserializeOwned + Send + 'static>(
        &self,
        body: Bytes,
    ) -> Result<T, RequestError> {
        let Some(_permit) = acquire(&self.decodes, 1).await else {
            return Err(RequestError::Unavailable {
                reason: "too many bodies are waiting to be decoded".to_owned(),
            });
        };
        let decoded = blocking::run(move || messagepack::decode(&body)).await;
        decoded.map_err(|error: messagepack::Error| {
            RequestError::Invalid(format!("the body is not the message expected: {error}"))
        })
    }
}

impl Drop for TopologyPermit<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.limiter.lock();
        if let Some(n) = in_flight.get_mut(&self.topology) {
            *n -= 1;
            if *n == 0 {
                in_flight.remove(&self.topology);
            }
        }
    }
}

async fn acquire(semaphore: &Semaphore, n: u32) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(PERMIT_TIMEOUT, semaphore.acquire_many(n)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_take_no_more_than_what_has_arrived() {
        let (limiter, retry_later) = (IngestLimiter::new(), AtomicU64::new(0));
        let body_permit = || limiter.body_permit(&retry_later);
        let mut slow: Vec<BodyPermit<'_>> = (0..10_000).map(|_| body_permit()).collect();
        for permit in &mut slow {
            permit.grow(1).await.expect("there is room");
        }
        let mut large: Vec<BodyPermit<'_>> = (0..15).map(|_| body_permit()).collect();
        for permit in &mut large {
            permit.grow(1).await.expect("there is room");
            permit.grow(BODY_BYTES_MAX - 1).await.expect("there is room");
            assert!(matches!(permit.grow(1).await, Err(RequestError::Invalid(_))));
        }
        let mut last = body_permit();
        assert!(matches!(last.grow(BODY_BYTES_MAX).await, Err(RequestError::Unavailable { .. })));
        drop(slow);
        last.grow(BODY_BYTES_MAX).await.expect("there is room again");
        drop((large, last));
        assert_eq!(retry_later.into_inner(), 1);
        assert_eq!(limiter.bodies.available_permits(), BODIES_BYTES_MAX);
    }

    #[test]
    fn requests_of_one_topology_leave_permits_for_other_topologies() {
        let limiter = IngestLimiter::new();
        let (one, other): (TopologyId, TopologyId) =
            ("a-1-1".parse().expect("valid"), "b-1-1".parse().expect("valid"));
        let mut permits: Vec<_> = (0..REQUESTS_PER_TOPOLOGY_MAX)
            .map(|_| limiter.topology_permit(&one).expect("there is room"))
            .collect();
        assert!(limiter.topology_permit(&one).is_err());
        assert!(limiter.topology_permit(&other).is_ok());
        permits.pop();
        assert!(limiter.topology_permit(&one).is_ok());
        drop(permits);
        assert!(limiter.lock().is_empty());
    }
}
