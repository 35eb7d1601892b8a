//! Lifecycle of a topology: its statuses and the transitions of each event.
//!
//! The table of `docs/architecture.md` is generated from [`TopologyStatus::on`].

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ComponentId, Timestamp};

/// Status of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TopologyStatus {
    /// Spouts are asked for tuples.
    Active,
    /// Spouts are not asked for tuples; pending tuples are still processed.
    Inactive,
    /// Spouts are stopped; at the deadline, tasks are placed again.
    Rebalancing,
    /// Spouts are stopped; at the deadline, the topology is removed.
    Killed,
}

impl TopologyStatus {
    /// Every status, in the order of the lifecycle.
    pub const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Rebalancing, Self::Killed];
}

/// Lifecycle event of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LifecycleEvent {
    /// The operator lets the spouts run.
    Activate,
    /// The operator stops the spouts.
    Deactivate,
    /// The operator requests a new placement after a delay.
    Rebalance,
    /// The operator requests removal after a delay.
    Kill,
    /// The deadline of the rebalance has passed.
    RebalanceDue,
    /// The deadline of the kill has passed.
    RemovalDue,
}

impl LifecycleEvent {
    /// Every event.
    pub const ALL: [Self; 6] =
        [Self::Activate, Self::Deactivate, Self::Rebalance, Self::Kill, Self::RebalanceDue, Self::RemovalDue];
}

/// Result of an accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The topology now has this status.
    Becomes(TopologyStatus),
    /// Tasks are placed again, and the topology returns to its status before the rebalance.
    Resumes,
    /// The topology and all its records are removed.
    IsRemoved,
}

/// Error of an event that a topology in this status does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a topology that is {from} cannot be {}", event.participle())]
pub struct IllegalTransition {
    /// The current status of the topology.
    pub from: TopologyStatus,
    /// The rejected event.
    pub event: LifecycleEvent,
}

impl TopologyStatus {
    /// Returns the result of `event` in this status.
    ///
    /// # Errors
    /// [`IllegalTransition`] when a topology in this status does not accept the event.
    pub fn on(self, event: LifecycleEvent) -> Result<Transition, IllegalTransition> {
        use LifecycleEvent as E;
        use TopologyStatus as S;
        let becomes = |status| Ok(Transition::Becomes(status));
        match (self, event) {
            (S::Active | S::Inactive, E::Activate) => becomes(S::Active),
            (S::Active | S::Inactive, E::Deactivate) => becomes(S::Inactive),
            (S::Active | S::Inactive, E::Rebalance) => becomes(S::Rebalancing),
            // A second kill only changes the deadline.
            (S::Active | S::Inactive | S::Rebalancing | S::Killed, E::Kill) => becomes(S::Killed),
            (S::Rebalancing, E::RebalanceDue) => Ok(Transition::Resumes),
            (S::Killed, E::RemovalDue) => Ok(Transition::IsRemoved),
            (S::Rebalancing | S::Killed, E::Activate | E::Deactivate | E::Rebalance)
            | (S::Active | S::Inactive | S::Killed, E::RebalanceDue)
            | (S::Active | S::Inactive | S::Rebalancing, E::RemovalDue) => {
                Err(IllegalTransition { from: self, event })
            }
        }
    }
}

impl LifecycleEvent {
    fn participle(self) -> &'static str {
        match self {
            Self::Activate => "activated",
            Self::Deactivate => "deactivated",
            Self::Rebalance => "rebalanced",
            Self::Kill => "killed",
            Self::RebalanceDue => "placed again",
            Self::RemovalDue => "removed",
        }
    }
}

impl fmt::Display for TopologyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Rebalancing => "rebalancing",
            Self::Killed => "killed",
        })
    }
}

/// A change that waits for its deadline. All of it is stored in the topology's record, so that a
/// new leader continues with the remaining time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "change")]
pub enum PendingChange {
    /// Remove the topology.
    Kill {
        /// Deadline, by the clock of the leader that accepted the kill.
        #[serde(rename = "deadline_ms")]
        deadline: Timestamp,
    },
    /// Place its tasks again.
    Rebalance {
        /// Deadline, by the clock of the leader that accepted the rebalance.
        #[serde(rename = "deadline_ms")]
        deadline: Timestamp,
        /// Status after the rebalance.
        resume: TopologyStatus,
        /// Number of workers after the rebalance; unchanged if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workers: Option<u32>,
        /// Number of tasks of some components after the rebalance.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        parallelism: BTreeMap<ComponentId, u32>,
        /// True if only tasks on drained hosts move. A version that does not know this field moves
        /// all tasks.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only_drained: bool,
        /// True if every worker starts again, also those that keep their tasks. A version that does not
        /// know this field lets those run.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        restart: bool,
        /// True if the leader began it, as free slots let the topology grow back. A version that does not
        /// know this field carries it out as one that an operator asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        grow_back: bool,
    },
}

impl PendingChange {
    /// Returns the deadline of the change.
    pub fn deadline(&self) -> Timestamp {
        match self {
            Self::Kill { deadline } | Self::Rebalance { deadline, .. } => *deadline,
        }
    }
}

/// Returns the lifecycle as a Markdown table, for the documentation.
pub fn lifecycle_table() -> String {
    use fmt::Write as _;
    let mut table = String::from("| event |");
    for status in TopologyStatus::ALL {
        write!(table, " {status} |").expect("writing to a string does not fail");
    }
    table.push_str("\n| --- | --- | --- | --- | --- |\n");
    for event in LifecycleEvent::ALL {
        write!(table, "| {event:?} |").expect("writing to a string does not fail");
        for status in TopologyStatus::ALL {
            let cell = match status.on(event) {
                Ok(Transition::Becomes(next)) => next.to_string(),
                Ok(Transition::Resumes) => "the status before".to_owned(),
                Ok(Transition::IsRemoved) => "removed".to_owned(),
                Err(_) => "refused".to_owned(),
            };
            write!(table, " {cell} |").expect("writing to a string does not fail");
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_topology_can_only_be_killed_again_or_removed() {
        let accepted: Vec<LifecycleEvent> = LifecycleEvent::ALL
            .into_iter()
            .filter(|event| TopologyStatus::Killed.on(*event).is_ok())
            .collect();
        assert_eq!(accepted, [LifecycleEvent::Kill, LifecycleEvent::RemovalDue]);
    }

    #[test]
    fn every_status_can_be_killed() {
        for status in TopologyStatus::ALL {
            assert_eq!(status.on(LifecycleEvent::Kill), Ok(Transition::Becomes(TopologyStatus::Killed)));
        }
    }

    #[test]
    fn generated_lifecycle_table() {
        stormkeeper_runtime::test_support::assert_generated(
            "docs/architecture.md",
            "lifecycle",
            &lifecycle_table(),
        );
    }

    #[test]
    fn rejected_event_is_explained_with_the_status() {
        let refused = TopologyStatus::Killed.on(LifecycleEvent::Activate).expect_err("refused");
        assert_eq!(refused.to_string(), "a topology that is killed cannot be activated");
    }
}
