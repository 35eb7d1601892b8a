//! Routes that change something: executed by the leader, forwarded by followers.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::{
    Api, JSON_BYTES_MAX, access,
    caller::{self, check_term},
    error::{ApiError, PathPart, broken_body, parse, too_large, too_slow},
    forward::forward_and_refresh,
    serving::is_body_timeout,
    summary,
};
use crate::{change::Change, drain::DrainChange, handle::Submission, refusal::Refusal};
use stormkeeper_api_types::message::{
    Accepted, Code, DrainRequest, HostAccepted, KillRequest, LogLevelRequest, MetricControlRequest,
    RebalanceRequest, SubmitRequest, UpdateRequest,
};
use stormkeeper_coordination::cluster::{layout, record::TopologyRecord};
use stormkeeper_model::{HostName, TopologyId};

pub(super) async fn submit(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(&api, &parts)?;
    let asked: SubmitRequest = parse(&body)?;
    let SubmitRequest { name, blob, owner, status } = asked;
    // A follower has not seen the upload, which it forwarded.
    if let Some(owner) = access::only_owner(&parts).filter(|_| api.nimbus.takes_writes()) {
        api.uploaders.check(&api.nimbus.observation()?.view, owner, &blob)?;
    }
    let owner = access::owner_of(&parts, owner);
    let submission = Submission { name, blob, owner, by: caller::of(&parts), status: status.into() };
    let result = api.nimbus.submit(submission).await;
    answer(&api, "submit", result, parts, body).await
}

pub(super) async fn update(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(&api, &parts)?;
    let asked: UpdateRequest = parse(&body)?;
    if let Some(owner) = access::only_owner(&parts).filter(|_| api.nimbus.takes_writes()) {
        api.uploaders.check(&api.nimbus.observation()?.view, owner, &asked.blob)?;
    }
    let result = api.nimbus.update(&topology, asked, caller::of(&parts)).await;
    answer(&api, "update", result, parts, body).await
}

pub(super) async fn activate(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change(&api, &topology, request, |NoOptions {}| Change::Activate).await
}

pub(super) async fn deactivate(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change(&api, &topology, request, |NoOptions {}| Change::Deactivate).await
}

pub(super) async fn rebalance(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change(&api, &topology, request, |options: RebalanceRequest| Change::Rebalance(options)).await
}

pub(super) async fn kill(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change(&api, &topology, request, |options: KillRequest| Change::Kill(options)).await
}

pub(super) async fn metrics(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let of = |request: MetricControlRequest| Change::Metrics(request.into());
    change(&api, &topology, request, of).await
}

pub(super) async fn log_level(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change(&api, &topology, request, |asked: LogLevelRequest| Change::LogLevel(asked)).await
}

pub(super) async fn sample(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(&api, &parts)?;
    let change = Change::Sample(parse(&body)?);
    change_or_forward(&api, &topology, change, parts, body).await
}

pub(super) async fn drain(
    State(api): State<Api>,
    PathPart(host): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let of = |DrainRequest { wait_secs }| DrainChange::Drain { wait_secs };
    change_host(&api, &host, request, of).await
}

pub(super) async fn undrain(
    State(api): State<Api>,
    PathPart(host): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    change_host(&api, &host, request, |NoOptions {}| DrainChange::Undrain).await
}

async fn change_host<T: DeserializeOwned + Default>(
    api: &Api,
    host: &str,
    request: Request,
    make: impl FnOnce(T) -> DrainChange,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(api, &parts)?;
    let change = make(if body.is_empty() { T::default() } else { parse(&body)? });
    let host: HostName =
        host.parse().map_err(|error| ApiError::new(Code::InvalidRequest, format!("{error}"), None))?;
    match api.nimbus.drain(host.clone(), change, caller::of(&parts)).await {
        Ok(()) => {
            let workers_left = summary::workers_on(&api.nimbus.observation()?.view, &host);
            let host_operation = change.verb().to_owned();
            Ok(Json(HostAccepted { host_operation, host, workers_left }).into_response())
        }
        Err(Refusal::NotLeading { .. }) => {
            forward_and_refresh(api, &parts, Body::from(body), |_| vec![layout::drain(&host)]).await
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Body of a request without options.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoOptions {}

async fn change<T: DeserializeOwned + Default>(
    api: &Api,
    topology: &str,
    request: Request,
    make: impl FnOnce(T) -> Change,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(api, &parts)?;
    let options = if body.is_empty() { T::default() } else { parse(&body)? };
    change_or_forward(api, topology, make(options), parts, body).await
}

/// Executes a change, or forwards the request in `parts` and `body` to the leader.
pub(super) async fn change_or_forward(
    api: &Api,
    topology: &str,
    change: Change,
    parts: Parts,
    body: axum::body::Bytes,
) -> Result<Response, ApiError> {
    let verb = change.verb();
    let result = api.nimbus.change(topology, change, caller::of(&parts)).await;
    answer(api, verb, result, parts, body).await
}

/// Reads the whole body: a follower needs it twice, to check it and to forward it.
pub(super) async fn read_body(request: Request) -> Result<(Parts, axum::body::Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let (mut bytes, mut chunks) = (BytesMut::new(), body.into_data_stream());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| match error {
            error if is_body_timeout(&error) => too_slow(),
            error if access::is_wrong_body(&error) => access::wrong_body(),
            error => broken_body(&error),
        })?;
        if bytes.len() + chunk.len() > JSON_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((parts, bytes.freeze()))
}

async fn answer(
    api: &Api,
    verb: &str,
    result: Result<(TopologyId, TopologyRecord), Refusal>,
    parts: Parts,
    body: axum::body::Bytes,
) -> Result<Response, ApiError> {
    let (id, topology_record) = match result {
        Ok(changed) => changed,
        Err(Refusal::NotLeading { .. }) => {
            let written = |answer: &[u8]| match serde_json::from_slice::<Accepted>(answer) {
                Ok(accepted) => layout::records_of(&accepted.topology_id),
                Err(_) => Vec::new(),
            };
            return forward_and_refresh(api, &parts, Body::from(body), written).await;
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let pending = topology_record.pending.map(|change| summary::pending(&api.nimbus, change));
    let accepted = Accepted {
        topology_operation: verb.to_owned(),
        topology_id: id,
        name: topology_record.name,
        status: topology_record.status,
        pending,
    };
    Ok(Json(accepted).into_response())
}
