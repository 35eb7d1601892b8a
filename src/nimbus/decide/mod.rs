//! From what is seen to what is done: pure.
//!
//! ```text
//!  ClusterView ─┐
//!  Liveness ────┼─▶ decide ─▶ Plan { actions, findings, next }
//!  Moment ──────┘
//! ```
//!
//! What never happens here:
//! - a healthy task is moved, or restarted for the sake of another one, unless an operator
//!   asked for a rebalance;
//! - a record that cannot be read is taken for one that is absent: what it concerns is left
//!   alone and reported, the rest goes on;
//! - the record of a topology is removed before everything else of it is.
//!
//! Deciding again on what a plan has led to gives an empty plan.

mod draft;
mod orders;
mod placement;
mod removal;
#[cfg(test)]
mod tests;

use crate::{
    clock::Monotonic,
    cluster::{event::EVENTS_KEPT, layout, view::ClusterView},
    model::{Timestamp, TopologyId, status::TopologyStatus},
    nimbus::{
        liveness::Liveness,
        plan::{Effect, Finding, Plan, Reason, Trouble},
        policy::Policy,
    },
    tree::TreePath,
};
use draft::Draft;

/// The moment of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the wall clock, which deadlines in records are given in.
    pub wall: Timestamp,
    /// By the clock that liveness is judged by.
    pub monotonic: Monotonic,
    /// How many more tasks may leave a lost place now.
    pub moves_left: usize,
}

/// A blob that nobody holds keeps its znode at least this long, as someone may be about to
/// announce it: the znode is made a moment before the holder's own.
const BLOB_FORGOTTEN_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// What to do about `view`, a fresh one that `liveness` has observed.
pub fn decide(view: &ClusterView, liveness: &Liveness, now: Moment, policy: &Policy) -> Plan {
    let mut draft = Draft::new(view, liveness, now, policy);
    report_unreadable(&mut draft);
    removal::remove_killed(&mut draft);
    removal::remove_orphans(&mut draft);
    restore_parents(&mut draft);
    placement::place(&mut draft);
    orders::correct(&mut draft);
    forget_blobs(&mut draft);
    forget_events(&mut draft);
    draft.finish()
}

fn report_unreadable(draft: &mut Draft<'_>) {
    for (path, reason) in &draft.view.unreadable {
        let trouble = Trouble::Unreadable { path: path.clone(), reason: reason.clone() };
        draft.plan.findings.push(Finding { topology: topology_at(path), trouble });
    }
}

/// The topology whose record is at `path`.
fn topology_at(path: &TreePath) -> Option<TopologyId> {
    let parent = path.parent()?;
    let of_topologies =
        [layout::storms(), layout::tasks_root(), layout::assignments(), layout::metrics_root()];
    of_topologies.contains(&parent).then(|| path.name().parse().ok()).flatten()
}

/// Without a parent no task of a topology can beat, and all of them would seem dead.
fn restore_parents(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, storm) in &view.storms {
        if storm.value.status == TopologyStatus::Killed {
            continue;
        }
        let beats = !view.beats.contains_key(id) && !view.is_unreadable(&layout::taskbeats(id));
        let errors = !view.errors.contains(id);
        if beats || errors {
            let effect = Effect::RestoreParents { id: id.clone(), beats, errors };
            draft.act(effect, Reason::ParentsMissing, 0);
        }
    }
}

/// Events over the number kept go this many at a time, not one with each new one.
const EVENTS_AT_A_TIME: usize = 50;

fn forget_events(draft: &mut Draft<'_>) {
    let n_over = draft.view.events.len().saturating_sub(EVENTS_KEPT);
    if n_over >= EVENTS_AT_A_TIME {
        let numbers = draft.view.events.keys().take(n_over.min(EVENTS_KEPT)).copied().collect();
        draft.act(Effect::ForgetEvents { numbers }, Reason::EventsOver, 0);
    }
}

fn forget_blobs(draft: &mut Draft<'_>) {
    let view = draft.view;
    if view.unreadable.keys().any(|path| path.parent() == Some(layout::storms())) {
        // It may use any of them.
        return;
    }
    for (key, holders) in &view.blobs {
        let used = view.storms.values().any(|storm| storm.value.blob == *key);
        let Some(since) = draft.liveness.unheld_since(key) else { continue };
        if used || !holders.is_empty() {
            continue;
        }
        let due = since.plus(BLOB_FORGOTTEN_AFTER);
        match draft.is_past(due) {
            true => draft.act(Effect::ForgetBlob { key: key.clone() }, Reason::BlobUnused, 0),
            false => draft.wake_at(due),
        }
    }
}
