//! Ends of log levels that operators have set for a time.

use crate::{
    decide::draft::Draft,
    log_levels::without_ended,
    plan::{Effect, Reason},
};
use stormkeeper_coordination::cluster::record::Stored;

/// Ends the levels whose time is over. A topology that another action of the plan changes is left to the
/// next decision: each action names the version of the record that it replaces.
pub(super) fn end_due(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, record) in &view.topologies {
        let Some(end) = record.value.log_levels.as_ref().and_then(|levels| levels.next_end()) else {
            continue;
        };
        if end > draft.now.wall {
            draft.wake_at_deadline(end);
            continue;
        }
        let is_changed = draft.plan.actions.iter().any(|action| action.effect.topology() == Some(id));
        let Some(value) = without_ended(&record.value, draft.now.wall).filter(|_| !is_changed) else {
            continue;
        };
        let topology_record = Box::new(Stored { value, version: record.version });
        draft.act(Effect::EndLogLevels { id: id.clone(), topology_record }, Reason::LogLevelsDue, 0);
    }
}
