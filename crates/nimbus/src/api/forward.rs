//! Forwarding of a write that reached a follower to the leader, and of the leader's response back.

use axum::{
    body::Body,
    extract::OriginalUri,
    http::{HeaderName, Method, StatusCode, header, request::Parts},
    response::Response,
};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{
    Api, access, caller,
    error::{ApiError, internal},
};
use stormkeeper_access::principal::Principal;
use stormkeeper_api_types::{
    forward::{FORWARDED_BY, ForwardError, ForwardedBody, Head, USER},
    message::Code,
    routes::{OLD_PREFIX, PREFIX},
    seen::ZXID,
};
use stormkeeper_coordination::tree::TreePath;

/// Maximum bytes of a response to a write: the response of another nimbus is not read without bound.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Maximum bytes of a body that is forwarded as a whole, so that its digest can be signed. Routes read
/// less.
const FORWARDED_BYTES_MAX: usize = 64 << 20;

fn body_failed(error: axum::Error) -> ApiError {
    match access::is_wrong_body(&error) {
        true => access::wrong_body(),
        false => ApiError::new(Code::InvalidRequest, format!("the body could not be read: {error}"), None),
    }
}

/// As [`forward`], and refreshes this nimbus' view of what was written, at the paths that `written`
/// finds in the response: later responses of this nimbus show the write.
///
/// # Errors
/// The errors of [`forward`], and `outcome_unknown` if the response broke off.
pub(super) async fn forward_and_refresh(
    api: &Api,
    parts: &Parts,
    body: Body,
    written: impl FnOnce(&[u8]) -> Vec<TreePath>,
) -> Result<Response, ApiError> {
    let answer = forward(api, parts, body).await?;
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|error| {
        let text = format!("the response of the leader broke off: {error}");
        ApiError::new(Code::OutcomeUnknown, text, Some("look at the topology before trying again"))
    })?;
    api.nimbus.see(written(&body)).await;
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Returns the prefix at which a request was received: some routes are at that of the own API only.
fn prefix_of(parts: &Parts) -> &'static str {
    let received = parts.extensions.get::<OriginalUri>();
    match received.is_some_and(|OriginalUri(uri)| uri.path().starts_with(PREFIX)) {
        true => PREFIX,
        false => OLD_PREFIX,
    }
}

/// Sends the request to the leader, and returns the leader's response.
///
/// # Errors
/// `no_leader` if no leader is known or the leader cannot be reached; `outcome_unknown` if the
/// request was sent and the response was lost.
pub(super) async fn forward(api: &Api, parts: &Parts, body: Body) -> Result<Response, ApiError> {
    let headers = &parts.headers;
    let (nimbus, again) = (&api.nimbus, Some("try again in a moment"));
    let leader = nimbus.leader().filter(|leader| leader.nimbus != *nimbus.id());
    // Where senders prove who they are, only the signature of a nimbus makes the header count.
    let was_forwarded = headers.contains_key(FORWARDED_BY) && access::is_forwarded(parts);
    let Some(leader) = leader.filter(|_| !was_forwarded) else {
        return Err(ApiError::new(Code::NoLeader, "there is no leader now", again));
    };
    // Only the body of a blob is longer, and its path has its digest.
    let body = match parts.method == Method::PUT {
        true => ForwardedBody::Blob(body.into_data_stream().map_err(Into::into).boxed()),
        false => {
            let whole = axum::body::to_bytes(body, FORWARDED_BYTES_MAX).await;
            ForwardedBody::Whole(whole.map_err(body_failed)?)
        }
    };
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let address = caller::address(parts);
    let head = Head {
        method: parts.method.as_str(),
        prefix: prefix_of(parts),
        // Without its prefix, which the router has removed.
        route: parts.uri.path(),
        by: nimbus.id(),
        term: leader.term,
        principal: access::principal(parts).cloned().unwrap_or(Principal::Anyone),
        user: text(HeaderName::from_static(USER)),
        address: address.as_deref(),
        content_type: text(header::CONTENT_TYPE),
        content_length: text(header::CONTENT_LENGTH),
    };
    let answer = match api.forwarder.forward(&leader.api, head, body).await {
        // The sender has proved who it is to this nimbus: it is this one that the leader does not know.
        Ok(answer) if answer.status == StatusCode::UNAUTHORIZED.as_u16() => {
            let text = format!("the leader at {} does not accept the signature of this nimbus", leader.api);
            let hint = "storm.cluster.secret.file must have a common secret on all hosts";
            return Err(ApiError::new(Code::NoLeader, text, Some(hint)));
        }
        Ok(answer) => answer,
        Err(error @ ForwardError::Unreachable { .. }) => {
            return Err(ApiError::new(Code::NoLeader, format!("the leader at {error}"), again));
        }
        Err(error @ ForwardError::Unanswered { .. }) => {
            let hint = Some("look at the topology before trying again");
            return Err(ApiError::new(Code::OutcomeUnknown, format!("the leader at {error}"), hint));
        }
    };
    let mut response = Response::builder().status(answer.status);
    if let Some(written) = answer.written.header() {
        response = response.header(ZXID, written);
    }
    if let Some(kind) = answer.content_type {
        response = response.header(header::CONTENT_TYPE, kind);
    }
    response.body(Body::from_stream(answer.body)).map_err(|error| internal(&error))
}
