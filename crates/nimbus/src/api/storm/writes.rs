//! Writes: the same changes as those of the own API, with Storm's bodies. A follower forwards them to
//! the leader as requests of the own API, which leaders of earlier builds know.

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::Response,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    answer::{Answer, StormError, failure, reply},
    params::{Params, PathOf},
};
use crate::{
    api::{
        Api,
        error::{ApiError, internal, parse},
        writes::{change_or_forward, read_body},
    },
    change::Change,
};
use stormkeeper_api_types::message::{Accepted, Code, ErrorBody, KillRequest, RebalanceRequest};
use stormkeeper_serving::origin::ON_PURPOSE;
use stormkeeper_storm_api::{Operation, Rebalance};

/// Maximum bytes of the answer of a leader to a write.
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub(super) async fn activate(api: &Api, topology: &str, request: Request) -> Answer {
    let (parts, body) = read_body(request).await?;
    check(&parts, &body)?;
    change(api, topology, (Change::Activate, &serde_json::json!({})), parts).await
}

pub(super) async fn deactivate(api: &Api, topology: &str, request: Request) -> Answer {
    let (parts, body) = read_body(request).await?;
    check(&parts, &body)?;
    change(api, topology, (Change::Deactivate, &serde_json::json!({})), parts).await
}

pub(super) async fn rebalance(
    State(api): State<Api>,
    PathOf((topology, wait)): PathOf<(String, String)>,
    request: Request,
) -> Answer {
    let (parts, body) = read_body(request).await?;
    check(&parts, &body)?;
    let options: Rebalance = if body.is_empty() { Rebalance::default() } else { parse(&body)? };
    let own = RebalanceRequest {
        wait_secs: Some(seconds(&wait)?),
        workers: options.workers(),
        parallelism: options.parallelism(),
    };
    change(&api, &topology, (Change::Rebalance(own.clone()), &own), parts).await
}

pub(super) async fn kill(
    State(api): State<Api>,
    PathOf((topology, wait)): PathOf<(String, String)>,
    request: Request,
) -> Answer {
    let (parts, body) = read_body(request).await?;
    check(&parts, &body)?;
    let own = KillRequest { wait_secs: Some(seconds(&wait)?) };
    change(&api, &topology, (Change::Kill(own.clone()), &own), parts).await
}

fn seconds(text: &str) -> Result<u64, ApiError> {
    let message =
        || format!("the wait {} is not a whole number of seconds", stormkeeper_model::id::quoted(text));
    text.parse().map_err(|_| ApiError::new(Code::InvalidRequest, message(), None))
}

/// Checks that no form of a web page has sent this write: a page can send an empty body to another site,
/// and no header of its own choice.
pub(super) fn check(parts: &Parts, body: &Bytes) -> Result<(), ApiError> {
    let is_of_page = ["origin", "sec-fetch-site"].iter().any(|name| parts.headers.contains_key(*name));
    match is_of_page && body.is_empty() && !parts.headers.contains_key(ON_PURPOSE) {
        true => Err(ApiError::new(
            Code::ForeignRequest,
            "a write without a body from a web page may be that of a form",
            Some("send the header x-stormkeeper-request: 1, or a body of the type application/json"),
        )),
        false => Ok(()),
    }
}

/// Executes a change here or by the leader, and answers as Storm does. `own` is the body of the same
/// request to the own API.
async fn change(api: &Api, topology: &str, (change, own): (Change, &impl Serialize), parts: Parts) -> Answer {
    let route = format!("/topology/{}/{}", utf8_percent_encode(topology, NON_ALPHANUMERIC), change.verb());
    let (parts, body) = own_request(&parts, Method::POST, &route, own)?;
    let answer = change_or_forward(api, topology, change, parts, body).await?;
    operation(api, answer, Vec::new()).await
}

/// Returns the request of the own API that is sent to the leader for another one.
pub(super) fn own_request(
    parts: &Parts,
    method: Method,
    route: &str,
    body: &impl Serialize,
) -> Result<(Parts, Bytes), ApiError> {
    let mut parts = parts.clone();
    parts.method = method;
    parts.uri = route.parse::<Uri>().map_err(|error| internal(&error))?;
    let body = serde_json::to_vec(body).map_err(|error| internal(&error))?;
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    Ok((parts, body.into()))
}

/// Returns Storm's answer for an answer of the own API, with warnings.
pub(super) async fn operation(api: &Api, own: Response<Body>, warnings: Vec<String>) -> Answer {
    let status = own.status();
    let written = own.headers().get(stormkeeper_api_types::seen::ZXID).cloned();
    let bytes = axum::body::to_bytes(own.into_body(), ANSWER_BYTES_MAX).await;
    let unknown = |text: String| {
        let hint = Some("look at the topology before trying again");
        StormError::from(ApiError::new(Code::OutcomeUnknown, text, hint))
    };
    let bytes = bytes.map_err(|error| unknown(format!("the response of the leader broke off: {error}")))?;
    if !status.is_success() {
        let body: ErrorBody = serde_json::from_slice(&bytes).map_err(|error| {
            unknown(format!("the leader answered {status}, and what it says is unclear: {error}"))
        })?;
        return Ok(failure(status, body));
    }
    let accepted: Accepted = serde_json::from_slice(&bytes)
        .map_err(|error| unknown(format!("the answer of the leader is unclear: {error}")))?;
    let operation = Operation::accepted(accepted.topology_operation, accepted.topology_id);
    let mut answer = reply(api, &Params::default(), &operation.with_warnings(warnings))?;
    if let Some(written) = written {
        answer.headers_mut().insert(stormkeeper_api_types::seen::ZXID, written);
    }
    *answer.status_mut() = StatusCode::OK;
    Ok(answer)
}
