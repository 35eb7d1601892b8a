//! Topologies that grow back: placed with fewer workers than they request, they get more when slots have
//! been free for a while, as in a rebalance, so that no tuple in flight is lost.
//!
//! Only a topology whose author asked for it grows (`topology.grow.back`), one at a time, and none while
//! another change of placement is under way or a task has no slot. It begins only if a rebalance would
//! give it more workers now; if the slots are gone when its spouts have stopped, it goes on as it was.

use std::{collections::BTreeSet, time::Duration};

use super::{PlacementCase, drain, kept, place_missing::is_fully_placed, problem, solve_checked};
use crate::{
    decide::draft::Draft,
    plan::{Effect, Reason},
};
use stormkeeper_coordination::cluster::record::{Stored, TopologyRecord};
use stormkeeper_model::{
    Slot,
    clock::Monotonic,
    status::{LifecycleEvent, PendingChange, TopologyStatus, Transition},
};
use stormkeeper_scheduler as scheduler;
use stormkeeper_scheduler::Keep;

/// Most topologies for which one decision computes a placement: the oldest that are due. More wait until
/// these have grown, or until there is no slot for them any more.
const TRIES_MAX: usize = 8;

/// Stops the spouts of the oldest topology that can grow back.
pub(super) fn begin(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    let rests = |case: &PlacementCase<'_>| {
        case.topology_record.value.status != TopologyStatus::Rebalancing
            && is_fully_placed(case)
            && drain::hosts(draft.view, case).is_empty()
    };
    if !cases.iter().all(rests) {
        return;
    }
    let due: Vec<&PlacementCase<'_>> = cases.iter().filter(|case| is_due(draft, case)).collect();
    for case in due.into_iter().take(TRIES_MAX) {
        if let Some(n_workers) = workers_after(draft, case, cases) {
            begin_one(draft, case, n_workers);
            return;
        }
    }
}

/// Returns whether a topology has been short of workers for long enough.
fn is_due(draft: &mut Draft<'_>, case: &PlacementCase<'_>) -> bool {
    let Some(since) = draft.liveness.growth().short_since(case.id) else { return false };
    let due = since.plus(delay(case));
    if !draft.is_past(due) {
        draft.wake_at(due);
        return false;
    }
    true
}

fn delay(case: &PlacementCase<'_>) -> Duration {
    Duration::from_secs(case.topology_record.value.grow_back_secs.unwrap_or_default())
}

/// Number of workers that the topology would have, if that is more than it has and they only need slots that
/// have been free for long enough.
fn workers_after(
    draft: &mut Draft<'_>,
    case: &PlacementCase<'_>,
    cases: &[PlacementCase<'_>],
) -> Option<usize> {
    let is_past = |since: Monotonic| draft.is_past(since.plus(delay(case)));
    let (ripe, young): (Vec<_>, Vec<_>) =
        draft.liveness.growth().free().partition(|(_, since)| is_past(*since));
    let next = young.iter().map(|(_, since)| since.plus(delay(case))).min();
    let young: BTreeSet<Slot> = young.into_iter().map(|(slot, _)| slot.clone()).collect();
    let has_ripe = !ripe.is_empty();
    if let Some(next) = next {
        draft.wake_at(next);
    }
    if !has_ripe {
        return None;
    }
    let topologies = cases.iter().map(|other| match other.id == case.id {
        true => scheduler::TopologyDemand { keep: Keep::EvenSpread, ..kept(other) },
        false => kept(other),
    });
    let topologies = topologies.collect();
    let mut problem = problem(draft, cases, topologies, |other, slot| !other.lost.contains_key(slot));
    problem.occupied.extend(young);
    let solution = solve_checked(draft, &problem, cases)?;
    let placement = solution.placements.get(case.id)?;
    let (n_before, n_after) = (case.n_workers(), placement.workers.len());
    (placement.unplaced.is_none() && n_after > n_before).then_some(n_after)
}

fn begin_one(draft: &mut Draft<'_>, case: &PlacementCase<'_>, n_workers: usize) {
    let record = &case.topology_record.value;
    let Ok(Transition::Becomes(status)) = record.status.on(LifecycleEvent::Rebalance) else { return };
    let wait = Duration::from_secs(record.message_timeout_secs);
    let pending = PendingChange::Rebalance {
        deadline: draft.now.wall.plus(wait),
        resume: record.status,
        workers: None,
        parallelism: std::collections::BTreeMap::new(),
        only_drained: false,
        restart: false,
        grow_back: true,
    };
    let value = TopologyRecord { status, pending: Some(pending), ..record.clone() };
    let topology_record = Box::new(Stored { value, version: case.topology_record.version });
    let effect = Effect::BeginMove { id: case.id.clone(), topology_record };
    draft.act(effect, Reason::GrowsBack { from: case.n_workers(), to: n_workers }, 0);
}
