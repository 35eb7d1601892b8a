//! HTTP client that posts to one server, with retries.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Url, header};

use crate::export::exporters::{Error, ExportError};
use stormkeeper_api_types::http;
use stormkeeper_model::{
    backoff::{Backoff, Delays},
    secret_text::without_secrets,
};

/// Maximum number of attempts of one request. Then the export fails: its entry stays in the queue,
/// and the exporter task retries after a longer pause.
const ATTEMPTS: usize = 4;

/// Minimum and maximum pause between two attempts. A server that only restarts a connection is back
/// at once; an overloaded server gets a few seconds at most, as the export has a deadline.
const PAUSE: Delays = Delays::between(Duration::from_millis(200), Duration::from_secs(3));

/// Timeout of the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of bytes read of a response: errors of a thousand points are below a megabyte.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Maximum number of characters of a response in an error.
const QUOTED_CHARS_MAX: usize = 300;

/// HTTP client for one URL; connections are reused.
#[derive(Debug)]
pub(super) struct HttpPoster {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
    pause: Delays,
}

/// Response of a server that no retry of the same request would improve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// Body, truncated if it is very long.
    pub(super) body: Vec<u8>,
}

impl HttpPoster {
    /// Client for requests to `url`, each with `timeout`.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub(super) fn new(url: Url, timeout: Duration) -> Result<Self, Error> {
        let http = http::client()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            // A redirected POST would become a GET, and its response would look like an acceptance.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Http)?;
        Ok(Self { http, url, timeout, pause: PAUSE })
    }

    /// Client for another URL, with the same connections.
    pub(super) fn to(&self, url: Url) -> Self {
        Self { http: self.http.clone(), url, timeout: self.timeout, pause: self.pause }
    }

    /// Shortens the pauses.
    #[cfg(test)]
    pub(super) fn with_short_pauses(mut self) -> Self {
        self.pause = Delays::between(Duration::from_millis(1), Duration::from_millis(2));
        self
    }

    /// Returns the URL as it may be shown.
    pub(super) fn url(&self) -> String {
        without_secrets(self.url.as_str())
    }

    /// Returns the pauses between attempts, for callers with their own retries.
    pub(super) fn backoff(&self) -> Backoff {
        self.pause.backoff()
    }

    /// Sends `body`, and retries while there is no response or a retryable one.
    ///
    /// # Errors
    /// If the last attempt has no response, or a retryable one.
    pub(super) async fn post(&self, headers: &header::HeaderMap, body: Bytes) -> Result<Answer, ExportError> {
        let mut backoff = self.backoff();
        for _ in 1..ATTEMPTS {
            match self.post_once(headers, body.clone()).await {
                Ok(answer) if !is_retryable(answer.status) => return Ok(answer),
                // The last attempt returns the reason.
                Ok(_) | Err(_) => tokio::time::sleep(backoff.next_delay()).await,
            }
        }
        match self.post_once(headers, body).await? {
            answer if is_retryable(answer.status) => Err(self.error_of(&answer)),
            answer => Ok(answer),
        }
    }

    /// Same as [`post`](Self::post), for a server that accepts all or nothing.
    ///
    /// # Errors
    /// If the last attempt has no response, or any other than an acceptance.
    pub(super) async fn post_all(&self, headers: &header::HeaderMap, body: Bytes) -> Result<(), ExportError> {
        match self.post(headers, body).await? {
            Answer { status: 200..=299, .. } => Ok(()),
            answer => Err(self.error_of(&answer)),
        }
    }

    async fn post_once(&self, headers: &header::HeaderMap, body: Bytes) -> Result<Answer, ExportError> {
        // The length is known: the body has a Content-Length and is not chunked.
        let request = self.http.post(self.url.clone()).headers(headers.clone()).body(body);
        let mut response = request.timeout(self.timeout).send().await.map_err(|error| self.unsent(error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < ANSWER_BYTES_MAX {
            match response.chunk().await.map_err(|error| self.unsent(error))? {
                Some(chunk) => {
                    body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())])
                }
                None => break,
            }
        }
        Ok(Answer { status, body })
    }

    fn unsent(&self, source: reqwest::Error) -> ExportError {
        // The error of the library has the whole URL in its text.
        let (url, source) = (self.url(), source.without_url());
        match source.is_timeout() && !source.is_connect() {
            true => ExportError::TimedOut { url, waited: self.timeout },
            false => ExportError::Unreachable { url, source },
        }
    }

    /// Makes an error of a response.
    pub(super) fn error_of(&self, answer: &Answer) -> ExportError {
        ExportError::Answered { url: self.url(), status: answer.status, message: answer.message() }
    }
}

impl Answer {
    /// Returns the begin of the body, on one line.
    pub(super) fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.is_empty() {
            true => "(empty)".to_owned(),
            false => line.chars().take(QUOTED_CHARS_MAX).collect(),
        }
    }
}

/// Returns whether the problem is the server's and not the request's, so that a retry may succeed.
fn is_retryable(status: u16) -> bool {
    status == 429 || status == 408 || status >= 500
}

/// Parses a URL to post to.
///
/// # Errors
/// [`Error::Url`].
pub(super) fn url(text: &str, example: &'static str) -> Result<Url, Error> {
    let fail = |problem: String| Error::Url { url: without_secrets(text), problem, example };
    let url = Url::parse(text).map_err(|error| fail(format!("is not a URL ({error})")))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "http" => Err(fail("names no host".to_owned())),
        "https" => Err(fail("is https, which nimbus does not support".to_owned())),
        other => Err(fail(format!("begins with {other}:"))),
    }
}
