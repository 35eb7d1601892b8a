//! What can happen to a cluster, and how an assignment differs from the one before.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::model::{Slot, assignment::Assignment, task_set::TaskSet};

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A nimbus began to lead.
    Elected,
    /// A leader stopped and gave way.
    Resigned,
    /// A topology was submitted.
    Submitted,
    /// Its spouts were allowed to run.
    Activated,
    /// Its spouts were stopped.
    Deactivated,
    /// It is to be placed anew after a wait.
    Rebalancing,
    /// It is to be removed after a wait.
    Killed,
    /// Tasks that had none got a place.
    Placed,
    /// Tasks left a lost worker.
    Moved,
    /// It was placed anew.
    Rebalanced,
    /// Its workers were told to end.
    Unassigned,
    /// Nothing of it is left.
    Removed,
    /// A host is to be emptied.
    Drained,
    /// A host may be used again.
    Undrained,
    /// What is measured of a topology was changed.
    Measured,
    /// A leader went on without metrics that were safe.
    #[serde(rename = "metrics-lost")]
    MetricsLost,
    /// Something that a newer version knows.
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
            Self::Measured => "measured",
            Self::MetricsLost => "metrics-lost",
            Self::Other => "other",
        })
    }
}

/// Tasks that went from one slot to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which.
    pub tasks: TaskSet,
    /// Where they were; absent when they had no place. The same as `to` when they only start
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Slot>,
    /// Where they are from now on; absent when they have no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Slot>,
}

/// What changes for tasks from `before` to `after`. Tasks that stay in their slot and run on
/// are not in it.
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
                Some((from, was)) if *from == slot && *was == worker => {}
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
    use crate::model::{Port, TaskId, Timestamp, assignment::AssignedWorker};

    fn slot(port: u16) -> Slot {
        Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
    }

    fn assignment(workers: &[(u16, &[u32], u64)]) -> Assignment {
        let workers = workers.iter().map(|(port, tasks, start)| {
            let tasks = tasks.iter().map(|task| TaskId(*task)).collect();
            let start = Timestamp::from_millis(*start);
            (slot(*port), AssignedWorker { host: "h".to_owned(), tasks, start })
        });
        Assignment { workers: workers.collect::<BTreeMap<_, _>>() }
    }

    #[test]
    fn moves_say_what_changes_and_nothing_else() {
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
