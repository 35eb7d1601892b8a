//! Choice of the events that are deleted.

use std::collections::BTreeMap;

use super::draft::Draft;
use crate::plan::{Effect, Reason};
use stormkeeper_coordination::cluster::{
    event::{EVENTS_KEPT, EventNumber},
    view::ClusterView,
};
use stormkeeper_model::{
    TopologyId,
    fair_share::{self, Shared},
};

/// Events are deleted when at least this many are over the limit, not one with each new event.
const OVER_LIMIT_MIN: usize = 50;

/// Plans to delete the events over the limit, if there are enough of them.
pub(super) fn delete_old(draft: &mut Draft<'_>) {
    if draft.view.events.len() >= EVENTS_KEPT + OVER_LIMIT_MIN {
        let numbers = over_limit(draft.view);
        draft.act(Effect::DeleteEvents { numbers }, Reason::EventsOverLimit, 0);
    }
}

/// Returns the events that give way to newer ones, in their order. Events of the cluster, and those of each
/// owner, have equal shares of what is kept: what happens to one owner does not push out the events of
/// others. Topologies whose owner no record and no event names share one part.
fn over_limit(view: &ClusterView) -> Vec<EventNumber> {
    let submits = view.events.values().filter_map(|event| Some((event.topology.as_ref()?, &event.submitted)));
    let mut owners: BTreeMap<&TopologyId, &str> = submits
        .filter_map(|(id, submitted)| Some((id, submitted.as_ref()?.owner.as_str())))
        .filter(|(_, owner)| !owner.is_empty())
        .collect();
    owners.extend(view.topologies.iter().map(|(id, record)| (id, record.value.owner.as_str())));
    let shared = view.events.iter().map(|(number, event)| {
        let topology = event.topology.as_ref();
        Shared { owner: topology.map(|id| owners.get(id)), topology, item: *number }
    });
    let mut numbers =
        fair_share::to_remove(shared, (EVENTS_KEPT, EVENTS_KEPT), |EventNumber(number)| *number);
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use stormkeeper_coordination::cluster::{
        event::{Event, Submitted},
        record::UnknownFields,
    };
    use stormkeeper_model::{Term, Timestamp, event::EventKind};

    fn event(topology: Option<&str>, owner: Option<&str>) -> Arc<Event> {
        let submitted = owner.map(|owner| Submitted { owner: owner.to_owned(), ..Submitted::default() });
        Arc::new(Event {
            time: Timestamp::from_millis(0),
            term: Term(1),
            nimbus: "n".parse().expect("valid"),
            event: EventKind::Moved,
            topology: topology.map(|id| id.parse().expect("valid")),
            reason: String::new(),
            by: None,
            moves: Vec::new(),
            moves_omitted: 0,
            submitted,
            unknown_fields: UnknownFields::new(),
        })
    }

    #[test]
    fn events_of_one_owner_do_not_push_out_those_of_others_and_of_the_cluster() {
        let mut view = ClusterView::default();
        let mut add = |n: usize, topology: Option<&str>, owner: Option<&str>| {
            for _ in 0..n {
                let number = EventNumber(view.events.len() as u64);
                view.events.insert(number, event(topology, owner));
            }
        };
        add(5, None, None);
        add(1, Some("busy-1-1"), Some("ann"));
        add(100, Some("busy-1-1"), None);
        add(3, Some("gone-1-1"), None);
        let first_of_bob = 109;
        for n in 0..60 {
            let id = format!("loud-{n}-1");
            add(1, Some(&id), Some("bob"));
            add(9, Some(&id), None);
        }
        let n_over = view.events.len() - EVENTS_KEPT;
        let deleted = over_limit(&view);
        assert_eq!(deleted.len(), n_over);
        assert!(deleted.is_sorted());
        assert!(deleted.iter().all(|number| number.0 >= first_of_bob), "{deleted:?}");
        let mut of_topologies = [0_usize; 60];
        for EventNumber(number) in &deleted {
            of_topologies[usize::try_from((number - first_of_bob) / 10).expect("small")] += 1;
        }
        let (most, least) = (of_topologies.iter().max(), of_topologies.iter().min());
        assert!(most <= least.map(|n| n + 1).as_ref(), "his topologies share: {of_topologies:?}");
    }
}
