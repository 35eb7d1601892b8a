//! Ingest of the metric batches and registrations of topology masters and supervisors, and the
//! server side of the replication (`log_after`). Only the leader ingests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{debug, info};

use crate::{MetricsService, ReplicaState, RequestError, status::count};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::{IngestOutcome, MetricStore};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_metrics::{
    MetricBatch, MetricId,
    protocol::{IngestResponse, NAMES_MAX, RegisterRequest, RegisterResponse, Registered},
};
use stormkeeper_model::{Term, TopologyId};
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
pub(crate) struct IngestLimiter {
    bodies: Semaphore,
    decodes: Semaphore,
    // Guards the number of requests per topology that are being stored; held for a few instructions.
    in_flight: Mutex<BTreeMap<TopologyId, usize>>,
}

/// Permit for one request of a topology.
struct TopologyPermit<'a> {
    limiter: &'a IngestLimiter,
    topology: TopologyId,
}

impl IngestLimiter {
    pub(crate) fn new() -> Self {
        let in_flight = Mutex::default();
        Self { bodies: Semaphore::new(BODIES_MAX), decodes: Semaphore::new(DECODES_MAX), in_flight }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyId, usize>> {
        self.in_flight.lock().expect("no one panics while holding the counts")
    }

    fn topology_permit(&self, topology: &TopologyId) -> Option<TopologyPermit<'_>> {
        let mut in_flight = self.lock();
        let n = in_flight.entry(topology.clone()).or_default();
        if *n >= REQUESTS_PER_TOPOLOGY_MAX {
            return None;
        }
        *n += 1;
        Some(TopologyPermit { limiter: self, topology: topology.clone() })
    }

    /// Returns how many requests are being stored, or wait to be stored.
    pub(crate) fn n_in_flight(&self) -> usize {
        self.lock().values().sum()
    }

