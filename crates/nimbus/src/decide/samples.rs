//! Ends of samples of tuples that operators have asked for.

use crate::{
    decide::draft::Draft,
    plan::{Effect, Reason},
    samples::without_ended,
};
use stormkeeper_coordination::cluster::record::Stored;

/// Ends the samples whose time is over. A topology that another action of the plan changes is left to the
/// next decision, as for log levels.
pub(super) fn end_due(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, record) in &view.topologies {
        let Some(end) = record.value.tuple_samples.as_ref().and_then(|samples| samples.next_end()) else {
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
        draft.act(Effect::EndSamples { id: id.clone(), topology_record }, Reason::SamplesDue, 0);
    }
}
