//! Admission of a metric batch: validates it and decides what is stored. Pure, except that the last
//! reports of launches and replaced readings are looked up.

use super::{
    DropCause, Drops, Error, catalog,
    catalog::MetricEntry,
    entry::Packed,
    relaunch::{self, LastLaunches, Reading},
};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point,
    batch::SequenceRange,
    point::{Histogram, Meter},
    protocol::{IngestedUpTo, NAMES_MAX},
};
use stormkeeper_model::WorkerId;

/// Maximum accepted lead of a sender's clock, in minutes: clocks of hosts differ.
const AHEAD_MAX: u32 = 5;

/// Decision on a metric batch.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Accept {
        minute: Minute,
        points: Packed,
        drops: Drops,
        /// The readings that count, of the launches whose readings are settled.
        readings: Vec<Reading>,
    },
    /// All of its reports were stored before.
    Duplicate,
    Overlaps(Vec<IngestedUpTo>),
    Unregistered(Vec<MetricId>),
}

/// Minutes that are accepted unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) oldest: Minute,
    pub(super) now: Minute,
}

impl Span {
    /// Span that ends now and covers the minutes of a `retention`, in minutes.
    pub(super) fn new(now: Minute, retention: u32) -> Self {
        Self { oldest: now.minus(retention.saturating_sub(1)), now }
    }

    /// Returns the last minute that is accepted unchanged.
    pub(super) fn last(self) -> Minute {
        self.now.plus(AHEAD_MAX)
    }

    /// Returns the minute that the points count for, and the cause if it is not `minute`.
    fn clamp(self, minute: Minute) -> (Minute, Option<DropCause>) {
        if minute > self.last() {
            (self.now, Some(DropCause::FromFuture))
        } else if minute < self.oldest {
            (self.oldest, Some(DropCause::TooOld))
        } else {
            (minute, None)
        }
    }
}

pub(super) fn decide(
    mut batch: MetricBatch,
    span: Span,
    known: impl Fn(MetricId) -> Option<MetricEntry>,
    last_report: impl FnMut(&WorkerId) -> Result<Option<u64>, Error>,
    (launches, stored): (&LastLaunches, &impl relaunch::Stored),
) -> Result<Decision, Error> {
    check(&batch)?;
    let mut drops = Drops::default();
    if let Some(other) = earlier_reports(&batch.reports, last_report, &mut drops)? {
        return Ok(other);
    }
    let unknown: Vec<MetricId> =
        batch.points.iter().map(|(id, _)| *id).filter(|id| known(*id).is_none()).take(NAMES_MAX).collect();
    if !unknown.is_empty() {
        return Ok(Decision::Unregistered(unknown));
    }
    // Sorted by key; points of the same metric are merged.
    batch.points.sort_by_key(|(id, _)| *id);
    batch.points.dedup_by(|(id, later), (before, point)| id == before && point.merge(later));
    let (minute, cause) = span.clamp(batch.minute);
    let readings = relaunch::settle(&mut batch, minute, launches, stored)?;
    let mut points = Packed::default();
    let mut n_points = 0;
    for (id, point) in &batch.points {
        if !is_finite(point) {
            catalog::count(&mut drops, DropCause::NotFinite, 1);
        } else if known(*id).is_some_and(|known| known.kind != point.kind()) {
            catalog::count(&mut drops, DropCause::WrongKind, 1);
        } else {
            points.push(*id, point);
            n_points += 1;
        }
    }
    if let Some(cause) = cause {
        catalog::count(&mut drops, cause, n_points);
    }
    Ok(Decision::Accept { minute, points, drops, readings })
}

/// Rejects a malformed metric batch.
fn check(batch: &MetricBatch) -> Result<(), Error> {
    let fail = |reason: &str| {
        let MetricBatch { topology, minute, .. } = batch;
        Err(Error::Invalid(format!("the metric batch of {topology} for {minute} {reason}")))
    };
    if batch.reports.is_empty() {
        return fail("has no reports");
    }
    if batch.reports.iter().any(|reports| reports.first == 0 || reports.first > reports.last) {
        return fail("has report numbers that do not count up from 1");
    }
    let mut workers: Vec<&WorkerId> = batch.reports.iter().map(|reports| &reports.worker).collect();
    workers.sort();
    if workers.windows(2).any(|pair| pair[0] == pair[1]) {
        return fail("has two report ranges of one launch");
    }
    Ok(())
}

