//! The whole archive, for another nimbus: made as a directory, sent as a tar.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{info, warn};

use crate::{
    daemon::{
        blocking,
        tasks::{Ending, Tasks},
    },
    nimbus::{
        measure::{Measure, Stage},
        refusal::Refusal,
    },
};

/// How many are sent at once: each holds files that RocksDB could otherwise delete.
pub(super) const AT_ONCE: usize = 2;

/// What the directories of checkpoints begin with, those that are sent and those received.
const SENT: &str = "metrics-sent-";
pub(super) const RECEIVED: &str = "metrics-received-";

/// Parts on their way from the disk to the network, of [`CHUNK_BYTES`] each.
const CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 64 * 1024;

/// A checkpoint on its way to another nimbus; its files go when it is dropped.
#[derive(Debug)]
pub struct Checkpoint {
    dir: Directory,
    _permit: OwnedSemaphorePermit,
}

/// A directory that is removed in the end.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Gone already when it was renamed; else the next start removes it.
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

impl Measure {
    /// Makes a checkpoint of the archive.
    pub(in crate::nimbus) async fn checkpoint(&self) -> Result<Checkpoint, Refusal> {
        let archive = self.archive()?;
        if self.shared.stage.borrow().0 == Stage::TakingOver {
            return Err(Refusal::NoMetrics {
                reason: "it is about to lead, and asks others itself".to_owned(),
            });
        }
        let busy = |_| Refusal::NoMetrics { reason: format!("{AT_ONCE} checkpoints are being sent already") };
        let permit = std::sync::Arc::clone(&self.shared.checkpoints).try_acquire_owned().map_err(busy)?;
        let dir = Directory(self.new_dir(SENT));
        let made = archive.checkpoint(dir.0.clone()).await;
        made.map_err(|error| Refusal::NoMetrics { reason: error.to_string() })?;
        Ok(Checkpoint { dir, _permit: permit })
    }

    /// A path for a new directory beside the archive.
    pub(super) fn new_dir(&self, prefix: &str) -> PathBuf {
        self.shared.setup.local_dir.join(format!("{prefix}{:08x}", fastrand::u32(..)))
    }
}

impl Checkpoint {
    /// Its files as a tar.
    pub fn tar(self, tasks: &Tasks) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let (chunks, received) = mpsc::channel(CHUNKS);
        tasks.start("metric-checkpoint", Ending::Normal, async move {
            let failed = chunks.clone();
            let packed =
                blocking::run(move || pack(&self.dir.0, Sending { chunks, chunk: Vec::new() })).await;
            if let Err(error) = packed {
                info!(%error, "a checkpoint was not sent to its end");
                // The receiver must not take what it has for the whole; it may be gone.
                let _gone = failed.send(Err(error)).await;
            }
        });
        stream::unfold(received, |mut received| async move { Some((received.recv().await?, received)) })
    }
}

fn pack(dir: &Path, into: Sending) -> io::Result<()> {
    let mut tar = tar::Builder::new(into);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        tar.append_path_with_name(entry.path(), entry.file_name())?;
    }
    tar.into_inner()?.flush()
}

/// Removes what a crash left half sent or half received.
pub(super) fn remove_leftovers(local_dir: &Path) {
    // A directory that cannot be listed holds no archive either, which says why.
    for entry in std::fs::read_dir(local_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_left = name.to_str().is_some_and(|name| name.starts_with(SENT) || name.starts_with(RECEIVED));
        if is_left && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(path = %entry.path().display(), %error, "what is left of a checkpoint could not be removed");
        }
    }
}

/// Bytes to the network, for a thread that writes.
struct Sending {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl Write for Sending {
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

    #[tokio::test]
    async fn a_checkpoint_arrives_whole_and_leaves_nothing() {
        let tasks = Tasks::default();
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join(format!("{SENT}x"));
        std::fs::create_dir(&dir).expect("made");
        let large: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        std::fs::write(dir.join("CURRENT"), b"abc").expect("written");
        std::fs::write(dir.join("1.sst"), &large).expect("written");
        let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().expect("free");
        let checkpoint = Checkpoint { dir: Directory(dir.clone()), _permit: permit };
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
