//! Content of databases in memory, for tests and for the invariants of a simulation.

use std::{collections::BTreeMap, path::Path};

use crate::{
    MemoryDisk,
    key::{self, Setting, Table},
    log, point_merge,
    record::{self, MetaRecord},
};
use stormkeeper_metrics::{MetricId, MetricName, Point, Window};
use stormkeeper_model::LogPosition;

/// Records of a database by table and key.
pub type StoredRecords = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// Returns the log of the database in `dir`, also while a store has the database open. `None` if
/// there is no database.
pub fn log_positions(disk: &MemoryDisk, dir: &Path) -> Option<Vec<LogPosition>> {
    let content = disk.content(dir)?;
    let position = |(key, value)| {
        let index = key::number_of(key)?;
        let (term, _) = log::split(index, value).ok()?;
        Some(LogPosition { term, index })
    };
    Some(content.items(Table::Log).filter_map(position).collect())
}

/// Returns the records of the database in `dir` that are the same on all nimbuses with the same
/// log end: all but those that each nimbus decides for itself. `None` if there is no database.
pub fn replicated_records(disk: &MemoryDisk, dir: &Path) -> Option<StoredRecords> {
    let content = disk.content(dir)?;
    let items = |table: Table| {
        let of = content.items(table).filter(move |(key, _)| is_replicated(table, key));
        of.map(move |(key, value)| ((table.name(), key.to_vec()), value.to_vec())).collect::<Vec<_>>()
    };
    Some(Table::ALL.into_iter().flat_map(items).collect())
}

/// Returns the sum of the points of each counter in the database in `dir`; none without a database.
pub fn counter_sums(disk: &MemoryDisk, dir: &Path) -> BTreeMap<MetricName, (MetricId, u64)> {
    let Some(content) = disk.content(dir) else { return BTreeMap::new() };
    let mut sums: BTreeMap<MetricId, u64> = BTreeMap::new();
    for (key, value) in content.items(Table::Points) {
        let Some((id, Window::M1, _)) = key::parse_point(key) else { continue };
        if let Some(Point::Counter(counter)) = point_merge::decode(value) {
            *sums.entry(id).or_default() += counter.count;
        }
    }
    let (first, end) = key::all_metas();
    let is_meta = |key: &[u8]| (&first[..]..&end[..]).contains(&key);
    let metas = content.items(Table::State).filter(|(key, _)| is_meta(key));
    let named = metas.filter_map(|(key, value)| {
        let MetaRecord { name, .. } = record::decode("a meta", value).ok()?;
        let id = key::id_of(key)?;
        Some((name, (id, *sums.get(&id)?)))
    });
    named.collect()
}

/// Returns whether a record is the same on all nimbuses with the same log end. Each nimbus truncates
/// its own log, and has its own retention clock.
pub(crate) fn is_replicated(table: Table, key: &[u8]) -> bool {
    let own = [Setting::Segments, Setting::RetentionClock];
    table != Table::State || !own.into_iter().any(|of| key == key::setting(of))
}
