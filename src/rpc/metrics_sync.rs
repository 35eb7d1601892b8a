//! What a nimbus asks of another about metrics: entries of its archive's log, the whole archive,
//! names and ids. `rpc/metrics.rs` lists the routes.

use std::{
    io::{self, Read},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    daemon::blocking,
    model::Position,
    rpc::{
        message::ErrorBody,
        metrics::{BODY_BYTES_MAX, LogPage, LogQuery, MetaPage, MetaQuery},
    },
};

/// The last entry of the answering nimbus' own log, as `term.number`; with each answer about
/// the log. It is how a new leader finds out who has the most.
pub const POSITION: &str = "x-stormkeeper-metrics-position";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For one page, or one contribution of a minute: the archive may be busy with another one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the stream of a checkpoint may bring nothing. There is no deadline for the whole:
/// a large archive on a slow line is not an error.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of an error that is quoted.
const QUOTED_BYTES_MAX: usize = 300;

/// The largest archive that is taken from another nimbus: a damaged or hostile answer must not
/// fill the disk.
const CHECKPOINT_BYTES_MAX: u64 = 256 << 30;

/// Parts of a checkpoint on their way from the network to the disk.
const CHUNKS: usize = 16;

/// Why another nimbus did not answer, or not with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Setup(#[source] reqwest::Error),
    /// It could not be asked, or its answer broke off.
    #[error("no answer from {api}")]
    Http {
        /// The nimbus.
        api: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("{api} answered {status}: {said}")]
    Refused {
        /// The nimbus.
        api: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        said: String,
    },
    /// Its answer is longer than any that makes sense.
    #[error("the answer of {api} is longer than {max} bytes")]
    TooLong {
        /// The nimbus.
        api: String,
        /// The limit.
        max: u64,
    },
    /// Its answer is not what such an answer is.
    #[error("the answer of {api} makes no sense: {what}")]
    Senseless {
        /// The nimbus.
        api: String,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint could not be written.
    #[error("cannot write below {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Asks other nimbuses. Clones share their connections.
#[derive(Debug, Clone)]
pub struct MetricsSync {
    http: reqwest::Client,
}

impl MetricsSync {
    /// A client without connections yet.
    ///
    /// # Errors
    /// [`SyncError::Setup`].
    pub fn new() -> Result<Self, SyncError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // Nimbuses are neighbours; a proxy of the environment is meant for the world.
            .no_proxy();
        Ok(Self { http: builder.build().map_err(SyncError::Setup)? })
    }

    /// Entries of the log of the nimbus at `api`, and how far its log goes.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn log(&self, api: &str, query: &LogQuery) -> Result<(LogPage, Position), SyncError> {
        let request = self.request(api, "sync/log").query(query).timeout(ANSWER_TIMEOUT);
        let answer = sent(api, request).await?;
        let position = answer.headers().get(POSITION).and_then(|value| position_of(value.to_str().ok()?));
        let senseless = || SyncError::Senseless {
            api: api.to_owned(),
            what: format!("the header {POSITION} is missing or no position"),
        };
        let position = position.ok_or_else(senseless)?;
        Ok((read(api, answer).await?, position))
    }

    /// A page of the metas of a topology, as the nimbus at `api` has them.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn metas(&self, api: &str, query: &MetaQuery) -> Result<MetaPage, SyncError> {
        let request = self.request(api, "sync/metas").query(query).timeout(ANSWER_TIMEOUT);
        read(api, sent(api, request).await?).await
    }

    /// Writes the whole archive of the nimbus at `api` into the new directory `into`, and
    /// answers how many bytes it has.
    ///
    /// # Errors
    /// [`SyncError`]; the directory may hold anything then.
    pub async fn checkpoint(&self, api: &str, into: &Path) -> Result<u64, SyncError> {
        let mut answer = sent(api, self.request(api, "sync/checkpoint")).await?;
        let (chunks, received) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
        let dir = into.to_owned();
        let unpacking = blocking::run(move || unpack(Chunks { received, rest: Bytes::new() }, &dir));
        let receiving = async move {
            loop {
                match answer.chunk().await {
                    Ok(Some(chunk)) => {
                        // It has ended when unpacking failed, which tells why.
                        if chunks.send(Ok(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(source) => {
                        // Without this the tar would seem to end here.
                        let _gone = chunks.send(Err(io::Error::other("the answer broke off"))).await;
                        return Err(source);
                    }
                }
            }
        };
        let (unpacked, received) = tokio::join!(unpacking, receiving);
        received.map_err(|source| SyncError::Http { api: api.to_owned(), source })?;
        match unpacked {
            Ok(bytes) => Ok(bytes),
            Err(Unpack::TooLong) => {
                Err(SyncError::TooLong { api: api.to_owned(), max: CHECKPOINT_BYTES_MAX })
            }
            Err(Unpack::Odd(what)) => Err(SyncError::Senseless { api: api.to_owned(), what }),
            Err(Unpack::Io(source)) => Err(SyncError::Write { path: into.to_owned(), source }),
        }
    }

    fn request(&self, api: &str, what: &str) -> RequestBuilder {
        self.http.get(format!("http://{api}/api/v1/metrics/{what}"))
    }
}

/// A position as the header [`POSITION`] says it, which is as it is displayed.
fn position_of(text: &str) -> Option<Position> {
    let (term, seq) = text.split_once('.')?;
    Some(Position { term: term.parse().ok()?, seq: seq.parse().ok()? })
}

async fn sent(api: &str, request: RequestBuilder) -> Result<Response, SyncError> {
    let http = |source| SyncError::Http { api: api.to_owned(), source };
    let answer = request.send().await.map_err(http)?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let said = said(&whole(api, answer, 1 << 20).await?);
    Err(SyncError::Refused { api: api.to_owned(), status, said })
}

/// What a refusal says, in words.
fn said(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { message, .. }) => message,
        // Not one of ours.
        Err(_) => String::from_utf8_lossy(body).chars().take(QUOTED_BYTES_MAX).collect(),
    }
}

