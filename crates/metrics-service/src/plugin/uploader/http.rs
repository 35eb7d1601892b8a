//! One HTTP server that is posted to, with patience.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Url, header};

use crate::plugin::{Error, ExportError};
use stormkeeper_model::backoff::Backoff;

/// How often a request is sent before its upload is left to a later try: the queue keeps it, and
/// its runner tries again after a longer pause.
const ATTEMPTS: usize = 4;

/// Between two attempts; a server that only restarts a connection is there at once, and one that
/// is overloaded is left alone for a few seconds at most, as the upload has a deadline.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// For the connection alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most of an answer that is read: errors of a thousand points are below a megabyte.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The most of an answer that stands in an error.
const SAID_CHARS_MAX: usize = 300;

/// Posts to one URL; connections are kept.
#[derive(Debug)]
pub(super) struct Poster {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
    pause: (Duration, Duration),
}

/// What a server answered, unless the same request may be answered better later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body, or the beginning of a very long one.
    pub(super) body: Vec<u8>,
}

impl Poster {
    /// For requests to `url`, each with `timeout`.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub(super) fn new(url: Url, timeout: Duration) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            // A proxy of the environment is meant for the world.
            .no_proxy()
            // A POST that is redirected would become a GET, and look as if it were taken.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Http)?;
        Ok(Self { http, url, timeout, pause: PAUSE })
    }

    /// The same for another URL, by the same connections.
    pub(super) fn to(&self, url: Url) -> Self {
        Self { http: self.http.clone(), url, timeout: self.timeout, pause: self.pause }
    }

    /// With other pauses.
    #[cfg(test)]
    pub(super) fn hurried(mut self) -> Self {
        self.pause = (Duration::from_millis(1), Duration::from_millis(2));
        self
    }

    /// Where it posts to.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The pauses between attempts, for those who try again by themselves.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.pause.0, self.pause.1, fastrand::Rng::new()).expect("the pauses are in order")
    }

    /// Sends `body`, a few times while there is no answer, or one that says "later".
    ///
    /// # Errors
    /// No answer in the end, or one that says "later" each time.
    pub(super) async fn post(&self, headers: &header::HeaderMap, body: Bytes) -> Result<Answer, ExportError> {
        let mut backoff = self.backoff();
        for _ in 1..ATTEMPTS {
            match self.post_once(headers, body.clone()).await {
                Ok(answer) if !is_for_later(answer.status) => return Ok(answer),
                // The last attempt says why.
                Ok(_) | Err(_) => tokio::time::sleep(backoff.next_delay()).await,
            }
        }
        match self.post_once(headers, body).await? {
            answer if is_for_later(answer.status) => Err(self.fault(&answer)),
            answer => Ok(answer),
        }
    }

    /// Sends `body` as [`post`](Self::post) does to a server that takes all of it or nothing.
    ///
    /// # Errors
    /// No answer in the end, or any but that it was taken.
    pub(super) async fn post_all(&self, headers: &header::HeaderMap, body: Bytes) -> Result<(), ExportError> {
        match self.post(headers, body).await? {
            Answer { status: 200..=299, .. } => Ok(()),
            answer => Err(self.fault(&answer)),
        }
    }

    async fn post_once(&self, headers: &header::HeaderMap, body: Bytes) -> Result<Answer, ExportError> {
        // Bytes of known length: the body has a Content-Length and is not chunked.
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
        let url = self.url.to_string();
        match source.is_timeout() && !source.is_connect() {
            true => ExportError::TimedOut { url, waited: self.timeout },
            false => ExportError::Unreachable { url, source },
        }
    }

    /// That the server answered so.
    pub(super) fn fault(&self, answer: &Answer) -> ExportError {
        ExportError::Answered { url: self.url.to_string(), status: answer.status, said: answer.said() }
    }
}

impl Answer {
    /// The beginning of what it said, on one line.
    pub(super) fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.is_empty() {
            true => "nothing".to_owned(),
            false => line.chars().take(SAID_CHARS_MAX).collect(),
        }
    }
}

/// Whether the server is in trouble, not the request.
fn is_for_later(status: u16) -> bool {
    status == 429 || status == 408 || status >= 500
}

/// A URL that can be posted to.
///
/// # Errors
/// [`Error::Url`].
pub(super) fn url(text: &str, example: &'static str) -> Result<Url, Error> {
    let fail = |problem: String| Error::Url { url: text.to_owned(), problem, example };
    let url = Url::parse(text).map_err(|error| fail(format!("is no URL ({error})")))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "http" => Err(fail("names no host".to_owned())),
        "https" => Err(fail("is https, which nimbus does not speak".to_owned())),
        other => Err(fail(format!("begins with {other}:"))),
    }
}
