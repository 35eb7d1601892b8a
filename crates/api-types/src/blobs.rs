//! Fetching a blob from a nimbus: `GET /blobs/{sha256}` of the own API.
//!
//! The bytes are written to a file and accepted only if their sha256 is the blob's key, so any
//! nimbus may be the source.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, StatusCode, header, redirect::Policy};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::{authorized::AuthorizedClient, forward::TERM, http, message::CopyRequest, routes};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_model::{BlobKey, Term};

/// Limit for a pause in the stream. The whole transfer has no deadline: a large blob on a slow
/// line is not an error.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit on the size of a fetched blob, whatever a nimbus was configured to accept: a damaged or
/// hostile response must not fill the disk.
pub const MAX_BLOB_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Error of fetching a blob from a nimbus.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The nimbus could not be reached, or its response ended early.
    #[error("no response from {api}")]
    Http {
        /// Address of the nimbus.
        api: String,
        /// Cause.
        source: reqwest::Error,
    },
    /// The nimbus answered with an error.
    #[error("{api} answered {status} for blob {key}")]
    Refused {
        /// Address of the nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
        /// HTTP status of the response.
        status: StatusCode,
    },
    /// The blob is larger than the limit.
    #[error("blob {key} from {api} is larger than {bytes_max} bytes")]
    TooLarge {
        /// Address of the nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
        /// The limit.
        bytes_max: u64,
    },
    /// The bytes do not match the blob's key.
    #[error("{api} sent bytes with the sha256 {found} for blob {key}")]
    WrongBytes {
        /// Address of the nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
        /// Key of the received bytes.
        found: BlobKey,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Source of blobs: other nimbuses by HTTP, or the store of a simulation.
#[async_trait]
pub trait FetchBlob: fmt::Debug + Send + Sync + 'static {
    /// Fetches a blob from the nimbus at `api` (`host:port`) into the new file `into`, and
    /// returns its size, at most `bytes_max`. On success the file contains the blob's bytes;
    /// otherwise its content is unspecified.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch_at_most(
        &self,
        api: &str,
        key: &BlobKey,
        into: &Path,
        bytes_max: u64,
    ) -> Result<u64, FetchError>;

    /// As [`FetchBlob::fetch_at_most`], for a blob that a topology uses: a nimbus accepted it,
    /// whatever its limit was then. At most [`MAX_BLOB_BYTES`].
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self, api: &str, key: &BlobKey, into: &Path) -> Result<u64, FetchError> {
        self.fetch_at_most(api, key, into, MAX_BLOB_BYTES).await
    }

    /// Offers the blob in `file` to the nimbus at `api`, which takes it if it does not have it. A
    /// source that cannot send blobs does nothing.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn offer(&self, _api: &str, _key: &BlobKey, _file: &Path) -> Result<(), FetchError> {
        Ok(())
    }
}

/// Requests of a leader to other nimbuses, besides fetching.
#[async_trait]
pub trait BlobPeers: FetchBlob {
    /// Requests that the nimbus at `api` fetches a blob from the nimbus at `from`, and returns once
    /// the nimbus has the blob and has announced it. The request is that of the leader of `term`; a
    /// nimbus that has seen a later term rejects it.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn request_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError>;
}

/// Fetches blobs by HTTP. Clones share their connections.
#[derive(Debug, Clone)]
pub struct BlobClient {
    http: AuthorizedClient,
}

impl BlobClient {
    /// A client without connections yet.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new(tls: &ClientTls) -> Result<Self, FetchError> {
        // A nimbus sends no redirect; one would lead to an address that nobody has checked.
        let http = http::client().read_timeout(READ_TIMEOUT).redirect(Policy::none());
        Ok(Self { http: AuthorizedClient::new(http, tls).map_err(FetchError::Setup)? })
    }

    /// Sends every request with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials) }
    }
}

#[async_trait]
impl BlobPeers for BlobClient {
    async fn request_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError> {
        let route = format!("/blobs/{key}/copy");
        let body = CopyRequest { from: from.to_owned() };
        let with = |request: RequestBuilder| request.header(TERM, term.0).json(&body);
        let sent = routes::send(&self.http, Method::POST, (api, &route), with).await;
        let status = sent.map_err(|source| FetchError::Http { api: api.to_owned(), source })?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(FetchError::Refused { api: api.to_owned(), key: key.clone(), status }),
        }
    }
}

