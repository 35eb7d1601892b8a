//! Topologies that came and went between two looks at the cluster, from its events alone. Pure.
//!
//! What a topology was is in the event of its submit, where its tasks were in those of their
//! moves. Left out is what no event holds: moves beyond what fits into one, tasks that are not
//! in the submitted table, and the place of a supervisor that is gone as well.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    archive::Event,
    cluster::{event, layout, record::Supervisor, view::ClusterView},
    model::{
        ComponentId, HostName, Port, Slot, SupervisorId, TaskId, Timestamp, TopologyId,
        event::{EventKind, Move},
    },
};

/// Topologies that the events tell of from their submit to their removal, and that are not there,
/// each with its events. One whose submit is older than half of the time that the archive keeps
/// anything is left out: it may be forgotten already, and must not come back.
pub(super) fn gone(
    view: &ClusterView,
    now: Timestamp,
    kept: Duration,
) -> BTreeMap<&TopologyId, Vec<&event::Event>> {
    let mut told: BTreeMap<&TopologyId, Vec<&event::Event>> = BTreeMap::new();
    for event in view.events.values() {
        if let Some(topology) = &event.topology {
            told.entry(topology).or_default().push(event);
        }
    }
    told.retain(|id, events| {
        let is_removed = events.iter().any(|event| event.event == EventKind::Removed);
        let submitted = events.iter().find(|event| event.event == EventKind::Submitted);
        let is_recent = submitted.is_some_and(|event| now.since(event.time) <= kept / 2);
        // The parts of a view may be of different moments, so absence alone says nothing.
        is_removed && is_recent && !view.storms.contains_key(*id) && !view.is_unreadable(&layout::storm(id))
    });
    told
}

/// What the archive is to know of a topology that is gone. `rate` is what is sampled where its
/// settings do not say.
pub(super) fn retell(
    id: &TopologyId,
    told: &[&event::Event],
    supervisors: &BTreeMap<SupervisorId, Supervisor>,
    rate: f64,
) -> Vec<Event> {
    let of_kind = |kind| told.iter().find(|event| event.event == kind);
    let Some(first) = of_kind(EventKind::Submitted) else { return Vec::new() };
    let Ok(name) = TopologyId::name_in(id.as_str()).parse() else { return Vec::new() };
    let Some(last) = of_kind(EventKind::Killed).or_else(|| of_kind(EventKind::Removed)) else {
        return Vec::new();
    };
    let submitted = first.submitted.clone().unwrap_or_default();
    let owner = Some(submitted.owner).filter(|owner| !owner.is_empty());
    // Leaders' clocks differ; nothing happens to a topology before it is there.
    let end = last.time.max(first.time);
    let mut events = vec![Event::TopologyStarted {
        topology: id.clone(),
        name,
        at: first.time,
        by: first.by.clone().or(owner),
        sample_rate: submitted.sample_rate.unwrap_or(rate),
    }];
    let components: BTreeMap<TaskId, &ComponentId> =
        submitted.tasks.iter().map(|(component, task)| (task, component)).collect();
    for event in told {
        let at = event.time.clamp(first.time, end);
        for Move { tasks, to, .. } in &event.moves {
            // Without a place in between: the next one, or the end, ends the one before.
            let Some((host, port)) = to.as_ref().and_then(|slot| place(slot, supervisors)) else { continue };
            let known = tasks.iter().filter_map(|task| Some((task, *components.get(&task)?)));
            events.extend(known.map(|(task, component)| Event::TaskPlaced {
                topology: id.clone(),
                task,
                component: component.clone(),
                host: host.clone(),
                port,
                at,
                reason: format!("{}: {}", event.event, event.reason),
            }));
        }
    }
    events.push(Event::TopologyKilled {
        topology: id.clone(),
        at: end,
        by: last.by.clone(),
        reason: last.reason.clone(),
    });
    events
}

