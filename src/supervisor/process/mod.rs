//! Worker processes as the supervisor sees them.
//!
//! [`Processes`] is the machine's side: [`os::OsProcesses`] starts real ones, local mode runs
//! workers in its own process, tests script them. A process is named by [`ProcessId`], which
//! is never another process's: a pid alone may be used again.

pub mod os;
mod table;

use std::{fmt, io, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{model::WorkerId, rpc::launch::LaunchSpec};

/// A process, for all time since the machine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid, which is its process group as well.
    pub pid: u32,
    /// When it was started, in the clock ticks of `/proc/<pid>/stat`.
    pub started: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReport {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, but it was not our child, so that its status went to someone else.
    Unknown,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unknown => f.write_str("ended, its exit status is not known"),
        }
    }
}

/// A signal that asks a worker to end, or ends it with its process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: the worker closes its components and leaves.
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

/// What could not be done to a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the worker could not be written.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// What was to run.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be signalled, for another reason than being gone.
    #[error("cannot send {signal} to worker process {id}")]
    Signal {
        /// The process.
        id: ProcessId,
        /// The signal.
        signal: StopSignal,
        /// Why.
        source: io::Error,
    },
}

/// The worker processes of one machine.
#[async_trait]
pub trait Processes: Send + Sync + fmt::Debug + 'static {
    /// Starts a worker. Its directory with `pids/` and `logs/` exists, and
    /// [`LaunchSpec::path`] holds the spec.
    ///
    /// # Errors
    /// [`Error`]; nothing was started then.
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error>;

    /// Resolves when the process is gone, also for an adopted one, which is not our child;
    /// at once if it is gone already or the pid is another process now. What is left of a
    /// child's process group is killed before this resolves; [`Processes::sweep`] sees to the
    /// rest.
    ///
    /// # Cancellation safety
    /// Safe: call it again.
    async fn exited(&self, id: ProcessId) -> ExitReport;

    /// Signals the whole process group. Does nothing when the process is gone.
    ///
    /// # Errors
    /// [`Error::Signal`].
    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error>;

    /// Whether the process is there and has not ended. True when that cannot be found out.
    fn is_alive(&self, id: ProcessId) -> bool;

    /// The process of a launch whose id was never written down: its supervisor died between
    /// the two.
    async fn find(&self, _worker: &WorkerId) -> Option<ProcessId> {
        None
    }

    /// Kills whatever is left of a launch that has ended, such as components that left the
    /// process group. Answers how many processes there were.
    async fn sweep(&self, _worker: &WorkerId) -> usize {
        0
    }
}
