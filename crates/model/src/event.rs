//! Kinds of cluster events, and the moves of tasks between two assignments.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Slot, assignment::Assignment, task_set::TaskSet};

/// Kind of a cluster event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A nimbus began to lead.
    Elected,
    /// A leader resigned.
    Resigned,
    /// A topology was submitted.
    Submitted,
    /// A topology was activated: its spouts may run.
    Activated,
    /// A topology was deactivated: its spouts are stopped.
    Deactivated,
    /// A rebalance was requested: the topology will be placed again after a wait.
    Rebalancing,
    /// A kill was requested: the topology will be removed after a wait.
    Killed,
    /// Unassigned tasks were placed.
    Placed,
    /// Tasks of a lost worker were placed elsewhere.
    Moved,
    /// A rebalance was done: the topology was placed again.
    Rebalanced,
    /// The assignment of a topology was deleted, so its workers stop.
    Unassigned,
    /// All records of a topology were removed.
    Removed,
    /// A drain of a host began: all workers will leave it.
    Drained,
    /// The drain of a host was revoked.
    Undrained,
    /// The metric settings of a topology were changed.
    MetricsChanged,
    /// An update of a topology began, or went on with a worker.
    Updating,
    /// An update of a topology was done: all workers run the new package.
    Updated,
    /// An update of a topology failed, and goes or went back to the former package.
    #[serde(rename = "update-failed")]
    UpdateFailed,
    /// Log levels of a topology were set, or ended.
    #[serde(rename = "log-levels-changed")]
    LogLevelsChanged,
    /// A sample of the tuples of a component began, or ended.
    #[serde(rename = "samples-changed")]
    SamplesChanged,
    /// Credentials of a topology were set or removed.
    #[serde(rename = "credentials-changed")]
    CredentialsChanged,
    /// A leader continued without committed metrics (unclean takeover).
    #[serde(rename = "unclean-metric-takeover")]
    UncleanMetricTakeover,
    /// A kind that only a newer version knows.
    #[serde(other)]
    Other,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Elected => "elected",
            Self::Resigned => "resigned",
            Self::Submitted => "submitted",
            Self::Activated => "activated",
            Self::Deactivated => "deactivated",
            Self::Rebalancing => "rebalancing",
            Self::Killed => "killed",
            Self::Placed => "placed",
            Self::Moved => "moved",
            Self::Rebalanced => "rebalanced",
            Self::Unassigned => "unassigned",
            Self::Removed => "removed",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
            Self::MetricsChanged => "metrics-changed",
            Self::Updating => "updating",
            Self::Updated => "updated",
            Self::UpdateFailed => "update-failed",
            Self::LogLevelsChanged => "log-levels-changed",
            Self::SamplesChanged => "samples-changed",
            Self::CredentialsChanged => "credentials-changed",
            Self::UncleanMetricTakeover => "unclean-metric-takeover",
            Self::Other => "other",
        })
    }
}

/// Tasks that moved from one slot to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The tasks.
    pub tasks: TaskSet,
    /// Slot before the move; absent if the tasks were unassigned. Equal to `to` if the tasks only
    /// restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Slot>,
    /// Slot after the move; absent if the tasks are unassigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Slot>,
}

/// Returns the moves that lead from `before` to `after`. Tasks that stay in their slot and keep
/// running are omitted.
pub fn moves(before: Option<&Assignment>, after: Option<&Assignment>) -> Vec<Move> {
    let nothing = Assignment::default();
    let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    let mut moves: BTreeMap<(Option<&Slot>, Option<&Slot>), TaskSet> = BTreeMap::new();
    let old: BTreeMap<_, _> = (before.workers.iter())
        .flat_map(|(slot, worker)| worker.tasks.iter().map(move |task| (task, (slot, worker))))
        .collect();
    for (slot, worker) in &after.workers {
        for task in worker.tasks.iter() {
            match old.get(&task) {
                // Another name of the host moves nothing.
                Some((from, was))
                    if *from == slot && (was.start, &was.tasks) == (worker.start, &worker.tasks) => {}
                from => {
                    moves.entry((from.map(|(slot, _)| *slot), Some(slot))).or_default().insert(task);
                }
            }
        }
    }
    let kept = after.tasks();
    for (task, (slot, _)) in old.iter().filter(|(task, _)| !kept.contains(**task)) {
        moves.entry((Some(slot), None)).or_default().insert(*task);
    }
    let moves = moves.into_iter();
    moves.map(|((from, to), tasks)| Move { tasks, from: from.cloned(), to: to.cloned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Port, TaskId, Timestamp, assignment::AssignedWorker};

    fn slot(port: u16) -> Slot {
        Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
    }

    fn assignment(workers: &[(u16, &[u32], u64)]) -> Assignment {
        let workers = workers.iter().map(|(port, tasks, start)| {
            let tasks = tasks.iter().map(|task| TaskId(*task)).collect();
            let start = Timestamp::from_millis(*start);
            (slot(*port), AssignedWorker { host: "h".to_owned(), tasks, start })
        });
        Assignment { workers: workers.collect::<BTreeMap<_, _>>(), unknown_fields: Default::default() }
    }

    #[test]
    fn moves_list_changed_tasks_and_omit_unchanged_tasks() {
        let before = assignment(&[(1, &[1, 2], 10), (2, &[3], 10), (3, &[4], 10)]);
        let after = assignment(&[(1, &[1, 2], 10), (2, &[3, 5], 20), (4, &[6], 20)]);
        let set = |tasks: &[u32]| tasks.iter().map(|task| TaskId(*task)).collect::<TaskSet>();
        let found = moves(Some(&before), Some(&after));
        let expected = [
            Move { tasks: set(&[5]), from: None, to: Some(slot(2)) },
            Move { tasks: set(&[6]), from: None, to: Some(slot(4)) },
            Move { tasks: set(&[3]), from: Some(slot(2)), to: Some(slot(2)) },
            Move { tasks: set(&[4]), from: Some(slot(3)), to: None },
        ];
        assert_eq!(found, expected);
        assert_eq!(moves(Some(&before), Some(&before)), []);
        assert_eq!(moves(None, Some(&before)).len(), 3);
    }
}
