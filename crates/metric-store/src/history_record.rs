//! Recorded history of topologies and track of tasks: the records that events leave behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::{
    Error, HistoryEntry, HistoryEvent, TrackEntry,
    key::{self, Table},
    record,
    store::{Batch, View},
};
use stormkeeper_model::{TaskId, Timestamp, TopologyId};

/// Maximum number of placements kept for one task, the last ones. For a task that moves every few
/// seconds these are its last minutes; for one that moves once a week they go back as far as its
/// metrics. With reasons of maximum length these are 200 KiB, usually 20.
const PLACEMENTS_MAX: usize = 100;

/// Records events. An event that was recorded before, or is older than the record, has no effect.
pub(super) fn record_events(
    view: &View<'_>,
    events: &[HistoryEvent],
    batch: &mut Batch<'_>,
) -> Result<(), Error> {
    let mut recorder =
        EventRecorder { view, places: BTreeMap::new(), closed: Vec::new(), topologies: BTreeMap::new() };
    for event in events {
        recorder.record(event)?;
    }
    let EventRecorder { places, closed, topologies, .. } = recorder;
    let moved: BTreeSet<(TopologyId, TaskId)> =
        closed.iter().map(|(topology, track)| (topology.clone(), track.task)).collect();
    let places = places.into_iter().filter_map(|((topology, _), track)| Some((topology, track?)));
    let mut tracks: BTreeMap<Vec<u8>, TrackEntry> = (closed.into_iter().chain(places))
        .map(|(topology, track)| (key::track(&topology, track.task, track.from), track))
        .collect();
    for (topology, task) in moved {
        for old in surplus_placements(view, &topology, task, &tracks)? {
            tracks.remove(&old);
            batch.delete(Table::State, &old);
        }
    }
    for (key, track) in tracks {
        batch.put(Table::State, &key, &record::encode(&track));
    }
    for entry in topologies.into_values().flatten() {
        batch.put(Table::State, &key::started(&entry.topology), &record::encode(&entry.started));
        batch.put(Table::State, &key::history(entry.started, &entry.topology), &record::encode(&entry));
    }
    Ok(())
}

