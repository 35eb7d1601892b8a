//! Decision: from the observed state to a plan, in pure code.
//!
//! ```text
//!  ClusterView ─┐
//!  Liveness ────┼─▶ decide ─▶ Plan { actions, findings, next }
//!  Moment ──────┘
//! ```
//!
//! Guarantees:
//! - A live task is neither moved nor restarted because of another task, unless an operator
//!   asked for a rebalance.
//! - An unreadable record is never treated as absent: it is reported, nothing that it concerns is
//!   changed, and everything else goes on. Only supervisor assignments, which follow from other
//!   records, are written again.
//! - The topology record is removed only after all other records of the topology.
//! - A decision on the state that a plan has produced gives an empty plan.

mod draft;
mod events;
mod failing;
mod hosts;
mod log_levels;
mod placement;
mod removal;
mod samples;
mod supervisor_assignments;
#[cfg(test)]
mod tests;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    liveness::Liveness,
    plan::{ClusterProblem, Effect, Finding, Plan, Reason},
    policy::Policy,
};
use draft::Draft;
use stormkeeper_coordination::{
    cluster::{layout, view::ClusterView},
    tree::TreePath,
};
use stormkeeper_model::{Timestamp, TopologyId, TopologyName, clock::Monotonic, status::TopologyStatus};
pub(crate) use update::place as update_place;

/// Time of a decision, and the moves that it may still make.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Wall clock time: deadlines in records are given in it.
    pub wall: Timestamp,
    /// Time of the monotonic clock, which liveness uses.
    pub monotonic: Monotonic,
    /// Number of tasks that may still be moved away from lost workers.
    pub moves_left: usize,
}

/// Shortest life of the znode of a blob that no nimbus has. A nimbus may be about to announce
/// the blob: the znode is created just before the replica znode of the nimbus below it.
const BLOB_NODE_KEPT: std::time::Duration = std::time::Duration::from_secs(60);

/// Decides on `view`, which must be fresh and observed by `liveness`.
pub fn decide(view: &ClusterView, liveness: &Liveness, now: Moment, policy: &Policy) -> Plan {
    let mut draft = Draft::new(view, liveness, now, policy);
    report_unreadable(&mut draft);
    report_shared_names(&mut draft);
    removal::remove_killed(&mut draft);
    removal::remove_orphans(&mut draft);
    restore_parents(&mut draft);
    placement::place(&mut draft);
    update::step(&mut draft);
    log_levels::end_due(&mut draft);
    samples::end_due(&mut draft);
    supervisor_assignments::correct(&mut draft);
    delete_unused_blobs(&mut draft);
    report_lost_packages(&mut draft);
    events::delete_old(&mut draft);
    hosts::report_absent(&mut draft);
    hosts::delete_idle_stops(&mut draft);
    failing::report(&mut draft);
    draft.finish()
}

/// Time for which no nimbus must have announced a package before it is reported as lost: a nimbus
/// that has just opened its session announces its packages first.
const PACKAGE_LOST_AFTER: std::time::Duration = std::time::Duration::from_secs(3);

/// Reports topologies whose package no nimbus has. They keep running, and can be killed.
fn report_lost_packages(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, topology_record) in &view.topologies {
        let blob = &topology_record.value.blob;
        let Some(since) = draft.liveness.blob_missing_since(blob) else { continue };
        if topology_record.value.status == TopologyStatus::Killed {
            continue;
        }
        let due = since.plus(PACKAGE_LOST_AFTER);
        match draft.is_past(due) {
            true => draft.plan.findings.push(Finding {
                topology: Some(id.clone()),
                problem: ClusterProblem::NoPackage { blob: blob.clone() },
            }),
            false => draft.wake_at(due),
        }
    }
}

fn report_unreadable(draft: &mut Draft<'_>) {
    let rewritten: BTreeSet<TreePath> =
        draft.supervisor_assignments.rebuilt().map(layout::supervisor_assignments).collect();
    for (path, defect) in &draft.view.unreadable {
        let topology = topology_at(path);
        let (path, reason, remedy) = (path.clone(), defect.reason.clone(), defect.remedy(path));
        // The metrics service of the leader writes damaged fingerprints again.
        let is_fingerprint = !defect.must_stay() && path.parent() == Some(layout::metrics_parent());
        let problem = match rewritten.contains(&path) {
            true => ClusterProblem::Rebuilt { path, reason, origin: "the assignments" },
            false if is_fingerprint => ClusterProblem::Rebuilt { path, reason, origin: "its metric store" },
            false => ClusterProblem::Unreadable { path, reason, remedy },
        };
        draft.plan.findings.push(Finding { topology, problem });
    }
}

/// Reports topologies of one name, of which a submit makes only one: their records were written by hand.
fn report_shared_names(draft: &mut Draft<'_>) {
    let mut by_name: BTreeMap<&TopologyName, Vec<&TopologyId>> = BTreeMap::new();
    for (id, topology_record) in &draft.view.topologies {
        by_name.entry(&topology_record.value.name).or_default().push(id);
    }
    by_name.retain(|_, ids| ids.len() > 1);
    for (name, ids) in by_name {
        // The id of a topology begins with the name that it was submitted with.
        let is_renamed = |id: &&TopologyId| TopologyId::name_in(id.as_str()) != name.as_str();
        let kept = ids.iter().copied().find(|id| !is_renamed(id)).unwrap_or(ids[0]);
        for id in ids.into_iter().filter(|id| *id != kept) {
            let (path, by) = (layout::storm(id), kept.clone());
            draft.add_finding(Some(id), ClusterProblem::SharedName { path, name: name.clone(), by });
        }
    }
}

/// The topology whose record is at `path`.
fn topology_at(path: &TreePath) -> Option<TopologyId> {
    let parent = path.parent()?;
    let of_topologies =
        [layout::storms(), layout::tasks_parent(), layout::assignments(), layout::metrics_parent()];
    let of_topologies = [&of_topologies[..], &[layout::credentials_parent()]].concat();
    of_topologies.contains(&parent).then(|| path.name().parse().ok()).flatten()
}

/// Restores `/taskbeats/{id}` and `/taskerrors/{id}`: without the first no task of the topology can
/// register its heartbeat, and all tasks would seem lost.
fn restore_parents(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, topology_record) in &view.topologies {
        if topology_record.value.status == TopologyStatus::Killed {
            continue;
        }
        let heartbeats = !view.heartbeats.contains_key(id) && !view.is_unreadable(&layout::taskbeats(id));
        let errors = !view.errors.contains(id);
        if heartbeats || errors {
            let effect = Effect::RestoreParents { id: id.clone(), heartbeats, errors };
            draft.act(effect, Reason::ParentsMissing, 0);
        }
    }
}

fn delete_unused_blobs(draft: &mut Draft<'_>) {
    let view = draft.view;
    if view.unreadable.keys().any(|path| path.parent() == Some(layout::storms())) {
        // The topology of an unreadable record may use any blob.
        return;
    }
    for (key, holders) in &view.blobs {
        let used = view.topologies.values().any(|topology_record| topology_record.value.uses(key));
        let Some(since) = draft.liveness.blob_missing_since(key) else { continue };
        if used || !holders.is_empty() {
            continue;
        }
        let due = since.plus(BLOB_NODE_KEPT);
        match draft.is_past(due) {
            true => draft.act(Effect::DeleteBlobNode { key: key.clone() }, Reason::BlobUnused, 0),
            false => draft.wake_at(due),
        }
    }
}
