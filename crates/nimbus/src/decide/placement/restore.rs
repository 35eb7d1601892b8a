//! Restoration of assignments that were deleted by hand: the workers that run go on in their slots.

use std::collections::BTreeSet;

use super::{PlacementCase, place_effect, replaced_version};
use crate::{
    decide::{draft::Draft, supervisor_assignments::unreadable_assignments},
    plan::Reason,
};
use stormkeeper_model::Slot;

/// Writes the last assignment that this leader saw of each topology that has none any more, if the
/// assignment is still valid. Any other topology is placed anew.
pub(super) fn restore_assignments(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    if !unreadable_assignments(draft.view).is_empty() {
        // An unreadable assignment may use any slot.
        return;
    }
    let (view, liveness) = (draft.view, draft.liveness);
    let assigned = view.assignments.values().flat_map(|assignment| assignment.value.workers.keys());
    let mut taken: BTreeSet<&Slot> = assigned.collect();
    for case in cases.iter().filter(|case| case.before.is_none()) {
        let Some(last) = liveness.last_assignment(case.id) else { continue };
        let is_valid = last.tasks() == case.tasks.value.components.tasks()
            && last.workers.values().all(|worker| !worker.tasks.is_empty())
            && !last.workers.keys().any(|slot| taken.contains(slot));
        if !is_valid {
            continue;
        }
        let Some((version, supervisor_assignments)) = replaced_version(draft, case, last) else { continue };
        taken.extend(last.workers.keys());
        let effect = place_effect(case, version, last.clone(), supervisor_assignments);
        draft.act(effect, Reason::AssignmentMissing, 0);
    }
}
