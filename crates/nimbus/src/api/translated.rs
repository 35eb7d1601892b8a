//! Writes of other APIs, as requests of the own API: a follower forwards them to the leader, and leaders
//! of earlier builds know them.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, Uri, header, request::Parts},
    response::Response,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    Api,
    error::{ApiError, internal},
    writes::change_or_forward,
};
use crate::change::Change;
use stormkeeper_api_types::{
    message::{Accepted, Code, ErrorBody},
    seen::ZXID,
};

/// Maximum bytes of the answer of a leader to a write.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Write that was executed.
pub(super) struct Written {
    pub(super) accepted: Accepted,
    /// Header with the transaction of the write.
    zxid: Option<HeaderValue>,
}

impl Written {
    /// Names the transaction of the write in an answer of another form.
    pub(super) fn name_in(&self, answer: &mut Response) {
        if let Some(zxid) = &self.zxid {
            answer.headers_mut().insert(ZXID, zxid.clone());
        }
    }
}

/// Executes a change here or by the leader. `own` is the body of the same request to the own API.
pub(super) async fn change(
    api: &Api,
    topology: &str,
    (change, own): (Change, &impl Serialize),
    parts: &Parts,
) -> Result<Written, ApiError> {
    let route = format!("/topology/{}/{}", utf8_percent_encode(topology, NON_ALPHANUMERIC), change.verb());
    let (parts, body) = own_request(parts, Method::POST, &route, own)?;
    written(change_or_forward(api, topology, change, parts, body).await?).await
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

/// Reads an answer of the own API to a write.
pub(super) async fn written(own: Response<Body>) -> Result<Written, ApiError> {
    let (status, zxid) = (own.status(), own.headers().get(ZXID).cloned());
    let bytes = axum::body::to_bytes(own.into_body(), ANSWER_BYTES_MAX).await;
    let unknown = |text: String| {
        let hint = Some("look at the topology before trying again");
        ApiError::new(Code::OutcomeUnknown, text, hint)
    };
    let bytes = bytes.map_err(|error| unknown(format!("the response of the leader broke off: {error}")))?;
    if !status.is_success() {
        let body: ErrorBody = serde_json::from_slice(&bytes).map_err(|error| {
            unknown(format!("the leader answered {status}, and what it says is unclear: {error}"))
        })?;
        return Err(ApiError::from(body));
    }
    let accepted = serde_json::from_slice(&bytes)
        .map_err(|error| unknown(format!("the answer of the leader is unclear: {error}")))?;
    Ok(Written { accepted, zxid })
}
