//! Breaking of cycles that are full of tuples.
//!
//! The tasks of a cycle can all wait for room in each other's queues: then none of them takes a tuple any
//! more, and nobody frees the room. A task therefore waits for room only for a limited time if the receiver
//! is in a cycle with it. Then the tuple is not delivered there: if it is tracked, its trees fail, and
//! their spouts emit them again; if it is not, it is lost, and counted. Further tuples for the same
//! receiver do not wait until one finds room.
//!
//! A receiver in no cycle with the task is waited for without a limit: it takes tuples sooner or later, and
//! that is what slows the spouts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    errors::ErrorReporter,
    tracking::{Settled, Settlement, Tracker},
};
use stormkeeper_model::{
    ComponentId, TaskId,
    clock::{Clock, Monotonic},
    topology::{TaskTable, Topology},
};
use stormkeeper_stream::Anchor;

/// Period of the reports of a task about tuples that its cycle had no room for.
const REPORT_PERIOD: Duration = Duration::from_secs(60);

/// The components of a topology that are in a cycle with `component`, itself included if it is in one.
pub(crate) fn in_cycle_with(topology: &Topology, component: &ComponentId) -> BTreeSet<ComponentId> {
    let mut receivers: BTreeMap<&ComponentId, Vec<&ComponentId>> = BTreeMap::new();
    let mut emitters: BTreeMap<&ComponentId, Vec<&ComponentId>> = BTreeMap::new();
    for (receiver, declared) in &topology.components {
        for input in &declared.inputs {
            receivers.entry(&input.from).or_default().push(receiver);
            emitters.entry(receiver).or_default().push(&input.from);
        }
    }
    let after = reachable(component, &receivers);
    let before = reachable(component, &emitters);
    after.intersection(&before).map(|id| (*id).clone()).collect()
}

/// Components that are reached by one step or more.
fn reachable<'a>(
    from: &'a ComponentId,
    steps: &BTreeMap<&'a ComponentId, Vec<&'a ComponentId>>,
) -> BTreeSet<&'a ComponentId> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(one) = next.pop() {
        for to in steps.get(one).into_iter().flatten() {
            if found.insert(*to) {
                next.push(to);
            }
        }
    }
    found
}

/// The receivers of a task that are in a cycle with it, and what was not delivered to them.
#[derive(Debug)]
pub(crate) struct Cycle {
    component: ComponentId,
    task: TaskId,
    receivers: BTreeMap<TaskId, ComponentId>,
    limit: Duration,
    // Receivers for which the task has waited in vain, and that had no room since.
    full: BTreeSet<TaskId>,
    tracker: Option<Tracker>,
    errors: ErrorReporter,
    clock: Clock,
    n_failed: u64,
    n_lost: u64,
    reported: Option<Monotonic>,
}

impl Cycle {
    /// The cycle of a task, if it is in one. It waits for room for `limit`.
    pub(crate) fn of(
        (topology, table): (&Topology, &TaskTable),
        (component, task): (&ComponentId, TaskId),
        limit: Duration,
        tracker: Option<Tracker>,
        errors: ErrorReporter,
        clock: Clock,
    ) -> Option<Self> {
        let components = in_cycle_with(topology, component);
        let receivers = table.iter().filter(|(component, _)| components.contains(*component));
        let receivers: BTreeMap<_, _> =
            receivers.map(|(component, task)| (task, component.clone())).collect();
        (!receivers.is_empty()).then(|| Self {
            component: component.clone(),
            task,
            receivers,
            limit,
            full: BTreeSet::new(),
            tracker,
            errors,
            clock,
            n_failed: 0,
            n_lost: 0,
            reported: None,
        })
    }

    /// Returns for how long the task waits for room for `receiver`; `None` for as long as it takes.
    pub(super) fn limit(&self, receiver: TaskId) -> Option<Duration> {
        let limit = if self.full.contains(&receiver) { Duration::ZERO } else { self.limit };
        self.receivers.contains_key(&receiver).then_some(limit)
    }

    /// Notes that a tuple was delivered.
    pub(super) fn delivered<'a>(&mut self, receivers: impl Iterator<Item = &'a TaskId>) {
        if !self.full.is_empty() {
            receivers.for_each(|receiver| {
                self.full.remove(receiver);
            });
        }
    }

    /// Notes that a tuple was not delivered to `receivers` of one queue, and fails its trees.
    pub(super) fn give_up(&mut self, receivers: &[TaskId], anchors: &[Anchor]) {
        self.full.extend(receivers);
        match &self.tracker {
            Some(tracker) if !anchors.is_empty() => {
                self.n_failed += 1;
                let failed = |anchor: &Anchor| Settled {
                    acker: anchor.acker,
                    root: anchor.root,
                    settlement: Settlement::Failed,
                };
                tracker.settle(&mut anchors.iter().map(failed).collect());
            }
            _ => self.n_lost += receivers.len() as u64,
        }
        let now = self.clock.monotonic();
        if self.reported.is_none_or(|last| now.since(last) >= REPORT_PERIOD) {
            self.reported = Some(now);
            self.report(receivers);
        }
    }

    fn report(&self, receivers: &[TaskId]) {
        let Self { component, task, limit, n_failed, n_lost, .. } = self;
        let full = receivers.first().and_then(|receiver| self.receivers.get(receiver));
        let full = full.map_or("a receiver", ComponentId::as_str);
        let names: BTreeSet<&str> = self.receivers.values().map(ComponentId::as_str).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!(
            "task {task} of {component}: the queue for {full} had no room for {limit:?}, and {full} is in a cycle \
             with {component} (components: {names}), so both may wait for each other; tuples without room so far: \
             {n_failed} failed, {n_lost} of no tree lost; let a cycle emit less than it receives, or set \
             topology.max.spout.pending"
        );
        self.errors.report(component, *task, message, String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{
        StreamId,
        topology::{Component, ComponentKind, Grouping, Input, Run},
    };

    fn topology(edges: &[(&str, &str)]) -> Topology {
        let mut components: BTreeMap<ComponentId, Component> = BTreeMap::new();
        let id = |name: &str| name.parse().expect("valid");
        for (from, to) in edges {
            for name in [from, to] {
                components.entry(id(name)).or_insert_with(|| Component {
                    kind: ComponentKind::Bolt,
                    parallelism: 1,
                    run: Run::InWorker,
                    outputs: BTreeMap::new(),
                    inputs: Vec::new(),
                    settings: BTreeMap::new(),
                });
            }
            let input =
                Input { from: id(from), stream: StreamId::default_stream(), grouping: Grouping::Shuffle };
            components.get_mut(&id(to)).expect("there").inputs.push(input);
        }
        let name = "t".parse().expect("valid");
        Topology {
            name,
            settings: BTreeMap::new(),
            components,
            program: None,
            given_at_submission: Default::default(),
        }
    }

    #[test]
    fn only_components_on_a_way_there_and_back_are_in_a_cycle() {
        let topology = topology(&[
            ("in", "a"),
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "out"),
            ("self", "self"),
            ("out", "self"),
            // Both ways to the same place are no cycle.
            ("in", "out"),
        ]);
        let check = |component: &str, expected: &[&str]| {
            let found = in_cycle_with(&topology, &component.parse().expect("valid"));
            assert_eq!(found.iter().map(ComponentId::as_str).collect::<Vec<_>>(), expected, "{component}");
        };
        check("a", &["a", "b", "c"]);
        check("c", &["a", "b", "c"]);
        check("self", &["self"]);
        check("in", &[]);
        check("out", &[]);
    }
}
