//! Spool: the reports and counters that a worker keeps on its disk, for itself, and for its
//! supervisor after the worker has died.
//!
//! ```text
//! {worker}/metrics/
//!   launch              format of the spool, identity of the launch; locked while the worker lives
//!   names               metrics of the reports: id and name, one per line, append-only
//!   report-{first}-{last}  a report, renamed into place before any process may send it
//!   counters-{task}     current total of each counter of a task: 8 bytes each, written in place
//!   slots-{task}        counter of each slot in that file: id and name, one per line
//!   done                marks that the leader has committed all reports
//! ```
//!
//! A report contains the increments since the report before, and the total of each counter at that
//! time. After the worker has died, the totals in the counter files less those of the last report
//! are the missing last report: each count that was written is in exactly one report. See
//! [`recover::recover`].
//!
//! - The page cache outlives a killed process, so the counter files are not synced. Reports are
//!   synced, so they survive a crash of the host.
//! - A total is 8 bytes at an offset that is a multiple of 8: an interrupted write has changed each
//!   total completely or not at all.
//!
//! One process writes all files of a spool, so the format in `launch` covers all of them.
//!
//! All functions block.

pub mod counter_file;
mod name_log;
pub mod recover;
pub mod report_file;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use counter_file::CounterFile;
pub use recover::Recovered;
pub use report_file::{Spool, SpooledReport};

use stormkeeper_model::{Timestamp, TopologyId, WorkerId};
use stormkeeper_runtime::fs::{FileLock, regular_file};

const DIR: &str = "metrics";
const LAUNCH_FILE: &str = "launch";
const DONE_FILE: &str = "done";

/// Format of the spool that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Identity of one launch of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The topology.
    pub topology: TopologyId,
    /// The launch.
    pub worker: WorkerId,
    /// Start time of the measurement.
    #[serde(rename = "started_ms")]
    pub started: Timestamp,
}

#[derive(Serialize)]
struct Encoded<'a> {
    v: u32,
    #[serde(flatten)]
    launch: &'a Launch,
}

#[derive(Deserialize)]
struct FormatOnly {
    v: u32,
}

/// Lock on the spool of a worker. While it is held, no other process treats the spool as orphaned.
#[derive(Debug)]
pub struct SpoolLock {
    /// The spool's directory.
    pub dir: PathBuf,
    _lock: FileLock,
}

/// State of a worker's spool.
#[derive(Debug)]
pub enum SpoolState {
    /// The spool has no reports, or all are committed.
    Delivered,
    /// The worker lives.
    Live,
    /// The worker is gone, and its reports may not be committed.
    Orphaned(SpoolLock, Launch),
}

/// Creates the spool below a worker's own directory and locks it.
///
/// # Errors
/// If the spool cannot be written, or exists already.
pub fn lock(worker_dir: &Path, launch: &Launch) -> io::Result<SpoolLock> {
    let dir = worker_dir.join(DIR);
    fs::create_dir(&dir)?;
    // Locked before the rename, so that no process finds the file unlocked.
    let next = dir.join("launch.next");
    let lock = File::create_new(&next)?;
    lock.lock()?;
    serde_json::to_writer(&lock, &Encoded { v: FORMAT, launch })?;
    fs::rename(next, dir.join(LAUNCH_FILE))?;
    Ok(SpoolLock { dir, _lock: FileLock::held(lock) })
}

/// Returns the state of a worker's spool; locks the spool if it is orphaned.
///
/// # Errors
/// If the spool exists and cannot be read, or has a newer format.
pub fn inspect(worker_dir: &Path) -> io::Result<SpoolState> {
    let dir = worker_dir.join(DIR);
    if dir.join(DONE_FILE).exists() {
        return Ok(SpoolState::Delivered);
    }
    let lock = match regular_file::open(&dir.join(LAUNCH_FILE)) {
        Ok(lock) => lock,
        // The worker died before it measured anything, or never measures.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SpoolState::Delivered),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(SpoolState::Live),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let lock = FileLock::held(lock);
    let launch = read_launch(lock.file(), &dir)?;
    Ok(SpoolState::Orphaned(SpoolLock { dir, _lock: lock }, launch))
}

fn read_launch(file: &File, dir: &Path) -> io::Result<Launch> {
    let text = io::read_to_string(file)?;
    let FormatOnly { v } = serde_json::from_str(&text)?;
    if v > FORMAT {
        let dir = dir.display();
        let reason = format!("the spool {dir} has format {v}, and this build reads up to format {FORMAT}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(serde_json::from_str(&text)?)
}

/// Returns whether the spool may contain uncommitted reports, if the worker is gone.
pub fn may_be_orphaned(worker_dir: &Path) -> bool {
    let dir = worker_dir.join(DIR);
    dir.join(LAUNCH_FILE).exists() && !dir.join(DONE_FILE).exists()
}

/// Marks all reports of a locked spool as committed, and removes the spool's files.
///
/// # Errors
/// If the mark cannot be written or a file not be removed; if the mark is missing, the reports must
/// be sent to the leader again, which changes nothing there.
pub fn mark_delivered(taken: &SpoolLock) -> io::Result<()> {
    fs::write(taken.dir.join(DONE_FILE), b"")?;
    for entry in fs::read_dir(&taken.dir)? {
        let entry = entry?;
        let keep = [LAUNCH_FILE, DONE_FILE].iter().any(|kept| entry.file_name() == *kept);
        if !keep {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
