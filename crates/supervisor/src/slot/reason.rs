//! Reasons of a slot's actions, for the log and for status pages.

use std::{fmt, sync::Arc, time::Duration};

use crate::process::ExitReport;

/// The cause of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotReason {
    /// The leader assigned a worker to the slot.
    Assigned,
    /// The leader removed the worker from the slot.
    Unassigned,
    /// The leader assigned another worker, or the same tasks again, to the slot.
    Reassigned,
    /// The pause after a failure is over.
    RelaunchDue {
        /// Launches in a row that failed.
        n_failures: u32,
    },
    /// The process ended by itself.
    Exited {
        /// Exit status or signal.
        report: ExitReport,
    },
    /// No process could be started.
    LaunchFailed {
        /// Text of the launch error.
        cause: Arc<str>,
    },
    /// The worker wrote no first heartbeat in time.
    StartTimedOut {
        /// Time since the launch.
        after: Duration,
    },
    /// The heartbeat stopped changing.
    HeartbeatTimedOut {
        /// Time since the last heartbeat.
        silent: Duration,
    },
    /// The process did not exit after SIGTERM.
    GraceOver {
        /// Reason of the SIGTERM.
        cause: Box<SlotReason>,
    },
}

impl SlotReason {
    /// True if the worker failed; false if it is only no longer assigned.
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

impl fmt::Display for SlotReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assigned => f.write_str("assigned"),
            Self::Unassigned => f.write_str("no longer assigned"),
            Self::Reassigned => f.write_str("the assignment changed"),
            Self::RelaunchDue { n_failures } => write!(f, "relaunched after {n_failures} failures in a row"),
            Self::Exited { report } => report.fmt(f),
            Self::LaunchFailed { cause } => write!(f, "could not be launched: {cause}"),
            Self::StartTimedOut { after } => {
                write!(f, "wrote no heartbeat within {}s of its launch", after.as_secs())
            }
            Self::HeartbeatTimedOut { silent } => write!(f, "wrote no heartbeat for {}s", silent.as_secs()),
            Self::GraceOver { cause } => write!(f, "did not exit after SIGTERM ({cause})"),
        }
    }
}
