//! Sends a write that reached a follower on to the leader, and its answer back.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Method, header},
    response::Response,
};

use super::error::{ApiError, internal};
use crate::{
    nimbus::Handle,
    rpc::{client::chain, message::Code},
};

/// Says which nimbus forwarded a request. One that has it is not forwarded again: two
/// nimbuses that each take the other for the leader would never end.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-stormkeeper-forwarded-by");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// As long as the upload of the largest blob over a slow line may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Forwards requests.
#[derive(Debug, Clone)]
pub(super) struct Forwarder {
    http: reqwest::Client,
}

impl Forwarder {
    pub(super) fn new() -> Self {
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).no_proxy();
        Self { http: builder.build().expect("a client without TLS needs nothing that can be missing") }
    }

    /// Sends the request to the leader and answers what it answers.
    ///
    /// # Errors
    /// `no_leader` when none is known or it does not answer; `outcome_unknown` when it was
    /// sent and the answer was lost.
    pub(super) async fn forward(
        &self,
        nimbus: &Handle,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, ApiError> {
        let hint = Some("try again in a moment");
        let leader = nimbus.leader().filter(|leader| leader.nimbus != *nimbus.id());
        let Some(leader) = leader.filter(|_| !headers.contains_key(FORWARDED_BY)) else {
            return Err(ApiError::new(Code::NoLeader, "there is no leader now", hint));
        };
        let mut request = self
            .http
            .request(method, format!("http://{}{path}", leader.api))
            .header(FORWARDED_BY, nimbus.id().as_str())
            .body(reqwest::Body::wrap_stream(body.into_data_stream()));
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => {
                let text = format!("the leader {} at {} cannot be reached", leader.nimbus, leader.api);
                tracing::warn!(error = chain(&error), "{text}");
                return Err(ApiError::new(Code::NoLeader, text, hint));
            }
            Err(error) => {
                let text = format!("the leader {} did not answer: {}", leader.nimbus, chain(&error));
                let hint = "look at the topology before trying again";
                return Err(ApiError::new(Code::OutcomeUnknown, text, Some(hint)));
            }
        };
        let mut response = Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        response.body(Body::from_stream(answer.bytes_stream())).map_err(|error| internal(&error))
    }
}
