//! Why a slot does what it does: the log line, and what a status page shows.

use std::{fmt, sync::Arc, time::Duration};

use crate::supervisor::process::ExitReport;

/// The cause of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The leader put a worker into the slot.
    Assigned,
    /// The leader took the worker away.
    Unassigned,
    /// The leader put another worker, or the same tasks anew, into the slot.
    Reassigned,
    /// The pause after a failure is over.
    RelaunchDue {
        /// Launches in a row that failed.
        n_failures: u32,
    },
    /// The process ended by itself.
    Exited {
        /// How.
        report: ExitReport,
    },
    /// No process could be started.
    LaunchFailed {
        /// Why.
        cause: Arc<str>,
    },
    /// There was no first heartbeat in time.
    StartTimedOut {
        /// The time it had.
        after: Duration,
    },
    /// The heartbeat stopped changing.
    HeartbeatTimedOut {
        /// For how long.
        silent: Duration,
    },
    /// The process did not leave when asked.
    GraceOver {
        /// Why it was asked.
        cause: Box<Reason>,
    },
}

impl Reason {
    /// Whether the worker failed, as opposed to being no longer wanted.
    pub fn is_workers_fault(&self) -> bool {
        match self {
            Self::Assigned | Self::Unassigned | Self::Reassigned | Self::RelaunchDue { .. } => false,
            Self::Exited { .. }
            | Self::LaunchFailed { .. }
            | Self::StartTimedOut { .. }
            | Self::HeartbeatTimedOut { .. } => true,
            Self::GraceOver { cause } => cause.is_workers_fault(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assigned => f.write_str("assigned"),
            Self::Unassigned => f.write_str("no longer assigned"),
            Self::Reassigned => f.write_str("the assignment changed"),
            Self::RelaunchDue { n_failures } => write!(f, "launched again after {n_failures} failures"),
            Self::Exited { report } => report.fmt(f),
            Self::LaunchFailed { cause } => write!(f, "could not be launched: {cause}"),
            Self::StartTimedOut { after } => {
                write!(f, "gave no heartbeat {}s after its launch", after.as_secs())
            }
            Self::HeartbeatTimedOut { silent } => write!(f, "gave no heartbeat for {}s", silent.as_secs()),
            Self::GraceOver { cause } => write!(f, "did not leave when asked ({cause})"),
        }
    }
}
