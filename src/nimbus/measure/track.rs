//! What is to be kept of topologies and tasks, from what the tree says of them. Pure.
//!
//! A leader compares what it sees with what the archive was told last, by whichever leader. So
//! nothing is told twice, and what changed while nobody led is told by the next one.

use std::collections::BTreeMap;

use crate::{
    archive::{Event, HistoryEntry, TrackEntry},
    cluster::{event, record::Storm, view::ClusterView},
    model::{
        HostName, Port, TaskId, Timestamp, TopologyId,
        assignment::{AssignedWorker, Assignment},
        event::EventKind,
        status::TopologyStatus,
        topology::TaskTable,
    },
};

/// Where a task is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: HostName,
    pub(super) port: Port,
    pub(super) since: Timestamp,
}

/// What the archive knows of a topology.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    /// The rate that it was told; nothing was told yet when absent.
    pub(super) sample_rate: Option<f64>,
    pub(super) is_killed: bool,
    pub(super) places: BTreeMap<TaskId, Place>,
}

impl Known {
    /// As the archive tells it.
    pub(super) fn of(history: Option<&HistoryEntry>, track: Vec<TrackEntry>) -> Self {
        let open = track.into_iter().filter(|entry| entry.to.is_none());
        Self {
            sample_rate: history.map(|entry| entry.sample_rate),
            is_killed: history.is_some_and(|entry| entry.killed.is_some()),
            places: open
                .map(|entry| (entry.task, Place { host: entry.host, port: entry.port, since: entry.from }))
                .collect(),
        }
    }
}

/// A topology as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) storm: &'a Storm,
    pub(super) tasks: &'a TaskTable,
    pub(super) assignment: &'a Assignment,
    pub(super) sample_rate: f64,
}

/// What is to be told of a topology, and what the archive knows then. `seen` is absent when
/// there is no such topology any more.
pub(super) fn track(
    id: &TopologyId,
    before: &Known,
    seen: Option<Seen<'_>>,
    view: &ClusterView,
    now: Timestamp,
) -> (Vec<Event>, Known) {
    let (mut events, mut known) = (Vec::new(), before.clone());
    let told: Vec<&event::Event> = view
        .events
        .values()
        .map(|event| &**event)
        .filter(|event| event.topology.as_ref() == Some(id))
        .collect();
    if let Some(seen) = seen {
        life(id, &mut known, seen, &told, &mut events);
    }
    let nothing = Assignment::default();
    places(id, &mut known, seen, seen.map_or(&nothing, |seen| seen.assignment), (&told, now), &mut events);
    let is_over = seen.is_none_or(|seen| seen.storm.status == TopologyStatus::Killed);
    if is_over && !known.is_killed && known.sample_rate.is_some() {
        let last = told.iter().rev().find(|event| event.event == EventKind::Killed);
        events.push(Event::TopologyKilled {
            topology: id.clone(),
            at: last.map_or(now, |event| event.time),
            by: last.and_then(|event| event.by.clone()),
            reason: last.map_or_else(|| "its record is gone".to_owned(), |event| event.reason.clone()),
        });
        known.is_killed = true;
    }
    (events, known)
}

fn life(id: &TopologyId, known: &mut Known, seen: Seen<'_>, told: &[&event::Event], events: &mut Vec<Event>) {
    let last = |kind| told.iter().rev().find(move |event| event.event == kind);
    match known.sample_rate {
        None => {
            let by = last(EventKind::Submitted).and_then(|event| event.by.clone());
            events.push(Event::TopologyStarted {
                topology: id.clone(),
                name: seen.storm.name.clone(),
                at: seen.storm.launched,
                by: by.or_else(|| Some(seen.storm.owner.clone())),
                sample_rate: seen.sample_rate,
            });
        }
        Some(rate) if rate != seen.sample_rate => {
            let by = last(EventKind::Measured);
            events.push(Event::SampleRateChanged {
                topology: id.clone(),
                sample_rate: seen.sample_rate,
                at: by.map_or(seen.storm.launched, |event| event.time),
                by: by.and_then(|event| event.by.clone()),
            });
        }
        Some(_) => {}
    }
    known.sample_rate = Some(seen.sample_rate);
}

