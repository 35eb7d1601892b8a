//! Sums of a metric over a span of time that ends now.
//!
//! No point is later than now, so that buckets which begin in the span and have not ended yet are
//! wholly inside as well: the sum takes wider and wider buckets from the begin of the span, and never
//! has to take narrower ones again. Of the bucket in which the span begins, the part that is inside
//! counts in proportion. That bucket is the narrowest which is still kept.

use std::ops::ControlFlow;

use super::{
    Error, Options, Retention,
    history::kept,
    key::{self, Table},
    leader_ops::name_of,
    point_merge,
    store::{Cursor, View},
    writer::Shared,
};
use stormkeeper_metrics::{
    MetricId, MetricName, Minute, Point, Window,
    point::{Counter, Histogram, Meter, Timer},
};
use stormkeeper_model::Timestamp;

/// Maximum number of metrics of one query.
pub const SUMS_MAX: usize = 50_000;

/// Maximum number of holes that are listed.
const HOLES_MAX: usize = 100;

/// Number of ids that are probed for a name. More than one collision is already unlikely.
const PROBES: u32 = 4;

/// Metric, and the begins of the spans over which it is summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumQuery {
    /// Name of the metric.
    pub name: MetricName,
    /// Begin of each span. Every span ends now.
    pub from: Vec<Timestamp>,
}

/// Buckets whose sum is that of a span.
#[derive(Debug, PartialEq)]
struct Plan {
    /// Bucket in which the span begins, and the share of it that is inside.
    partial: Option<(Window, Minute, f64)>,
    /// Runs of adjacent buckets: the width, the first one, and the first one of the next run if there
    /// is one.
    runs: Vec<(Window, Minute, Option<Minute>)>,
}

/// Plans the sum from `from` to `now`.
fn plan(from: Timestamp, now: Timestamp, retention: &Retention) -> Plan {
    let is_kept = |window: &Window| {
        let bucket = window.bucket(Minute::of(from));
        kept(bucket, *window, now, retention.minutes(*window)) <= bucket
    };
    let narrowest = Window::ALL.into_iter().find(is_kept).unwrap_or(Window::D1);
    let first = narrowest.bucket(Minute::of(from));
    let (begin, end) = (first.start(), first.plus(narrowest.minutes()).start().min(now));
    if begin >= from {
        return Plan { partial: None, runs: runs(first, Minute::of(now)) };
    }
    let share = end.since(from).as_secs_f64() / end.since(begin).as_secs_f64().max(f64::MIN_POSITIVE);
    let runs = runs(first.plus(narrowest.minutes()), Minute::of(now));
    Plan { partial: Some((narrowest, first, share.clamp(0.0, 1.0))), runs }
}

/// Runs of buckets that together are all minutes from `from`, with ever wider buckets.
fn runs(from: Minute, now: Minute) -> Vec<(Window, Minute, Option<Minute>)> {
    let (mut runs, mut at) = (Vec::new(), from);
    for (place, window) in Window::ALL.into_iter().enumerate() {
        // A wider bucket that begins here takes its place.
        let wider = Window::ALL.get(place + 1);
        let next = wider.map(|wider| match wider.bucket(at) == at {
            true => at,
            false => wider.bucket(at).plus(wider.minutes()),
        });
        if at > now {
            break;
        }
        if next != Some(at) {
            runs.push((window, at, next));
        }
        at = next.unwrap_or(at);
    }
    runs
}

/// Returns the part of a point that `share` of its time has, if all of it is spread evenly.
fn scaled(point: Point, share: f64) -> Point {
    match point {
        Point::Counter(Counter { count }) => Point::Counter(Counter { count: part(count, share) }),
        Point::Meter(meter) => Point::Meter(scaled_meter(meter, share)),
        Point::Histogram(histogram) => Point::Histogram(scaled_histogram(histogram, share)),
        Point::Timer(Timer { histogram, meter }) => Point::Timer(Timer {
            histogram: scaled_histogram(histogram, share),
            meter: scaled_meter(meter, share),
        }),
        // The last reading is in the part that is inside, and so may the largest one be.
        point @ Point::Gauge(_) => point,
    }
}

fn part(count: u64, share: f64) -> u64 {
    (count as f64 * share).round() as u64
}

fn scaled_meter(meter: Meter, share: f64) -> Meter {
    Meter { count: part(meter.count, share), ..meter }
}

/// Returns a part of a histogram with the same mean.
fn scaled_histogram(histogram: Histogram, share: f64) -> Histogram {
    let count = part(histogram.count, share);
    Histogram {
        sum: histogram.sum * (count as f64 / histogram.count.max(1) as f64),
        count,
        zeros: part(histogram.zeros, share),
        buckets: histogram.buckets.iter().map(|(index, n)| (index, part(n, share))).collect(),
        ..histogram
    }
}

