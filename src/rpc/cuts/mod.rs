//! What a worker leaves on its disk of its metrics: for itself, and for its supervisor when
//! it is gone.
//!
//! ```text
//! {worker}/metrics/
//!   launch              who it is; locked for as long as it lives
//!   names               metrics of its cuts: id and name, one per line, only added to
//!   cut-{first}-{last}  a cut, renamed into place before anyone hears of it
//!   counters-{task}     how far each counter of a task is: 8 bytes each, written in place
//!   slots-{task}        which counter is where in there: id and name, one per line
//!   done                the supervisor has brought everything to the leader
//! ```
//!
//! A cut holds what was counted since the one before, and how far each counter was then. So
//! when a worker is gone, the counters' file less the last cut is the cut that is missing:
//! whatever was written is in exactly one of them. See [`remains::read`].
//!
//! - The page cache outlives a killed process, so the counters' file is not synced. Cuts are,
//!   so a machine that comes back has them all.
//! - A number of a counter is 8 bytes at a multiple of 8: a write that was cut short has
//!   changed each number as a whole or not at all.
//!
//! All functions block.

pub mod counter_file;
pub mod cut_file;
mod lines;
pub mod remains;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use counter_file::CounterFile;
pub use cut_file::{Cut, CutDir};
pub use remains::Remains;

use crate::model::{Timestamp, TopologyId, WorkerId};

const DIR: &str = "metrics";
const LAUNCH_FILE: &str = "launch";
const DONE_FILE: &str = "done";

/// Whose metrics they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The topology.
    pub topology: TopologyId,
    /// The launch.
    pub worker: WorkerId,
    /// When it began to measure.
    #[serde(rename = "started_ms")]
    pub started: Timestamp,
}

/// The metrics' directory of a live worker; no other process takes it as left for as long as
/// this lives.
#[derive(Debug)]
pub struct Taken {
    /// The directory.
    pub dir: PathBuf,
    _lock: File,
}

/// How the metrics' directory of a worker stands.
#[derive(Debug)]
pub enum Standing {
    /// There is nothing in it to be brought anywhere, or all was.
    Done,
    /// Its worker lives.
    Live,
    /// Its worker is gone.
    Left(Taken, Launch),
}

/// Makes the metrics' directory below a worker's own directory and takes it.
///
/// # Errors
/// When it cannot be written, or is there already.
pub fn take(worker_dir: &Path, launch: &Launch) -> io::Result<Taken> {
    let dir = worker_dir.join(DIR);
    fs::create_dir(&dir)?;
    // Locked before it has its name, so that nobody finds it unlocked.
    let next = dir.join("launch.next");
    let lock = File::create_new(&next)?;
    lock.lock()?;
    serde_json::to_writer(&lock, launch)?;
    fs::rename(next, dir.join(LAUNCH_FILE))?;
    Ok(Taken { dir, _lock: lock })
}

/// Looks whether a worker left metrics that are to be brought to the leader.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn look(worker_dir: &Path) -> io::Result<Standing> {
    let dir = worker_dir.join(DIR);
    if dir.join(DONE_FILE).exists() {
        return Ok(Standing::Done);
    }
    let lock = match File::open(dir.join(LAUNCH_FILE)) {
        Ok(lock) => lock,
        // It died before it measured anything, or never measures.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Done),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Standing::Live),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let launch = serde_json::from_reader(&lock)?;
    Ok(Standing::Left(Taken { dir, _lock: lock }, launch))
}

/// Whether a worker, if it is gone, may have left metrics that are not with the leader yet.
pub fn may_have_left(worker_dir: &Path) -> bool {
    let dir = worker_dir.join(DIR);
    dir.join(LAUNCH_FILE).exists() && !dir.join(DONE_FILE).exists()
}

/// Notes that everything in `taken` is safe, and removes what it took.
///
/// # Errors
/// When it cannot be written; then it is to be brought to the leader again, which changes
/// nothing there.
pub fn finish(taken: &Taken) -> io::Result<()> {
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
