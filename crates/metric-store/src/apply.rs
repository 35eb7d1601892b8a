//! Application of an entry: one batch for the disk, and the changes in memory. Leader and followers
//! apply the same entries, so they have the same data.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{Mutex, PoisonError, RwLock},
};

use serde::de::DeserializeOwned;

use super::{
    DropCause, Drops, Error,
    catalog::{self, Catalog},
    entry::{Entry, Packed},
    export::ExportKind,
    export_queue::{self, Limits, Queue},
    history_record,
    key::{self, Setting, Table},
    point_merge,
    record::{self, MetaRecord, ReportRecord, Reserved},
    store::{Batch, View},
};
use stormkeeper_metrics::{MetricId, Minute, Window, batch::SequenceRange, protocol::MetricMeta};
use stormkeeper_model::TopologyId;

/// Change in memory, made once the batch is written.
#[derive(Debug)]
pub(super) enum Change {
    MetaAdded(MetricMeta),
    MetaRemoved(MetricMeta),
    TopologyRemoved(TopologyId),
    Last(TopologyId, Minute),
    Drops(TopologyId, Drops),
    NextMeta(u64),
    Queue(export_queue::Change),
}

/// Effects of an entry.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: Vec<Change>,
    /// Number of entries added to the export queue.
    pub(super) n_readied: usize,
}

/// Returns a setting of the store.
pub(super) fn setting<T: DeserializeOwned>(view: &View<'_>, setting: Setting) -> Result<Option<T>, Error> {
    let value = view.get(Table::State, &key::setting(setting))?;
    value.map(|bytes| record::decode(&format!("{setting:?}"), &bytes)).transpose()
}

/// Inputs of the application, besides the entry.
pub(super) struct Applier<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) catalog: &'a RwLock<Catalog>,
    pub(super) queue: &'a Mutex<Queue>,
    pub(super) next_meta: u64,
}

