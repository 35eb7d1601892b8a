//! State in memory, as it is read from disk.

use std::ops::ControlFlow;

use crate::{
    Drops, Error,
    apply::setting,
    catalog::Catalog,
    export_queue::{self, Queue},
    key::{self, Setting, Table},
    record::{self, MetaRecord},
    store::View,
};
use stormkeeper_metrics::{Minute, protocol::MetricMeta};

/// Reads the catalog.
pub(super) fn load_catalog(view: &View<'_>) -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    view.scan(Table::State, &key::all_metas(), |key, value| {
        let MetaRecord { name, .. } = record::decode("a meta", value)?;
        if let Some(id) = key::id_of(key) {
            catalog.insert(&MetricMeta { id, name });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    view.scan(Table::State, &key::all_topologies(), |key, value| {
        let last: Minute = record::decode("the last minute of a topology", value)?;
        if let Some(topology) = key::text_of(key).and_then(|text| text.parse().ok()) {
            catalog.set_last(&topology, last);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    view.scan(Table::State, &key::all_drops(), |key, value| {
        let drops: Drops = record::decode("drop counts", value)?;
        if let Some(topology) = key::text_of(key).and_then(|text| text.parse().ok()) {
            catalog.set_drops(&topology, drops);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(catalog)
}

/// Reads the export queue, without leases.
pub(super) fn load_queue(view: &View<'_>) -> Result<Queue, Error> {
    let mut queue = Queue::default();
    queue.commit(export_queue::Change::Next(setting(view, Setting::NextExport)?.unwrap_or(1)));
    view.scan(Table::State, &key::all_progress(), |key, value| {
        let exporter = key::text_of(key).unwrap_or_default().to_owned();
        queue.commit(export_queue::Change::Progress(
            exporter,
            record::decode("the progress of an exporter", value)?,
        ));
        Ok(ControlFlow::Continue(()))
    })?;
    view.scan(Table::State, &key::all_reserved(), |key, value| {
        if let Some((minute, topology)) = key::parse_reserved(key) {
            let reserved = record::decode("a reserved minute", value)?;
            queue.commit(export_queue::Change::Reserve(minute, topology, reserved));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    view.scan(Table::State, &key::all_queued(), |_, value| {
        queue.commit(export_queue::Change::Put(record::decode("an entry of the export queue", value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(queue)
}