fn place(slot: &Slot, supervisors: &BTreeMap<SupervisorId, Supervisor>) -> Option<(HostName, Port)> {
    let supervisor = supervisors.get(&slot.supervisor)?;
    Some((supervisor.host.parse().ok()?, slot.port))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::{
            event::{EventNumber, Submitted},
            record::{Resources, Rest, Stored, Storm},
        },
        model::{BlobKey, Term, status::TopologyStatus, task_set::TaskSet, topology::TaskTable},
        tree::Version,
    };

    const KEPT: Duration = Duration::from_secs(1000);

    fn id() -> TopologyId {
        "word-count-7-1".parse().expect("valid")
    }

    fn slot(supervisor: &str, port: u16) -> Slot {
        Slot { supervisor: supervisor.parse().expect("valid"), port: Port(port) }
    }

    fn told(kind: EventKind, time: u64, moves: Vec<Move>) -> event::Event {
        event::Event {
            time: Timestamp::from_millis(time),
            term: Term(1),
            nimbus: "n".parse().expect("valid"),
            event: kind,
            topology: Some(id()),
            reason: format!("why {time}"),
            by: (kind == EventKind::Killed).then(|| "bob".to_owned()),
            moves,
            moves_left_out: 0,
            submitted: None,
        }
    }

    fn submitted(time: u64) -> event::Event {
        let tasks = TaskTable::number([("a".parse().expect("valid"), 1), ("b".parse().expect("valid"), 2)]);
        let submitted = Submitted { owner: "ann".to_owned(), sample_rate: Some(0.5), tasks };
        event::Event { submitted: Some(submitted), ..told(EventKind::Submitted, time, Vec::new()) }
    }

    fn moved(first: u32, last: u32, to: Option<Slot>) -> Move {
        Move { tasks: TaskSet::range(first, last), from: None, to }
    }

    fn view(events: Vec<event::Event>) -> ClusterView {
        let numbered = events.into_iter().enumerate();
        let supervisor = Supervisor {
            host: "h".to_owned(),
            ports: Vec::new(),
            resources: Resources { cpu_percent: 0, memory_mb: 0 },
            version: String::new(),
            start: Timestamp::EPOCH,
        };
        ClusterView {
            events: numbered.map(|(n, event)| (EventNumber(n as u64), Arc::new(event))).collect(),
            supervisors: [("s".parse().expect("valid"), supervisor)].into(),
            ..ClusterView::default()
        }
    }

    /// Those that are gone at a time, as they are retold.
    fn retold(view: &ClusterView, now: u64) -> Vec<Vec<Event>> {
        let gone = gone(view, Timestamp::from_millis(now), KEPT);
        gone.iter().map(|(id, told)| retell(id, told, &view.supervisors, 0.1)).collect()
    }

    fn short(events: &[Event]) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::TopologyStarted { name, at, by, sample_rate, .. } => {
                format!("{name} started at {} by {by:?} {sample_rate}", at.as_millis())
            }
            Event::TopologyKilled { at, by, reason, .. } => {
                format!("killed at {} by {by:?}: {reason}", at.as_millis())
            }
            Event::TaskPlaced { task, component, host, port, at, reason, .. } => {
                format!("{task} {component} to {host}:{port} at {}: {reason}", at.as_millis())
            }
            Event::SampleRateChanged { .. } | Event::TaskGone { .. } => format!("{event:?}"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn a_short_life_is_retold_from_its_events() {
        use EventKind::{Killed, Placed, Removed, Unassigned};
        let view = view(vec![
            submitted(10),
            // Task 9 is in no table, and the other supervisor is gone.
            told(Placed, 12, vec![moved(1, 2, Some(slot("s", 1))), moved(9, 9, Some(slot("s", 1)))]),
            told(Placed, 13, vec![moved(3, 3, Some(slot("other", 1))), moved(2, 2, None)]),
            // By a leader whose clock is ahead.
            told(EventKind::Moved, 99, vec![moved(1, 1, Some(slot("s", 2)))]),
            told(Killed, 20, Vec::new()),
            told(Unassigned, 21, Vec::new()),
            told(Removed, 22, Vec::new()),
        ]);
        let retold = retold(&view, 30);
        assert_eq!(retold.len(), 1);
        assert_eq!(
            short(&retold[0]),
            [
                "word-count started at 10 by Some(\"ann\") 0.5",
                "1 a to h:1 at 12: placed: why 12",
                "2 b to h:1 at 12: placed: why 12",
                "1 a to h:2 at 20: moved: why 99",
                "killed at 20 by Some(\"bob\"): why 20",
            ]
        );
    }

    #[test]
    fn an_older_version_tells_less() {
        let view = view(vec![
            told(EventKind::Submitted, 10, Vec::new()),
            told(EventKind::Placed, 12, vec![moved(1, 2, Some(slot("s", 1)))]),
            told(EventKind::Removed, 5, Vec::new()),
        ]);
        let expected = ["word-count started at 10 by None 0.1", "killed at 10 by None: why 5"];
        assert_eq!(short(&retold(&view, 30)[0]), expected);
    }

    #[test]
    fn only_what_is_gone_for_sure_and_not_forgotten_is_retold() {
        let life = |end| vec![submitted(10), told(EventKind::Killed, 20, Vec::new()), told(end, 22, vec![])];
        let check = |view: &ClusterView, now, n| assert_eq!(retold(view, now).len(), n, "{view:?} at {now}");
        let over = view(life(EventKind::Removed));
        check(&over, 30, 1);
        check(&over, 10 + 500_000, 1);
        check(&over, 10 + 500_001, 0);
        // Its end is not told yet.
        check(&view(life(EventKind::Unassigned)), 30, 0);
        // Its submit has left the list.
        let mut late = over.clone();
        late.events.pop_first();
        check(&late, 30, 0);
        let mut unclear = over.clone();
        unclear.unreadable.insert(layout::storm(&id()), "garbage".to_owned());
        check(&unclear, 30, 0);
        let storm = Storm {
            name: "word-count".parse().expect("valid"),
            status: TopologyStatus::Killed,
            launched: Timestamp::from_millis(10),
            workers: 1,
            owner: "ann".to_owned(),
            blob: BlobKey::of(b"x"),
            message_timeout_secs: 30,
            pending: None,
            metrics: None,
            rest: Rest::new(),
        };
        let mut there = over;
        there.storms.insert(id(), Stored { value: storm, version: Version::FIRST });
        check(&there, 30, 0);
    }
}
