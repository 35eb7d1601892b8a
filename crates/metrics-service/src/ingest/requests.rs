//! Requests of topology masters and supervisors to the leader: registrations and metric batches.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, info};

use super::limiter::{BodyPermit, IngestLimiter};
use crate::{
    RequestError,
    cluster::ClusterAccess,
    counters::{IngestCounters, count},
    replication::Replication,
    self_metrics::IngestInstruments,
};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::{IngestOutcome, MetricStore};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_metrics::{
    MetricBatch, MetricId,
    protocol::{IngestResponse, NAMES_MAX, RegisterRequest, RegisterResponse, Registered},
};
use stormkeeper_model::{Term, TopologyId};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

/// Ingest of metrics on the leader.
#[derive(Debug)]
pub(crate) struct Ingest {
    cluster: ClusterAccess,
    replication: Arc<Replication>,
    limiter: IngestLimiter,
    counters: IngestCounters,
    instruments: IngestInstruments,
}

/// Checks that a sender that is limited to one topology sends the metrics of that one.
fn check_sender(only: Option<&TopologyId>, topology: &TopologyId) -> Result<(), RequestError> {
    match only {
        Some(own) if own != topology => {
            Err(RequestError::OtherTopology { own: own.clone(), topology: topology.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

impl Ingest {
    pub(crate) fn new(
        cluster: ClusterAccess,
        replication: Arc<Replication>,
        instruments: IngestInstruments,
    ) -> Self {
        let (limiter, counters) = (IngestLimiter::new(), IngestCounters::default());
        Self { cluster, replication, limiter, counters, instruments }
    }

    /// Returns a permit for a body that is about to be read.
    pub(crate) fn body_permit(&self) -> BodyPermit<'_> {
        self.limiter.body_permit(&self.counters.retry_later)
    }

    /// Returns the number of requests that are being stored, or wait to be stored.
    pub(crate) fn n_in_flight(&self) -> usize {
        self.limiter.n_in_flight()
    }

    /// Returns the counters.
    pub(crate) fn counters(&self) -> &IngestCounters {
        &self.counters
    }

    /// Registers metric names.
    pub(crate) async fn register(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<RegisterResponse, RequestError> {
        let answer = self.register_decoded(only, body).await;
        let counters = &self.counters;
        match &answer {
            Ok(answer) => {
                let refused = answer
                    .results
                    .iter()
                    .filter(|registration| matches!(registration, Registered::Rejected(_)))
                    .count();
                count(&counters.registrations, answer.results.len());
                self.instruments.registered.add(answer.results.len() as u64);
                count(&counters.registrations_rejected, refused);
            }
            Err(RequestError::Invalid(_)) => count(&counters.undecodable, 1),
            Err(_) => count(&counters.retry_later, 1),
        }
        answer
    }

    async fn register_decoded(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<RegisterResponse, RequestError> {
        let (store, term) = self.replication.as_leader()?;
        let request: RegisterRequest = self.limiter.decode(body).await?;
        check_sender(only, &request.topology)?;
        if request.registrations.len() > NAMES_MAX {
            let n = request.registrations.len();
            return Err(RequestError::Invalid(format!(
                "{n} names in one registration; the maximum is {NAMES_MAX}"
            )));
        }
        self.check_known(&store, &request.topology).await?;
        let _permit = self.limiter.topology_permit(&request.topology)?;
        Ok(store.register(term, request).await?)
    }

    /// Ingests a metric batch.
    pub(crate) async fn ingest(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<IngestResponse, RequestError> {
        let (store, term) = match self.replication.as_leader() {
            Ok(leader) => leader,
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        let batch: MetricBatch = match self.limiter.decode(body).await {
            Ok(batch) => batch,
            Err(refusal @ RequestError::Invalid(_)) => {
                count(&self.counters.undecodable, 1);
                return Err(refusal);
            }
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        let topology = batch.topology.clone();
        check_sender(only, &topology)?;
        if let Err(refusal) = self.check_known(&store, &topology).await {
            return Ok(self.retry_later(refusal.to_string()));
        }
        let _permit = match self.limiter.topology_permit(&topology) {
            Ok(permit) => permit,
            Err(refusal) => return Ok(self.retry_later(refusal.to_string())),
        };
        self.ingest_batch(&store, term, batch).await
    }

    /// Stores a metric batch, and returns the response for the sender.
    pub(crate) async fn ingest_batch(
        &self,
        store: &MetricStore,
        term: Term,
        batch: MetricBatch,
    ) -> Result<IngestResponse, RequestError> {
        let (topology, minute) = (batch.topology.clone(), batch.minute);
        let (n_points, before) = (batch.points.len(), store.position());
        let counters = &self.counters;
        Ok(match store.ingest(term, batch).await {
            Ok(IngestOutcome::Accepted(at)) => {
                debug!(%topology, %minute, n_points, index = at.index, "ingested a metric batch");
                match at > before {
                    true => {
                        count(&counters.batches, 1);
                        count(&counters.points, n_points);
                        self.instruments.batches.mark();
                        self.instruments.points.mark_many(n_points as u64);
                    }
                    false => count(&counters.duplicates, 1),
                }
                self.replication.wake_commit();
                #[cfg(feature = "injected-bugs")]
                if injected_bugs::is_injected(InjectedBug::CommitsUnpublished) {
                    return Ok(IngestResponse::Accepted { at, high_watermark: store.position() });
                }
                IngestResponse::Accepted { at, high_watermark: self.replication.high_watermark() }
            }
            Ok(IngestOutcome::Overlapping(stored)) => {
                count(&counters.overlapping, 1);
                IngestResponse::Overlapping { stored }
            }
            Ok(IngestOutcome::UnknownMetrics(mut ids)) => {
                count(&counters.retry_later, 1);
                ids.truncate(NAMES_MAX);
                IngestResponse::UnknownMetrics { ids }
            }
            Err(metric_store::Error::Invalid(reason)) => {
                info!(%topology, %minute, reason, "rejected an invalid metric batch; the sender discards it");
                count(&counters.rejected, 1);
                self.instruments.rejected.increment();
                IngestResponse::Rejected { reason }
            }
            Err(error @ metric_store::Error::StaleTerm { .. }) => return Err(error.into()),
            Err(error) => self.retry_later(error.to_string()),
        })
    }

    fn retry_later(&self, reason: String) -> IngestResponse {
        debug!(reason, "did not ingest a metric batch; the sender retries");
        self.instruments.rejected.increment();
        count(&self.counters.retry_later, 1);
        IngestResponse::RetryLater { reason }
    }

    /// Checks that metrics of `topology` are accepted: the topology exists, or has existed. The last
    /// minutes of a topology arrive after its removal.
    async fn check_known(&self, store: &MetricStore, topology: &TopologyId) -> Result<(), RequestError> {
        if is_system_topology(topology) || self.cluster.view().0.topologies.contains_key(topology) {
            return Ok(());
        }
        // A topology that was killed in its first minute has no metrics yet, and an entry in the
        // history.
        if store.fingerprint(topology).await?.count > 0 || store.topology(topology).await?.is_some() {
            return Ok(());
        }
        let reason =
            format!("topology {topology} is unknown to this nimbus; if it was just submitted, retry");
        Err(RequestError::Unavailable { reason })
    }

    /// Deletes metas of a topology that no longer exists.
    pub(crate) async fn delete_metas(
        &self,
        topology: &TopologyId,
        ids: Vec<MetricId>,
    ) -> Result<(), RequestError> {
        let (store, term) = self.replication.as_leader()?;
        let (view, fresh) = self.cluster.view();
        if !fresh {
            return Err(RequestError::NotReady);
        }
        let is_there = view.topologies.contains_key(topology) || view.is_unreadable(&layout::storm(topology));
        if is_there || is_system_topology(topology) {
            return Err(RequestError::StillMeasured { topology: topology.clone() });
        }
        let n = ids.len();
        store.forget(term, (topology.clone(), ids)).await?;
        info!(%topology, n, "deleted metas of a removed topology, as requested through the API");
        Ok(())
    }
}
