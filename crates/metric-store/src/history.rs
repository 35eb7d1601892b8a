//! Reads of stored data. Every answer is bounded; a caller that wants more requests the next page.

use std::ops::ControlFlow;

use super::{
    Error, ExportKey, HistoryEntry, LatestPage, LatestQuery, LatestRow, PayloadPage, TrackEntry,
    key::{self, Table},
    point_merge,
    record::{self, MetaRecord},
    store::{Cursor, View},
};
use stormkeeper_metrics::{
    MetaType, MetricId, MetricName, Minute, Point, Subject, Window,
    name::matches_pattern,
    protocol::{MetaPage, MetaQuery, MetricMeta, PointsQuery},
};
use stormkeeper_model::{TaskId, Timestamp, TopologyId, TopologyName};

/// Maximum number of metrics, points or entries of one response.
pub(super) const PAGE_MAX: usize = 20_000;

/// Maximum number of metrics examined for one page: a filter that few pass still answers soon.
const EXAMINED_MAX: usize = 100_000;

/// Runs of adjacent buckets that together are exactly the minutes `from..=end`, with the widest
/// buckets that fit.
fn tiles(from: Minute, end: Minute) -> Vec<(Window, Minute, Minute)> {
    let (mut runs, mut at): (Vec<(Window, Minute, Minute)>, u32) = (Vec::new(), from.0);
    while at <= end.0 {
        let fits =
            |window: &Window| at.is_multiple_of(window.minutes()) && window.minutes() - 1 <= end.0 - at;
        let window = Window::ALL.into_iter().rev().find(fits).unwrap_or(Window::M1);
        match runs.last_mut() {
            Some((of, _, last)) if *of == window => *last = Minute(at),
            _ => runs.push((window, Minute(at), Minute(at))),
        }
        let Some(next) = at.checked_add(window.minutes()) else { break };
        at = next;
    }
    runs
}

