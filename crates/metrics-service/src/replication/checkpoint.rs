//! Checkpoint of the metric store for another nimbus: made as a directory, sent as a tar.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{info, warn};

use crate::{ReplicaState, RequestError, replication::Replication};
use stormkeeper_metric_store::{CheckpointSource, Medium};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Maximum number of checkpoints sent at once: each holds files that RocksDB could otherwise delete.
pub(crate) const SENDS_MAX: usize = 2;

/// Name prefixes of the directories of checkpoints: of sent ones, and of received ones.
const SENT: &str = "metrics-sent-";
pub(crate) const RECEIVED: &str = "metrics-received-";

/// Maximum number of chunks, of [`CHUNK_BYTES`] each, on their way from the disk to the network.
const CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 64 * 1024;

/// Checkpoint on its way to another nimbus. Its files are removed when it is dropped.
#[derive(Debug)]
pub struct Checkpoint {
    dir: TemporaryDirectory,
    _permit: OwnedSemaphorePermit,
}

/// Directory that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    medium: Medium,
    path: PathBuf,
}

impl TemporaryDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // A renamed directory is gone already; any other is removed at the next start.
        let _gone = self.medium.remove_dir(&self.path);
    }
}

impl Replication {
    /// Makes a checkpoint of the metric store.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, RequestError> {
        let store = self.store.get()?;
        if self.state() == ReplicaState::TakingOver {
            return Err(RequestError::Unavailable {
                reason: "this nimbus is taking over, and polls other nimbuses itself".to_owned(),
            });
        }
        let busy = |_| RequestError::Unavailable {
            reason: format!("{SENDS_MAX} checkpoints are being sent already"),
        };
        let permit = Arc::clone(&self.checkpoint_permits).try_acquire_owned().map_err(busy)?;
        let dir = self.new_dir(SENT);
        let made = store.checkpoint(dir.path().to_owned()).await;
        made.map_err(|error| RequestError::Unavailable { reason: error.to_string() })?;
        Ok(Checkpoint { dir, _permit: permit })
    }

    /// Returns a new directory beside the metric store, which the caller makes.
    pub(super) fn new_dir(&self, prefix: &str) -> TemporaryDirectory {
        let path = self.local_dir.join(format!("{prefix}{:08x}", fastrand::u32(..)));
        TemporaryDirectory { medium: self.medium.clone(), path }
    }
}

impl Checkpoint {
    /// Returns the checkpoint for a copy to another medium. It exists as long as this value.
    pub fn source(&self) -> CheckpointSource {
        CheckpointSource::new(&self.dir.medium, self.dir.path.clone())
    }

    /// Returns the files of the checkpoint as a tar. Only a checkpoint on a disk has files.
    pub fn tar(self, tasks: &Tasks) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let (chunks, received) = mpsc::channel(CHUNKS);
        tasks.start("metric-checkpoint", OnExit::Ignore, async move {
            let failed = chunks.clone();
            let packed =
                blocking::run(move || pack(self.dir.path(), ChunkWriter { chunks, chunk: Vec::new() })).await;
            if let Err(error) = packed {
                info!(%error, "could not send a checkpoint completely; the receiver retries");
                // The receiver must not take a part for the whole. The receiver may be gone.
                let _gone = failed.send(Err(error)).await;
            }
        });
        stream::unfold(received, |mut received| async move { Some((received.recv().await?, received)) })
    }
}

fn pack(dir: &Path, into: ChunkWriter) -> io::Result<()> {
    let mut tar = tar::Builder::new(into);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        tar.append_path_with_name(entry.path(), entry.file_name())?;
    }
    tar.into_inner()?.flush()
}

/// Removes half-sent and half-received checkpoints of a crashed process.
pub(crate) fn remove_stale(medium: &Medium, local_dir: &Path) {
    // A directory that cannot be listed has no metric store either; opening it reports why.
    for name in medium.names(local_dir).into_iter().flatten() {
        let path = local_dir.join(&name);
        let is_left = name.starts_with(SENT) || name.starts_with(RECEIVED);
        if is_left && let Err(error) = medium.remove_dir(&path) {
            warn!(path = %path.display(), %error, "cannot remove a stale checkpoint; do so by hand");
        }
    }
}

/// Writer that sends the bytes of a blocking thread to the network in chunks.
struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..n]);
        if self.chunk.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver is gone");
        self.chunks.blocking_send(Ok(chunk.into())).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn only_checkpoints_of_a_crashed_process_are_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        let names = [format!("{SENT}1"), format!("{RECEIVED}2"), "metrics".to_owned()];
        for name in &names {
            std::fs::create_dir(parent.path().join(name)).expect("made");
            std::fs::write(parent.path().join(name).join("CURRENT"), b"abc").expect("written");
        }
        remove_stale(&Medium::Disk, parent.path());
        assert_eq!(names.map(|name| parent.path().join(name).exists()), [false, false, true]);
    }

    #[tokio::test]
    async fn checkpoint_is_sent_completely_and_its_directory_is_removed() {
        let tasks = Tasks::default();
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join(format!("{SENT}x"));
        std::fs::create_dir(&dir).expect("made");
        let large: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        std::fs::write(dir.join("CURRENT"), b"abc").expect("written");
        std::fs::write(dir.join("1.sst"), &large).expect("written");
        let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().expect("free");
        let checkpoint = Checkpoint {
            dir: TemporaryDirectory { medium: Medium::Disk, path: dir.clone() },
            _permit: permit,
        };
        let chunks: Vec<_> = checkpoint.tar(&tasks).collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.expect("sent")).collect();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            io::copy(&mut entry, &mut content).expect("read");
            found.insert(entry.path().expect("a path").display().to_string(), content);
        }
        assert_eq!(found, [("1.sst".to_owned(), large), ("CURRENT".to_owned(), b"abc".to_vec())].into());
        assert!(tasks.stop(std::time::Duration::from_secs(5)).await);
        assert!(!dir.exists());
        assert_eq!(permits.available_permits(), 1);
    }
}
