//! Totals of metrics since their first point, and their latest readings, for many metrics at once.

use std::ops::ControlFlow;

use super::{
    Error,
    key::{self, Table},
    point_merge,
    store::View,
};
use stormkeeper_metrics::{MetricId, Minute, Point, Window};
use stormkeeper_model::TopologyId;

/// Maximum number of metrics of one read; beyond it the others are not read. The replacement of the
/// database waits for a read.
pub const TOTALS_MAX: usize = 2000;

/// Total of a metric, in two parts: the sum over the days before a given one does not change any more,
/// so it need not be read again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Total {
    /// Sum of the days before the given one.
    pub closed: Option<Point>,
    /// Sum of the given day and the days after it.
    pub open: Option<Point>,
}

/// Sums the day points of metrics, each from its own day on.
pub(super) fn totals(
    view: &View<'_>,
    metrics: &[(MetricId, Minute)],
    open_from: Minute,
) -> Result<Vec<Total>, Error> {
    let mut cursor = view.cursor(Table::Points);
    let mut totals = Vec::with_capacity(metrics.len().min(TOTALS_MAX));
    for (id, from) in metrics.iter().take(TOTALS_MAX) {
        let until = key::point(*id, Window::D1, Minute(u32::MAX));
        let mut total = Total::default();
        cursor.from(&key::point(*id, Window::D1, *from), |key, value| {
            if key > &until[..] {
                return ControlFlow::Break(());
            }
            if let (Some((_, _, day)), Some(point)) = (key::parse_point(key), point_merge::decode(value)) {
                let part = if day < open_from { &mut total.closed } else { &mut total.open };
                match part {
                    None => *part = Some(point),
                    Some(sum) => _ = sum.merge(&point),
                }
            }
            ControlFlow::Continue(())
        })?;
        totals.push(total);
    }
    Ok(totals)
}

/// Returns the point of the last minute of each metric, unless that minute is before `since`.
pub(super) fn readings(
    view: &View<'_>,
    topology: &TopologyId,
    ids: &[MetricId],
    since: Minute,
) -> Result<Vec<Option<Point>>, Error> {
    let ids = &ids[..ids.len().min(TOTALS_MAX)];
    // RocksDB requires sorted keys.
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|place| ids[*place]);
    let keys: Vec<_> = order.iter().map(|place| key::latest(topology, ids[*place])).collect();
    let values = view.get_all(Table::Latest, &keys)?;
    let mut readings = vec![None; ids.len()];
    for (place, value) in order.into_iter().zip(values) {
        let value = value.unwrap_or_default();
        let latest = point_merge::split_latest(&value).filter(|(minute, _)| *minute >= since);
        readings[place] = latest.and_then(|(_, point)| point_merge::decode(point));
    }
    Ok(readings)
}