/// Returns the point of the `window` that ends with `end`.
pub(super) fn window(
    cursor: &mut Cursor<'_>,
    id: MetricId,
    window: Window,
    end: Minute,
) -> Result<Option<Point>, Error> {
    let mut merged: Option<Point> = None;
    for (tile, first, last) in tiles(end.minus(window.minutes() - 1), end) {
        let until = key::point(id, tile, last);
        cursor.from(&key::point(id, tile, first), |key, value| {
            if key > &until[..] {
                return ControlFlow::Break(());
            }
            match (&mut merged, point_merge::decode(value)) {
                (None, point) => merged = point,
                (Some(merged), Some(point)) => _ = merged.merge(&point),
                (Some(_), None) => {}
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(merged)
}

/// Returns the buckets that begin in `from..=to`, at most the first `limit`.
pub(super) fn points(view: &View<'_>, query: &PointsQuery) -> Result<Vec<(Minute, Point)>, Error> {
    let PointsQuery { id, window, from, to, limit } = *query;
    let range = (key::point(id, window, from).to_vec(), key::point(id, window, to.plus(1)).to_vec());
    let mut points = Vec::new();
    if from > to {
        return Ok(points);
    }
    view.scan(Table::Points, &range, |key, value| {
        if points.len() >= limit.min(PAGE_MAX) {
            return Ok(ControlFlow::Break(()));
        }
        if let (Some((_, _, bucket)), Some(point)) = (key::parse_point(key), point_merge::decode(value)) {
            points.push((bucket, point));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(points)
}

fn meta(key: &[u8], value: &[u8]) -> Result<MetricMeta, Error> {
    let id = key::id_of(key).unwrap_or(MetricId(0));
    let MetaRecord { name, .. } = record::decode("a meta", value)?;
    Ok(MetricMeta { id, name })
}

/// Range of the metas of a topology after an id.
fn metas_after(topology: &TopologyId, after: Option<MetricId>) -> key::Range {
    let (from, to) = key::metas(topology);
    match after {
        None => (from, to),
        // No id comes after the last one.
        Some(MetricId(u64::MAX)) => (to.clone(), to),
        Some(MetricId(id)) => (key::meta(topology, MetricId(id + 1)), to),
    }
}

pub(super) fn metas(view: &View<'_>, query: &MetaQuery) -> Result<MetaPage, Error> {
    let mut page = MetaPage { metas: Vec::new(), next: None };
    let (mut n_examined, limit) = (0, query.limit.clamp(1, PAGE_MAX));
    let mut last = None;
    view.scan(Table::State, &metas_after(&query.topology, query.after), |key, value| {
        if page.metas.len() >= limit || n_examined >= EXAMINED_MAX {
            page.next = last;
            return Ok(ControlFlow::Break(()));
        }
        n_examined += 1;
        let meta = meta(key, value)?;
        last = Some(meta.id);
        if query.meta.is_none_or(|wanted| meta.name.meta() == wanted) {
            page.metas.push(meta);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// Returns the metrics of a topology that have a last minute. Both tables are sorted by id, so they
/// are read side by side.
pub(super) fn latest(view: &View<'_>, query: &LatestQuery) -> Result<LatestPage, Error> {
    let mut found: Vec<(MetricMeta, Minute, Vec<u8>)> = Vec::new();
    let (mut n_examined, limit) = (0, query.limit.clamp(1, PAGE_MAX));
    let (mut next, mut last) = (None, None);
    let mut latest = view.cursor(Table::Latest);
    let topology = &query.topology;
    view.scan(Table::State, &metas_after(topology, query.after), |key, value| {
        if found.len() >= limit || n_examined >= EXAMINED_MAX {
            next = last;
            return Ok(ControlFlow::Break(()));
        }
        n_examined += 1;
        let meta = meta(key, value)?;
        last = Some(meta.id);
        if !is_wanted(&meta.name, query) {
            return Ok(ControlFlow::Continue(()));
        }
        let at = key::latest(topology, meta.id);
        latest.from(&at, |key, value| {
            if let (true, Some((minute, point))) = (key == at, point_merge::split_latest(value))
                && query.since.is_none_or(|since| minute >= since)
            {
                found.push((meta.clone(), minute, point.to_vec()));
            }
            ControlFlow::Break(())
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    let mut cursor = view.cursor(Table::Points);
    let mut rows = Vec::with_capacity(found.len());
    for (meta, minute, bytes) in found {
        let point = match query.window {
            Window::M1 => point_merge::decode(&bytes),
            longer => window(&mut cursor, meta.id, longer, minute)?,
        };
        rows.extend(point.map(|point| LatestRow { meta, minute, point }));
    }
    Ok(LatestPage { rows, next })
}

fn is_wanted(name: &MetricName, query: &LatestQuery) -> bool {
    let (component, task, stream) = match name.subject() {
        Subject::Stream { component, task, stream } => (Some(component), Some(*task), Some(stream)),
        Subject::Task { component, task } => (Some(component), Some(*task), None),
        Subject::ComponentStream { component, stream } => (Some(component), None, Some(stream)),
        Subject::Component { component } => (Some(component), None, None),
        Subject::Worker { .. } | Subject::Connection { .. } | Subject::Topology | Subject::Nimbus { .. } => {
            (None, None, None)
        }
    };
    query.meta.is_none_or(|wanted| name.meta() == wanted)
        && query.component.as_ref().is_none_or(|wanted| component == Some(wanted))
        && query.task.is_none_or(|wanted| task == Some(wanted))
        && query.stream.as_ref().is_none_or(|wanted| stream == Some(wanted))
        && query.name.as_ref().is_none_or(|pattern| matches_pattern(pattern, name.name()))
}

/// Returns the points of one export: the metrics of its topology, levels and share of all ids.
pub(super) fn payload(
    view: &View<'_>,
    export: &ExportKey,
    filter: &[MetaType],
    after: Option<MetricId>,
    limit: usize,
) -> Result<PayloadPage, Error> {
    let (first, end) = share(export.part, export.parts);
    let (mut from, to) = metas_after(&export.topology, after);
    from = from.max(key::meta(&export.topology, first));
    let (limit, mut metas, mut next, mut last) = (limit.clamp(1, PAGE_MAX), Vec::new(), None, None);
    let mut n_examined = 0;
    view.scan(Table::State, &(from, to), |key, value| {
        let id = key::id_of(key).unwrap_or(MetricId(0));
        if end.is_some_and(|end| id >= end) {
            return Ok(ControlFlow::Break(()));
        }
        if metas.len() >= limit || n_examined >= EXAMINED_MAX {
            next = last;
            return Ok(ControlFlow::Break(()));
        }
        n_examined += 1;
        last = Some(id);
        let meta = meta(key, value)?;
        let level = meta.name.meta();
        if export.kind.holds(level) && (filter.is_empty() || filter.contains(&level)) {
            metas.push(meta);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let keys: Vec<_> = metas.iter().map(|meta| key::point(meta.id, Window::M1, export.minute)).collect();
    let values = view.get_all(Table::Points, &keys)?;
    let points = metas
        .into_iter()
        .zip(values)
        .filter_map(|(meta, value)| Some((meta, point_merge::decode(&value?)?)))
        .collect();
    Ok(PayloadPage { points, next })
}

/// Ids of one of `parts` equal shares: the first id, and the first id after the share. Ids are
/// hashes, so all shares have about the same size.
fn share(part: u32, parts: u32) -> (MetricId, Option<MetricId>) {
    let begin = |part: u32| (u128::from(part) << 64) / u128::from(parts.max(1));
    let first = u64::try_from(begin(part)).unwrap_or(u64::MAX);
    (MetricId(first), u64::try_from(begin(part.saturating_add(1))).ok().map(MetricId))
}

/// Returns the metas that were registered after the `n`th.
pub(super) fn registered_after(view: &View<'_>, n: u64, limit: usize) -> Result<Vec<MetricMeta>, Error> {
    let mut metas = Vec::new();
    view.scan(Table::State, &key::registered_after(n), |_, place| {
        if metas.len() >= limit.min(PAGE_MAX) {
            return Ok(ControlFlow::Break(()));
        }
        let mut key = key::all_metas().0;
        key.extend_from_slice(place);
        if let Some(value) = view.get(Table::State, &key)? {
            metas.push(meta(&key, &value)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(metas)
}

/// Returns the registration number of the last of `metas`; removed metas do not count.
pub(super) fn registered_through(view: &View<'_>, metas: &[MetricMeta]) -> Result<u64, Error> {
    let mut through = 0;
    for meta in metas {
        if let Some(value) = view.get(Table::State, &key::meta(meta.name.topology(), meta.id))? {
            through = through.max(record::decode::<MetaRecord>("a meta", &value)?.n);
        }
    }
    Ok(through)
}

/// Placements of tasks, by task, the earliest first; at most the last `limit`.
pub(super) fn track(
    view: &View<'_>,
    topology: &TopologyId,
    task: Option<TaskId>,
    limit: usize,
) -> Result<Vec<TrackEntry>, Error> {
    let mut entries = Vec::new();
    view.scan_back(Table::State, &key::tracks(topology, task), |_, value| {
        if entries.len() >= limit.min(PAGE_MAX) {
            return Ok(ControlFlow::Break(()));
        }
        entries.push(record::decode("the placement of a task", value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    entries.reverse();
    Ok(entries)
}

/// Topologies, the latest first.
pub(super) fn history(
    view: &View<'_>,
    name: Option<&TopologyName>,
    limit: usize,
) -> Result<Vec<HistoryEntry>, Error> {
    let mut entries: Vec<HistoryEntry> = Vec::new();
    let mut n_examined = 0;
    view.scan_back(Table::State, &key::all_history(), |_, value| {
        if entries.len() >= limit.min(PAGE_MAX) || n_examined >= EXAMINED_MAX {
            return Ok(ControlFlow::Break(()));
        }
        n_examined += 1;
        let entry: HistoryEntry = record::decode("the history of a topology", value)?;
        if name.is_none_or(|name| entry.name == *name) {
            entries.push(entry);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(entries)
}

/// Returns topologies that were killed before a minute, at most [`PAGE_MAX`].
pub(super) fn killed_before(view: &View<'_>, before: Minute) -> Result<Vec<TopologyId>, Error> {
    let mut killed = Vec::new();
    view.scan(Table::State, &key::all_history(), |_, value| {
        let entry: HistoryEntry = record::decode("the history of a topology", value)?;
        if entry.killed.is_some_and(|at| Minute::of(at) < before) {
            killed.push(entry.topology);
        }
        let is_full = killed.len() >= PAGE_MAX;
        Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(killed)
}

/// Limits a range to the retention (in minutes) as of `now`, so that responses do not depend on when
/// RocksDB compacted.
pub(super) fn kept(from: Minute, window: Window, now: Timestamp, retention: u32) -> Minute {
    let oldest = Minute::of(now).minus(retention).minus(window.minutes());
    from.max(window.bucket(oldest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tiles_cover_each_minute_once(end in 3000_u32..40_000_000, window in proptest::sample::select(Window::ALL.to_vec())) {
            let from = end - (window.minutes() - 1);
            let mut at = from;
            let runs = tiles(Minute(from), Minute(end));
            for (tile, first, last) in &runs {
                prop_assert_eq!(first.0, at);
                prop_assert_eq!(tile.bucket(*first), *first);
                prop_assert_eq!((last.0 - first.0) % tile.minutes(), 0);
                at = last.0 + tile.minutes();
            }
            prop_assert_eq!(at, end + 1);
            prop_assert!(runs.len() <= 7, "{} runs", runs.len());
        }

        #[test]
        fn shares_cover_each_id_once(id: u64, parts in 1_u32..50) {
            let of = (0..parts).filter(|part| {
                let (first, end) = share(*part, parts);
                MetricId(id) >= first && end.is_none_or(|end| MetricId(id) < end)
            });
            prop_assert_eq!(of.count(), 1);
        }
    }

    #[test]
    fn expired_points_are_not_shown_even_before_compaction() {
        let now = Timestamp::from_millis(10_000 * 60_000);
        let kept = |from, window| kept(Minute(from), window, now, 1000).0;
        assert_eq!((kept(0, Window::M1), kept(8_998, Window::M1)), (8_999, 8_999));
        assert_eq!(kept(9_500, Window::M1), 9_500);
        assert_eq!(kept(0, Window::M10), 8_990, "a bucket expires with its last minute");
    }
}
