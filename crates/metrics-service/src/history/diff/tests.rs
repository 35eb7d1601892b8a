//! Tests of the comparison, as tables of events.

use std::sync::Arc;

use super::*;
use stormkeeper_coordination::cluster::{event::EventNumber, record::UnknownFields};
use stormkeeper_model::{Slot, Term, event::Move, task_set::TaskSet};

const NOW: Timestamp = Timestamp::from_millis(900);

fn id() -> TopologyId {
    "wc-1-1".parse().expect("valid")
}

fn slot(port: u16) -> Slot {
    Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
}

fn topology_record(status: TopologyStatus) -> TopologyRecord {
    TopologyRecord {
        status,
        launched: Timestamp::from_millis(10),
        workers: 2,
        ..TopologyRecord::sample("wc")
    }
}

fn assignment(workers: &[(u16, u32, u32, u64)]) -> Assignment {
    let workers = workers.iter().map(|(port, first, last, start)| {
        let (tasks, start) = (TaskSet::range(*first, *last), Timestamp::from_millis(*start));
        (slot(*port), AssignedWorker { host: "h".to_owned(), tasks, start })
    });
    Assignment { workers: workers.collect(), unknown_fields: UnknownFields::new() }
}

fn view(events: &[(EventKind, u64, &str, Vec<Move>)]) -> ClusterView {
    let event = |(number, (event, time, reason, moves)): (usize, &(EventKind, u64, &str, Vec<Move>))| {
        let event = event::Event {
            time: Timestamp::from_millis(*time),
            term: Term(1),
            nimbus: "n".parse().expect("valid"),
            event: *event,
            topology: Some(id()),
            reason: (*reason).to_owned(),
            by: Some("bob".to_owned()),
            moves: moves.clone(),
            moves_omitted: 0,
            submitted: None,
            unknown_fields: UnknownFields::new(),
        };
        (EventNumber(number as u64), Arc::new(event))
    };
    ClusterView { events: events.iter().enumerate().map(event).collect(), ..ClusterView::default() }
}

fn table() -> TaskTable {
    TaskTable::number([("split".parse().expect("valid"), 2), ("count".parse().expect("valid"), 2)])
}

/// Events in short.
fn short(events: &[HistoryEvent]) -> Vec<String> {
    let text = |event: &HistoryEvent| match event {
        HistoryEvent::TopologyStarted { at, by, sample_rate, .. } => {
            format!("started at {} by {by:?} {sample_rate}", at.as_millis())
        }
        HistoryEvent::SampleRateChanged { sample_rate, at, .. } => {
            format!("rate {sample_rate} at {}", at.as_millis())
        }
        HistoryEvent::TopologyKilled { at, by, reason, .. } => {
            format!("killed at {} by {by:?}: {reason}", at.as_millis())
        }
        HistoryEvent::TaskPlaced { task, component, port, at, reason, .. } => {
            format!("{task} {component} to {port} at {}: {reason}", at.as_millis())
        }
        HistoryEvent::TaskGone { task, at, reason, .. } => {
            format!("{task} gone at {}: {reason}", at.as_millis())
        }
    };
    events.iter().map(text).collect()
}

#[test]
fn every_change_of_a_topology_is_recorded_exactly_once() {
    let tasks = table();
    let live = topology_record(TopologyStatus::Active);
    let observed = |topology_record, assignment| {
        Some(Observed { topology_record, tasks: &tasks, assignment, sample_rate: 0.1 })
    };
    let all = |from, to| vec![Move { tasks: TaskSet::range(1, 4), from, to }];
    let cluster_events = [
        (EventKind::Submitted, 10, "asked", Vec::new()),
        (EventKind::Placed, 21, "it had no place", all(None, Some(slot(1)))),
    ];
    let first = assignment(&[(1, 1, 2, 20), (2, 3, 4, 20)]);
    let (events, recorded) =
        diff(&id(), &Recorded::default(), observed(&live, &first), &view(&cluster_events), NOW);
    assert_eq!(
        short(&events),
        [
            "started at 10 by Some(\"bob\") 0.1",
            "1 split to 1 at 20: placed: it had no place",
            "2 split to 1 at 20: placed: it had no place",
            "3 count to 2 at 20: placed: it had no place",
            "4 count to 2 at 20: placed: it had no place",
        ]
    );
    let (events, again) = diff(&id(), &recorded, observed(&live, &first), &view(&cluster_events), NOW);
    assert_eq!((events, &again), (Vec::new(), &recorded));

    let lost = vec![Move { tasks: TaskSet::range(3, 4), from: Some(slot(2)), to: Some(slot(3)) }];
    let cluster_events = [
        cluster_events[0].clone(),
        cluster_events[1].clone(),
        (EventKind::Moved, 51, "its host is gone", lost),
    ];
    let moved = assignment(&[(1, 1, 2, 20), (3, 3, 4, 50)]);
    let (events, recorded) = diff(&id(), &recorded, observed(&live, &moved), &view(&cluster_events), NOW);
    assert_eq!(
        short(&events),
        ["3 count to 3 at 50: moved: its host is gone", "4 count to 3 at 50: moved: its host is gone"]
    );

    let killed = topology_record(TopologyStatus::Killed);
    let cluster_events =
        [cluster_events[2].clone(), (EventKind::Killed, 70, "an operator asked for it", Vec::new())];
    let (events, recorded) = diff(&id(), &recorded, observed(&killed, &moved), &view(&cluster_events), NOW);
    assert_eq!(short(&events), ["killed at 70 by Some(\"bob\"): an operator asked for it"]);
    let (events, recorded) = diff(&id(), &recorded, None, &view(&cluster_events), NOW);
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(short(&events[..1]), ["1 gone at 70: an operator asked for it"]);
    let (events, _) = diff(&id(), &recorded, None, &view(&cluster_events), NOW);
    assert_eq!(events, []);
}

#[test]
fn next_leader_continues_from_the_recorded_history() {
    let tasks = table();
    let live = topology_record(TopologyStatus::Active);
    let now_at = assignment(&[(1, 1, 2, 20)]);
    let entry = |task, from, to| TrackEntry {
        task: TaskId(task),
        component: "count".parse().expect("valid"),
        host: "h".parse().expect("valid"),
        port: Port(1),
        from: Timestamp::from_millis(from),
        to,
        reason: String::new(),
        ended: String::new(),
    };
    let history = HistoryEntry {
        topology: id(),
        name: "wc".parse().expect("valid"),
        started: Timestamp::from_millis(10),
        started_by: None,
        killed: None,
        killed_by: None,
        reason: String::new(),
        sample_rate: 0.1,
    };
    let recorded = Recorded::of(
        Some(&history),
        vec![entry(1, 20, None), entry(2, 5, Some(Timestamp::from_millis(20))), entry(3, 5, None)],
    );
    let observed = Observed { topology_record: &live, tasks: &tasks, assignment: &now_at, sample_rate: 0.5 };
    let (events, recorded) = diff(&id(), &recorded, Some(observed), &view(&[]), NOW);
    assert_eq!(
        short(&events),
        ["rate 0.5 at 10", "2 split to 1 at 20: placed", "3 gone at 900: the task is not assigned any more"]
    );
    let (events, _) = diff(&id(), &recorded, None, &view(&[]), NOW);
    assert_eq!(
        short(&events),
        [
            "1 gone at 900: the task is not assigned any more",
            "2 gone at 900: the task is not assigned any more",
            "killed at 900 by None: the topology record is gone",
        ]
    );
    // The end of a topology without a recorded start is not recorded.
    assert_eq!(diff(&id(), &Recorded::default(), None, &view(&[]), NOW).0, []);
}