fn places(
    id: &TopologyId,
    known: &mut Known,
    seen: Option<Seen<'_>>,
    assignment: &Assignment,
    (told, now): (&[&event::Event], Timestamp),
    events: &mut Vec<Event>,
) {
    let mut left = std::mem::take(&mut known.places);
    for (slot, worker) in &assignment.workers {
        // Supervisors check their host names, so that one that is none was written by hand.
        let Ok(host) = worker.host.parse::<HostName>() else { continue };
        let place = Place { host, port: slot.port, since: worker.start };
        for task in worker.tasks.iter() {
            let component = seen.and_then(|seen| seen.tasks.component_of(task));
            let was = left.remove(&task);
            let Some(component) = component else { continue };
            if was.as_ref() != Some(&place) {
                events.push(Event::TaskPlaced {
                    topology: id.clone(),
                    task,
                    component: component.clone(),
                    host: place.host.clone(),
                    port: place.port,
                    at: place.since,
                    reason: why_placed(told, task, worker),
                });
            }
            known.places.insert(task, place.clone());
        }
    }
    for task in left.into_keys() {
        let last = told.iter().rev().find(|event| takes_away(event, task));
        events.push(Event::TaskGone {
            topology: id.clone(),
            task,
            at: last.map_or(now, |event| event.time),
            reason: last.map_or_else(|| "it has no place any more".to_owned(), |event| event.reason.clone()),
        });
    }
}

/// Whether the moves that an event tells, or left out, may hold `task`.
fn may_move(event: &event::Event, task: TaskId, has_place: bool) -> bool {
    let mut moves = event.moves.iter();
    event.moves_left_out > 0
        || moves.any(|moved| moved.tasks.contains(task) && moved.to.is_some() == has_place)
}

fn takes_away(event: &event::Event, task: TaskId) -> bool {
    match event.event {
        EventKind::Unassigned | EventKind::Killed | EventKind::Removed => true,
        EventKind::Moved | EventKind::Rebalanced => may_move(event, task, false),
        EventKind::Elected
        | EventKind::Resigned
        | EventKind::Submitted
        | EventKind::Activated
        | EventKind::Deactivated
        | EventKind::Rebalancing
        | EventKind::Placed
        | EventKind::Drained
        | EventKind::Undrained
        | EventKind::Measured
        | EventKind::MetricsLost
        | EventKind::Other => false,
    }
}

