//! Backfill of topologies that were submitted and removed between two views, from the list of
//! cluster events alone. Pure.
//!
//! The submit event says whose topology it was, the move events say where its tasks were. The
//! backfill leaves out what no event contains: moves beyond the limit of one event, tasks that are
//! not in the submitted table, and locations on supervisors that are gone too.

use std::{collections::BTreeMap, time::Duration};

use stormkeeper_coordination::cluster::{event, layout, record::SupervisorRecord, view::ClusterView};
use stormkeeper_metric_store::HistoryEvent;
use stormkeeper_model::{
    ComponentId, HostName, Port, Slot, SupervisorId, TaskId, Timestamp, TopologyId,
    event::{EventKind, Move},
};

/// Returns the topologies that no longer exist and whose events reach from the submit to the
/// removal, with their events. A topology whose submit is older than half of the longest retention
/// is left out: the store may have deleted it already, and it must not come back.
pub(crate) fn removed_topologies(
    view: &ClusterView,
    now: Timestamp,
    kept: Duration,
) -> BTreeMap<&TopologyId, Vec<&event::Event>> {
    let mut cluster_events: BTreeMap<&TopologyId, Vec<&event::Event>> = BTreeMap::new();
    for event in view.events.values() {
        if let Some(topology) = &event.topology {
            cluster_events.entry(topology).or_default().push(event);
        }
    }
    cluster_events.retain(|id, events| {
        let is_removed = events.iter().any(|event| event.event == EventKind::Removed);
        let submitted = events.iter().find(|event| event.event == EventKind::Submitted);
        let is_recent = submitted.is_some_and(|event| now.since(event.time) <= kept / 2);
        // The parts of a view may be of different moments, so absence alone is no evidence.
        is_removed
            && is_recent
            && !view.topologies.contains_key(*id)
            && !view.is_unreadable(&layout::storm(id))
    });
    cluster_events
}

