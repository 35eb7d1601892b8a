//! Diff between the cluster view and the recorded history of topologies and tasks. Pure.
//!
//! The leader compares the cluster view with the history that this or an earlier leader recorded
//! last. A change is therefore recorded exactly once, and changes while there was no leader are
//! recorded by the next leader.

use std::collections::BTreeMap;

use stormkeeper_coordination::cluster::{event, record::TopologyRecord, view::ClusterView};
use stormkeeper_metric_store::{HistoryEntry, HistoryEvent, TrackEntry};
use stormkeeper_model::{
    HostName, Port, TaskId, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    event::EventKind,
    status::TopologyStatus,
    topology::TaskTable,
};

/// Location of a task, and the time since which the task runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskLocation {
    pub(crate) host: HostName,
    pub(crate) port: Port,
    pub(crate) since: Timestamp,
}

/// Recorded history of a topology.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recorded {
    /// Recorded sample rate; absent if nothing was recorded yet.
    pub(crate) sample_rate: Option<f64>,
    pub(crate) is_killed: bool,
    pub(crate) locations: BTreeMap<TaskId, TaskLocation>,
}

impl Recorded {
    /// Builds the recorded history from the entries of the metric store.
    pub(crate) fn of(history: Option<&HistoryEntry>, track: Vec<TrackEntry>) -> Self {
        let open = track.into_iter().filter(|entry| entry.to.is_none());
        Self {
            sample_rate: history.map(|entry| entry.sample_rate),
            is_killed: history.is_some_and(|entry| entry.killed.is_some()),
            locations: open
                .map(|entry| {
                    (entry.task, TaskLocation { host: entry.host, port: entry.port, since: entry.from })
                })
                .collect(),
        }
    }
}

/// Topology as the cluster view shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed<'a> {
    pub(crate) topology_record: &'a TopologyRecord,
    pub(crate) tasks: &'a TaskTable,
    pub(crate) assignment: &'a Assignment,
    pub(crate) sample_rate: f64,
}

/// Returns the events to record for a topology, and the recorded history after them. `observed` is
/// absent if the topology no longer exists.
pub(crate) fn diff(
    id: &TopologyId,
    before: &Recorded,
    observed: Option<Observed<'_>>,
    view: &ClusterView,
    now: Timestamp,
) -> (Vec<HistoryEvent>, Recorded) {
    let (mut events, mut recorded) = (Vec::new(), before.clone());
    let cluster_events: Vec<&event::Event> = view
        .events
        .values()
        .map(|event| &**event)
        .filter(|event| event.topology.as_ref() == Some(id))
        .collect();
    if let Some(observed) = observed {
        diff_topology(id, &mut recorded, observed, &cluster_events, &mut events);
    }
    let nothing = Assignment::default();
    diff_tasks(
        id,
        &mut recorded,
        observed,
        observed.map_or(&nothing, |observed| observed.assignment),
        (&cluster_events, now),
        &mut events,
    );
    let is_over = observed.is_none_or(|observed| observed.topology_record.status == TopologyStatus::Killed);
    if is_over && !recorded.is_killed && recorded.sample_rate.is_some() {
        let last = cluster_events.iter().rev().find(|event| event.event == EventKind::Killed);
        events.push(HistoryEvent::TopologyKilled {
            topology: id.clone(),
            at: last.map_or(now, |event| event.time),
            by: last.and_then(|event| event.by.clone()),
            reason: last
                .map_or_else(|| "the topology record is gone".to_owned(), |event| event.reason.clone()),
        });
        recorded.is_killed = true;
    }
    (events, recorded)
}

fn diff_topology(
    id: &TopologyId,
    recorded: &mut Recorded,
    observed: Observed<'_>,
    cluster_events: &[&event::Event],
    events: &mut Vec<HistoryEvent>,
) {
    let last = |kind| cluster_events.iter().rev().find(move |event| event.event == kind);
    match recorded.sample_rate {
        None => {
            let by = last(EventKind::Submitted).and_then(|event| event.by.clone());
            events.push(HistoryEvent::TopologyStarted {
                topology: id.clone(),
                name: observed.topology_record.name.clone(),
                at: observed.topology_record.launched,
                by: by.or_else(|| Some(observed.topology_record.owner.clone())),
                sample_rate: observed.sample_rate,
            });
        }
        Some(rate) if rate != observed.sample_rate => {
            let by = last(EventKind::MetricsChanged);
            events.push(HistoryEvent::SampleRateChanged {
                topology: id.clone(),
                sample_rate: observed.sample_rate,
                at: by.map_or(observed.topology_record.launched, |event| event.time),
                by: by.and_then(|event| event.by.clone()),
            });
        }
        Some(_) => {}
    }
    recorded.sample_rate = Some(observed.sample_rate);
}

fn diff_tasks(
    id: &TopologyId,
    recorded: &mut Recorded,
    observed: Option<Observed<'_>>,
    assignment: &Assignment,
    (cluster_events, now): (&[&event::Event], Timestamp),
    events: &mut Vec<HistoryEvent>,
) {
    let mut left = std::mem::take(&mut recorded.locations);
    for (slot, worker) in &assignment.workers {
        // Supervisors check their host names: an invalid name was written by hand.
        let Ok(host) = worker.host.parse::<HostName>() else { continue };
        let location = TaskLocation { host, port: slot.port, since: worker.start };
        for task in worker.tasks.iter() {
            let component = observed.and_then(|observed| observed.tasks.component_of(task));
            let was = left.remove(&task);
            let Some(component) = component else { continue };
            if was.as_ref() != Some(&location) {
                events.push(HistoryEvent::TaskPlaced {
                    topology: id.clone(),
                    task,
                    component: component.clone(),
                    host: location.host.clone(),
                    port: location.port,
                    at: location.since,
                    reason: placement_reason(cluster_events, task, worker),
                });
            }
            recorded.locations.insert(task, location.clone());
        }
    }
    for task in left.into_keys() {
        let last = cluster_events.iter().rev().find(|event| ends_location(event, task));
        events.push(HistoryEvent::TaskGone {
            topology: id.clone(),
            task,
            at: last.map_or(now, |event| event.time),
            reason: last
                .map_or_else(|| "the task is not assigned any more".to_owned(), |event| event.reason.clone()),
        });
    }
}

/// True if the moves of an event, or the moves left out of it, may contain `task`.
fn may_move(event: &event::Event, task: TaskId, has_place: bool) -> bool {
    let mut moves = event.moves.iter();
    event.moves_omitted > 0
        || moves.any(|moved| moved.tasks.contains(task) && moved.to.is_some() == has_place)
}

fn ends_location(event: &event::Event, task: TaskId) -> bool {
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
        | EventKind::MetricsChanged
        | EventKind::LogLevelsChanged
        | EventKind::SamplesChanged
        | EventKind::Updating
        | EventKind::Updated
        | EventKind::UpdateFailed
        | EventKind::CredentialsChanged
        | EventKind::UncleanMetricTakeover
        | EventKind::Other => false,
    }
}

fn placement_reason(cluster_events: &[&event::Event], task: TaskId, worker: &AssignedWorker) -> String {
    let kinds = [EventKind::Placed, EventKind::Moved, EventKind::Rebalanced];
    // An event from before the placement of the worker's tasks is about an earlier placement.
    let fits = |event: &&&event::Event| {
        kinds.contains(&event.event) && event.time >= worker.start && may_move(event, task, true)
    };
    let first = cluster_events.iter().find(fits);
    first.map_or_else(|| "placed".to_owned(), |event| format!("{}: {}", event.event, event.reason))
}

#[cfg(test)]
mod tests;
