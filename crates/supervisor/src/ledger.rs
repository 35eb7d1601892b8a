//! The launches of this supervisor on disk: one file for each slot, `ledger/<port>.json`.
//!
//! The intent is written before a launch and the process after it. A supervisor that dies at any
//! moment in between finds the worker again: by its process id, or by the worker id in the
//! environment of its processes. A file that cannot be read is renamed, and its worker is recovered
//! from its launch spec where that is possible ([`crate::ledger_recovery`]). A file of a
//! newer format is not damaged: the supervisor does not start, and the workers keep running.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::{process::ProcessId, slot::DesiredWorker};
use stormkeeper_model::{Port, WorkerId};
use stormkeeper_runtime::fs::{FailedWrites, atomic_file, modes, regular_file};

const DIR: &str = "ledger";

/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Maximum number of damaged files kept for each slot, for inspection.
const MAX_DAMAGED_KEPT: usize = 20;

/// The launch in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The id of the launch.
    pub worker: WorkerId,
    /// The worker that the launch runs.
    pub desired: DesiredWorker,
    /// The process of the launch, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// The boot id of the host at the launch: process ids restart with each boot.
    pub boot: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    entry: Entry,
}

/// The content of a ledger.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The entries that can be read.
    pub(crate) entries: BTreeMap<Port, Entry>,
    /// The slots whose entry cannot be read, with the reason.
    pub(crate) damaged: BTreeMap<Port, String>,
}

/// The ledger of one supervisor. Clones are the same ledger. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: PathBuf,
    boot: String,
    /// Writes of the supervisor that fail.
    pub(crate) writes: FailedWrites,
    // One writer at a time: the end of a launch and the start of the next launch in the same slot
    // are written by different tasks.
    writing: Arc<Mutex<()>>,
}

impl Ledger {
    /// The ledger in `local_dir`.
    ///
    /// # Errors
    /// If its directory cannot be created.
    pub(crate) fn open(local_dir: &Path, writes: FailedWrites) -> io::Result<Self> {
        let dir = local_dir.join(DIR);
        modes::create_dir_all(&dir)?;
        Ok(Self { dir, boot: boot_id(), writes, writing: Arc::default() })
    }

    fn path(&self, port: Port) -> PathBuf {
        self.dir.join(format!("{port}.json"))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no one panics while writing the ledger")
    }

