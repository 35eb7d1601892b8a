//! Replication client: fetches metric log entries and whole metric stores from another nimbus.
//! `rpc/metrics.rs` lists the routes.

use std::{
    fmt,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::message::ErrorBody;
use stormkeeper_metrics::{
    messagepack,
    protocol::{BODY_BYTES_MAX, LogPage, LogQuery},
};
use stormkeeper_model::LogPosition;
use stormkeeper_runtime::blocking;

/// Header with the position of the last entry of the answering nimbus' own log, as `term.index`, in
/// each answer about the log. A new leader uses it to find the longest log.
pub const POSITION: &str = "x-stormkeeper-metrics-position";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit for one page. The metric store may be busy with another request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit for a pause in the stream of a checkpoint. The whole transfer has no deadline: a large
/// store on a slow line is not an error.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit on the quoted characters of an error.
const QUOTED_BYTES_MAX: usize = 300;

/// Limit on the size of a checkpoint from another nimbus: a damaged or hostile answer must not fill
/// the disk.
const CHECKPOINT_BYTES_MAX: u64 = 256 << 30;

/// Capacity of the queue of chunks between the network and the disk.
const CHUNKS: usize = 16;

/// Error of a request to another nimbus.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The nimbus could not be reached, or its answer ended early.
    #[error("no answer from {api}")]
    Http {
        /// Address of the nimbus.
        api: String,
        /// Cause.
        source: reqwest::Error,
    },
    /// The nimbus answered with an error.
    #[error("{api} answered {status}: {message}")]
    Refused {
        /// Address of the nimbus.
        api: String,
        /// The HTTP status.
        status: u16,
        /// Error message, or the beginning of the body.
        message: String,
    },
    /// The answer is longer than allowed.
    #[error("the answer of {api} is longer than {max} bytes")]
    TooLong {
        /// Address of the nimbus.
        api: String,
        /// The limit.
        max: u64,
    },
    /// The answer cannot be parsed.
    #[error("the answer of {api} is invalid: {what}")]
    Undecodable {
        /// Address of the nimbus.
        api: String,
        /// Defect of the answer.
        what: String,
    },
    /// A checkpoint could not be written.
    #[error("cannot write below {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Source of the metric log for a follower and for a new leader: other nimbuses by HTTP, or the
/// nimbuses of a simulation.
#[async_trait]
pub trait ReplicaPeers: fmt::Debug + Send + Sync + 'static {
    /// Fetches log entries from the nimbus at `api` (`host:port`), and the position of its last
    /// entry.
    ///
    /// # Errors
    /// [`ReplicaError`].
    async fn log(&self, api: &str, query: &LogQuery) -> Result<(LogPage, LogPosition), ReplicaError>;

    /// Writes a checkpoint of the metric store of the nimbus at `api` into the new directory
    /// `into`, and returns its size in bytes.
    ///
    /// # Errors
    /// [`ReplicaError`]; the content of the directory is then unspecified.
    async fn checkpoint(&self, api: &str, into: &Path) -> Result<u64, ReplicaError>;
}

/// Fetches metric data from other nimbuses by HTTP. Clones share their connections.
#[derive(Debug, Clone)]
pub struct ReplicaClient {
    http: reqwest::Client,
}

impl ReplicaClient {
    /// A client without connections yet.
    ///
    /// # Errors
    /// [`ReplicaError::Setup`].
    pub fn new() -> Result<Self, ReplicaError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // Nimbuses are on the same network; a proxy of the environment is for other hosts.
            .no_proxy();
        Ok(Self { http: builder.build().map_err(ReplicaError::Setup)? })
    }

    fn request(&self, api: &str, what: &str) -> RequestBuilder {
        self.http.get(format!("http://{api}/api/v1/metrics/{what}"))
    }
}

#[async_trait]
impl ReplicaPeers for ReplicaClient {
    async fn log(&self, api: &str, query: &LogQuery) -> Result<(LogPage, LogPosition), ReplicaError> {
        let request = self.request(api, "sync/log").query(query).timeout(ANSWER_TIMEOUT);
        let answer = sent(api, request).await?;
        let position = answer.headers().get(POSITION).and_then(|value| position_of(value.to_str().ok()?));
        let senseless = || ReplicaError::Undecodable {
            api: api.to_owned(),
            what: format!("the header {POSITION} is missing or is not a log position"),
        };
        let position = position.ok_or_else(senseless)?;
        Ok((read(api, answer).await?, position))
    }

