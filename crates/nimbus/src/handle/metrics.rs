//! Metrics requests of the API and of other nimbuses to a nimbus.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Handle, refusal::Refusal};
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::{
    MetricId,
    protocol::{IngestResponse, LogPage, LogQuery, MetaPage, MetaQuery, RegisterResponse},
};
use stormkeeper_metrics_service::{BodyPermit, Checkpoint, Lag, MetricsService, MetricsStatus, Stopwatch};
use stormkeeper_model::{LogPosition, NimbusId, TopologyId};
use stormkeeper_runtime::tasks::Tasks;

impl Handle {
    /// Returns the metric store of this nimbus, for reads. Every nimbus has one; the store of a
    /// follower may be a few seconds behind.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] with the reason, while the store is not open.
    pub fn metrics(&self) -> Result<MetricStore, Refusal> {
        Ok(self.metrics_service()?.metric_store()?)
    }

    /// Returns the tasks of the metrics of this nimbus, which end with it.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] if this nimbus keeps no metrics.
    pub(crate) fn metrics_tasks(&self) -> Result<&Tasks, Refusal> {
        Ok(self.metrics_service()?.tasks())
    }

    /// Returns how far this nimbus' log is behind the leader's. Cheap enough for every response.
    pub fn metrics_lag(&self) -> Lag {
        self.metrics_service().map(MetricsService::lag).unwrap_or_default()
    }

    /// Returns how many entries each nimbus is behind the leader's log, for the nimbuses that this
    /// one knows about: itself, and while it leads, its followers.
    pub fn metrics_lag_entries(&self) -> BTreeMap<NimbusId, u64> {
        self.metrics_service().map(MetricsService::behind).unwrap_or_default()
    }

    /// Starts to measure the time of a request; `None` if this nimbus runs without metrics.
    pub fn time_request(&self) -> Option<Stopwatch> {
        self.metrics_service().ok().map(MetricsService::time_request)
    }

    /// Counts a refused request in the metrics of this nimbus, if it keeps any.
    pub fn count_refused_request(&self) {
        if let Ok(service) = self.metrics_service() {
            service.count_refused_request();
        }
    }

    /// Returns the problem that keeps this nimbus from following the leader's log, or, as the
    /// leader, from ingesting metrics.
    pub fn metrics_problem(&self) -> Option<String> {
        self.metrics_service().ok()?.problem()
    }

    /// Returns the status of the metrics service.
    pub async fn metrics_status(&self) -> MetricsStatus {
        match self.metrics_service() {
            Ok(service) => service.status().await,
            Err(refusal) => MetricsStatus { closed: Some(refusal.to_string()), ..MetricsStatus::default() },
        }
    }

    /// Returns a permit for the body of a registration or a metric batch. It must grow before each
    /// part of the body is kept, and be held until the request is done. Only a leader has permits.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::NoMetrics`] if this nimbus keeps no metrics.
    pub fn metrics_body_permit(&self) -> Result<BodyPermit<'_>, Refusal> {
        if !self.takes_writes() {
            return Err(self.not_leading());
        }
        Ok(self.metrics_service()?.body_permit())
    }

    /// Registers the names in `body`, a [`stormkeeper_metrics::protocol::RegisterRequest`].
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::NoMetrics`] if a retry may succeed;
    /// [`Refusal::BadOption`] if a retry cannot succeed.
    pub async fn register_metrics(&self, body: Bytes) -> Result<RegisterResponse, Refusal> {
        self.register_metrics_of(None, body).await
    }

    /// As [`register_metrics`](Self::register_metrics), for a sender that is limited to the topology
    /// `only`.
    ///
    /// # Errors
    /// In addition [`Refusal::OtherTopology`].
    pub async fn register_metrics_of(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<RegisterResponse, Refusal> {
        Ok(self.metrics_service()?.register(only, body).await?)
    }

    /// Ingests `body`, a [`stormkeeper_metrics::MetricBatch`].
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::BadOption`] if the body is no metric batch.
    pub async fn ingest_metrics(&self, body: Bytes) -> Result<IngestResponse, Refusal> {
        self.ingest_metrics_of(None, body).await
    }

    /// As [`ingest_metrics`](Self::ingest_metrics), for a sender that is limited to the topology `only`.
    ///
    /// # Errors
    /// In addition [`Refusal::OtherTopology`].
    pub async fn ingest_metrics_of(
        &self,
        only: Option<&TopologyId>,
        body: Bytes,
    ) -> Result<IngestResponse, Refusal> {
        match self.metrics_service() {
            Ok(metrics) => Ok(metrics.ingest(only, body).await?),
            Err(refusal) => Ok(IngestResponse::RetryLater { reason: refusal.to_string() }),
        }
    }

    /// Deletes metas of a topology that no longer exists. Unknown ids change nothing.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::StillMeasured`] if the topology exists;
    /// [`Refusal::NotReady`] and [`Refusal::NoMetrics`] if a retry may succeed.
    pub async fn delete_metric_metas(
        &self,
        topology: &TopologyId,
        ids: Vec<MetricId>,
    ) -> Result<(), Refusal> {
        if !self.takes_writes() {
            return Err(self.not_leading());
        }
        Ok(self.metrics_service()?.delete_metas(topology, ids).await?)
    }

    /// Returns the log entries after those of the querying nimbus, and the local log end.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] if the store is not open, or this nimbus is not the leader that the
    /// query names.
    pub async fn metrics_log(&self, query: LogQuery) -> Result<(LogPage, LogPosition), Refusal> {
        Ok(self.metrics_service()?.log_after(query).await?)
    }

    /// Returns a page of metas.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] if the store is not open.
    pub async fn metrics_metas(&self, query: MetaQuery) -> Result<MetaPage, Refusal> {
        Ok(self.metrics_service()?.metas(query).await?)
    }

    /// Makes a checkpoint of the metric store. Returns it with the tasks that must send it.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] if the store is not open, this nimbus is taking over, or too many
    /// checkpoints are being sent.
    pub async fn metrics_checkpoint(&self) -> Result<(Checkpoint, &Tasks), Refusal> {
        let metrics = self.metrics_service()?;
        Ok((metrics.checkpoint().await?, metrics.tasks()))
    }

    fn metrics_service(&self) -> Result<&MetricsService, Refusal> {
        let none = || Refusal::NoMetrics { reason: "this nimbus has no metrics (local mode)".to_owned() };
        self.metrics.as_ref().ok_or_else(none)
    }
}
