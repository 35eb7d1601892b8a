//! Recent failures that a supervisor reports in its record: workers that it could not bring up, and
//! what started again and again there.
//!
//! The view of a nimbus has no data of heartbeats, so the supervisor counts for its workers and, from
//! their files, for their components. A failure is remembered for ten minutes, so a leader that was
//! just elected knows it as well.
//!
//! A state that holds now, such as a port that is taken, is a problem ([`super::reported_problem`]).
//!
//! Size: at most [`FAILURES_MAX`] entries with a reason of at most 200 bytes, below 32 KiB in all.
//! Writes: only when a failure is added or counted up, at most every three seconds, and at most once
//! a minute when failures are only forgotten. A supervisor without failures writes its record once.

use serde::{Deserialize, Serialize};

use super::record::UnknownFields;
use stormkeeper_model::{ComponentId, Port, Timestamp, TopologyId};

/// Maximum number of failures in one record; those with the lowest counts are left out.
pub const FAILURES_MAX: usize = 32;

/// Kind of the thing that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// The supervisor started again without having been stopped.
    Supervisor,
    /// A worker could not be launched, or ended before its first heartbeat.
    Launch,
    /// The code of a topology could not be fetched or unpacked.
    Code,
    /// A worker could not be brought up for a reason that may be in its topology: the supervisor
    /// refuses its owner, or the worker ended after its first heartbeat. It counts for this topology
    /// only.
    Topology,
    /// A worker that ran was launched again.
    Worker,
    /// A component of a worker was started again.
    Component,
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

impl FailureKind {
    /// Returns whether a worker did not come up; otherwise it, or a part of it, did not stay up.
    pub fn is_start(self) -> bool {
        match self {
            Self::Launch | Self::Code | Self::Topology => true,
            Self::Supervisor | Self::Worker | Self::Component | Self::Unknown => false,
        }
    }
}

/// Recent failures of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedFailure {
    /// Kind of the thing.
    pub kind: FailureKind,
    /// The slot; absent for the supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// The topology; absent for the supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyId>,
    /// The component, if the thing is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// Start of the placement that cannot be brought up, of a kind that
    /// [is a start](FailureKind::is_start): it identifies the placement, and is no time of this host.
    #[serde(rename = "placed_ms", default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Timestamp>,
    /// Number of failures within the last ten minutes.
    pub n: u32,
    /// Reason of the last failure, of one line.
    pub reason: String,
    /// True if the topology cannot come up on another supervisor either, such as a package that cannot
    /// be unpacked: the supervisor is not to blame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

impl ReportedFailure {
    /// Creates `n` failures of a thing of this kind, which concern no slot yet.
    pub fn new(kind: FailureKind, n: u32, reason: String) -> Self {
        Self {
            kind,
            port: None,
            topology: None,
            component: None,
            placed: None,
            n,
            reason,
            everywhere: false,
            unknown_fields: UnknownFields::new(),
        }
    }
}