    /// All entries. Damaged files are renamed.
    ///
    /// # Errors
    /// When the directory cannot be listed, and when a file has a newer format; nothing is renamed
    /// then.
    pub(crate) fn read(&self) -> io::Result<Contents> {
        let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let port = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            let Some(port) = port.map(Port) else { continue };
            match read_entry(&path) {
                Ok(entry) => _ = entries.insert(port, entry),
                Err(error @ ReadError::Newer { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                Err(ReadError::Damaged(reason)) => damaged.push((port, path, reason)),
            }
        }
        let damaged = damaged.into_iter().map(|(port, path, reason)| {
            self.keep_damaged(&path, &reason);
            (port, reason)
        });
        Ok(Contents { damaged: damaged.collect(), entries })
    }

    fn keep_damaged(&self, path: &Path, reason: &str) {
        let free = (0..MAX_DAMAGED_KEPT).map(|n| path.with_extension(format!("damaged-{n}")));
        let kept = free.into_iter().find(|kept| !kept.exists());
        let moved = match &kept {
            Some(kept) => fs::rename(path, kept),
            None => fs::remove_file(path),
        };
        error!(
            file = %path.display(),
            reason,
            moved_to = ?kept,
            failed = ?moved.err(),
            "the ledger entry of a slot is damaged: put aside; its worker is recovered from its launch spec if possible"
        );
    }

    /// Records that `worker` is about to be launched in the slot at `port`.
    ///
    /// # Errors
    /// If the file cannot be written; the worker must not be launched then.
    pub(crate) fn record_intent(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &DesiredWorker,
    ) -> io::Result<()> {
        self.write(port, worker, desired, None)
    }

    /// Records the process of the launch.
    ///
    /// # Errors
    /// If the file cannot be written; a later supervisor still finds the process.
    pub(crate) fn record_process(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &DesiredWorker,
        process: ProcessId,
    ) -> io::Result<()> {
        self.write(port, worker, desired, Some(process))
    }

    /// Writes the entry of a running worker again if its file was deleted: the next supervisor
    /// would otherwise end the worker as unknown.
    pub(crate) fn put_back(
        &self,
        (port, worker, desired, process): (Port, WorkerId, DesiredWorker, ProcessId),
    ) {
        let is_missing = || {
            fs::symlink_metadata(self.path(port)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        if !is_missing() {
            return;
        }
        match self.write(port, &worker, &desired, Some(process)) {
            Ok(()) => {
                error!(%port, %worker, "the entry of a running worker in the ledger was deleted: put back")
            }
            Err(error) => error!(
                %port, %worker, %error,
                "the entry of a running worker in the ledger was deleted and cannot be put back; retrying"
            ),
        }
    }

    fn write(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &DesiredWorker,
        process: Option<ProcessId>,
    ) -> io::Result<()> {
        let entry = self.entry(worker, desired, process);
        let bytes = serde_json::to_vec(&Stored { v: FORMAT, entry })?;
        let _guard = self.writing();
        let path = self.path(port);
        // The directory may have been deleted since the start.
        let written = modes::create_dir_all(&self.dir).and_then(|()| atomic_file::write(&path, &bytes));
        self.writes.record(&path, written)
    }

    /// An entry of this boot.
    pub(crate) fn entry(
        &self,
        worker: &WorkerId,
        desired: &DesiredWorker,
        process: Option<ProcessId>,
    ) -> Entry {
        Entry { worker: worker.clone(), desired: desired.clone(), process, boot: self.boot.clone() }
    }

    /// Removes the entry of `worker`, unless the slot has another launch by now.
    ///
    /// The removal is not synced to disk: an entry that reappears after a power loss names a
    /// process of an earlier boot.
    ///
    /// # Errors
    /// If the file cannot be removed; the entry then names a process that has ended.
    pub(crate) fn remove(&self, port: Port, worker: &WorkerId) -> io::Result<()> {
        let path = self.path(port);
        let _guard = self.writing();
        match read_entry(&path) {
            Ok(entry) if entry.worker == *worker => self.writes.record(&path, fs::remove_file(&path)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The process of an entry, if it was started since the last boot of the host.
    pub(crate) fn process_of(&self, entry: &Entry) -> Option<ProcessId> {
        entry.process.filter(|_| entry.boot == self.boot)
    }
}

/// Reason why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Damaged(String),
    #[error(
        "{} has format {found}, and this build reads up to format {FORMAT}: run the build that wrote it",
        path.display()
    )]
    Newer { path: PathBuf, found: u32 },
}

fn read_entry(path: &Path) -> Result<Entry, ReadError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        v: u32,
    }
    let bytes = regular_file::read(path).map_err(|error| ReadError::Damaged(error.to_string()))?;
    let damaged = |error: serde_json::Error| ReadError::Damaged(error.to_string());
    // Read alone, because the rest of a newer format may have another shape.
    let FormatOnly { v: found } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if found > FORMAT {
        return Err(ReadError::Newer { path: path.to_owned(), found });
    }
    let stored: Stored = serde_json::from_slice(&bytes).map_err(damaged)?;
    Ok(stored.entry)
}

/// The id of the current boot of the host; empty if the system has none.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{
        BlobKey, Timestamp, assignment::AssignedWorker, clock::Clock, task_set::TaskSet,
    };

    fn desired() -> DesiredWorker {
        DesiredWorker {
            topology: "t-1-100".parse().expect("valid id"),
            worker: AssignedWorker {
                host: "h".to_owned(),
                tasks: TaskSet::range(1, 3),
                start: Timestamp::from_millis(5),
            },
            blob: BlobKey::of(b"x"),
            owner: String::new(),
        }
    }

    fn open(dir: &Path) -> Ledger {
        Ledger::open(dir, FailedWrites::new(Clock::manual(Timestamp::EPOCH))).expect("opened")
    }

    fn worker(name: &str) -> WorkerId {
        name.parse().expect("valid id")
    }

    #[test]
    fn next_supervisor_reads_recorded_intent_and_process() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (port, process) = (Port(6700), ProcessId { pid: 7, started: 9 });
        let ledger = open(dir.path());
        ledger.record_intent(port, &worker("w1"), &desired()).expect("written");
        let next = open(dir.path());
        assert_eq!(next.read().expect("read").entries[&port].process, None);
        ledger.record_process(port, &worker("w1"), &desired(), process).expect("written");
        let entry = next.read().expect("read").entries.remove(&port).expect("there");
        assert_eq!((entry.worker.clone(), entry.desired.clone()), (worker("w1"), desired()));
        assert_eq!(next.process_of(&entry), Some(process));
        let after_reboot = Entry { boot: "another".to_owned(), ..entry };
        assert_eq!(next.process_of(&after_reboot), None);
    }

    #[test]
    fn removal_spares_a_later_launch_in_the_slot() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let port = Port(6700);
        let ledger = open(dir.path());
        ledger.record_intent(port, &worker("w2"), &desired()).expect("written");
        ledger.remove(port, &worker("w1")).expect("nothing to do");
        assert_eq!(ledger.read().expect("read").entries.len(), 1);
        ledger.remove(port, &worker("w2")).expect("forgotten");
        assert_eq!(ledger.read().expect("read").entries.len(), 0);
    }

    #[test]
    fn file_of_a_newer_format_is_an_error_and_nothing_is_renamed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ledger = open(dir.path());
        let (newer, damaged) = (dir.path().join("ledger/6700.json"), dir.path().join("ledger/6701.json"));
        fs::write(&newer, r#"{"v":2,"workers":[]}"#).expect("written");
        fs::write(&damaged, "{").expect("written");
        let error = ledger.read().expect_err("newer").to_string();
        assert!(error.contains("6700.json has format 2, and this build reads up to format 1"), "{error}");
        assert!(newer.exists() && damaged.exists());
    }

    #[test]
    fn damaged_file_is_renamed_and_other_entries_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ledger = open(dir.path());
        ledger.record_intent(Port(6701), &worker("w1"), &desired()).expect("written");
        for bad in ["", "{", r#"{"v":1}"#, "\0\0\0"] {
            fs::write(dir.path().join("ledger/6700.json"), bad).expect("written");
            let read = ledger.read().expect("read");
            assert_eq!(read.entries.into_keys().collect::<Vec<_>>(), [Port(6701)]);
            assert_eq!(read.damaged.into_keys().collect::<Vec<_>>(), [Port(6700)]);
        }
        assert!(dir.path().join("ledger/6700.damaged-3").exists());
    }
}