/// Merges the points that `plan` names; `read` calls its second argument for each point of a run.
fn sum(
    plan: &Plan,
    mut read: impl FnMut((Window, Minute, Option<Minute>), &mut dyn FnMut(Point)) -> Result<(), Error>,
) -> Result<Option<Point>, Error> {
    let mut merged: Option<Point> = None;
    let mut add = |point: Point| match &mut merged {
        None => merged = Some(point),
        Some(merged) => _ = merged.merge(&point),
    };
    if let Some((window, bucket, share)) = plan.partial {
        read((window, bucket, Some(bucket.plus(window.minutes()))), &mut |point| add(scaled(point, share)))?;
    }
    for run in &plan.runs {
        read(*run, &mut add)?;
    }
    Ok(merged)
}

/// Returns the sums of a metric over several spans; nothing for a metric that is not registered.
pub(super) fn sums(
    shared: &Shared,
    view: &View<'_>,
    cursor: &mut Cursor<'_>,
    query: &SumQuery,
    now: Timestamp,
) -> Result<Vec<Option<Point>>, Error> {
    let Some(id) = id_of(shared, view, &query.name)? else { return Ok(vec![None; query.from.len()]) };
    let Options { retention, .. } = &shared.options;
    let mut sums = Vec::with_capacity(query.from.len());
    for from in &query.from {
        sums.push(sum(&plan(*from, now, retention), |(window, first, next), add| {
            let last = key::point(id, window, Minute(u32::MAX));
            let end = next.map(|next| key::point(id, window, next));
            cursor.from(&key::point(id, window, first), |key, value| {
                if key > &last[..] || end.as_ref().is_some_and(|end| key >= &end[..]) {
                    return ControlFlow::Break(());
                }
                if let Some(point) = point_merge::decode(value) {
                    add(point);
                }
                ControlFlow::Continue(())
            })
        })?);
    }
    Ok(sums)
}

fn id_of(shared: &Shared, view: &View<'_>, name: &MetricName) -> Result<Option<MetricId>, Error> {
    let text = name.to_string();
    for probe in 0..PROBES {
        let id = (shared.options.id_of)(&text, probe);
        match name_of(shared, view, id)? {
            Some(known) if known == *name => return Ok(Some(id)),
            Some(_another) => {}
            None => break,
        }
    }
    Ok(None)
}

/// Returns the times between `from` and `to` in which a metric has no point, as far as the width of
/// the points tells that, at most the first [`HOLES_MAX`]. `None` if the metric is not registered.
pub(super) fn holes(
    shared: &Shared,
    view: &View<'_>,
    (name, from, to): (&MetricName, Timestamp, Timestamp),
    now: Timestamp,
) -> Result<Option<Vec<(Timestamp, Timestamp)>>, Error> {
    let Some(id) = id_of(shared, view, name)? else { return Ok(None) };
    let (begin, end) = (Minute::of(from), Minute::of(to));
    let Some(window) = width((begin, end), now, &shared.options.retention) else {
        return Ok(Some(Vec::new()));
    };
    let first = match window.bucket(begin).start() >= from {
        true => window.bucket(begin),
        false => window.bucket(begin).plus(window.minutes()),
    };
    let (mut holes, mut at) = (Vec::new(), first);
    let mut add = |from: Minute, to: Minute| {
        if from < to && holes.len() < HOLES_MAX {
            holes.push((from.start(), to.start()));
        }
    };
    let last = window.bucket(end);
    view.scan(
        Table::Points,
        &(key::point(id, window, first).to_vec(), key::point(id, window, last).to_vec()),
        |key, _| {
            if let Some((_, _, bucket)) = key::parse_point(key) {
                add(at, bucket);
                at = bucket.plus(window.minutes());
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    add(at, last);
    Ok(Some(holes))
}

/// Returns the width of the points whose presence is looked at: the narrowest that is still kept, of
/// at most some hundred points; `None` if no such points are kept.
fn width((begin, end): (Minute, Minute), now: Timestamp, retention: &Retention) -> Option<Window> {
    /// Maximum number of points that one search reads.
    const POINTS_MAX: u32 = 800;
    let fits = |window: &Window| {
        let bucket = window.bucket(begin);
        let is_kept = kept(bucket, *window, now, retention.minutes(*window)) <= bucket;
        is_kept && end.0.saturating_sub(begin.0) / window.minutes() <= POINTS_MAX
    };
    Window::ALL.into_iter().find(fits)
}

#[cfg(test)]
mod tests;
