//! `nimbus`: queries the current leader, by HTTP with MessagePack responses.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

use super::{LeaderLocator, MetricQueryClient, QueryError};
use reqwest::{Method, RequestBuilder, Response};

use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_api_types::{
    authorized::AuthorizedClient,
    client::encoded,
    http,
    message::ForgetRequest,
    routes::{self, PREFIX},
};
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
    http: AuthorizedClient,
    leader: Arc<dyn LeaderLocator>,
}

impl NimbusQueryClient {
    /// Client that sends each request to the leader that `leader` names at that moment.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(leader: Arc<dyn LeaderLocator>) -> Result<Self, reqwest::Error> {
        Self::over(&ClientTls::off(), leader)
    }

    /// As [`new`](Self::new), with requests over TLS.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn over(tls: &ClientTls, leader: Arc<dyn LeaderLocator>) -> Result<Self, reqwest::Error> {
        Ok(Self { http: AuthorizedClient::new(http::client().timeout(ANSWER_TIMEOUT), tls)?, leader })
    }

    /// Sends every request with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials), ..self }
    }

    async fn ask<T>(&self, what: &str, query: &impl Serialize) -> Result<T, QueryError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let route = format!("/metrics/sync/{what}");
        let (url, answer) = self.send(Method::GET, &route, |request| request.query(query)).await?;
        Ok(http::decoded(&url, answer).await?)
    }

    /// Sends a request to the leader. Returns its URL, for errors, with the response.
    async fn send(
        &self,
        method: Method,
        route: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<(String, Response), QueryError> {
        let api = self.leader.leader().await.ok_or(QueryError::NoLeader)?;
        let url = format!("http://{api}{PREFIX}{route}");
        let answer = routes::send(&self.http, method, (&api, route), with).await;
        let answer = http::accepted(&url, answer).await?;
        Ok((url, answer))
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
            let route = format!("/metrics/topology/{}/metas", encoded(topology.as_str()));
            let body = ForgetRequest { ids: ids.iter().map(MetricId::to_string).collect() };
            self.send(Method::DELETE, &route, |request| request.json(&body)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