    async fn decode<T: DeserializeOwned + Send + 'static>(&self, body: Bytes) -> Result<T, RequestError> {
        let Some(_permit) = acquire(&self.decodes).await else {
            return Err(RequestError::Unavailable {
                reason: "too many bodies are waiting to be decoded".to_owned(),
            });
        };
        let decoded = blocking::run(move || rmp_serde::from_slice(&body)).await;
        decoded.map_err(|error: rmp_serde::decode::Error| {
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

impl MetricsService {
    /// Waits for a permit for a body that is about to be read.
    pub async fn body_permit(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        let busy = || RequestError::Unavailable {
            reason: format!("{BODIES_MAX} metric requests are in flight already"),
        };
        match acquire(&self.shared.limiter.bodies).await {
            Some(permit) => Ok(permit),
            None => {
                count(&self.shared.counts.retry_later, 1);
                Err(busy())
            }
        }
    }

    /// Returns the metric store and the term, while this nimbus leads.
    pub(crate) fn as_leader(&self) -> Result<(MetricStore, Term), RequestError> {
        let archive = self.archive()?;
        match *self.shared.replica_state.borrow() {
            (ReplicaState::Leading, Some(term)) => Ok((archive, term)),
            (ReplicaState::Leading | ReplicaState::TakingOver | ReplicaState::Following, _) => {
                let reason =
                    "this nimbus has just begun to lead, and is still taking over the metric log".to_owned();
                Err(RequestError::Unavailable { reason })
            }
        }
    }

    /// Registers metric names.
    pub async fn register(&self, body: Bytes) -> Result<RegisterResponse, RequestError> {
        let answer = self.register_decoded(body).await;
        let counts = &self.shared.counts;
        match &answer {
            Ok(answer) => {
                let refused = answer
                    .results
                    .iter()
                    .filter(|registration| matches!(registration, Registered::Rejected(_)))
                    .count();
                count(&counts.registrations, answer.results.len());
                self.shared.instruments.registered.add(answer.results.len() as u64);
                count(&counts.registrations_rejected, refused);
            }
            Err(RequestError::Invalid(_)) => count(&counts.undecodable, 1),
            Err(_) => count(&counts.retry_later, 1),
        }
        answer
    }

    async fn register_decoded(&self, body: Bytes) -> Result<RegisterResponse, RequestError> {
        let (archive, term) = self.as_leader()?;
        let request: RegisterRequest = self.shared.limiter.decode(body).await?;
        if request.registrations.len() > NAMES_MAX {
            let n = request.registrations.len();
            return Err(RequestError::Invalid(format!(
                "{n} names in one registration; the maximum is {NAMES_MAX}"
            )));
        }
        self.check_known(&archive, &request.topology).await?;
        let Some(_permit) = self.shared.limiter.topology_permit(&request.topology) else {
            return Err(RequestError::Unavailable { reason: too_many_requests(&request.topology) });
        };
        archive.register(term, request).await.map_err(|error| self.refusal_of(error))
    }

    /// Ingests a metric batch.
    pub async fn ingest(&self, body: Bytes) -> Result<IngestResponse, RequestError> {
        let (archive, term) = match self.as_leader() {
            Ok(leader) => leader,
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        let batch: MetricBatch = match self.shared.limiter.decode(body).await {
            Ok(batch) => batch,
            Err(refusal @ RequestError::Invalid(_)) => {
                count(&self.shared.counts.undecodable, 1);
                return Err(refusal);
            }
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        let topology = batch.topology.clone();
        if let Err(refusal) = self.check_known(&archive, &topology).await {
            return Ok(self.retry_later(refusal.to_string()));
        }
        let Some(_permit) = self.shared.limiter.topology_permit(&topology) else {
            return Ok(self.retry_later(too_many_requests(&topology)));
        };
        self.ingest_batch(&archive, term, batch).await
    }

    /// Stores a metric batch, and returns the response for the sender.
    pub(crate) async fn ingest_batch(
        &self,
        archive: &MetricStore,
        term: Term,
        batch: MetricBatch,
    ) -> Result<IngestResponse, RequestError> {
        let (topology, minute) = (batch.topology.clone(), batch.minute);
        let (n_points, before) = (batch.points.len(), archive.position());
        let counts = &self.shared.counts;
        Ok(match archive.ingest(term, batch).await {
            Ok(IngestOutcome::Accepted(at)) => {
                debug!(%topology, %minute, n_points, index = at.index, "ingested a metric batch");
                match at > before {
                    true => {
                        count(&counts.batches, 1);
                        count(&counts.points, n_points);
                        self.shared.instruments.batches.mark();
                        self.shared.instruments.points.mark_many(n_points as u64);
                    }
                    false => count(&counts.duplicates, 1),
                }
                self.shared.commit_wakeup.notify_one();
                IngestResponse::Accepted { at, high_watermark: self.high_watermark() }
            }
            Ok(IngestOutcome::Overlapping(stored)) => {
                count(&counts.overlapping, 1);
                IngestResponse::Overlapping { stored }
            }
            Ok(IngestOutcome::UnknownMetrics(mut ids)) => {
                count(&counts.retry_later, 1);
                ids.truncate(NAMES_MAX);
                IngestResponse::UnknownMetrics { ids }
            }
            Err(metric_store::Error::Invalid(reason)) => {
                info!(%topology, %minute, reason, "rejected an invalid metric batch; the sender discards it");
                count(&counts.rejected, 1);
                self.shared.instruments.rejected.increment();
                IngestResponse::Rejected { reason }
            }
            Err(error @ metric_store::Error::StaleTerm { .. }) => return Err(self.refusal_of(error)),
            Err(error) => self.retry_later(error.to_string()),
        })
    }

    fn retry_later(&self, reason: String) -> IngestResponse {
        debug!(reason, "did not ingest a metric batch; the sender retries");
        self.shared.instruments.rejected.increment();
        count(&self.shared.counts.retry_later, 1);
        IngestResponse::RetryLater { reason }
    }

    /// Checks that metrics of `topology` are accepted: the topology exists, or has existed. The last
    /// minutes of a topology arrive after its removal.
    async fn check_known(&self, archive: &MetricStore, topology: &TopologyId) -> Result<(), RequestError> {
        if is_system_topology(topology) || self.view().0.topologies.contains_key(topology) {
            return Ok(());
        }
        match archive.fingerprint(topology).await {
            Ok(known) if known.count > 0 => Ok(()),
            Ok(_) => Err(RequestError::Unavailable {
                reason: format!(
                    "topology {topology} is unknown to this nimbus; if it was just submitted, retry"
                ),
            }),
            Err(error) => Err(self.refusal_of(error)),
        }
    }

    /// Deletes metas of a topology that no longer exists.
    pub async fn delete_metas(&self, topology: &TopologyId, ids: Vec<MetricId>) -> Result<(), RequestError> {
        let (archive, term) = self.as_leader()?;
        let (view, fresh) = self.view();
        if !fresh {
            return Err(RequestError::NotReady);
        }
        let is_there = view.topologies.contains_key(topology) || view.is_unreadable(&layout::storm(topology));
        if is_there || is_system_topology(topology) {
            return Err(RequestError::StillMeasured { topology: topology.clone() });
        }
        let n = ids.len();
        archive.forget(term, (topology.clone(), ids)).await.map_err(|error| self.refusal_of(error))?;
        info!(%topology, n, "deleted metas of a removed topology, as requested through the API");
        Ok(())
    }

    /// Returns the refusal for a request that failed with an error of the metric store.
    pub(crate) fn refusal_of(&self, error: metric_store::Error) -> RequestError {
        match error {
            metric_store::Error::StaleTerm { .. } => RequestError::Deposed,
            metric_store::Error::Invalid(reason) => RequestError::Invalid(reason),
            error => RequestError::Unavailable { reason: error.to_string() },
        }
    }
}

fn too_many_requests(topology: &TopologyId) -> String {
    format!("{REQUESTS_PER_TOPOLOGY_MAX} requests of topology {topology} are being stored already")
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
        assert!(limiter.topology_permit(&one).is_none());
        assert!(limiter.topology_permit(&other).is_some());
        permits.pop();
        assert!(limiter.topology_permit(&one).is_some());
        drop(permits);
        assert!(limiter.lock().is_empty());
    }
}
