//! Fetching a blob from a nimbus: `GET /api/v1/blobs/{sha256}`.
//!
//! The bytes go straight to a file and are believed only when their sha256 is the blob's
//! name, so it does not matter which nimbus they came from.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::{
    model::{BlobKey, Term},
    rpc::{forward::TERM, message::CopyRequest},
};

/// For a connection to one nimbus: another may have the blob as well.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the stream may bring nothing. There is no deadline for the whole: a large blob on
/// a slow line is not an error.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest blob that is fetched, whatever a nimbus was configured to accept: a damaged or
/// hostile answer must not fill the disk.
pub const MAX_BLOB_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Why a blob could not be fetched from a nimbus.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Setup(#[source] reqwest::Error),
    /// The nimbus could not be asked, or its answer broke off.
    #[error("no answer from {api}")]
    Http {
        /// The nimbus.
        api: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The nimbus answered with an error.
    #[error("{api} answered {status} for blob {key}")]
    Refused {
        /// The nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
        /// Its answer.
        status: StatusCode,
    },
    /// The answer is over [`MAX_BLOB_BYTES`].
    #[error("blob {key} from {api} is larger than {MAX_BLOB_BYTES} bytes")]
    TooLarge {
        /// The nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
    },
    /// The bytes are not the blob's.
    #[error("what {api} sent as blob {key} has the sha256 {found}")]
    WrongBytes {
        /// The nimbus.
        api: String,
        /// The blob.
        key: BlobKey,
        /// What the bytes are.
        found: BlobKey,
    },
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where blobs are fetched from: other nimbuses by HTTP, or whatever a simulation has.
#[async_trait]
pub trait FetchBlob: fmt::Debug + Send + Sync + 'static {
    /// Fetches a blob from the nimbus at `api` (`host:port`) into the new file `into`, and
    /// answers its size. The file holds the blob's bytes when this succeeds; otherwise it may
    /// hold anything.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self, api: &str, key: &BlobKey, into: &Path) -> Result<u64, FetchError>;
}

/// What a leader asks of other nimbuses on top.
#[async_trait]
pub trait BlobPeers: FetchBlob {
    /// Has the nimbus at `api` fetch a blob from the one at `from`, and answers once it has
    /// it and has announced it. The leader of `term` asks; one that has heard of a later
    /// term refuses.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn ask_to_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError>;
}

/// Fetches blobs by HTTP. Clones share their connections.
#[derive(Debug, Clone)]
pub struct BlobClient {
    http: reqwest::Client,
}

impl BlobClient {
    /// A client without connections yet.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new() -> Result<Self, FetchError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // Nimbuses are neighbours; a proxy of the environment is meant for the world.
            .no_proxy()
            .build()
            .map_err(FetchError::Setup)?;
        Ok(Self { http })
    }
}

#[async_trait]
impl BlobPeers for BlobClient {
    async fn ask_to_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError> {
        let url = format!("http://{api}/api/v1/blobs/{key}/copy");
        let body = CopyRequest { from: from.to_owned() };
        let sent = self.http.post(url).header(TERM, term.0).json(&body).send().await;
        let status = sent.map_err(|source| FetchError::Http { api: api.to_owned(), source })?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(FetchError::Refused { api: api.to_owned(), key: key.clone(), status }),
        }
    }
}

#[async_trait]
impl FetchBlob for BlobClient {
    async fn fetch(&self, api: &str, key: &BlobKey, into: &Path) -> Result<u64, FetchError> {
        let http = |source| FetchError::Http { api: api.to_owned(), source };
        let write = |source| FetchError::Write { path: into.to_owned(), source };
        let too_large = || FetchError::TooLarge { api: api.to_owned(), key: key.clone() };

        let url = format!("http://{api}/api/v1/blobs/{key}");
        let mut answer = self.http.get(url).send().await.map_err(http)?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(FetchError::Refused { api: api.to_owned(), key: key.clone(), status });
        }
        if answer.content_length().is_some_and(|length| length > MAX_BLOB_BYTES) {
            return Err(too_large());
        }
        let mut file = tokio::fs::File::create_new(into).await.map_err(write)?;
        let mut digest = Sha256::new();
        let mut n_bytes = 0;
        while let Some(chunk) = answer.chunk().await.map_err(http)? {
            n_bytes += chunk.len() as u64;
            if n_bytes > MAX_BLOB_BYTES {
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
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, routing::get};

    use super::*;
    use crate::daemon::tasks::{Ending, Tasks};

    /// A nimbus that answers each blob with `status` and `body`.
    async fn nimbus(tasks: &Tasks, status: StatusCode, body: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        let routes = Router::new().route("/api/v1/blobs/{key}", get(move || async move { (status, body) }));
        tasks.start("nimbus", Ending::Normal, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        api
    }

    async fn fetch(status: StatusCode, body: &'static str) -> Result<Vec<u8>, FetchError> {
        let tasks = Tasks::default();
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("blob");
        let api = nimbus(&tasks, status, body).await;
        BlobClient::new().expect("made").fetch(&api, &BlobKey::of(b"the bytes"), &file).await?;
        Ok(std::fs::read(file).expect("written"))
    }

    #[tokio::test]
    async fn the_bytes_arrive() {
        assert_eq!(fetch(StatusCode::OK, "the bytes").await.expect("fetched"), b"the bytes");
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let error = fetch(StatusCode::OK, "other bytes").await.expect_err("refused");
        assert!(matches!(error, FetchError::WrongBytes { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_error_names_the_nimbus_and_the_blob() {
        let error = fetch(StatusCode::NOT_FOUND, "").await.expect_err("refused").to_string();
        assert!(error.contains("127.0.0.1:") && error.contains("404"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let client = BlobClient::new().expect("made");
        let fetched = client.fetch("127.0.0.1:1", &BlobKey::of(b"x"), &dir.path().join("blob")).await;
        assert!(matches!(fetched, Err(FetchError::Http { .. })));
    }
}