/// Returns the keys of a task's placements beyond the maximum, once those in `tracks` are written.
fn surplus_placements(
    view: &View<'_>,
    topology: &TopologyId,
    task: TaskId,
    tracks: &BTreeMap<Vec<u8>, TrackEntry>,
) -> Result<Vec<Vec<u8>>, Error> {
    let (first, end) = key::tracks(topology, Some(task));
    // Keys sort by time.
    let mut keys: BTreeSet<Vec<u8>> =
        tracks.range(first.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
    view.scan(Table::State, &(first, end), |key, _| {
        keys.insert(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    let n_beyond = keys.len().saturating_sub(PLACEMENTS_MAX);
    Ok(keys.into_iter().take(n_beyond).collect())
}

/// Removes a topology from the history.
pub(super) fn remove_history(
    view: &View<'_>,
    topology: &TopologyId,
    batch: &mut Batch<'_>,
) -> Result<(), Error> {
    if let Some(started) = view.get(Table::State, &key::started(topology))? {
        let started: Timestamp = record::decode("the start of a topology", &started)?;
        batch.delete(Table::State, &key::started(topology));
        batch.delete(Table::State, &key::history(started, topology));
    }
    Ok(())
}

/// Records the events of one entry; each event sees the effects of the events before it.
struct EventRecorder<'a> {
    view: &'a View<'a>,
    /// Last placement of each task that was read.
    places: BTreeMap<(TopologyId, TaskId), Option<TrackEntry>>,
    /// Placements before the last one.
    closed: Vec<(TopologyId, TrackEntry)>,
    topologies: BTreeMap<TopologyId, Option<HistoryEntry>>,
}

impl EventRecorder<'_> {
    fn record(&mut self, event: &HistoryEvent) -> Result<(), Error> {
        match event {
            HistoryEvent::TopologyStarted { topology, name, at, by, sample_rate } => {
                let entry = self.topology(topology)?;
                entry.get_or_insert_with(|| HistoryEntry {
                    topology: topology.clone(),
                    name: name.clone(),
                    started: *at,
                    started_by: by.clone(),
                    killed: None,
                    killed_by: None,
                    reason: String::new(),
                    sample_rate: *sample_rate,
                });
            }
            HistoryEvent::SampleRateChanged { topology, sample_rate, .. } => {
                if let Some(entry) = self.topology(topology)? {
                    entry.sample_rate = *sample_rate;
                }
            }
            HistoryEvent::TopologyKilled { topology, at, by, reason } => {
                if let Some(entry) = self.topology(topology)?.as_mut().filter(|entry| entry.killed.is_none())
                {
                    entry.killed = Some(*at);
                    entry.killed_by.clone_from(by);
                    entry.reason.clone_from(reason);
                }
                for task in self.tasks(topology)? {
                    self.record_gone(topology, task, *at, reason)?;
                }
            }
            HistoryEvent::TaskPlaced { topology, task, component, host, port, at, reason } => {
                let track = TrackEntry {
                    task: *task,
                    component: component.clone(),
                    host: host.clone(),
                    port: *port,
                    from: *at,
                    to: None,
                    reason: reason.clone(),
                    ended: String::new(),
                };
                self.record_placed(topology, track)?;
            }
            HistoryEvent::TaskGone { topology, task, at, reason } => {
                self.record_gone(topology, *task, *at, reason)?
            }
        }
        Ok(())
    }

    fn record_placed(&mut self, topology: &TopologyId, track: TrackEntry) -> Result<(), Error> {
        let last = self.place(topology, track.task)?;
        if let Some(mut before) = last.take() {
            let is_there = before.to.is_none() && (&before.host, before.port) == (&track.host, track.port);
            if is_there || track.from <= before.from {
                *last = Some(before);
                return Ok(());
            }
            *last = Some(track.clone());
            if before.to.is_none() {
                before.to = Some(track.from);
                before.ended = track.reason;
            }
            self.closed.push((topology.clone(), before));
        } else {
            *last = Some(track);
        }
        Ok(())
    }

    fn record_gone(
        &mut self,
        topology: &TopologyId,
        task: TaskId,
        at: Timestamp,
        reason: &str,
    ) -> Result<(), Error> {
        let last = self.place(topology, task)?;
        if let Some(track) = last.as_mut().filter(|track| track.to.is_none() && track.from <= at) {
            track.to = Some(at);
            reason.clone_into(&mut track.ended);
        }
        Ok(())
    }

    fn topology(&mut self, topology: &TopologyId) -> Result<&mut Option<HistoryEntry>, Error> {
        if !self.topologies.contains_key(topology) {
            let known = history_of(self.view, topology)?;
            self.topologies.insert(topology.clone(), known);
        }
        Ok(self.topologies.entry(topology.clone()).or_default())
    }

    fn place(&mut self, topology: &TopologyId, task: TaskId) -> Result<&mut Option<TrackEntry>, Error> {
        let key = (topology.clone(), task);
        if !self.places.contains_key(&key) {
            let mut last = None;
            self.view.scan_back(Table::State, &key::tracks(topology, Some(task)), |_, value| {
                last = Some(record::decode("the placement of a task", value)?);
                Ok(ControlFlow::Break(()))
            })?;
            self.places.insert(key.clone(), last);
        }
        Ok(self.places.entry(key).or_default())
    }

    /// Returns all tasks of a topology that have a recorded placement.
    fn tasks(&self, topology: &TopologyId) -> Result<Vec<TaskId>, Error> {
        let mut tasks: Vec<TaskId> =
            self.places.keys().filter(|(of, _)| of == topology).map(|(_, task)| *task).collect();
        self.view.scan(Table::State, &key::tracks(topology, None), |_, value| {
            tasks.push(record::decode::<TrackEntry>("the placement of a task", value)?.task);
            Ok(ControlFlow::Continue(()))
        })?;
        tasks.sort_unstable();
        tasks.dedup();
        Ok(tasks)
    }
}

/// Returns the recorded history of a topology.
pub(super) fn history_of(view: &View<'_>, topology: &TopologyId) -> Result<Option<HistoryEntry>, Error> {
    let Some(started) = view.get(Table::State, &key::started(topology))? else { return Ok(None) };
    let started: Timestamp = record::decode("the start of a topology", &started)?;
    let entry = view.get(Table::State, &key::history(started, topology))?;
    entry.map(|bytes| record::decode("the history of a topology", &bytes)).transpose()
}
