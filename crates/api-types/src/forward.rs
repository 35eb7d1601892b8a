//! Forwards a request from one nimbus to another, and returns the response, as streams.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{
    TryStreamExt as _,
    stream::{BoxStream, StreamExt as _},
};
use reqwest::{
    Method, RequestBuilder,
    header::{self, HeaderName},
};

use crate::{
    authorized::{AuthorizedClient, STALE},
    http,
    routes::{OLD_PREFIX, PREFIX, is_before_prefix},
    seen::Seen,
};
use stormkeeper_access::{credentials::Credentials, principal::Principal, tls::client::ClientTls};
use stormkeeper_model::{NimbusId, Term};

/// Header with the nimbus that forwarded a request. A request with this header is not forwarded
/// again: two nimbuses that each take the other for the leader would forward it for ever.
pub const FORWARDED_BY: &str = "x-stormkeeper-forwarded-by";

/// Header with the latest term that the sender knows. A leader of an earlier term is deposed and
/// rejects forwarded writes; a client ignores a leader of an earlier term than the latest that it
/// has seen.
pub const TERM: &str = "x-stormkeeper-term";

/// Header of a response to a read from a view that is not up to date: age of the view in
/// milliseconds. The nimbus has not reached ZooKeeper for [`BEHIND_MIN`], or the change that the read
/// names ([`ZXID`](crate::seen::ZXID)) is still missing after the wait.
pub const BEHIND: &str = "x-stormkeeper-behind-ms";

/// Age from which a view is called out of date; a shorter loss of ZooKeeper is nothing to report.
pub const BEHIND_MIN: Duration = Duration::from_secs(2);

/// Header with the user that the client runs as; informational.
pub const USER: &str = "x-stormkeeper-user";

/// Header with the client address of a forwarded request.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// Limit for a response: enough for the upload of the largest blob over a slow line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Forwards requests. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Forwarder {
    http: AuthorizedClient,
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// HTTP method: `POST`, `PUT`, …
    pub method: &'a str,
    /// Prefix at which the request was received: [`PREFIX`] or [`OLD_PREFIX`]. Not all routes are at both.
    pub prefix: &'static str,
    /// Path of the request below the prefix.
    pub route: &'a str,
    /// The nimbus that received the request.
    pub by: &'a NimbusId,
    /// The term of the leader that the request is forwarded to.
    pub term: Term,
    /// Sender of the request, as this nimbus has checked.
    pub principal: Principal,
    /// User of the client, if known.
    pub user: Option<&'a str>,
    /// Address of the client, if known.
    pub address: Option<&'a str>,
    /// Content type of the body, if given.
    pub content_type: Option<&'a str>,
    /// Size of the body, if given.
    pub content_length: Option<&'a str>,
}

/// The body of a forwarded request.
pub enum ForwardedBody {
    /// All of it, so that its digest is signed.
    Whole(Bytes),
    /// The bytes of a blob, whose digest is in the path.
    Blob(BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>),
}

impl fmt::Debug for ForwardedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Blob(_) => f.write_str("Blob(…)"),
        }
    }
}

/// The response to a forwarded request.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// The write ([`ZXID`](crate::seen::ZXID)), if the leader named it.
    pub written: Seen,
    /// The body.
    pub body: BoxStream<'static, Result<Bytes, Broken>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Error of a response that ended early.
#[derive(Debug, thiserror::Error)]
#[error("the response ended early")]
pub struct Broken(#[source] reqwest::Error);

/// Error of forwarding: the request was not forwarded, or the response is missing.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The request was not sent.
    #[error("{api} cannot be reached: {reason}")]
    Unreachable {
        /// Address of the other nimbus.
        api: String,
        /// Cause.
        reason: String,
    },
    /// The request was sent, and may have taken effect.
    #[error("{api} did not answer: {reason}")]
    Unanswered {
        /// Address of the other nimbus.
        api: String,
        /// Cause.
        reason: String,
    },
}

impl Forwarder {
    /// A forwarder without connections yet.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(tls: &ClientTls) -> Result<Self, reqwest::Error> {
        Ok(Self { http: AuthorizedClient::new(http::client().timeout(ANSWER_TIMEOUT), tls)? })
    }

    /// Sends every request with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials) }
    }

    /// Returns a request to the nimbus at `api`, without its body.
    fn request(&self, (api, prefix): (&str, &str), method: Method, head: &Head<'_>) -> RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("http://{api}{prefix}{}", head.route))
            .header(FORWARDED_BY, head.by.as_str())
            .header(TERM, head.term.0);
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
        request
    }

    /// Forwards a request to the nimbus at `api` and returns the response.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(
        &self,
        api: &str,
        head: Head<'_>,
        body: ForwardedBody,
    ) -> Result<Answer, ForwardError> {
        let unreachable = |reason| ForwardError::Unreachable { api: api.to_owned(), reason };
        let method = Method::from_bytes(head.method.as_bytes());
        let method = method.map_err(|error| unreachable(error.to_string()))?;
        // Requests that a daemon sends for itself are allowed to this one too.
        let on_behalf_of =
            Some(head.principal.clone()).filter(|sender| !matches!(sender, Principal::Daemon(_)));
        let send = async |prefix: &str, body: reqwest::Body| {
            let request = self.request((api, prefix), method.clone(), &head).body(body);
            match self.http.send_for(request, on_behalf_of.clone()).await {
                // It was not executed, and the next one has the right time.
                Ok(answer) if answer.headers().contains_key(STALE) => {
                    Err(unreachable("the clocks of both nimbuses differ".to_owned()))
                }
                Ok(answer) => Ok(answer),
                Err(error) if error.is_connect() || error.is_builder() => {
                    Err(unreachable(http::reason(&error)))
                }
                Err(error) => {
                    Err(ForwardError::Unanswered { api: api.to_owned(), reason: http::reason(&error) })
                }
            }
        };
        let answer = match body {
            ForwardedBody::Whole(bytes) => {
                let answer = send(head.prefix, bytes.clone().into()).await?;
                match head.prefix == PREFIX && is_before_prefix(&answer) {
                    true => send(OLD_PREFIX, bytes.into()).await?,
                    false => answer,
                }
            }
            // Both a nimbus of this build and one of the build before have the old path; a streamed body
            // cannot be sent again.
            ForwardedBody::Blob(chunks) => send(OLD_PREFIX, reqwest::Body::wrap_stream(chunks)).await?,
        };
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        Ok(Answer {
            written: Seen::of_headers(answer.headers()),
            status: answer.status().as_u16(),
            content_type: content_type.and_then(|value| value.to_str().ok()).map(str::to_owned),
            body: answer.bytes_stream().map_err(Broken).boxed(),
        })
    }
}
