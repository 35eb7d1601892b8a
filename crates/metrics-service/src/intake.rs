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

use crate::{Measure, ReplicaState, RequestError, status::count};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_metric_store as archive;
use stormkeeper_metric_store::{Archive, Taken};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_metrics::{
    Contribution, MetricId,
    protocol::{
        ContributeAnswer, LogPage, LogQuery, MetaPage, MetaQuery, NAMES_MAX, RegisterAnswer, RegisterRequest,
        Registered,
    },
};
use stormkeeper_model::{Position, Term, TopologyId};
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

/// Maximum bytes of one page of the log.
const LOG_PAGE_BYTES_MAX: u64 = 8 << 20;

/// Limits the requests that are ingested at once.
#[derive(Debug)]
pub(super) struct IngestLimiter {
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
    pub(super) fn new() -> Self {
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
    pub(super) fn n_in_flight(&self) -> usize {
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

impl Measure {
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
    pub(super) fn as_leader(&self) -> Result<(Archive, Term), RequestError> {
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
    pub async fn register(&self, body: Bytes) -> Result<RegisterAnswer, RequestError> {
        let answer = self.register_decoded(body).await;
        let counts = &self.shared.counts;
        match &answer {
            Ok(answer) => {
                let refused =
                    answer.claims.iter().filter(|claim| matches!(claim, Registered::Refused(_))).count();
                count(&counts.registrations, answer.claims.len());
                self.shared.instruments.registered.add(answer.claims.len() as u64);
                count(&counts.registrations_rejected, refused);
            }
            Err(RequestError::Invalid(_)) => count(&counts.undecodable, 1),
            Err(_) => count(&counts.retry_later, 1),
        }
        answer
    }

    async fn register_decoded(&self, body: Bytes) -> Result<RegisterAnswer, RequestError> {
        let (archive, term) = self.as_leader()?;
        let request: RegisterRequest = self.shared.limiter.decode(body).await?;
        if request.claims.len() > NAMES_MAX {
            let n = request.claims.len();
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
    pub async fn ingest(&self, body: Bytes) -> Result<ContributeAnswer, RequestError> {
        let (archive, term) = match self.as_leader() {
            Ok(leader) => leader,
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        let batch: Contribution = match self.shared.limiter.decode(body).await {
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
    pub(super) async fn ingest_batch(
        &self,
        archive: &Archive,
        term: Term,
        batch: Contribution,
    ) -> Result<ContributeAnswer, RequestError> {
        let (topology, minute) = (batch.topology.clone(), batch.minute);
        let (n_points, before) = (batch.points.len(), archive.position());
        let counts = &self.shared.counts;
        Ok(match archive.contribute(term, batch).await {
            Ok(Taken::Stored(at)) => {
                debug!(%topology, %minute, n_points, seq = at.seq, "ingested a metric batch");
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
                ContributeAnswer::Stored { at, safe: self.high_watermark() }
            }
            Ok(Taken::Overlaps(stored)) => {
                count(&counts.overlapping, 1);
                ContributeAnswer::Overlaps { stored }
            }
            Ok(Taken::Unregistered(mut ids)) => {
                count(&counts.retry_later, 1);
                ids.truncate(NAMES_MAX);
                ContributeAnswer::Unregistered { ids }
            }
            Err(archive::Error::Invalid(reason)) => {
                info!(%topology, %minute, reason, "rejected an invalid metric batch; the sender discards it");
                count(&counts.rejected, 1);
                self.shared.instruments.rejected.increment();
                ContributeAnswer::Refused { reason }
            }
            Err(error @ archive::Error::StaleTerm { .. }) => return Err(self.refusal_of(error)),
            Err(error) => self.retry_later(error.to_string()),
        })
    }

    fn retry_later(&self, reason: String) -> ContributeAnswer {
        debug!(reason, "did not ingest a metric batch; the sender retries");
        self.shared.instruments.rejected.increment();
        count(&self.shared.counts.retry_later, 1);
        ContributeAnswer::NotNow { reason }
    }

    /// Checks that metrics of `topology` are accepted: the topology exists, or has existed. The last
    /// minutes of a topology arrive after its removal.
    async fn check_known(&self, archive: &Archive, topology: &TopologyId) -> Result<(), RequestError> {
        if is_system_topology(topology) || self.view().0.storms.contains_key(topology) {
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
        let is_there = view.storms.contains_key(topology) || view.is_unreadable(&layout::storm(topology));
        if is_there || is_system_topology(topology) {
            return Err(RequestError::StillMeasured { topology: topology.clone() });
        }
        let n = ids.len();
        archive.forget(term, (topology.clone(), ids)).await.map_err(|error| self.refusal_of(error))?;
        info!(%topology, n, "deleted metas of a removed topology, as requested through the API");
        Ok(())
    }

    /// Returns the refusal for a request that failed with an error of the metric store.
    fn refusal_of(&self, error: archive::Error) -> RequestError {
        match error {
            archive::Error::StaleTerm { .. } => RequestError::Deposed,
            archive::Error::Invalid(reason) => RequestError::Invalid(reason),
            error => RequestError::Unavailable { reason: error.to_string() },
        }
    }

    /// Returns log entries for another nimbus. A follower reports its log end with its query. A
    /// follower gets no entries from a nimbus that is not the leader: the log of such a nimbus may
    /// lack committed entries.
    pub async fn log_after(&self, mut query: LogQuery) -> Result<(LogPage, Position), RequestError> {
        let archive = self.archive()?;
        let (state, term) = *self.shared.replica_state.borrow();
        match query.leads {
            Some(leads) if (state, term) != (ReplicaState::Leading, Some(leads)) => {
                let reason = format!(
                    "this nimbus does not ingest metrics as the leader of term {leads}: it is {}",
                    state.word()
                );
                return Err(RequestError::Unavailable { reason });
            }
            None if state == ReplicaState::TakingOver => {
                let reason = "this nimbus is taking over, and polls other nimbuses itself".to_owned();
                return Err(RequestError::Unavailable { reason });
            }
            Some(_) | None => {}
        }
        query.max_bytes = query.max_bytes.min(LOG_PAGE_BYTES_MAX);
        let mut page = archive.log_after(&query).await.map_err(|error| self.refusal_of(error))?;
        if query.leads.is_some() {
            let has = Position { term: query.term, seq: query.seq };
            match &page {
                LogPage::Entries { .. } => {
                    self.replica_progress().record_fetch(
                        query.nimbus,
                        has,
                        self.shared.setup.clock.monotonic(),
                    );
                }
                LogPage::Diverged if self.log_state().lacks(has) => {
                    self.replica_progress().reset(&query.nimbus);
                    page = LogPage::Lacking;
                }
                LogPage::Diverged | LogPage::Lacking => self.replica_progress().reset(&query.nimbus),
            }
            self.shared.commit_wakeup.notify_one();
        }
        Ok((page, archive.position()))
    }

    /// Returns metas for another nimbus.
    pub async fn metas(&self, mut query: MetaQuery) -> Result<MetaPage, RequestError> {
        query.limit = query.limit.clamp(1, NAMES_MAX);
        self.archive()?.metas(query).await.map_err(|error| self.refusal_of(error))
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
