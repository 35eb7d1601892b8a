//! Application of a plan: each action is one fenced transaction.
//!
//! An action names the versions on which it was decided, so that it takes effect as decided or
//! not at all. A rejected action is no error: the state has changed since, and the next decision
//! is made on the new state.

use std::sync::Arc;

use tracing::{info, warn};

use crate::plan::{Action, Effect, Plan, Reason};
use stormkeeper_coordination::{
    cluster::{event::EventDraft, layout},
    election::{FencedWriter, WriteError},
    tree::{self, Op, READ_BATCH, ReadTree, TreePath},
};
use stormkeeper_model::{TopologyId, event::EventKind};

/// Most deletions in one transaction: far below the limit on bytes, and short enough to leave
/// the server time for other requests.
const DELETE_BATCH: usize = 500;

/// Outcome of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// Number of applied actions.
    pub(super) n_done: usize,
    /// Number of rejected actions.
    pub(super) n_refused: usize,
    /// Number of tasks moved away from lost workers.
    pub(super) n_moved: usize,
    /// True if the other actions of the plan were skipped, as they cannot succeed: this nimbus
    /// no longer leads, ZooKeeper cannot be reached, or an outcome is not known.
    pub(super) is_aborted: bool,
}

/// Applies `plan` in order. A rejected action does not stop those of other topologies.
pub(super) async fn apply(plan: &Plan, writer: &FencedWriter, tree: &Arc<dyn ReadTree>) -> Applied {
    let mut applied = Applied::default();
    for action in &plan.actions {
        match execute(action, writer, tree).await {
            Ok(()) => {
                applied.n_done += 1;
                applied.n_moved += action.n_moved;
                log(action, writer);
            }
            Err(WriteError::Op { source, .. }) => {
                applied.n_refused += 1;
                info!(action = %action.effect, %source, "an action was rejected; it is decided again");
            }
            Err(error @ (WriteError::Deposed { .. } | WriteError::Unknown(_) | WriteError::NotSent(_))) => {
                warn!(action = %action.effect, %error, "an action failed; the rest of the plan is skipped");
                applied.is_aborted = true;
                break;
            }
        }
    }
    applied
}

fn log(action: &Action, writer: &FencedWriter) {
    let topology = action.effect.topology().map(tracing::field::display);
    // A leader writes these records with the assignments, so a person has written or deleted this one.
    let is_repair =
        matches!(&action.effect, Effect::CorrectSupervisorAssignments(change) if change.after.is_some());
    match is_repair {
        true => warn!(term = %writer.term(), reason = %action.reason, "{}", action.effect),
        false => info!(term = %writer.term(), topology, reason = %action.reason, "{}", action.effect),
    }
}

async fn execute(action: &Action, writer: &FencedWriter, tree: &Arc<dyn ReadTree>) -> Result<(), WriteError> {
    let effect = &action.effect;
    match (effect.ops(), effect) {
        (Some(ops), _) => match event_draft(action) {
            Some(draft) => writer.commit_with_event(ops, draft).await.map(drop),
            None => writer.commit(ops).await.map(drop),
        },
        (None, Effect::RemoveRecords { id }) => remove_records(id, writer, tree).await,
        (None, _) => unreachable!("only the removal of records is more than one transaction"),
    }
}

/// Event that an action records for operators; housekeeping records none.
fn event_draft(action: &Action) -> Option<EventDraft> {
    let event = match (&action.effect, &action.reason) {
        (Effect::Place { .. }, Reason::Unplaced { .. } | Reason::AssignmentMissing) => EventKind::Placed,
        (Effect::Place { .. }, _) => EventKind::Moved,
        (Effect::Rebalance { .. }, _) => EventKind::Rebalanced,
        (Effect::BeginMove { .. }, _) => EventKind::Rebalancing,
        (Effect::Unassign { .. }, _) => EventKind::Unassigned,
        (Effect::RemoveTopologyRecord { .. }, _) => EventKind::Removed,
        (
            Effect::RemoveRecords { .. }
            | Effect::CorrectSupervisorAssignments(_)
            | Effect::RestoreParents { .. }
            | Effect::DeleteBlobNode { .. }
            | Effect::DeleteEvents { .. }
            | Effect::DeleteStops { .. },
            _,
        ) => return None,
    };
    Some(EventDraft {
        event,
        topology: action.effect.topology().cloned(),
        reason: action.reason.to_string(),
        by: None,
        moves: action.moves.clone(),
        submitted: None,
    })
}

/// Deletes all records of a topology except its topology record; heartbeats first, as workers may
/// still write there.
async fn remove_records(
    id: &TopologyId,
    writer: &FencedWriter,
    tree: &Arc<dyn ReadTree>,
) -> Result<(), WriteError> {
    for root in [layout::taskbeats(id), layout::tasks(id), layout::taskerrors(id), layout::metrics(id)] {
        let doomed = subtree(&root, tree).await.map_err(WriteError::NotSent)?;
        // Children were found after their parents, so the reverse order is leaves first.
        let doomed: Vec<TreePath> = doomed.into_iter().rev().collect();
        for batch in doomed.chunks(DELETE_BATCH) {
            let ops = batch.iter().map(|path| Op::Delete { path: path.clone(), version: None }).collect();
            writer.commit(ops).await?;
        }
    }
    Ok(())
}

/// Lists `root` and everything below it, parents first; empty if `root` does not exist.
async fn subtree(root: &TreePath, tree: &Arc<dyn ReadTree>) -> Result<Vec<TreePath>, tree::Error> {
    let mut found = Vec::new();
    let mut unread = vec![root.clone()];
    while !unread.is_empty() {
        let rest = unread.split_off(unread.len().min(READ_BATCH));
        let batch = std::mem::replace(&mut unread, rest);
        for (path, family) in batch.iter().zip(tree.get_many(&batch).await?) {
            let Some(family) = family else { continue };
            for child in &family.children {
                unread.push(path.child(child).map_err(tree::Error::InvalidPath)?);
            }
            found.push(path.clone());
        }
    }
    Ok(found)
}
