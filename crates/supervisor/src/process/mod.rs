//! Worker processes, from the view of the supervisor.
//!
//! [`Processes`] is the host's side: [`os::OsProcesses`] starts real processes, local mode runs
//! workers in its own process, tests script them. A process is identified by [`ProcessId`], which
//! is unique: a pid alone may be reused.

pub mod environment;
mod leftovers;
pub mod os;
mod port;
mod table;

use std::{fmt, io, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{Port, WorkerId};
use stormkeeper_topology_package::launch::LaunchSpec;

/// A process, unique since the boot of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, which is also the id of its process group.
    pub pid: u32,
    /// Start time in the clock ticks of `/proc/<pid>/stat`.
    pub started: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReport {
    /// Exited by itself, with this status.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
    /// Killed by the kernel because its cgroup was out of memory.
    OutOfMemory,
    /// Ended with an unknown status: the process was not our child, so its parent received it.
    Unknown,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::OutOfMemory => f.write_str("was killed by signal 9: out of memory"),
            Self::Unknown => f.write_str("ended with an unknown exit status"),
        }
    }
}

/// A signal that stops a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: the worker closes its components and exits.
    Terminate,
    /// SIGKILL, to the whole process group.
    Kill,
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        })
    }
}

/// A failed operation on a worker process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the worker could not be written.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program to run.
        program: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The process exists and could not be signalled.
    #[error("cannot send {signal} to worker process {id}")]
    Signal {
        /// The process.
        id: ProcessId,
        /// The signal.
        signal: StopSignal,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// The worker processes of one host.
#[async_trait]
pub trait Processes: Send + Sync + fmt::Debug + 'static {
    /// Starts a worker. Its directory with `pids/` and `logs/` exists, and
    /// [`LaunchSpec::path`] holds the spec.
    ///
    /// # Errors
    /// [`Error`]; nothing was started then.
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error>;

    /// Resolves when the process has ended, also for an adopted process, which is not our child;
    /// at once if it has ended already or the pid belongs to another process now. The rest of a
    /// child's process group is killed before this resolves; [`Processes::sweep`] kills processes
    /// that left the group.
    ///
    /// # Cancellation safety
    /// Safe: call it again.
    async fn exited(&self, id: ProcessId) -> ExitReport;

    /// Signals the process. Does nothing if the process has ended. SIGKILL goes to its whole group.
    ///
    /// # Errors
    /// [`Error::Signal`].
    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error>;

    /// True if the process exists and has not ended, or if that cannot be determined.
    fn is_alive(&self, id: ProcessId) -> bool;

    /// Returns why no worker can listen on `port`, for example because another program does; `None`
    /// if one can. Asked only while this supervisor has no process in the slot of the port.
    async fn port_obstacle(&self, _port: Port) -> Option<String> {
        None
    }

    /// Returns the process of a launch whose process id was never recorded, because its
    /// supervisor died in between. The process runs as `user`, or as the user of this process: one of
    /// another user only claims to be the worker.
    async fn find(&self, _worker: &WorkerId, _user: Option<u32>) -> Option<ProcessId> {
        None
    }

    /// Notes that `process` is the process of `worker`, which another supervisor has launched.
    fn adopt(&self, _worker: &WorkerId, _process: ProcessId) {}

    /// Returns the launches of which processes may remain, as far as the host knows without the data
    /// directory.
    async fn remains(&self) -> Vec<WorkerId> {
        Vec::new()
    }

    /// Kills the remaining processes of a launch that has ended, such as components that left the
    /// process group. Returns the number of these processes.
    async fn sweep(&self, _worker: &WorkerId) -> usize {
        0
    }
}