async fn read<T: DeserializeOwned + Send + 'static>(api: &str, answer: Response) -> Result<T, SyncError> {
    let body = whole(api, answer, BODY_BYTES_MAX).await?;
    // Megabytes take a moment to decode.
    let decoded = blocking::run(move || rmp_serde::from_slice(&body).map_err(|error| error.to_string()));
    decoded.await.map_err(|what| SyncError::Senseless { api: api.to_owned(), what })
}

async fn whole(api: &str, mut answer: Response, max: usize) -> Result<Vec<u8>, SyncError> {
    let mut body = Vec::new();
    let http = |source| SyncError::Http { api: api.to_owned(), source };
    while let Some(chunk) = answer.chunk().await.map_err(http)? {
        if body.len() + chunk.len() > max {
            return Err(SyncError::TooLong { api: api.to_owned(), max: max as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Why a checkpoint could not be unpacked.
enum Unpack {
    TooLong,
    Odd(String),
    Io(io::Error),
}

impl From<io::Error> for Unpack {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Unpacks a tar of files without folders.
fn unpack(tar: impl Read, into: &Path) -> Result<u64, Unpack> {
    std::fs::create_dir(into)?;
    let (mut tar, mut bytes) = (tar::Archive::new(tar), 0_u64);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let is_plain = entry.header().entry_type().is_file()
            && matches!(name.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        if !is_plain {
            return Err(Unpack::Odd(format!("{} is no plain file", name.display())));
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

/// What arrives, for a thread that reads.
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
    fn a_position_reads_back() {
        let position = Position { term: 7, seq: 12 };
        assert_eq!(position_of(&position.to_string()), Some(position));
        assert_eq!(position_of("7"), None);
        assert_eq!(position_of("7.x"), None);
    }

    #[test]
    fn a_refusal_is_quoted_by_its_message() {
        assert_eq!(said(br#"{"code":"not_ready","message":"it is closed","hint":null}"#), "it is closed");
        assert_eq!(said(b"<html>"), "<html>");
        assert_eq!(said(&[b'x'; 1000]).len(), QUOTED_BYTES_MAX);
    }

    fn tar_of(names: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_old();
            // What the setter refuses, a hostile sender writes all the same.
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
            assert!(matches!(unpack(&tar_of(&[bad])[..], &into), Err(Unpack::Odd(_))), "{bad}");
        }
        assert!(!dir.path().join("x").exists());
        let again = unpack(&tar_of(&["CURRENT"])[..], &into);
        assert!(matches!(again, Err(Unpack::Io(_))), "into a directory that is there");
    }
}
