//! What this supervisor runs, on disk: one file for each slot, `ledger/<port>.json`.
//!
//! The intent is written before a launch and the process after it, so that a supervisor that
//! dies at any moment in between finds the worker again: by its process id, or by the launch
//! that its environment names. A file that cannot be read is moved aside and reported.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::{
    model::{Port, WorkerId},
    supervisor::{durable, process::ProcessId, slot::Desired},
};

const DIR: &str = "ledger";

/// The format that this version writes.
const FORMAT: u32 = 1;

/// How many damaged files are kept for a look: one per slot and then some.
const MAX_ASIDE: usize = 20;

/// What a slot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The launch.
    pub worker: WorkerId,
    /// What it runs.
    pub desired: Desired,
    /// Its process, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// The run of the machine that `process` is of: process ids start anew with each.
    pub boot: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    entry: Entry,
}

/// The ledger of one supervisor. Clones are the same ledger. All methods block.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
    boot: String,
    // One writer at a time: the end of a launch and the start of the next one in the same
    // slot are written by different tasks.
    writing: Arc<Mutex<()>>,
}

impl Ledger {
    /// The ledger in `local_dir`.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn open(local_dir: &Path) -> io::Result<Self> {
        let dir = local_dir.join(DIR);
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, boot: boot_id(), writing: Arc::default() })
    }

    fn path(&self, port: Port) -> PathBuf {
        self.dir.join(format!("{port}.json"))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no one panics while writing the ledger")
    }

    /// Every entry, by port. Damaged files are reported and moved aside.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn read(&self) -> io::Result<BTreeMap<Port, Entry>> {
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let port = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            let Some(port) = port.map(Port) else { continue };
            match read_entry(&path) {
                Ok(entry) => _ = entries.insert(port, entry),
                Err(reason) => self.move_aside(&path, &reason),
            }
        }
        Ok(entries)
    }

    fn move_aside(&self, path: &Path, reason: &str) {
        let free = (0..MAX_ASIDE).map(|n| path.with_extension(format!("damaged-{n}")));
        let aside = free.into_iter().find(|aside| !aside.exists());
        let moved = match &aside {
            Some(aside) => fs::rename(path, aside),
            None => fs::remove_file(path),
        };
        error!(
            file = %path.display(),
            reason,
            moved_to = ?aside,
            failed = ?moved.err(),
            "a slot's ledger is damaged: what it ran is stopped and started anew"
        );
    }

    /// Writes down that `worker` is about to be launched in the slot at `port`.
    ///
    /// # Errors
    /// When the file system refuses; the worker must not be launched then.
    pub fn intend(&self, port: Port, worker: &WorkerId, desired: &Desired) -> io::Result<()> {
        self.write(port, worker, desired, None)
    }

    /// Writes down the process of the launch.
    ///
    /// # Errors
    /// When the file system refuses; a later supervisor finds the process all the same.
    pub fn launched(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &Desired,
        process: ProcessId,
    ) -> io::Result<()> {
        self.write(port, worker, desired, Some(process))
    }

    fn write(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &Desired,
        process: Option<ProcessId>,
    ) -> io::Result<()> {
        let entry =
            Entry { worker: worker.clone(), desired: desired.clone(), process, boot: self.boot.clone() };
        let bytes = serde_json::to_vec(&Stored { v: FORMAT, entry })?;
        let _guard = self.writing();
        durable::write(&self.path(port), &bytes)
    }

    /// Forgets `worker`, unless another launch is in the slot by now.
    ///
    /// Not synced to disk: an entry that comes back after a power loss names a process of
    /// another run of the machine.
    ///
    /// # Errors
    /// When the file system refuses; the entry then names a process that is gone.
    pub fn forget(&self, port: Port, worker: &WorkerId) -> io::Result<()> {
        let path = self.path(port);
        let _guard = self.writing();
        match read_entry(&path) {
            Ok(entry) if entry.worker == *worker => fs::remove_file(&path),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The process of an entry, if it is of this run of the machine.
    pub fn process_of(&self, entry: &Entry) -> Option<ProcessId> {
        entry.process.filter(|_| entry.boot == self.boot)
    }
}

fn read_entry(path: &Path) -> Result<Entry, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(stored.entry)
}

/// Tells this run of the machine from every other; empty where the system does not say.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlobKey, Timestamp, assignment::AssignedWorker, task_set::TaskSet};

    fn desired() -> Desired {
        Desired {
            topology: "t-1-100".parse().expect("valid id"),
            worker: AssignedWorker {
                host: "h".to_owned(),
                tasks: TaskSet::range(1, 3),
                start: Timestamp::from_millis(5),
            },
            blob: BlobKey::of(b"x"),
        }
    }

    fn worker(name: &str) -> WorkerId {
        name.parse().expect("valid id")
    }

    #[test]
    fn an_entry_is_there_for_the_next_supervisor() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (port, process) = (Port(6700), ProcessId { pid: 7, started: 9 });
        let ledger = Ledger::open(dir.path()).expect("opened");
        ledger.intend(port, &worker("w1"), &desired()).expect("written");
        let next = Ledger::open(dir.path()).expect("opened");
        assert_eq!(next.read().expect("read")[&port].process, None);
        ledger.launched(port, &worker("w1"), &desired(), process).expect("written");
        let entry = next.read().expect("read").remove(&port).expect("there");
        assert_eq!((entry.worker.clone(), entry.desired.clone()), (worker("w1"), desired()));
        assert_eq!(next.process_of(&entry), Some(process));
        let after_reboot = Entry { boot: "another".to_owned(), ..entry };
        assert_eq!(next.process_of(&after_reboot), None);
    }

    #[test]
    fn only_the_launch_that_ended_is_forgotten() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let port = Port(6700);
        let ledger = Ledger::open(dir.path()).expect("opened");
        ledger.intend(port, &worker("w2"), &desired()).expect("written");
        ledger.forget(port, &worker("w1")).expect("nothing to do");
        assert_eq!(ledger.read().expect("read").len(), 1);
        ledger.forget(port, &worker("w2")).expect("forgotten");
        assert_eq!(ledger.read().expect("read").len(), 0);
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_the_rest_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ledger = Ledger::open(dir.path()).expect("opened");
        ledger.intend(Port(6701), &worker("w1"), &desired()).expect("written");
        for bad in ["", "{", r#"{"v":1}"#, "\0\0\0"] {
            fs::write(dir.path().join("ledger/6700.json"), bad).expect("written");
            assert_eq!(ledger.read().expect("read").into_keys().collect::<Vec<_>>(), [Port(6701)]);
        }
        assert!(dir.path().join("ledger/6700.damaged-3").exists());
    }
}
