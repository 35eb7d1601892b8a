//! Limits on the requests that are ingested at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::RequestError;
use stormkeeper_metrics::messagepack;
use stormkeeper_model::TopologyId;
use stormkeeper_runtime::blocking;

/// Maximum number of bodies in flight. With the largest bodies that is 1 GiB; all bodies of a real
/// cluster are a few MiB.
const BODIES_MAX: usize = 16;

/// Maximum number of bodies decoded at once: the other cores are for deciding and for reads.
const DECODES_MAX: usize = 2;

/// Maximum number of requests of one topology that are stored at once, so that one topology cannot
/// take every permit: a topology master sends one request after the other, and supervisors send a
/// few when workers died.
const REQUESTS_PER_TOPOLOGY_MAX: usize = 4;

/// Longest wait of a body for a permit; then the sender must retry.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits the requests that are ingested at once.
#[derive(Debug)]
pub(super) struct IngestLimiter {
    bodies: Semaphore,
    decodes: Semaphore,
    // Guards the number of requests per topology that are being stored; held for a few instructions.
    in_flight: Mutex<BTreeMap<TopologyId, usize>>,
}

/// Permit for one request of a topology.
pub(super) struct TopologyPermit<'a> {
    limiter: &'a IngestLimiter,
    topology: TopologyId,
}

impl IngestLimiter {
    pub(super) fn new() -> Self {
        let in_flight = Mutex::default();
        Self { bodies: Semaphore::new(BODIES_MAX), decodes: Semaphore::new(DECODES_MAX), in_flight }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyId, usize>> {
        self.in_flight.lock().expect("no one panics while holding the counts")
    }

    /// Waits for a permit for a body that is about to be read.
    pub(super) async fn body_permit(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        acquire(&self.bodies).await.ok_or_else(|| RequestError::Unavailable {
            reason: format!("{BODIES_MAX} metric requests are in flight already"),
        })
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
        let Some(_permit) = acquire(&self.decodes).await else {
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

async fn acquire(semaphore: &Semaphore) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(PERMIT_TIMEOUT, semaphore.acquire()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