impl Applier<'_> {
    pub(super) fn apply(&self, entry: &Entry, batch: &mut Batch<'_>) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        match entry {
            Entry::Metas { topology, metas, drops } => {
                self.metas(metas, batch, &mut applied);
                self.drops(topology, drops, batch, &mut applied);
            }
            Entry::Batch { topology, minute, reports, points, drops } => {
                let closed: Option<Minute> = setting(self.view, Setting::Closed)?;
                let remembered_from = closed.map_or(*minute, |closed| closed.max(*minute));
                for SequenceRange { worker, last, .. } in reports {
                    let record = ReportRecord { last: *last, minute: remembered_from };
                    batch.put(Table::State, &key::report(topology, worker), &record::encode(&record));
                }
                self.points(*minute, points, batch, &mut applied);
                self.drops(topology, drops, batch, &mut applied);
            }
            Entry::Close { through, per_topology_max, bytes_max, reports_before } => {
                let limits = Limits { per_topology_max: *per_topology_max, bytes_max: *bytes_max };
                self.close(*through, limits, batch, &mut applied);
                batch.put(Table::State, &key::setting(Setting::Closed), &record::encode(through));
                if let Some(before) = reports_before {
                    self.expire_reports(*before, batch)?;
                }
            }
            Entry::Events(events) => history_record::record_events(self.view, events, batch)?,
            Entry::Forget { topology, ids: Some(ids) } => {
                for id in ids {
                    self.forget_meta(topology, *id, batch, &mut applied)?;
                }
            }
            Entry::Forget { topology, ids: None } => self.forget(topology, batch, &mut applied)?,
            Entry::Ack { exporter, number } => {
                let changes = self.queue().ack(exporter, *number);
                queue_changes(changes, batch, &mut applied);
            }
            Entry::AckMetas { exporter, through } => {
                let changes = self.queue().ack_metas(exporter, *through);
                queue_changes(changes, batch, &mut applied);
            }
            Entry::Exporters(names) => {
                let changes = self.queue().set_exporters(names);
                queue_changes(changes, batch, &mut applied);
            }
        }
        Ok(applied)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn metas(&self, metas: &[MetricMeta], batch: &mut Batch<'_>, applied: &mut Applied) {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.next_meta;
        for meta in metas {
            // A taken id keeps its name: the leader made sure that new metas have free ids.
            if catalog.get(meta.id).is_some() {
                continue;
            }
            let key = key::meta(meta.name.topology(), meta.id);
            batch.put(Table::State, &key::registered(next), &key[1..]);
            let record = MetaRecord { n: next, name: meta.name.clone() };
            batch.put(Table::State, &key, &record::encode(&record));
            applied.changes.push(Change::MetaAdded(meta.clone()));
            next += 1;
        }
        if next != self.next_meta {
            batch.put(Table::State, &key::setting(Setting::NextMeta), &record::encode(&next));
            applied.changes.push(Change::NextMeta(next));
        }
    }

    fn points(&self, minute: Minute, points: &Packed, batch: &mut Batch<'_>, applied: &mut Applied) {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        // For each topology with points: the size of its part, and whether the minute is its newest.
        let mut topologies: BTreeMap<u32, (Reserved, bool)> = BTreeMap::new();
        let buckets = Window::ALL.map(|window| (window, window.bucket(minute)));
        for (id, point) in points.iter() {
            let Some(known) = catalog.get(id) else { continue };
            let of = catalog.at(known.topology);
            let (reserved, is_newest) = topologies
                .entry(known.topology)
                .or_insert_with(|| (Reserved::default(), of.last.is_none_or(|last| minute > last)));
            // No metric of the topology has a point of this minute or later, so nothing needs to be
            // merged: the point is put as one value, which is cheaper to keep.
            let is_alone = *is_newest;
            for (window, bucket) in buckets {
                let key = key::point(id, window, bucket);
                if is_alone && window == Window::M1 {
                    batch.put(Table::Points, &key, point);
                } else {
                    batch.merge(Table::Points, &key, point);
                }
            }
            let (key, value) = (key::latest(&of.id, id), point_merge::encode_latest(minute, point));
            if is_alone {
                batch.put(Table::Latest, &key, &value);
            } else {
                batch.merge(Table::Latest, &key, &value);
            }
            let is_top = ExportKind::Topology.holds(known.meta);
            *(if is_top { &mut reserved.n_top } else { &mut reserved.n_rest }) += 1;
            reserved.bytes += point.len() as u64;
        }
        for (place, (added, is_newest)) in topologies {
            let of = catalog.at(place);
            let change = self.queue().reserve(minute, &of.id, added);
            queue_changes(vec![change], batch, applied);
            if is_newest {
                batch.put(Table::State, &key::topology(&of.id), &record::encode(&minute));
                applied.changes.push(Change::Last(of.id.clone(), minute));
            }
        }
    }

    fn drops(&self, topology: &TopologyId, drops: &Drops, batch: &mut Batch<'_>, applied: &mut Applied) {
        if drops.is_empty() {
            return;
        }
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let sum = catalog.drops_with(topology, drops);
        batch.put(Table::State, &key::drops(topology), &record::encode(&sum));
        applied.changes.push(Change::Drops(topology.clone(), sum));
    }

    fn close(&self, through: Minute, limits: Limits, batch: &mut Batch<'_>, applied: &mut Applied) {
        let (changes, n_readied, dropped) = self.queue().close(through, limits);
        queue_changes(changes, batch, applied);
        applied.n_readied = n_readied;
        let mut drops: BTreeMap<TopologyId, Drops> = BTreeMap::new();
        for topology in dropped {
            catalog::count(drops.entry(topology).or_default(), DropCause::QueueFull, 1);
        }
        for (topology, drops) in drops {
            self.drops(&topology, &drops, batch, applied);
        }
    }

    fn expire_reports(&self, before: Minute, batch: &mut Batch<'_>) -> Result<(), Error> {
        self.view.scan(Table::State, &key::all_reports(), |key, value| {
            if record::decode::<ReportRecord>("the last report of a launch", value)?.minute < before {
                batch.delete(Table::State, key);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    pub(super) fn forget_meta(
        &self,
        topology: &TopologyId,
        id: MetricId,
        batch: &mut Batch<'_>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let key = key::meta(topology, id);
        let Some(bytes) = self.view.get(Table::State, &key)? else { return Ok(()) };
        let MetaRecord { n, name } = record::decode("a meta", &bytes)?;
        batch.delete(Table::State, &key);
        batch.delete(Table::State, &key::registered(n));
        batch.delete(Table::Latest, &key::latest(topology, id));
        applied.changes.push(Change::MetaRemoved(MetricMeta { id, name }));
        Ok(())
    }

    fn forget(
        &self,
        topology: &TopologyId,
        batch: &mut Batch<'_>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        self.view.scan(Table::State, &key::metas(topology), |_, value| {
            let MetaRecord { n, .. } = record::decode("a meta", value)?;
            batch.delete(Table::State, &key::registered(n));
            Ok(ControlFlow::Continue(()))
        })?;
        for range in [key::metas(topology), key::reports(topology), key::tracks(topology, None)] {
            batch.delete_range(Table::State, &range);
        }
        batch.delete_range(Table::Latest, &key::all_latest(topology));
        batch.delete(Table::State, &key::drops(topology));
        batch.delete(Table::State, &key::topology(topology));
        history_record::remove_history(self.view, topology, batch)?;
        let changes = self.queue().forget(topology);
        queue_changes(changes, batch, applied);
        applied.changes.push(Change::TopologyRemoved(topology.clone()));
        Ok(())
    }
}

fn queue_changes(changes: Vec<export_queue::Change>, batch: &mut Batch<'_>, applied: &mut Applied) {
    use export_queue::Change as Q;
    let table = Table::State;
    for change in changes {
        match &change {
            Q::Reserve(minute, topology, reserved) => {
                batch.put(table, &key::reserved(*minute, topology), &record::encode(reserved));
            }
            Q::Release(minute, topology) => batch.delete(table, &key::reserved(*minute, topology)),
            Q::Put(entry) => batch.put(table, &key::queued(entry.key.number), &record::encode(entry)),
            Q::Remove(index) => batch.delete(table, &key::queued(*index)),
            Q::Progress(exporter, progress) => {
                batch.put(table, &key::progress(exporter), &record::encode(progress));
            }
            Q::Retire(exporter) => batch.delete(table, &key::progress(exporter)),
            Q::Next(next) => {
                batch.put(table, &key::setting(Setting::NextExport), &record::encode(next));
            }
        }
        applied.changes.push(Change::Queue(change));
    }
}

/// Makes the changes in memory; the batch is written.
pub(super) fn commit(changes: Vec<Change>, catalog: &RwLock<Catalog>, queue: &Mutex<Queue>) {
    let mut catalog = catalog.write().unwrap_or_else(PoisonError::into_inner);
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    for change in changes {
        match change {
            Change::MetaAdded(meta) => catalog.insert(&meta),
            Change::MetaRemoved(meta) => catalog.remove(&meta),
            Change::TopologyRemoved(topology) => catalog.forget(&topology),
            Change::Last(topology, minute) => catalog.set_last(&topology, minute),
            Change::Drops(topology, drops) => catalog.set_drops(&topology, drops),
            Change::Queue(change) => queue.commit(change),
            // Kept by the writer.
            Change::NextMeta(_) => {}
        }
    }
}

/// Returns the topologies of `metas`.
pub(super) fn topologies(metas: &[MetricMeta]) -> BTreeSet<&TopologyId> {
    metas.iter().map(|meta| meta.name.topology()).collect()
}
