//! Writes of what was fetched from another nimbus, without entries of the log.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use super::Writer;
use crate::{
    Error,
    apply::{self, Applied, Applier},
    key::{self, Table},
    record::{self, MetaRecord},
    store::{Batch, OldDatabase},
};
use stormkeeper_metrics::{MetricId, protocol::MetricMeta};
use stormkeeper_model::TopologyId;

impl Writer {
    /// Makes the metas of a topology equal to `wanted`, without a log entry.
    pub(crate) fn replace_metas(
        &mut self,
        topology: &TopologyId,
        wanted: &[MetricMeta],
    ) -> Result<(), Error> {
        self.check()?;
        if let Some(other) = apply::topologies(wanted).into_iter().find(|of| *of != topology) {
            return Err(Error::Invalid(format!("metas of {other} cannot replace those of {topology}")));
        }
        let shared = Arc::clone(&self.shared);
        let written = shared.store.with(|view| {
            let (mut wrong, mut right) = (Vec::new(), BTreeSet::new());
            let wanted_names: std::collections::BTreeMap<MetricId, &MetricMeta> =
                wanted.iter().map(|meta| (meta.id, meta)).collect();
            view.scan(Table::State, &key::metas(topology), |key, value| {
                let id = key::id_of(key).unwrap_or(MetricId(0));
                let MetaRecord { name, .. } = record::decode("a meta", value)?;
                match wanted_names.get(&id) {
                    Some(meta) if meta.name == name => _ = right.insert(id),
                    _ => wrong.push(id),
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let missing: Vec<MetricMeta> =
                wanted_names.into_values().filter(|meta| !right.contains(&meta.id)).cloned().collect();
            Ok((wrong, missing))
        })?;
        let (wrong, missing) = written;
        // Two batches: an id whose name differs is deleted before it is added again.
        self.unlogged(|applier, batch, applied| {
            wrong.iter().try_for_each(|id| applier.forget_meta(topology, *id, batch, applied))
        })?;
        self.unlogged(|applier, batch, applied| {
            applier.metas(&missing, batch, applied);
            Ok(())
        })
    }

    fn unlogged(
        &mut self,
        work: impl FnOnce(&Applier<'_>, &mut Batch<'_>, &mut Applied) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let written = shared.store.with(|view| {
            let (mut batch, mut applied) = (view.batch(), Applied::default());
            work(&self.applier(view), &mut batch, &mut applied)?;
            view.write(batch)?;
            Ok(applied)
        });
        self.record_failure(&written);
        self.is_dirty = true;
        self.commit(written?.changes);
        Ok(())
    }

    /// Replaces the database with a fetched copy, and quarantines or removes the old database.
    pub(crate) fn replace_with(
        &mut self,
        dir: &std::path::Path,
        may_hold_discarded: bool,
    ) -> Result<(), Error> {
        let old = if may_hold_discarded { OldDatabase::Quarantine(self.last) } else { OldDatabase::Remove };
        let replaced = self.shared.store.replace_with(dir, old).and_then(|()| self.reload());
        if let Err(error) = &replaced
            && !self.shared.store.is_open()
        {
            self.failed = Some((error.to_string(), self.shared.options.clock.monotonic()));
            *self.shared.failure() = Some(error.to_string());
        }
        replaced
    }
}
