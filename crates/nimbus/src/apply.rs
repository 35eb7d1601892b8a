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
    tree::{self, Op, READ_BATCH, ReadTree, Readable, TreePath, batches, read_allowed},
};
use stormkeeper_model::{TopologyId, event::EventKind};

/// Most deletions in one transaction: short enough to leave the server time for other requests.
const DELETE_BATCH: usize = 500;

/// Most bytes of paths in one transaction, far below the server's limit of a request (1 MB): a component can
/// make znodes with long names.
const DELETE_BYTES: usize = 128 << 10;

/// Outcome of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Topologies with znodes that this nimbus may not delete, each with the first of them.
    pub(super) undeletable: Vec<(TopologyId, TreePath)>,
}

/// Applies `plan` in order. A rejected action does not stop those of other topologies.
pub(super) async fn apply(plan: &Plan, writer: &FencedWriter, tree: &Arc<dyn ReadTree>) -> Applied {
    let mut applied = Applied::default();
    for action in &plan.actions {
        match execute(action, writer, tree).await {
            Ok(left) => {
                applied.undeletable.extend(left);
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

/// Executes an action. Returns the topology and the first of its znodes that this nimbus may not delete.
async fn execute(
    action: &Action,
    writer: &FencedWriter,
    tree: &Arc<dyn ReadTree>,
) -> Result<Option<(TopologyId, TreePath)>, WriteError> {
    let effect = &action.effect;
    match (effect.ops(), effect) {
        (Some(ops), _) => match event_draft(action) {
            Some(draft) => writer.commit_with_event(ops, draft).await.map(|_| None),
            None => writer.commit(ops).await.map(|_| None),
        },
        (None, Effect::RemoveRecords { id }) => {
            Ok(remove_records(id, writer, tree).await?.map(|path| (id.clone(), path)))
        }
        (None, _) => unreachable!("only the removal of records is more than one transaction"),
    }
}

/// Event that an action records for operators; housekeeping records none.
fn event_draft(action: &Action) -> Option<EventDraft> {
    let event = match (&action.effect, &action.reason) {
        (
            Effect::Place { .. },
            Reason::Unplaced { .. } | Reason::AssignmentMissing | Reason::HostsRenamed { .. },
        ) => EventKind::Placed,
        (Effect::Place { .. }, _) => EventKind::Moved,
        (Effect::ReplaceWorkers { .. } | Effect::StepUpdate { .. }, Reason::Update { event, .. }) => *event,
        (Effect::ReplaceWorkers { .. } | Effect::StepUpdate { .. }, _) => EventKind::Updating,
        (Effect::Rebalance { .. }, _) => EventKind::Rebalanced,
        (Effect::BeginMove { .. }, _) => EventKind::Rebalancing,
        (Effect::EndLogLevels { .. }, _) => EventKind::LogLevelsChanged,
        (Effect::EndSamples { .. }, _) => EventKind::SamplesChanged,
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
/// still write there. Returns the first znode that is left, if this nimbus may not delete some: a
/// component can give what it creates as its worker an access control list without nimbuses.
async fn remove_records(
    id: &TopologyId,
    writer: &FencedWriter,
    tree: &Arc<dyn ReadTree>,
) -> Result<Option<TreePath>, WriteError> {
    let mut left = Vec::new();
    let roots = [layout::taskbeats(id), layout::tasks(id), layout::taskerrors(id), layout::metrics(id)];
    for root in roots.into_iter().chain([layout::credentials(id)]) {
        let doomed = subtree(&root, tree).await.map_err(WriteError::NotSent)?;
        // Children were found after their parents, so the reverse order is leaves first.
        let doomed: Vec<TreePath> = doomed.into_iter().rev().collect();
        for batch in batches(&doomed, DELETE_BATCH, DELETE_BYTES) {
            let deletions = |paths: &[TreePath]| -> Vec<Op> {
                paths.iter().map(|path| Op::Delete { path: path.clone(), version: None }).collect()
            };
            match writer.commit(deletions(batch)).await {
                Err(WriteError::Op { source, .. }) if is_of_others(&source) => {}
                done => {
                    done?;
                    continue;
                }
            }
            // One znode that cannot be deleted must not keep the others.
            for path in batch {
                match writer.commit(deletions(std::slice::from_ref(path))).await {
                    Err(WriteError::Op { source, .. }) if is_of_others(&source) => left.push(path.clone()),
                    Err(WriteError::Op { source: tree::Error::NoNode { .. }, .. }) => {}
                    done => drop(done?),
                }
                if left.len() == LEFT_MAX {
                    return Ok(left.into_iter().next());
                }
            }
        }
    }
    Ok(left.into_iter().next())
}

/// Most znodes of a topology that cannot be deleted before the rest is left for the next attempt.
const LEFT_MAX: usize = 100;

/// True if the rights of somebody else prevent a deletion: of the znode, or of something below it that this
/// nimbus may not even see.
fn is_of_others(error: &tree::Error) -> bool {
    error.is_denial() || matches!(error.root(), tree::Error::NotEmpty { .. })
}

/// Lists `root` and everything below it, parents first, as far as this nimbus may read it; empty if
/// `root` does not exist.
async fn subtree(root: &TreePath, tree: &Arc<dyn ReadTree>) -> Result<Vec<TreePath>, tree::Error> {
    let mut found = Vec::new();
    let mut unread = vec![root.clone()];
    while !unread.is_empty() {
        let rest = unread.split_off(unread.len().min(READ_BATCH));
        let batch = std::mem::replace(&mut unread, rest);
        for (path, znode) in batch.iter().zip(read_allowed(&**tree, &batch).await?) {
            match znode {
                Readable::Missing => continue,
                Readable::Denied => {}
                Readable::Found(family) => {
                    for child in &family.children {
                        unread.push(path.child(child).map_err(tree::Error::InvalidPath)?);
                    }
                }
            }
            found.push(path.clone());
        }
    }
    Ok(found)
}
