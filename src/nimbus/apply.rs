//! Carries out a plan: each action is one fenced transaction.
//!
//! An action names the versions it was decided on, so that it happens as decided or not at
//! all. One that is refused is no trouble: the state is another one by now, and the next
//! decision is made on that.

use std::sync::Arc;

use tracing::{info, warn};

use crate::{
    cluster::{event::Told, layout},
    election::{FencedWriter, WriteError},
    model::{TopologyId, event::EventKind},
    nimbus::plan::{Action, Effect, Plan, Reason},
    tree::{self, Op, READ_BATCH, ReadTree, TreePath},
};

/// How many deletions one transaction holds; keeps it far below the limit on bytes, and
/// short enough to leave the server time for others.
const DELETE_BATCH: usize = 500;

/// How carrying out a plan went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// How many actions were carried out.
    pub(super) n_done: usize,
    /// How many were refused.
    pub(super) n_refused: usize,
    /// How many tasks left a lost place.
    pub(super) n_moved: usize,
    /// Whether the rest of the plan was left, as it makes no sense to go on with it: we
    /// lead no longer, the tree cannot be reached, or an outcome is not known.
    pub(super) is_cut_short: bool,
}

/// Carries out `plan` in its order. A refused action does not stop those of other topologies.
pub(super) async fn apply(plan: &Plan, writer: &FencedWriter, tree: &Arc<dyn ReadTree>) -> Applied {
    let mut applied = Applied::default();
    for action in &plan.actions {
        match carry_out(action, writer, tree).await {
            Ok(()) => {
                applied.n_done += 1;
                applied.n_moved += action.n_moved;
                log(action, writer);
            }
            Err(WriteError::Op { source, .. }) => {
                applied.n_refused += 1;
                info!(action = %action.effect, %source, "refused, to be decided anew");
            }
            Err(error @ (WriteError::Deposed { .. } | WriteError::Unknown(_) | WriteError::NotSent(_))) => {
                warn!(action = %action.effect, %error, "the rest of a plan is left");
                applied.is_cut_short = true;
                break;
            }
        }
    }
    applied
}

fn log(action: &Action, writer: &FencedWriter) {
    let topology = action.effect.topology().map(tracing::field::display);
    info!(term = %writer.term(), topology, reason = %action.reason, "{}", action.effect);
}

async fn carry_out(
    action: &Action,
    writer: &FencedWriter,
    tree: &Arc<dyn ReadTree>,
) -> Result<(), WriteError> {
    let effect = &action.effect;
    match (effect.ops(), effect) {
        (Some(ops), _) => match told(action) {
            Some(told) => writer.commit_and_tell(ops, told).await.map(drop),
            None => writer.commit(ops).await.map(drop),
        },
        (None, Effect::RemoveRecords { id }) => remove_records(id, writer, tree).await,
        (None, _) => unreachable!("only the removal of records is more than one transaction"),
    }
}

/// What people are told of an action; house-keeping is not told.
fn told(action: &Action) -> Option<Told> {
    let event = match (&action.effect, &action.reason) {
        (Effect::Place { .. }, Reason::Unplaced { .. }) => EventKind::Placed,
        (Effect::Place { .. }, _) => EventKind::Moved,
        (Effect::Rebalance { .. }, _) => EventKind::Rebalanced,
        (Effect::BeginMove { .. }, _) => EventKind::Rebalancing,
        (Effect::Unassign { .. }, _) => EventKind::Unassigned,
        (Effect::RemoveStorm { .. }, _) => EventKind::Removed,
        (
            Effect::RemoveRecords { .. }
            | Effect::CorrectOrders(_)
            | Effect::RestoreParents { .. }
            | Effect::ForgetBlob { .. }
            | Effect::ForgetEvents { .. },
            _,
        ) => return None,
    };
    Some(Told {
        event,
        topology: action.effect.topology().cloned(),
        reason: action.reason.to_string(),
        by: None,
        moves: action.moves.clone(),
        submitted: None,
    })
}

/// Deletes everything of a topology but its record; beats first, as they are what others
/// may still write to.
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

/// `root` and everything below it, parents first; nothing when it is not there.
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
