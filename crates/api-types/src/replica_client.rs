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
use reqwest::{Method, RequestBuilder};
use tokio::sync::mpsc;

use crate::{authorized::AuthorizedClient, http, routes};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::LogPosition;
use stormkeeper_runtime::blocking;

/// Header with the position of the last entry of the answering nimbus' own log, as `term.index`, in
/// each response about the log. A new leader uses it to find the longest log.
pub const POSITION: &str = "x-stormkeeper-metrics-position";

/// Limit for one page. The metric store may be busy with another request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit for a pause in the stream of a checkpoint. The whole transfer has no deadline: a large
/// store on a slow line is not an error.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit on the size of a checkpoint from another nimbus: a damaged or hostile response must not fill
/// the disk.
const CHECKPOINT_BYTES_MAX: u64 = 256 << 30;

/// Capacity of the queue of chunks between the network and the disk.
const CHUNKS: usize = 16;

/// Error of a request to another nimbus.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The request failed.
    #[error(transparent)]
    Http(#[from] http::Error),
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
    http: AuthorizedClient,
}

impl ReplicaClient {
    /// A client without connections yet.
    ///
    /// # Errors
    /// [`http::Error::Setup`].
    pub fn new(tls: &ClientTls) -> Result<Self, ReplicaError> {
        let http = http::client().read_timeout(READ_TIMEOUT);
        Ok(Self { http: AuthorizedClient::new(http, tls).map_err(http::Error::Setup)? })
    }

    /// Sends every request with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials) }
    }

    async fn ask(
        &self,
        api: &str,
        route: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<reqwest::Response, http::Error> {
        http::accepted(api, routes::send(&self.http, Method::GET, (api, route), with).await).await
    }
}

#[async_trait]
impl ReplicaPeers for ReplicaClient {
    async fn log(&self, api: &str, query: &LogQuery) -> Result<(LogPage, LogPosition), ReplicaError> {
        let with = |request: RequestBuilder| request.query(query).timeout(ANSWER_TIMEOUT);
        let answer = self.ask(api, "/metrics/sync/log", with).await?;
        let position = answer.headers().get(POSITION).and_then(|value| position_of(value.to_str().ok()?));
        let senseless = || http::Error::Invalid {
            peer: api.to_owned(),
            what: format!("the header {POSITION} is missing or is not a log position"),
        };
        let position = position.ok_or_else(senseless)?;
        Ok((http::decoded(api, answer).await?, position))
    }

    async fn checkpoint(&self, api: &str, into: &Path) -> Result<u64, ReplicaError> {
        let mut answer = self.ask(api, "/metrics/sync/checkpoint", |request| request).await?;
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
                        let _gone = chunks.send(Err(io::Error::other("the response ended early"))).await;
                        return Err(source);
                    }
                }
            }
        };
        let (unpacked, received) = tokio::join!(unpacking, receiving);
        received.map_err(|source| http::Error::Unreachable { peer: api.to_owned(), source })?;
        match unpacked {
            Ok(bytes) => Ok(bytes),
            Err(Unpack::TooLong) => {
                Err(http::Error::TooLong { peer: api.to_owned(), max: CHECKPOINT_BYTES_MAX }.into())
            }
            Err(Unpack::InvalidEntry(what)) => {
                Err(http::Error::Invalid { peer: api.to_owned(), what }.into())
            }
            Err(Unpack::Io(source)) => Err(ReplicaError::Write { path: into.to_owned(), source }),
        }
    }
}

/// Parses the header [`POSITION`], which has the format of a displayed position.
fn position_of(text: &str) -> Option<LogPosition> {
    let (term, index) = text.split_once('.')?;
    Some(LogPosition { term: term.parse().ok()?, index: index.parse().ok()? })
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