/// Compares the reports with those that were stored before; `None` if all are new. Counts reports
/// that never arrived.
fn earlier_reports(
    reports: &[SequenceRange],
    mut last_report: impl FnMut(&WorkerId) -> Result<Option<u64>, Error>,
    drops: &mut Drops,
) -> Result<Option<Decision>, Error> {
    let mut stored = Vec::new();
    let (mut all_taken, mut none_taken, mut n_missing) = (true, true, 0_u64);
    for SequenceRange { worker, first, last } in reports {
        let before = last_report(worker)?;
        if let Some(last) = before {
            stored.push(IngestedUpTo { worker: worker.clone(), last });
        }
        let before = before.unwrap_or_default();
        all_taken &= *last <= before;
        none_taken &= *first > before;
        n_missing = n_missing.saturating_add(first.saturating_sub(before.saturating_add(1)));
    }
    if all_taken {
        return Ok(Some(Decision::Duplicate));
    }
    if !none_taken {
        return Ok(Some(Decision::Overlaps(stored)));
    }
    catalog::count(drops, DropCause::MissingReport, n_missing);
    Ok(None)
}

fn is_finite(point: &Point) -> bool {
    let meter = |meter: &Meter| [meter.m1, meter.m5, meter.m15].iter().all(|rate| rate.is_finite());
    let histogram = |it: &Histogram| [it.sum, it.min, it.max].iter().all(|value| value.is_finite());
    match point {
        Point::Counter(_) => true,
        Point::Gauge(gauge) => [gauge.sum, gauge.min, gauge.max].iter().all(|value| value.is_finite()),
        Point::Meter(it) => meter(it),
        Point::Histogram(it) => histogram(it),
        Point::Timer(it) => histogram(&it.histogram) && meter(&it.meter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_metrics::{
        MetaType, MetricType,
        point::{Counter, Gauge, Timer},
    };

    fn take(
        minute: u32,
        reports: &[(u64, u64)],
        points: Vec<(u64, Point)>,
        last: Option<u64>,
    ) -> Result<Decision, Error> {
        let batch = MetricBatch {
            topology: "t-1-1".parse().expect("an id"),
            minute: Minute(minute),
            reports: reports
                .iter()
                .enumerate()
                .map(|(n, (first, last))| SequenceRange {
                    worker: format!("w{n}").parse().expect("an id"),
                    first: *first,
                    last: *last,
                })
                .collect(),
            points: points.into_iter().map(|(id, point)| (MetricId(id), point)).collect(),
            readings: Vec::new(),
        };
        let known = |id: MetricId| {
            let kind = if id.0 < 10 { MetricType::Counter } else { MetricType::Gauge };
            (id.0 < 20).then_some(MetricEntry { topology: 0, meta: MetaType::Task, kind })
        };
        decide(batch, Span::new(Minute(10_000), 1000), known, |_| Ok(last), nothing())
    }

    /// A store without points.
    struct Empty;

    impl relaunch::Stored for Empty {
        fn point(&self, _: MetricId, _: Minute) -> Result<Option<Point>, Error> {
            Ok(None)
        }

        fn above(&self, _: MetricId) -> Result<Vec<MetricId>, Error> {
            Ok(Vec::new())
        }
    }

    fn nothing() -> (&'static LastLaunches, &'static Empty) {
        (Box::leak(Box::new(LastLaunches::new())), &Empty)
    }

    fn counter(count: u64) -> Point {
        Point::Counter(Counter { count })
    }

    fn drops(of: Decision) -> Vec<(DropCause, u64)> {
        let Decision::Accept { drops, .. } = of else { panic!("{of:?}") };
        drops.into_iter().collect()
    }

    #[test]
    fn point_is_finite_only_if_all_its_numbers_are() {
        let meter = Meter { count: 1, from: Minute(1), at: Minute(1), m1: 1.0, m5: 1.0, m15: 1.0 };
        let histogram =
            Histogram { count: 1, sum: 1.0, min: 1.0, max: 1.0, zeros: 0, buckets: [(0, 1)].into() };
        let gauge = Gauge { at: Minute(1), sum: 1.0, n: 1, min: 1.0, max: 1.0 };
        let timer = |meter: &Meter, histogram: &Histogram| {
            Point::Timer(Timer { meter: *meter, histogram: histogram.clone() })
        };
        let good = [Point::Meter(meter), Point::Gauge(gauge), timer(&meter, &histogram)];
        assert!(good.iter().all(is_finite));
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let meters =
                [Meter { m1: odd, ..meter }, Meter { m5: odd, ..meter }, Meter { m15: odd, ..meter }];
            let histograms = [
                Histogram { sum: odd, ..histogram.clone() },
                Histogram { min: odd, ..histogram.clone() },
                Histogram { max: odd, ..histogram.clone() },
            ];
            let gauges =
                [Gauge { sum: odd, ..gauge }, Gauge { min: odd, ..gauge }, Gauge { max: odd, ..gauge }];
            let timers = meters.iter().map(|meter| timer(meter, &histogram));
            let timers = timers.chain(histograms.iter().map(|histogram| timer(&meter, histogram)));
            let bad: Vec<Point> = timers
                .chain(meters.iter().copied().map(Point::Meter))
                .chain(histograms.iter().cloned().map(Point::Histogram))
                .chain(gauges.iter().copied().map(Point::Gauge))
                .collect();
            assert!(!bad.iter().any(is_finite), "{odd}");
        }
    }

    #[test]
    fn each_report_is_stored_once() {
        let with =
            |reports: &[(u64, u64)], last| take(10_000, reports, vec![(1, counter(1))], last).expect("sense");
        assert_eq!(drops(with(&[(1, 2)], None)), []);
        assert_eq!(drops(with(&[(4, 4)], Some(3))), []);
        assert_eq!(drops(with(&[(6, 6)], Some(3))), [(DropCause::MissingReport, 2)]);
        assert_eq!(with(&[(1, 3), (2, 2)], Some(3)), Decision::Duplicate);
        assert!(matches!(with(&[(3, 4)], Some(3)), Decision::Overlaps(stored) if stored[0].last == 3));
        assert!(matches!(with(&[(4, 4), (1, 2)], Some(3)), Decision::Overlaps(_)));
    }

    #[test]
    fn malformed_batches_are_rejected_and_odd_points_are_counted() {
        for reports in [&[][..], &[(0, 1)], &[(2, 1)]] {
            take(10_000, reports, Vec::new(), None).expect_err("malformed");
        }
        let twice = SequenceRange { worker: "w".parse().expect("an id"), first: 1, last: 1 };
        let twice = MetricBatch {
            topology: "t-1-1".parse().expect("an id"),
            minute: Minute(10_000),
            reports: vec![twice.clone(), SequenceRange { first: 2, last: 2, ..twice }],
            points: Vec::new(),
            readings: Vec::new(),
        };
        let decided = decide(twice, Span::new(Minute(10_000), 1000), |_| None, |_| Ok(None), nothing());
        assert!(decided.is_err(), "one launch twice: {decided:?}");
        let minute = |minute| match take(minute, &[(1, 1)], vec![(1, counter(1))], None).expect("sense") {
            Decision::Accept { minute, drops, .. } => (minute.0, drops.into_keys().next()),
            other => panic!("{other:?}"),
        };
        assert_eq!(minute(10_005), (10_005, None));
        assert_eq!(minute(10_006), (10_000, Some(DropCause::FromFuture)));
        assert_eq!(minute(9_001), (9_001, None));
        assert_eq!(minute(9_000), (9_001, Some(DropCause::TooOld)));
        let gauge = |sum| Point::Gauge(Gauge { at: Minute(1), sum, n: 1, min: 0.0, max: 1.0 });
        let odd =
            vec![(12, gauge(f64::NAN)), (11, gauge(1.0)), (1, counter(1)), (2, gauge(1.0)), (1, counter(2))];
        let taken = take(10_000, &[(1, 1)], odd, None).expect("sense");
        let Decision::Accept { points, .. } = &taken else { panic!("{taken:?}") };
        let mut expected = Packed::default();
        expected.push(MetricId(1), &counter(3));
        expected.push(MetricId(11), &gauge(1.0));
        assert_eq!(*points, expected);
        assert_eq!(drops(taken), [(DropCause::NotFinite, 1), (DropCause::WrongKind, 1)]);
        let unknown = take(10_000, &[(1, 1)], vec![(1, counter(1)), (30, counter(1))], None).expect("sense");
        assert_eq!(unknown, Decision::Unregistered(vec![MetricId(30)]));
    }
}