    async fn checkpoint(&self, api: &str, into: &Path) -> Result<u64, ReplicaError> {
        let mut answer = sent(api, self.request(api, "sync/checkpoint")).await?;
        let (chunks, received) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
        let dir = into.to_owned();
        let unpacking = blocking::run(move || unpack(Chunks { received, rest: Bytes::new() }, &dir));
        let receiving = async move {
            loop {
                match answer.chunk().await {
                    Ok(Some(chunk)) => {
                        // The receiver is gone if unpacking failed; that error is reported.
                        if chunks.send(Ok(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(source) => {
                        // Without this error the tar would seem to end here.
                        let _gone = chunks.send(Err(io::Error::other("the answer ended early"))).await;
                        return Err(source);
                    }
                }
            }
        };
        let (unpacked, received) = tokio::join!(unpacking, receiving);
        received.map_err(|source| ReplicaError::Http { api: api.to_owned(), source })?;
        match unpacked {
            Ok(bytes) => Ok(bytes),
            Err(Unpack::TooLong) => {
                Err(ReplicaError::TooLong { api: api.to_owned(), max: CHECKPOINT_BYTES_MAX })
            }
            Err(Unpack::InvalidEntry(what)) => Err(ReplicaError::Undecodable { api: api.to_owned(), what }),
            Err(Unpack::Io(source)) => Err(ReplicaError::Write { path: into.to_owned(), source }),
        }
    }
}

/// Parses the header [`POSITION`], which has the format of a displayed position.
fn position_of(text: &str) -> Option<LogPosition> {
    let (term, index) = text.split_once('.')?;
    Some(LogPosition { term: term.parse().ok()?, index: index.parse().ok()? })
}

async fn sent(api: &str, request: RequestBuilder) -> Result<Response, ReplicaError> {
    let http = |source| ReplicaError::Http { api: api.to_owned(), source };
    let answer = request.send().await.map_err(http)?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let message = error_message(&whole(api, answer, 1 << 20).await?);
    Err(ReplicaError::Refused { api: api.to_owned(), status, message })
}

/// The message of an error body.
fn error_message(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { message, .. }) => message,
        // The body is not from Stormkeeper.
        Err(_) => String::from_utf8_lossy(body).chars().take(QUOTED_BYTES_MAX).collect(),
    }
}

async fn read<T: DeserializeOwned + Send + 'static>(api: &str, answer: Response) -> Result<T, ReplicaError> {
    let body = whole(api, answer, BODY_BYTES_MAX).await?;
    // Decoding megabytes takes a moment.
    let decoded = blocking::run(move || messagepack::decode(&body).map_err(|error| error.to_string()));
    decoded.await.map_err(|what| ReplicaError::Undecodable { api: api.to_owned(), what })
}

async fn whole(api: &str, mut answer: Response, max: usize) -> Result<Vec<u8>, ReplicaError> {
    let mut body = Vec::new();
    let http = |source| ReplicaError::Http { api: api.to_owned(), source };
    while let Some(chunk) = answer.chunk().await.map_err(http)? {
        if body.len() + chunk.len() > max {
            return Err(ReplicaError::TooLong { api: api.to_owned(), max: max as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Error of unpacking a checkpoint.
enum Unpack {
    TooLong,
    InvalidEntry(String),
    Io(io::Error),
}

impl From<io::Error> for Unpack {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Unpacks a tar of plain files without folders.
fn unpack(tar: impl Read, into: &Path) -> Result<u64, Unpack> {
    std::fs::create_dir(into)?;
    let (mut tar, mut bytes) = (tar::Archive::new(tar), 0_u64);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let is_plain = entry.header().entry_type().is_file()
            && matches!(name.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        if !is_plain {
            return Err(Unpack::InvalidEntry(format!("{} is not a plain file", name.display())));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > CHECKPOINT_BYTES_MAX {
            return Err(Unpack::TooLong);
        }
        let mut file = std::fs::File::create_new(into.join(name))?;
        io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
    }
    std::fs::File::open(into)?.sync_all()?;
    Ok(bytes)
}

/// Received chunks as a blocking reader.
struct Chunks {
    received: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.received.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_formatting() {
        let position = LogPosition { term: 7, index: 12 };
        assert_eq!(position_of(&position.to_string()), Some(position));
        assert_eq!(position_of("7"), None);
        assert_eq!(position_of("7.x"), None);
    }

    #[test]
    fn an_error_is_quoted_by_its_message() {
        assert_eq!(
            error_message(br#"{"code":"not_ready","message":"it is closed","hint":null}"#),
            "it is closed"
        );
        assert_eq!(error_message(b"<html>"), "<html>");
        assert_eq!(error_message(&[b'x'; 1000]).len(), QUOTED_BYTES_MAX);
    }

    fn tar_of(names: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_old();
            // The setter rejects such names, but a hostile sender writes them.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(3);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            tar.append(&header, &b"abc"[..]).expect("written");
        }
        tar.into_inner().expect("written")
    }

    #[test]
    fn only_plain_files_are_unpacked() {
        let dir = tempfile::tempdir().expect("a directory");
        let into = dir.path().join("good");
        assert!(matches!(unpack(&tar_of(&["CURRENT", "1.sst"])[..], &into), Ok(6)));
        assert_eq!(std::fs::read(into.join("1.sst")).expect("there"), b"abc");
        for (i, bad) in ["../x", "/x", "a/b"].into_iter().enumerate() {
            let into = dir.path().join(format!("bad-{i}"));
            assert!(matches!(unpack(&tar_of(&[bad])[..], &into), Err(Unpack::InvalidEntry(_))), "{bad}");
        }
        assert!(!dir.path().join("x").exists());
        let again = unpack(&tar_of(&["CURRENT"])[..], &into);
        assert!(matches!(again, Err(Unpack::Io(_))), "the directory exists already");
    }
}
