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
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use serde::Deserialize;

pub(crate) use chunk::CHUNK_BYTES_MAX;
pub(crate) use name::LogName;
pub(crate) use scan::Scan;

use crate::{run_as, worker_dir};
use stormkeeper_api_types::message::logs::{LogFile, RefusedLog};
use stormkeeper_model::{Port, Slot, Timestamp, TopologyId, WorkerId};
use stormkeeper_topology_package::launch::SPEC_FILE;

/// Maximum number of launches that are looked at; the supervisor keeps some two hundred.
const LAUNCHES_MAX: usize = 1000;

/// Maximum bytes of a launch specification.
const SPEC_BYTES_MAX: u64 = 1 << 20;

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

/// Fields of a launch specification that are needed here.
#[derive(Debug, Deserialize)]
struct Spec {
    topology: TopologyId,
    slot: Slot,
    #[serde(rename = "start_ms")]
    start: Timestamp,
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

    /// Reads the specification of a launch; `None` if there is none that can be read.
    fn launch(&self, worker: WorkerId) -> Option<Launch> {
        let dir = self.files_dir(&worker).or_else(|_same_user| self.dir(&worker)).ok()?;
        let (file, metadata) = open_regular(&dir, SPEC_FILE).ok()?;
        let mut bytes = Vec::new();
        file.take(SPEC_BYTES_MAX.min(metadata.len())).read_to_end(&mut bytes).ok()?;
        let Spec { topology, slot, start } = serde_json::from_slice(&bytes).ok()?;
        Some(Launch { worker, topology, port: slot.port, start })
    }

    /// Opens the directory with the specification of a launch of another user.
    fn files_dir(&self, worker: &WorkerId) -> io::Result<OwnedFd> {
        let path = run_as::files_dir(&self.local_dir).join(worker.as_str());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(CWD, &path, flags, Mode::empty())?)
    }

    /// Opens the directory of a launch.
    fn dir(&self, worker: &WorkerId) -> io::Result<OwnedFd> {
        // An operator may have made `workers` a link; its entries are written by workers.
        let path = worker_dir::path(&self.local_dir, worker);
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let workers = openat(CWD, parent, flags, Mode::empty())?;
        Ok(openat(workers, worker.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())?)
    }

    fn logs_dir(&self, worker: &WorkerId) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(self.dir(worker)?, LOGS, flags, Mode::empty())?)
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
        for name in LogName::all() {
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
    fn open(dir: &OwnedFd, name: LogName) -> io::Result<Self> {
        let (file, metadata) = open_regular(dir, &name.to_string())?;
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

/// Opens a regular file in `dir` that is no link. Does not wait for a writer of a FIFO.
fn open_regular(dir: &OwnedFd, name: &str) -> io::Result<(File, std::fs::Metadata)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = openat(dir, name, flags, Mode::empty()).map_err(|error| match error {
        // With these flags, the error of a symbolic link.
        Errno::LOOP => io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"),
        // The error of a socket.
        Errno::NXIO => no_regular_file(),
        error => error.into(),
    });
    let file = File::from(opened?);
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(no_regular_file()),
    }
}

fn no_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}
