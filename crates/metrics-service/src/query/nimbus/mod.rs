//! `nimbus`: queries the current leader, by HTTP with MessagePack responses.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

use super::{LeaderLocator, MetricQueryClient, QueryError};
use stormkeeper_api_types::{client::encoded, http, message::ForgetRequest};
use stormkeeper_metric_store::{HistoryEntry, TrackEntry};
use stormkeeper_metrics::{
    MetricId, Minute, Point,
    protocol::{HistoryQuery, MetaPage, MetaQuery, NAMES_MAX, PointsQuery, TrackQuery},
};
use stormkeeper_model::{TaskId, TopologyId, TopologyName};

/// Timeout of one page, read from disk and sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of placements in one response: a topology of a thousand tasks that all moved every
/// day of a month.
const TRACK_MAX: usize = 30_000;

/// Query client `nimbus`; see the [module](self).
#[derive(Debug)]
pub struct NimbusQueryClient {
    http: reqwest::Client,
    leader: Arc<dyn LeaderLocator>,
}

impl NimbusQueryClient {
    /// Client that sends each request to the leader that `leader` names at that moment.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(leader: Arc<dyn LeaderLocator>) -> Result<Self, reqwest::Error> {
        Ok(Self { http: http::client().timeout(ANSWER_TIMEOUT).build()?, leader })
    }

    async fn ask<T>(&self, what: &str, query: &impl Serialize) -> Result<T, QueryError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let url = format!("{}/sync/{what}", self.metrics().await?);
        Ok(http::decoded(&url, http::sent(&url, self.http.get(&url).query(query)).await?).await?)
    }

    /// Returns the URL of the leader's metrics API.
    async fn metrics(&self) -> Result<String, QueryError> {
        let api = self.leader.leader().await.ok_or(QueryError::NoLeader)?;
        Ok(format!("http://{api}/api/v1/metrics"))
    }
}

#[async_trait]
impl MetricQueryClient for NimbusQueryClient {
    async fn metas(&self, query: &MetaQuery) -> Result<MetaPage, QueryError> {
        self.ask("metas", query).await
    }

    async fn data(&self, query: &PointsQuery) -> Result<Vec<(Minute, Point)>, QueryError> {
        self.ask("points", query).await
    }

    async fn task_track(
        &self,
        topology: &TopologyId,
        task: Option<TaskId>,
    ) -> Result<Vec<TrackEntry>, QueryError> {
        self.ask("track", &TrackQuery { topology: topology.clone(), task, limit: TRACK_MAX }).await
    }

    async fn topology_history(
        &self,
        name: &TopologyName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, QueryError> {
        self.ask("history", &HistoryQuery { name: Some(name.clone()), limit }).await
    }

    async fn delete_metas(&self, topology: &TopologyId, ids: &[MetricId]) -> Result<(), QueryError> {
        for ids in ids.chunks(NAMES_MAX) {
            let url = format!("{}/topology/{}/metas", self.metrics().await?, encoded(topology.as_str()));
            let request = ForgetRequest { ids: ids.iter().map(MetricId::to_string).collect() };
            http::sent(&url, self.http.delete(&url).json(&request)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
