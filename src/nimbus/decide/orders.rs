//! Orders say what the assignments say, seen from each supervisor.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{layout, record::Orders, view::ClusterView},
    model::{SupervisorId, TopologyId},
    nimbus::{
        decide::draft::Draft,
        plan::{Effect, OrdersBefore, OrdersChange, Reason},
    },
    tree::Version,
};

type Assigned = BTreeMap<TopologyId, (Version, BTreeSet<SupervisorId>)>;

/// The orders of every supervisor, as they are after the actions decided so far.
pub(super) struct OrdersBook {
    entries: BTreeMap<SupervisorId, (OrdersBefore, Orders)>,
    /// Orders that cannot be read, while an assignment cannot be read either: what to write
    /// there is not known.
    blocked: BTreeSet<SupervisorId>,
}

impl OrdersBook {
    pub(super) fn new(view: &ClusterView, assigned: &Assigned) -> Self {
        let mut entries: BTreeMap<_, _> = view
            .orders
            .iter()
            .map(|(id, orders)| (id.clone(), (OrdersBefore::At(orders.version), orders.value.clone())))
            .collect();
        let unreadable: BTreeSet<SupervisorId> = (view.unreadable.keys())
            .filter(|path| path.parent() == Some(layout::orders_root()))
            .filter_map(|path| path.name().parse().ok())
            .collect();
        if !unreadable_assignments(view).is_empty() {
            return Self { entries, blocked: unreadable };
        }
        let mut expected = expected(assigned);
        for id in unreadable {
            let orders = expected.remove(&id).unwrap_or_default();
            entries.insert(id, (OrdersBefore::Unreadable, orders));
        }
        Self { entries, blocked: BTreeSet::new() }
    }

    /// The change that makes the orders of `supervisor` name `id` at `version`, or not at
    /// all; `None` when they do already.
    ///
    /// # Errors
    /// The supervisor, when its orders cannot be written.
    pub(super) fn with(
        &self,
        supervisor: &SupervisorId,
        id: &TopologyId,
        version: Option<Version>,
    ) -> Result<Option<OrdersChange>, SupervisorId> {
        if self.blocked.contains(supervisor) {
            return Err(supervisor.clone());
        }
        let entry = self.entries.get(supervisor);
        let (before, mut orders) = entry
            .map_or((OrdersBefore::Absent, Orders::default()), |(before, orders)| (*before, orders.clone()));
        let had = match version {
            Some(version) => orders.topologies.insert(id.clone(), version),
            None => orders.topologies.remove(id),
        };
        let change = OrdersChange { supervisor: supervisor.clone(), before, after: Some(orders) };
        Ok((had != version).then_some(change))
    }

    /// Whether the orders of `supervisor` cannot be written.
    pub(super) fn is_blocked(&self, supervisor: &SupervisorId) -> bool {
        self.blocked.contains(supervisor)
    }

    pub(super) fn apply(&mut self, changes: &[OrdersChange]) {
        for OrdersChange { supervisor, before, after } in changes {
            let Some(orders) = after else {
                self.entries.remove(supervisor);
                continue;
            };
            let before = match before {
                OrdersBefore::Absent => OrdersBefore::At(Version::FIRST),
                OrdersBefore::At(version) => OrdersBefore::At(version.next()),
                OrdersBefore::Unreadable => OrdersBefore::Unreadable,
            };
            self.entries.insert(supervisor.clone(), (before, orders.clone()));
        }
    }
}

/// Rewrites the orders that differ from what the assignments say, creates those that are
/// missing, and deletes the empty ones of supervisors that are not there.
pub(super) fn correct(draft: &mut Draft<'_>) {
    let hidden = unreadable_assignments(draft.view);
    let mut expected = expected(&draft.assigned);
    for supervisor in draft.orders.entries.keys() {
        expected.entry(supervisor.clone()).or_default();
    }
    let rewritten: BTreeSet<SupervisorId> = (draft.plan.actions.iter())
        .flat_map(|action| action.effect.orders())
        .map(|change| change.supervisor.clone())
        .collect();
    for (supervisor, mut expected) in expected {
        if draft.orders.is_blocked(&supervisor) {
            continue;
        }
        let entry = draft.orders.entries.get(&supervisor);
        let (before, now) = entry.map_or((OrdersBefore::Absent, None), |(before, now)| (*before, Some(now)));
        // What an unreadable assignment says is not known, so the orders' word stands.
        let kept = now.into_iter().flat_map(|now| &now.topologies).filter(|(id, _)| hidden.contains(*id));
        expected.topologies.extend(kept.map(|(id, version)| (id.clone(), *version)));
        let is_there = draft.view.supervisors.contains_key(&supervisor)
            || draft.view.is_unreadable(&layout::supervisor(&supervisor));
        let after = match now {
            None if expected.topologies.is_empty() => continue,
            Some(_) if expected.topologies.is_empty() && !is_there => None,
            Some(now) if *now == expected && before != OrdersBefore::Unreadable => continue,
            // Already written anew by an action of this plan.
            Some(now) if *now == expected && rewritten.contains(&supervisor) => continue,
            Some(_) | None => Some(expected),
        };
        let change = OrdersChange { supervisor, before, after };
        draft.act(Effect::CorrectOrders(change), Reason::OrdersDiffer, 0);
    }
}

/// What the readable assignments say to each supervisor that they name.
fn expected(assigned: &Assigned) -> BTreeMap<SupervisorId, Orders> {
    let mut expected: BTreeMap<SupervisorId, Orders> = BTreeMap::new();
    for (id, (version, supervisors)) in assigned {
        for supervisor in supervisors {
            expected.entry(supervisor.clone()).or_default().topologies.insert(id.clone(), *version);
        }
    }
    expected
}

/// The topologies whose assignment is there and cannot be read.
pub(super) fn unreadable_assignments(view: &ClusterView) -> BTreeSet<TopologyId> {
    (view.unreadable.keys())
        .filter(|path| path.parent() == Some(layout::assignments()))
        .filter_map(|path| path.name().parse().ok())
        .collect()
}
