//! Log files of workers, as other hosts may read them. All functions block.
//!
//! A request names a topology, a launch and a log by ids. The ids are parsed into types that cannot
//! hold a path, and must match a launch that is listed here. Below the directory `workers` no link is
//! followed, and only regular files with a single name are read, whatever a worker puts into its
//! directory: a second name (a hard link) may be that of a file that only the supervisor may read.

mod chunk;
mod name;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    cmp::Reverse,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, fstat, openat};

pub(crate) use chunk::CHUNK_BYTES_MAX;
pub(crate) use name::LogName;
pub(crate) use scan::Scan;

use crate::{
    launch_facts::{self, LaunchFacts},
    user_files, worker_dir,
};
use stormkeeper_api_types::message::logs::{LogFile, RefusedLog};
use stormkeeper_model::{Port, Timestamp, TopologyId, WorkerId};

/// Maximum number of launches that are looked at; the supervisor keeps some two hundred.
const LAUNCHES_MAX: usize = 1000;

/// Directory of the logs in the directory of a launch.
const LOGS: &str = "logs";

/// A launch whose directory is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) worker: WorkerId,
    pub(crate) topology: TopologyId,
    pub(crate) port: Port,
    start: Timestamp,
}

/// The directory of the logs of a launch.
#[derive(Debug)]
struct LogsDir {
    dir: OwnedFd,
    /// User of the launch, if it is another one than that of this process: other files are not its logs,
    /// whatever name they have there.
    owner: Option<u32>,
}

/// Logs of all launches of a supervisor.
#[derive(Debug, Clone)]
pub(crate) struct WorkerLogStore {
    local_dir: PathBuf,
}

/// An open log file.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) name: LogName,
    pub(crate) file: File,
    pub(crate) identity: String,
    pub(crate) size: u64,
    modified: Timestamp,
}

impl WorkerLogStore {
    /// Logs of the launches in the data directory of a supervisor.
    pub(crate) fn new(local_dir: &Path) -> Self {
        Self { local_dir: local_dir.to_owned() }
    }

    /// Returns the launches of a topology, by port, the newest first.
    ///
    /// # Errors
    /// If the directories of the launches cannot be listed.
    pub(crate) fn launches(&self, topology: &TopologyId) -> io::Result<Vec<Launch>> {
        let workers = worker_dir::all(&self.local_dir)?;
        // The names begin with port and time, so of each port the newest are last.
        let launches = workers.into_iter().rev().take(LAUNCHES_MAX).filter_map(|worker| self.launch(worker));
        let mut launches: Vec<Launch> = launches.filter(|launch| launch.topology == *topology).collect();
        launches.sort_by(|a, b| {
            let key = |launch: &Launch| (launch.port, Reverse((launch.start, launch.worker.clone())));
            key(a).cmp(&key(b))
        });
        Ok(launches)
    }

    /// Returns the launch of a topology at a port that a request means: `worker`, or the newest.
    ///
    /// # Errors
    /// If the directories of the launches cannot be listed.
    pub(crate) fn find(
        &self,
        topology: &TopologyId,
        port: Port,
        worker: Option<WorkerId>,
    ) -> io::Result<Option<Launch>> {
        let is_meant = |launch: &Launch| launch.topology == *topology && launch.port == port;
        match worker {
            Some(worker) => Ok(self.launch(worker).filter(is_meant)),
            None => Ok(self.launches(topology)?.into_iter().find(is_meant)),
        }
    }

    /// Returns a launch; `None` if nothing that can be believed says whose it is.
    fn launch(&self, worker: WorkerId) -> Option<Launch> {
        let LaunchFacts { topology, slot, start, .. } = launch_facts::read(&self.local_dir, &worker)?;
        Some(Launch { worker, topology, port: slot.port, start })
    }

    fn logs_dir(&self, worker: &WorkerId) -> io::Result<LogsDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = launch_facts::dir(&self.local_dir, worker)?;
        let user = fstat(&dir)?.st_uid;
        let owner = (user != rustix::process::geteuid().as_raw()).then_some(user);
        Ok(LogsDir { dir: openat(dir, LOGS, flags, Mode::empty())?, owner })
    }

    /// Opens a log of a launch.
    ///
    /// # Errors
    /// If there is no such regular file.
    pub(crate) fn open(&self, worker: &WorkerId, name: LogName) -> io::Result<OpenLog> {
        OpenLog::open(&self.logs_dir(worker)?, name)
    }

    /// Returns the parts of a log that can be read, the newest first.
    ///
    /// # Errors
    /// If the directory of the logs cannot be opened.
    fn parts(&self, worker: &WorkerId, log: LogName) -> io::Result<Vec<OpenLog>> {
        let dir = self.logs_dir(worker)?;
        Ok(log.parts().filter_map(|name| OpenLog::open(&dir, name).ok()).collect())
    }

    /// Lists the log files of a launch, and the entries with such a name that are not served.
    pub(crate) fn files(&self, worker: &WorkerId) -> (Vec<LogFile>, Vec<RefusedLog>) {
        let (mut files, mut refused) = (Vec::new(), Vec::new());
        let Ok(dir) = self.logs_dir(worker) else { return (files, refused) };
        for name in LogName::listed() {
            match OpenLog::open(&dir, name) {
                Ok(OpenLog { size, modified, .. }) => {
                    files.push(LogFile { name: name.to_string(), size, modified });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused.push(RefusedLog { name: name.to_string(), reason: error.to_string() }),
            }
        }
        (files, refused)
    }
}

impl OpenLog {
    fn open(logs: &LogsDir, name: LogName) -> io::Result<Self> {
        let (file, metadata) = user_files::open_in(&logs.dir, &name.to_string(), logs.owner)?;
        if metadata.nlink() > 1 {
            let reason = "it has another name (a hard link), which may be that of a file of another user";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let identity = format!("{:x}-{:x}", metadata.dev(), metadata.ino());
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let millis = modified.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { name, file, identity, size: metadata.len(), modified: Timestamp::from_millis(millis) })
    }
}
