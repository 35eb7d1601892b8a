//! HTTP between processes of one network: one way to make a client, to send a request, and to read
//! a response of limited size.

use std::time::Duration;

use reqwest::{ClientBuilder, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::message::ErrorBody;
use stormkeeper_access::tls::client::{ClientTls, refused_certificate};
use stormkeeper_metrics::{messagepack, protocol::BODY_BYTES_MAX};
use stormkeeper_runtime::{blocking, error_chain};

/// Limit for connecting: the peers are on the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time after which an unused connection is closed: before the peer does, as a request that is sent
/// at that moment would be lost. A nimbus closes connections after 60 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit on the body of an error.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// Limit on the quoted characters of an error.
const QUOTED_CHARS_MAX: usize = 300;

/// Error of a request to a peer: its address, or the URL of the request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The peer could not be reached, or its response ended early.
    #[error("no response from {peer}")]
    Unreachable {
        /// The peer.
        peer: String,
        /// Cause.
        source: reqwest::Error,
    },
    /// The peer answered with an error.
    #[error("{peer} answered {status}: {message}")]
    Refused {
        /// The peer.
        peer: String,
        /// The HTTP status.
        status: u16,
        /// Error message, or the beginning of the body.
        message: String,
    },
    /// The response is longer than allowed.
    #[error("the response of {peer} is longer than {max} bytes")]
    TooLong {
        /// The peer.
        peer: String,
        /// The limit.
        max: u64,
    },
    /// The response cannot be parsed.
    #[error("the response of {peer} is invalid: {what}")]
    Invalid {
        /// The peer.
        peer: String,
        /// Defect of the response.
        what: String,
    },
}

impl Error {
    /// Returns whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Setup(_) | Self::TooLong { .. } | Self::Invalid { .. } => false,
        }
    }
}

/// Returns a builder of clients that connect within three seconds, and directly: a proxy of the
/// environment is for hosts outside of the network.
pub fn client() -> ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .no_proxy()
        .tls_backend_preconfigured(ClientTls::off().config())
}

/// Returns the cause of a failed request, with a remedy if it is TLS.
pub fn reason(error: &reqwest::Error) -> String {
    let (chain, cause) = (error_chain(error), tls_cause(error));
    if let Some(refused) = cause.and_then(refused_certificate) {
        return refused;
    }
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => format!(
            "{chain}: it speaks plain HTTP, or is no daemon of the cluster; look at storm.tls and the log there. While a \
             running cluster gets TLS, storm.tls is `optional` here"
        ),
        Some(rustls::Error::AlertReceived(alert)) => format!(
            "{chain}: it refused the certificate of this side ({alert:?}); is the certificate of its authority in \
             storm.tls.ca.file there, and has it not expired?"
        ),
        _ => chain,
    }
}

/// Returns the error of TLS that made a request fail.
pub(crate) fn tls_cause(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Sends a request, and returns the response if it is a success.
///
/// # Errors
/// [`Error`].
pub async fn sent(peer: &str, request: RequestBuilder) -> Result<Response, Error> {
    accepted(peer, request.send().await).await
}

/// Returns a response if it is a success.
///
/// # Errors
/// [`Error`].
pub async fn accepted(peer: &str, answer: reqwest::Result<Response>) -> Result<Response, Error> {
    let answer = answer.map_err(|source| Error::Unreachable { peer: peer.to_owned(), source })?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let message = error_message(&whole(peer, answer, ERROR_BYTES_MAX).await?);
    Err(Error::Refused { peer: peer.to_owned(), status, message })
}

/// Reads the body of a response, at most `max` bytes.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::TooLong`].
pub async fn whole(peer: &str, mut answer: Response, max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let ended = |source| Error::Unreachable { peer: peer.to_owned(), source };
    while let Some(chunk) = answer.chunk().await.map_err(ended)? {
        if body.len() + chunk.len() > max {
            return Err(Error::TooLong { peer: peer.to_owned(), max: max as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads a response in MessagePack, at most [`BODY_BYTES_MAX`] bytes.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::TooLong`], [`Error::Invalid`].
pub async fn decoded<T: DeserializeOwned + Send + 'static>(peer: &str, answer: Response) -> Result<T, Error> {
    let body = whole(peer, answer, BODY_BYTES_MAX).await?;
    // Decoding megabytes takes a moment.
    let decoded = blocking::run(move || messagepack::decode(&body).map_err(|error| error.to_string()));
    decoded.await.map_err(|what| Error::Invalid { peer: peer.to_owned(), what })
}

/// The message of an error body.
fn error_message(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { message, .. }) => message,
        // The body is not from Stormkeeper.
        Err(_) => String::from_utf8_lossy(body).chars().take(QUOTED_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};

    use super::*;
    use stormkeeper_runtime::tasks::{OnExit, Tasks};

    #[test]
    fn an_error_is_quoted_by_its_message() {
        assert_eq!(
            error_message(br#"{"code":"not_ready","message":"it is closed","hint":null}"#),
            "it is closed"
        );
        assert_eq!(error_message(b"<html>"), "<html>");
        assert_eq!(error_message(&[b'x'; 1000]).len(), QUOTED_CHARS_MAX);
    }

    #[tokio::test]
    async fn an_answer_beyond_the_limit_is_rejected() {
        let tasks = Tasks::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let routes = Router::new().route("/", get(|| async { "12345" }));
        tasks.start("peer", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let client = client().build().expect("made");
        let answer = || async { sent(&url, client.get(&url)).await.expect("answered") };
        assert_eq!(whole(&url, answer().await, 5).await.expect("fits"), b"12345");
        let error = whole(&url, answer().await, 4).await.expect_err("too long");
        assert!(matches!(error, Error::TooLong { max: 4, .. }), "{error}");
    }
}
