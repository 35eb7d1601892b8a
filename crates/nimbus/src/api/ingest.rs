//! Ingest routes for metrics, and the routes from which followers fetch; bodies are MessagePack.
//!
//! A registration or metric batch that reaches a follower is not forwarded: topology masters read
//! the leader from ZooKeeper, and their bodies are large.

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Query, Request, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Api, access,
    caller::check_term,
    error::{ApiError, too_slow},
};
use crate::refusal::Refusal;
use stormkeeper_api_types::{message::Code, replica_client::POSITION};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metrics::protocol::{
    BODY_BYTES_MAX, HistoryQuery, LogQuery, MSGPACK, MetaQuery, PointsQuery, TrackQuery,
};
use stormkeeper_metrics_service::BodyPermit;

pub(super) async fn register(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    check_term(&api, &parts)?;
    let mut permit = api.nimbus.metrics_body_permit()?;
    let (only, body) = (access::only_topology(&parts), read(&parts, body, &mut permit).await?);
    Ok(msgpack(&api.nimbus.register_metrics_of(only.as_ref(), body).await?))
}

pub(super) async fn ingest(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    check_term(&api, &parts)?;
    let mut permit = api.nimbus.metrics_body_permit()?;
    let (only, body) = (access::only_topology(&parts), read(&parts, body, &mut permit).await?);
    Ok(msgpack(&api.nimbus.ingest_metrics_of(only.as_ref(), body).await?))
}

pub(super) async fn log(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let query: LogQuery = query(request).await?;
    let (page, position) = api.nimbus.metrics_log(query).await?;
    let mut response = msgpack(&page);
    let text = position.to_string().parse().expect("digits and a dot are a header's value");
    response.headers_mut().insert(POSITION, text);
    Ok(response)
}

pub(super) async fn metas(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let query: MetaQuery = query(request).await?;
    Ok(msgpack(&api.nimbus.metrics_metas(query).await?))
}

pub(super) async fn points(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let mut query: PointsQuery = query(request).await?;
    query.limit = query.limit.min(ROWS_MAX);
    let points = api.nimbus.metrics()?.points(query).await;
    Ok(msgpack(&points.map_err(read_error)?))
}

pub(super) async fn track(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let TrackQuery { topology, task, limit } = query(request).await?;
    let track = api.nimbus.metrics()?.track(&topology, task, limit.min(ROWS_MAX)).await;
    Ok(msgpack(&track.map_err(read_error)?))
}

pub(super) async fn history(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let HistoryQuery { name, limit } = query(request).await?;
    let history = api.nimbus.metrics()?.history(name.as_ref(), limit.min(ROWS_MAX)).await;
    Ok(msgpack(&history.map_err(read_error)?))
}

/// Maximum rows of one response: a page of histograms stays below the largest body.
const ROWS_MAX: usize = 30_000;

/// Converts a failed read of the metric store, whose text names the directory and what to do.
fn read_error(error: metric_store::Error) -> ApiError {
    Refusal::NoMetrics { reason: error.to_string() }.into()
}

pub(super) async fn checkpoint(State(api): State<Api>) -> Result<Response, ApiError> {
    let (checkpoint, tasks) = api.nimbus.metrics_checkpoint().await?;
    let body = Body::from_stream(checkpoint.tar(tasks));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

async fn query<T: DeserializeOwned + Send>(request: Request) -> Result<T, ApiError> {
    let (mut parts, _body) = request.into_parts();
    match Query::<T>::from_request_parts(&mut parts, &()).await {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(ApiError::new(Code::InvalidRequest, rejection.body_text(), None)),
    }
}

async fn read(parts: &Parts, body: Body, permit: &mut BodyPermit<'_>) -> Result<Bytes, ApiError> {
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(READ_TIMEOUT, read_chunks(body, permit)).await {
        Ok(read) => read,
        Err(_too_long) => {
            let text = format!("the body did not arrive within {READ_TIMEOUT:?}");
            Err(ApiError::new(Code::InvalidRequest, text, None))
        }
    }
}

async fn read_chunks(body: Body, permit: &mut BodyPermit<'_>) -> Result<Bytes, ApiError> {
    let (mut bytes, mut chunks) = (BytesMut::new(), body.into_data_stream());
    while let Some(chunk) = chunks.next().await {
        // A caller that disconnected reads no response.
        let chunk = chunk.map_err(|error| match access::is_wrong_body(&error) {
            true => access::wrong_body(),
            false => too_slow(),
        })?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        permit.grow(chunk.len()).await.map_err(Refusal::from)?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn too_large() -> ApiError {
    let text = format!("the body is larger than {BODY_BYTES_MAX} bytes");
    ApiError::new(Code::TooLarge, text, Some("send smaller batches"))
}

/// Timeout for the arrival of a body.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

fn msgpack(value: &impl Serialize) -> Response {
    let bytes = rmp_serde::to_vec_named(value).expect("messages are plain values");
    (StatusCode::OK, [(header::CONTENT_TYPE, MSGPACK)], bytes).into_response()
}