fn why_placed(told: &[&event::Event], task: TaskId, worker: &AssignedWorker) -> String {
    let kinds = [EventKind::Placed, EventKind::Moved, EventKind::Rebalanced];
    // One that was written before the worker's tasks were put there is about an earlier place.
    let fits = |event: &&&event::Event| {
        kinds.contains(&event.event) && event.time >= worker.start && may_move(event, task, true)
    };
    let first = told.iter().find(fits);
    first.map_or_else(|| "placed".to_owned(), |event| format!("{}: {}", event.event, event.reason))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::event::EventNumber,
        cluster::record::Rest,
        model::{BlobKey, Slot, Term, event::Move, task_set::TaskSet},
    };

    const NOW: Timestamp = Timestamp::from_millis(900);

    fn id() -> TopologyId {
        "wc-1-1".parse().expect("valid")
    }

    fn slot(port: u16) -> Slot {
        Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
    }

    fn storm(status: TopologyStatus) -> Storm {
        Storm {
            name: "wc".parse().expect("valid"),
            status,
            launched: Timestamp::from_millis(10),
            workers: 2,
            owner: "ann".to_owned(),
            blob: BlobKey::of(b"x"),
            message_timeout_secs: 30,
            pending: None,
            metrics: None,
            rest: Rest::new(),
        }
    }

    fn assignment(workers: &[(u16, u32, u32, u64)]) -> Assignment {
        let workers = workers.iter().map(|(port, first, last, start)| {
            let (tasks, start) = (TaskSet::range(*first, *last), Timestamp::from_millis(*start));
            (slot(*port), AssignedWorker { host: "h".to_owned(), tasks, start })
        });
        Assignment { workers: workers.collect() }
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
                moves_left_out: 0,
                submitted: None,
            };
            (EventNumber(number as u64), Arc::new(event))
        };
        ClusterView { events: events.iter().enumerate().map(event).collect(), ..ClusterView::default() }
    }

    fn table() -> TaskTable {
        TaskTable::number([("split".parse().expect("valid"), 2), ("count".parse().expect("valid"), 2)])
    }

    /// What is told, in short.
    fn short(events: &[Event]) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::TopologyStarted { at, by, sample_rate, .. } => {
                format!("started at {} by {by:?} {sample_rate}", at.as_millis())
            }
            Event::SampleRateChanged { sample_rate, at, .. } => {
                format!("rate {sample_rate} at {}", at.as_millis())
            }
            Event::TopologyKilled { at, by, reason, .. } => {
                format!("killed at {} by {by:?}: {reason}", at.as_millis())
            }
            Event::TaskPlaced { task, component, port, at, reason, .. } => {
                format!("{task} {component} to {port} at {}: {reason}", at.as_millis())
            }
            Event::TaskGone { task, at, reason, .. } => {
                format!("{task} gone at {}: {reason}", at.as_millis())
            }
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn a_topology_is_told_from_its_start_to_its_end_and_nothing_twice() {
        let tasks = table();
        let live = storm(TopologyStatus::Active);
        let seen = |storm, assignment| Some(Seen { storm, tasks: &tasks, assignment, sample_rate: 0.1 });
        let all = |from, to| vec![Move { tasks: TaskSet::range(1, 4), from, to }];
        let told = [
            (EventKind::Submitted, 10, "asked", Vec::new()),
            (EventKind::Placed, 21, "it had no place", all(None, Some(slot(1)))),
        ];
        let first = assignment(&[(1, 1, 2, 20), (2, 3, 4, 20)]);
        let (events, known) = track(&id(), &Known::default(), seen(&live, &first), &view(&told), NOW);
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
        let (events, again) = track(&id(), &known, seen(&live, &first), &view(&told), NOW);
        assert_eq!((events, &again), (Vec::new(), &known));

        let lost = vec![Move { tasks: TaskSet::range(3, 4), from: Some(slot(2)), to: Some(slot(3)) }];
        let told = [told[0].clone(), told[1].clone(), (EventKind::Moved, 51, "its host is gone", lost)];
        let moved = assignment(&[(1, 1, 2, 20), (3, 3, 4, 50)]);
        let (events, known) = track(&id(), &known, seen(&live, &moved), &view(&told), NOW);
        assert_eq!(
            short(&events),
            ["3 count to 3 at 50: moved: its host is gone", "4 count to 3 at 50: moved: its host is gone"]
        );

        let killed = storm(TopologyStatus::Killed);
        let told = [told[2].clone(), (EventKind::Killed, 70, "an operator asked for it", Vec::new())];
        let (events, known) = track(&id(), &known, seen(&killed, &moved), &view(&told), NOW);
        assert_eq!(short(&events), ["killed at 70 by Some(\"bob\"): an operator asked for it"]);
        let (events, known) = track(&id(), &known, None, &view(&told), NOW);
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!(short(&events[..1]), ["1 gone at 70: an operator asked for it"]);
        let (events, _) = track(&id(), &known, None, &view(&told), NOW);
        assert_eq!(events, []);
    }

    #[test]
    fn another_leader_goes_on_from_what_the_archive_has() {
        let tasks = table();
        let live = storm(TopologyStatus::Active);
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
        let known = Known::of(
            Some(&history),
            vec![entry(1, 20, None), entry(2, 5, Some(Timestamp::from_millis(20))), entry(3, 5, None)],
        );
        let seen = Seen { storm: &live, tasks: &tasks, assignment: &now_at, sample_rate: 0.5 };
        let (events, known) = track(&id(), &known, Some(seen), &view(&[]), NOW);
        assert_eq!(
            short(&events),
            ["rate 0.5 at 10", "2 split to 1 at 20: placed", "3 gone at 900: it has no place any more"]
        );
        let (events, _) = track(&id(), &known, None, &view(&[]), NOW);
        assert_eq!(
            short(&events),
            [
                "1 gone at 900: it has no place any more",
                "2 gone at 900: it has no place any more",
                "killed at 900 by None: its record is gone",
            ]
        );
        // What was never told to have begun is not told to have ended.
        assert_eq!(track(&id(), &Known::default(), None, &view(&[]), NOW).0, []);
    }
}
