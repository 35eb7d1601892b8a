//! Request of a client, and the answer.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{super::Api, snapshot::Snapshot};
use crate::{Handle, refusal::Refusal};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_flink_api::{Error, Query};
use stormkeeper_runtime::error_chain;

/// Flink's content type, which some clients compare as a text.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// State that every answer needs.
pub(super) struct Asked {
    pub(super) nimbus: Handle,
    pub(super) view: Arc<ClusterView>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) query: Query,
    pub(super) now_ms: u64,
}

impl FromRequestParts<Api> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let query = Query::parse(parts.uri.query())?;
        let view = api.nimbus.observation()?.view;
        let snapshot = api.flink.get(&api.nimbus).await;
        let now_ms = api.nimbus.clock().now().as_millis();
        Ok(Self { nimbus: api.nimbus.clone(), view, snapshot, query, now_ms })
    }
}

/// Variable parts of a path.
pub(super) struct PathParts<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParts<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(parts)) => Ok(Self(parts)),
            Err(_not_utf8) => Err(Error::path("path", parts.uri.path()).into()),
        }
    }
}

/// Body of an answer.
#[derive(Debug)]
pub(super) struct Reply(pub(super) Value);

/// Error instead of an answer.
#[derive(Debug)]
pub(super) struct Failure(Error);

/// Answer to a request.
pub(super) type Answer = Result<Reply, Failure>;

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, JSON)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Reply(self.0.body())).into_response()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(Error::Unavailable { reason: error_chain(&refusal) })
    }
}
