//! Sends a request that reached one nimbus on to another, and the answer back, as streams.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream, TryStreamExt as _,
    stream::{BoxStream, StreamExt as _},
};
use reqwest::{
    Method,
    header::{self, HeaderName},
};

use crate::{
    model::{NimbusId, Term},
    rpc::client::chain,
};

/// Says which nimbus forwarded a request. One that has it is not forwarded again: two
/// nimbuses that each take the other for the leader would never end.
pub const FORWARDED_BY: &str = "x-stormkeeper-forwarded-by";

/// The latest term that the sender knows of. A nimbus that leads in an earlier one is a
/// leader of the past and takes no forwarded write; a client believes no nimbus that names
/// the leader of an earlier one than it has heard of.
pub const TERM: &str = "x-stormkeeper-term";

/// Who asks, for people to read: the user that the client runs as.
pub const USER: &str = "x-stormkeeper-user";

/// Where a forwarded request came from.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// As long as the upload of the largest blob over a slow line may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Forwards requests. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Forwarder {
    http: reqwest::Client,
}

/// A request without its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `POST`, `PUT`, …
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The nimbus that it reached.
    pub by: &'a NimbusId,
    /// The term of the leader that it is sent to.
    pub term: Term,
    /// Who asks, when that is known.
    pub user: Option<&'a str>,
    /// Where the request came from, when that is known.
    pub address: Option<&'a str>,
    /// The kind of its body, when it said so.
    pub content_type: Option<&'a str>,
    /// The size of its body, when it said so.
    pub content_length: Option<&'a str>,
}

/// The answer to a forwarded request.
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// The kind of its body.
    pub content_type: Option<String>,
    /// Its body.
    pub body: BoxStream<'static, Result<Bytes, Broken>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// An answer that ended early.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken(#[source] reqwest::Error);

/// Why a request was not forwarded, or its answer is missing.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It was not sent.
    #[error("{api} cannot be reached: {reason}")]
    Unreachable {
        /// The address.
        api: String,
        /// Why.
        reason: String,
    },
    /// It was sent, and may have taken effect.
    #[error("{api} did not answer: {reason}")]
    Unanswered {
        /// The address.
        api: String,
        /// Why.
        reason: String,
    },
}

impl Forwarder {
    /// A forwarder without connections yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new() -> Result<Self, reqwest::Error> {
        // Nimbuses are neighbours; a proxy of the environment is meant for the world.
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).no_proxy();
        Ok(Self { http: builder.build()? })
    }

    /// Sends a request to the nimbus at `api` and answers what it answers.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn forward<S, E>(&self, api: &str, head: Head<'_>, body: S) -> Result<Answer, ForwardError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let unreachable = |reason| ForwardError::Unreachable { api: api.to_owned(), reason };
        let method = Method::from_bytes(head.method.as_bytes());
        let method = method.map_err(|error| unreachable(error.to_string()))?;
        let mut request = self
            .http
            .request(method, format!("http://{api}{}", head.path))
            .header(FORWARDED_BY, head.by.as_str())
            .header(TERM, head.term.0)
            .body(reqwest::Body::wrap_stream(body));
        let optional = [
            (header::CONTENT_TYPE, head.content_type),
            (header::CONTENT_LENGTH, head.content_length),
            (HeaderName::from_static(USER), head.user),
            (HeaderName::from_static(FORWARDED_FOR), head.address),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() || error.is_builder() => return Err(unreachable(chain(&error))),
            Err(error) => {
                return Err(ForwardError::Unanswered { api: api.to_owned(), reason: chain(&error) });
            }
        };
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        Ok(Answer {
            status: answer.status().as_u16(),
            content_type: content_type.and_then(|value| value.to_str().ok()).map(str::to_owned),
            body: answer.bytes_stream().map_err(Broken).boxed(),
        })
    }
}