/// Reconstructs the history of a removed topology. `rate` is the sample rate if the topology does
/// not set its own.
pub(crate) fn reconstruct_events(
    id: &TopologyId,
    cluster_events: &[&event::Event],
    supervisors: &BTreeMap<SupervisorId, SupervisorRecord>,
    rate: f64,
) -> Vec<HistoryEvent> {
    let of_kind = |kind| cluster_events.iter().find(|event| event.event == kind);
    let Some(first) = of_kind(EventKind::Submitted) else { return Vec::new() };
    let Ok(name) = TopologyId::name_in(id.as_str()).parse() else { return Vec::new() };
    let Some(last) = of_kind(EventKind::Killed).or_else(|| of_kind(EventKind::Removed)) else {
        return Vec::new();
    };
    let submitted = first.submitted.clone().unwrap_or_default();
    let owner = Some(submitted.owner).filter(|owner| !owner.is_empty());
    // The clocks of leaders differ; no event of a topology is earlier than its submit.
    let end = last.time.max(first.time);
    let mut events = vec![HistoryEvent::TopologyStarted {
        topology: id.clone(),
        name,
        at: first.time,
        by: first.by.clone().or(owner),
        sample_rate: submitted.sample_rate.unwrap_or(rate),
    }];
    let components: BTreeMap<TaskId, &ComponentId> =
        submitted.tasks.iter().map(|(component, task)| (task, component)).collect();
    for event in cluster_events {
        let at = event.time.clamp(first.time, end);
        for Move { tasks, to, .. } in &event.moves {
            // A move without a known destination is skipped: the next location of the task, or its
            // end, ends the previous location.
            let Some((host, port)) = to.as_ref().and_then(|slot| location(slot, supervisors)) else {
                continue;
            };
            let known = tasks.iter().filter_map(|task| Some((task, *components.get(&task)?)));
            events.extend(known.map(|(task, component)| HistoryEvent::TaskPlaced {
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
    events.push(HistoryEvent::TopologyKilled {
        topology: id.clone(),
        at: end,
        by: last.by.clone(),
        reason: last.reason.clone(),
    });
    events
}

fn location(slot: &Slot, supervisors: &BTreeMap<SupervisorId, SupervisorRecord>) -> Option<(HostName, Port)> {
    let supervisor = supervisors.get(&slot.supervisor)?;
    Some((supervisor.host.parse().ok()?, slot.port))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use stormkeeper_coordination::{
        cluster::{
            event::{EventNumber, Submitted},
            record::{Defect, Resources, Stored, TopologyRecord},
        },
        tree::Version,
    };
    use stormkeeper_model::{Term, status::TopologyStatus, task_set::TaskSet, topology::TaskTable};

    const KEPT: Duration = Duration::from_secs(1000);

    fn id() -> TopologyId {
        "word-count-7-1".parse().expect("valid")
    }

    fn slot(supervisor: &str, port: u16) -> Slot {
        Slot { supervisor: supervisor.parse().expect("valid"), port: Port(port) }
    }

    fn event_of(kind: EventKind, time: u64, moves: Vec<Move>) -> event::Event {
        event::Event {
            time: Timestamp::from_millis(time),
            term: Term(1),
            nimbus: "n".parse().expect("valid"),
            event: kind,
            topology: Some(id()),
            reason: format!("why {time}"),
            by: (kind == EventKind::Killed).then(|| "bob".to_owned()),
            moves,
            moves_omitted: 0,
            submitted: None,
            unknown_fields: Default::default(),
        }
    }

    fn submitted(time: u64) -> event::Event {
        let tasks = TaskTable::number([("a".parse().expect("valid"), 1), ("b".parse().expect("valid"), 2)]);
        let submitted = Submitted { owner: "ann".to_owned(), sample_rate: Some(0.5), tasks };
        event::Event { submitted: Some(submitted), ..event_of(EventKind::Submitted, time, Vec::new()) }
    }

    fn moved(first: u32, last: u32, to: Option<Slot>) -> Move {
        Move { tasks: TaskSet::range(first, last), from: None, to }
    }

    fn view(events: Vec<event::Event>) -> ClusterView {
        let numbered = events.into_iter().enumerate();
        let supervisor = SupervisorRecord {
            host: "h".to_owned(),
            ports: Vec::new(),
            resources: Resources { cpu_percent: 0, memory_mb: 0 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: String::new(),
            start: Timestamp::EPOCH,
            announces_stop: false,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        ClusterView {
            events: numbered.map(|(n, event)| (EventNumber(n as u64), Arc::new(event))).collect(),
            supervisors: [("s".parse().expect("valid"), supervisor)].into(),
            ..ClusterView::default()
        }
    }

    /// Reconstructed histories of the topologies that are gone at a time.
    fn reconstructed(view: &ClusterView, now: u64) -> Vec<Vec<HistoryEvent>> {
        let removed = removed_topologies(view, Timestamp::from_millis(now), KEPT);
        removed
            .iter()
            .map(|(id, cluster_events)| reconstruct_events(id, cluster_events, &view.supervisors, 0.1))
            .collect()
    }

    fn short(events: &[HistoryEvent]) -> Vec<String> {
        let text = |event: &HistoryEvent| match event {
            HistoryEvent::TopologyStarted { name, at, by, sample_rate, .. } => {
                format!("{name} started at {} by {by:?} {sample_rate}", at.as_millis())
            }
            HistoryEvent::TopologyKilled { at, by, reason, .. } => {
                format!("killed at {} by {by:?}: {reason}", at.as_millis())
            }
            HistoryEvent::TaskPlaced { task, component, host, port, at, reason, .. } => {
                format!("{task} {component} to {host}:{port} at {}: {reason}", at.as_millis())
            }
            HistoryEvent::SampleRateChanged { .. } | HistoryEvent::TaskGone { .. } => format!("{event:?}"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn history_of_a_short_lived_topology_is_reconstructed_from_its_events() {
        use EventKind::{Killed, Placed, Removed, Unassigned};
        let view = view(vec![
            submitted(10),
            // Task 9 is not in the table, and the other supervisor is gone.
            event_of(Placed, 12, vec![moved(1, 2, Some(slot("s", 1))), moved(9, 9, Some(slot("s", 1)))]),
            event_of(Placed, 13, vec![moved(3, 3, Some(slot("other", 1))), moved(2, 2, None)]),
            // From a leader whose clock is ahead.
            event_of(EventKind::Moved, 99, vec![moved(1, 1, Some(slot("s", 2)))]),
            event_of(Killed, 20, Vec::new()),
            event_of(Unassigned, 21, Vec::new()),
            event_of(Removed, 22, Vec::new()),
        ]);
        let found = reconstructed(&view, 30);
        assert_eq!(found.len(), 1);
        assert_eq!(
            short(&found[0]),
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
    fn events_of_an_older_version_reconstruct_start_and_end_only() {
        let view = view(vec![
            event_of(EventKind::Submitted, 10, Vec::new()),
            event_of(EventKind::Placed, 12, vec![moved(1, 2, Some(slot("s", 1)))]),
            event_of(EventKind::Removed, 5, Vec::new()),
        ]);
        let expected = ["word-count started at 10 by None 0.1", "killed at 10 by None: why 5"];
        assert_eq!(short(&reconstructed(&view, 30)[0]), expected);
    }

    #[test]
    fn only_topologies_removed_within_the_retention_are_reconstructed() {
        let life =
            |end| vec![submitted(10), event_of(EventKind::Killed, 20, Vec::new()), event_of(end, 22, vec![])];
        let check =
            |view: &ClusterView, now, n| assert_eq!(reconstructed(view, now).len(), n, "{view:?} at {now}");
        let over = view(life(EventKind::Removed));
        check(&over, 30, 1);
        check(&over, 10 + 500_000, 1);
        check(&over, 10 + 500_001, 0);
        // No event of its removal yet.
        check(&view(life(EventKind::Unassigned)), 30, 0);
        // The submit event has left the list.
        let mut late = over.clone();
        late.events.pop_first();
        check(&late, 30, 0);
        let mut unclear = over.clone();
        unclear.unreadable.insert(layout::storm(&id()), Defect::damage("garbage"));
        check(&unclear, 30, 0);
        let topology_record = TopologyRecord {
            status: TopologyStatus::Killed,
            launched: Timestamp::from_millis(10),
            ..TopologyRecord::sample("word-count")
        };
        let mut there = over;
        there.topologies.insert(id(), Stored { value: topology_record, version: Version::FIRST });
        check(&there, 30, 0);
    }
}