#[async_trait]
impl FetchBlob for BlobClient {
    async fn fetch_at_most(
        &self,
        api: &str,
        key: &BlobKey,
        into: &Path,
        bytes_max: u64,
    ) -> Result<u64, FetchError> {
        let http = |source| FetchError::Http { api: api.to_owned(), source };
        let write = |source| FetchError::Write { path: into.to_owned(), source };
        let too_large = || FetchError::TooLarge { api: api.to_owned(), key: key.clone(), bytes_max };

        let route = format!("/blobs/{key}");
        let answer = routes::send(&self.http, Method::GET, (api, &route), |request| request).await;
        let mut answer = answer.map_err(http)?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(FetchError::Refused { api: api.to_owned(), key: key.clone(), status });
        }
        if answer.content_length().is_some_and(|length| length > bytes_max) {
            return Err(too_large());
        }
        let mut file = tokio::fs::File::create_new(into).await.map_err(write)?;
        let mut digest = Sha256::new();
        let mut n_bytes = 0;
        while let Some(chunk) = answer.chunk().await.map_err(http)? {
            n_bytes += chunk.len() as u64;
            if n_bytes > bytes_max {
                return Err(too_large());
            }
            digest.update(&chunk);
            file.write_all(&chunk).await.map_err(write)?;
        }
        file.flush().await.map_err(write)?;
        let found = BlobKey::from_digest(&digest.finalize());
        if found != *key {
            return Err(FetchError::WrongBytes { api: api.to_owned(), key: key.clone(), found });
        }
        Ok(n_bytes)
    }

    async fn offer(&self, api: &str, key: &BlobKey, file: &Path) -> Result<(), FetchError> {
        let http = |source| FetchError::Http { api: api.to_owned(), source };
        let read = |source| FetchError::Read { path: file.to_owned(), source };
        let route = format!("/blobs/{key}");
        let answer = routes::send(&self.http, Method::HEAD, (api, &route), |request| request).await;
        let answer = answer.map_err(http)?;
        if answer.status() == StatusCode::OK {
            return Ok(());
        }
        // The file is sent once, to the path that was asked last.
        let url = answer.url().clone();
        let file = tokio::fs::File::open(file).await.map_err(read)?;
        let n_bytes = file.metadata().await.map_err(read)?.len();
        let request = self
            .http
            .request(Method::PUT, url.into())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, n_bytes)
            .body(file);
        let status = self.http.send(request).await.map_err(http)?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(FetchError::Refused { api: api.to_owned(), key: key.clone(), status }),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, routing::get};

    use super::*;
    use stormkeeper_runtime::tasks::{OnExit, Tasks};

    /// A nimbus that answers every blob request with `status` and `body`.
    async fn nimbus(tasks: &Tasks, status: StatusCode, body: &'static str) -> String {
        let routes = Router::new()
            .route("/api/stormkeeper/v1/blobs/{key}", get(move || async move { (status, body) }));
        serve(tasks, routes).await
    }

    async fn serve(tasks: &Tasks, routes: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        tasks.start("nimbus", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        api
    }

    async fn fetch(status: StatusCode, body: &'static str) -> Result<Vec<u8>, FetchError> {
        let tasks = Tasks::default();
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("blob");
        let api = nimbus(&tasks, status, body).await;
        BlobClient::new(&ClientTls::off())
            .expect("made")
            .fetch(&api, &BlobKey::of(b"the bytes"), &file)
            .await?;
        Ok(std::fs::read(file).expect("written"))
    }

    #[tokio::test]
    async fn the_fetched_file_contains_the_bytes() {
        assert_eq!(fetch(StatusCode::OK, "the bytes").await.expect("fetched"), b"the bytes");
    }

    #[tokio::test]
    async fn bytes_with_another_sha256_are_rejected() {
        let error = fetch(StatusCode::OK, "other bytes").await.expect_err("refused");
        assert!(matches!(error, FetchError::WrongBytes { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_blob_beyond_the_limit_is_rejected() {
        let tasks = Tasks::default();
        let dir = tempfile::tempdir().expect("temporary directory");
        let (client, key) = (BlobClient::new(&ClientTls::off()).expect("made"), BlobKey::of(b"the bytes"));
        // Without a length, so that the bytes are counted.
        let stream = || async {
            let chunks = futures_util::stream::iter(["the ", "bytes"].map(Ok::<_, io::Error>));
            axum::body::Body::from_stream(chunks)
        };
        for routes in [
            Router::new().route("/api/stormkeeper/v1/blobs/{key}", get(|| async { "the bytes" })),
            Router::new().route("/api/stormkeeper/v1/blobs/{key}", get(stream)),
        ] {
            let api = serve(&tasks, routes).await;
            let file = dir.path().join(api.replace(':', "-"));
            let error = client.fetch_at_most(&api, &key, &file, 8).await.expect_err("too large");
            assert!(matches!(error, FetchError::TooLarge { bytes_max: 8, .. }), "{error}");
            let file = file.with_file_name(format!("whole-{}", api.replace(':', "-")));
            assert_eq!(client.fetch_at_most(&api, &key, &file, 9).await.expect("fetched"), 9);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let tasks = Tasks::default();
        let dir = tempfile::tempdir().expect("temporary directory");
        let elsewhere = nimbus(&tasks, StatusCode::OK, "the bytes").await;
        let key = BlobKey::of(b"the bytes");
        let target = format!("http://{elsewhere}/api/stormkeeper/v1/blobs/{key}");
        let redirect = move || async move { axum::response::Redirect::temporary(&target) };
        let api = serve(&tasks, Router::new().route("/api/stormkeeper/v1/blobs/{key}", get(redirect))).await;
        let client = BlobClient::new(&ClientTls::off()).expect("made");
        let error = client.fetch(&api, &key, &dir.path().join("blob")).await.expect_err("a redirect");
        assert!(matches!(error, FetchError::Refused { status, .. } if status.is_redirection()), "{error}");
    }

    #[tokio::test]
    async fn an_error_names_the_nimbus_and_the_status() {
        let error = fetch(StatusCode::NOT_FOUND, "").await.expect_err("refused").to_string();
        assert!(error.contains("127.0.0.1:") && error.contains("404"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_nimbus_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let client = BlobClient::new(&ClientTls::off()).expect("made");
        let fetched = client.fetch("127.0.0.1:1", &BlobKey::of(b"x"), &dir.path().join("blob")).await;
        assert!(matches!(fetched, Err(FetchError::Http { .. })));
    }
}
