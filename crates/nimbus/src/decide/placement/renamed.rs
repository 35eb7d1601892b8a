//! Hosts with another name than before: their workers run on, and the others reach them under the new name.

use std::collections::BTreeSet;

use super::{PlacementCase, place_effect, replaced_version};
use crate::{decide::draft::Draft, plan::Reason};

/// Writes the present names of hosts into the assignments of running workers. An operator may have corrected
/// the name that a supervisor announces; nothing restarts for it.
pub(super) fn correct_hosts(draft: &mut Draft<'_>, cases: &[PlacementCase<'_>]) {
    for case in cases {
        let Some(before) = case.before else { continue };
        let (mut assignment, mut renamed) = (before.value.clone(), BTreeSet::new());
        for (slot, worker) in &mut assignment.workers {
            let Some(record) = draft.view.supervisors.get(&slot.supervisor) else { continue };
            // With a problem of the whole host, it may be two hosts: copies of one data directory.
            let is_sound = record.problems.iter().all(|problem| problem.port.is_some());
            if record.host != worker.host && is_sound && !case.lost.contains_key(slot) {
                renamed.insert(format!("{} is {}", worker.host, record.host));
                worker.host.clone_from(&record.host);
            }
        }
        if renamed.is_empty() {
            continue;
        }
        let Some((version, changes)) = replaced_version(draft, case, &assignment) else { continue };
        let hosts = renamed.into_iter().collect();
        draft.act(place_effect(case, version, assignment, changes), Reason::HostsRenamed { hosts }, 0);
    }
}
