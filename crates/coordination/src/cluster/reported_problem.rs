//! Problems that a supervisor reports, in its record, of itself and of the workers in its slots.
//!
//! A problem holds now, and is withdrawn at once when it ends: nimbus shows it, and takes slots and
//! tasks that it names as unusable or idle. What failed and may be over is a failure
//! ([`super::failure`]), which is counted, remembered for ten minutes, and guides placement. They are
//! two types, because they share nothing but the slot and the topology: a nimbus that reads one must
//! never take it for the other.
//!
//! The view of a nimbus has no data of heartbeats, so a worker that runs and cannot do its work
//! reports that to its supervisor. The list is bounded, and the supervisor limits how often it
//! writes its record.

use serde::{Deserialize, Serialize};

use super::record::UnknownFields;
use stormkeeper_model::{Port, TopologyId, task_set::TaskSet, text};

/// Maximum number of problems in one record: far more than an operator reads, far below the limit
/// of a znode.
pub const PROBLEMS_MAX: usize = 32;

/// Maximum length of the text of one problem, in bytes.
pub const PROBLEM_BYTES_MAX: usize = 400;

/// A problem of a supervisor, or of one of its slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedProblem {
    /// The slot; absent if the problem is of the whole supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// The topology that runs, or should run, in the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyId>,
    /// True if no worker can run in the slot while the problem lasts. The slot is then missing in
    /// the slots of the supervisor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unusable: bool,
    /// Tasks of the topology that have a heartbeat, because their worker lives, and do not run.
    #[serde(default, skip_serializing_if = "TaskSet::is_empty")]
    pub idle: TaskSet,
    /// Description of the problem, with the reason and the remedy.
    pub text: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

impl ReportedProblem {
    /// Creates a problem of the whole supervisor.
    pub fn of_supervisor(text: &str) -> Self {
        Self { port: None, ..Self::of_slot(Port(0), None, text) }
    }

    /// Creates a problem of the slot at `port`. A text that is too long is cut, and says that the log of the
    /// supervisor has the rest.
    pub fn of_slot(port: Port, topology: Option<TopologyId>, text: &str) -> Self {
        Self {
            port: Some(port),
            topology,
            unusable: false,
            idle: TaskSet::default(),
            text: text::shortened_from(text, PROBLEM_BYTES_MAX, "the log of the supervisor").into_owned(),
            unknown_fields: UnknownFields::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_that_is_cut_keeps_its_remedy_and_says_where_the_rest_is() {
        let long = format!("supervisor at h cannot write: {}; make room", "é".repeat(400));
        let text = ReportedProblem::of_supervisor(&long).text;
        assert!(text.len() <= PROBLEM_BYTES_MAX && text.starts_with("supervisor at h cannot"), "{text}");
        assert!(text.ends_with("; make room (cut; the log of the supervisor has all of it)"), "{text}");
        assert_eq!(ReportedProblem::of_supervisor("short").text, "short");
    }
}
