//! Sums over spans against counted events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use stormkeeper_metrics::point::Gauge;

/// Points of all widths, each event counted in one of every width, as a store does it.
#[derive(Default)]
struct Points(BTreeMap<(Window, Minute), u64>);

impl Points {
    fn of(events: &[u64]) -> Self {
        let mut points = Self::default();
        for event in events {
            for window in Window::ALL {
                let bucket = window.bucket(Minute::of(Timestamp::from_millis(*event)));
                *points.0.entry((window, bucket)).or_default() += 1;
            }
        }
        points
    }

    /// Removes the points that are no longer kept.
    fn expired(mut self, now: u64, retention: &Retention) -> Self {
        let now = Timestamp::from_millis(now);
        self.0
            .retain(|(window, bucket), _| kept(*bucket, *window, now, retention.minutes(*window)) <= *bucket);
        self
    }

    /// Sum from `from` to `now`, and the number of events in the bucket that counts in proportion.
    fn sum(&self, from: u64, now: u64, retention: &Retention) -> (u64, u64) {
        let plan = plan(Timestamp::from_millis(from), Timestamp::from_millis(now), retention);
        let summed = sum(&plan, |(window, first, next), add| {
            let end = next.unwrap_or(Minute(u32::MAX));
            for (_, count) in self.0.range((window, first)..(window, end)) {
                add(Point::Counter(Counter { count: *count }));
            }
            Ok(())
        });
        let count = match summed.expect("read") {
            None => 0,
            Some(Point::Counter(counter)) => counter.count,
            Some(other) => panic!("{other:?}"),
        };
        let partial = plan.partial.and_then(|(window, bucket, _)| self.0.get(&(window, bucket)));
        (count, partial.copied().unwrap_or_default())
    }
}

const MINUTE: u64 = 60_000;
const NOW: u64 = 28_000_007 * MINUTE + 23_456;

fn counted(events: &[u64], from: u64) -> u64 {
    events.iter().filter(|event| **event >= from).count() as u64
}

/// Ages of events in milliseconds, most of them small.
fn ages() -> impl Strategy<Value = Vec<u64>> {
    let age = prop_oneof![0..3 * MINUTE, 0..15 * MINUTE, 0..200 * MINUTE, 0..2000 * MINUTE];
    proptest::collection::vec(age, 0..400)
}

proptest! {
    #[test]
    fn sum_differs_from_the_count_by_less_than_the_oldest_part_minute(
        ages in ages(),
        secs in prop_oneof![1_u64..200, Just(600), Just(10_800), Just(86_400)],
        shift in 0..3 * MINUTE,
    ) {
        let now = NOW + shift;
        let events: Vec<u64> = ages.into_iter().map(|age| now - 1 - age).collect();
        let retention = Retention::of_test();
        let from = now - secs * 1000;
        let (sum, partial) = Points::of(&events).expired(now, &retention).sum(from, now, &retention);
        let exact = counted(&events, from);
        prop_assert!(sum.abs_diff(exact) <= partial, "{sum}, counted {exact}, {partial} in the part minute");
        // The whole minutes of the span are exact.
        let whole = counted(&events, from.next_multiple_of(MINUTE));
        prop_assert!(sum >= whole && sum <= whole + partial, "{sum}, {whole} in whole minutes, {partial}");
    }

    #[test]
    fn sum_of_whole_minutes_is_exact(ages in ages(), minutes in 0_u64..2000) {
        let events: Vec<u64> = ages.into_iter().map(|age| NOW - 1 - age).collect();
        let from = NOW / MINUTE * MINUTE - minutes * MINUTE;
        let retention = Retention::of_test();
        let (sum, partial) = Points::of(&events).expired(NOW, &retention).sum(from, NOW, &retention);
        prop_assert_eq!((sum, partial), (counted(&events, from), 0));
    }

    #[test]
    fn sum_of_whole_days_is_exact_long_after_the_minutes_expired(
        days in proptest::collection::vec(0_u64..300, 0..100),
        from in 0_u64..300,
    ) {
        let day = 1440 * MINUTE;
        let events: Vec<u64> = days.into_iter().map(|ago| NOW - 1 - ago * day).collect();
        let from = (NOW - from * day) / day * day;
        let retention = Retention::of_test();
        let (sum, _) = Points::of(&events).expired(NOW, &retention).sum(from, NOW, &retention);
        prop_assert_eq!(sum, counted(&events, from));
    }

    #[test]
    fn runs_are_adjacent_and_aligned(from in 27_000_000_u32..28_000_000, length in 0_u32..100_000) {
        let now = Minute(from + length);
        let mut at = Some(Minute(from));
        for (window, first, next) in runs(Minute(from), now) {
            prop_assert_eq!(at, Some(first));
            prop_assert_eq!(window.bucket(first), first);
            prop_assert!(next.is_none_or(|next| next > first && window.bucket(next) == next));
            at = next;
        }
        prop_assert!(at.is_none_or(|at| at > now), "the runs end at {at:?} before {now:?}");
    }
}

#[test]
fn even_events_of_the_oldest_minute_count_in_proportion() {
    // One event in each second of four minutes.
    let now = 28_000_003 * MINUTE + 30_000;
    let events: Vec<u64> = (0..210).map(|n| 28_000_000 * MINUTE + n * 1000).collect();
    let points = Points::of(&events);
    for (secs, expected) in [(60, 60), (90, 90), (15, 15), (100, 100), (200, 200), (600, 210)] {
        assert_eq!(points.sum(now - secs * 1000, now, &Retention::of_test()).0, expected, "{secs} s");
    }
}

#[test]
fn mean_of_a_histogram_stays_when_a_part_of_it_counts() {
    let mut histogram = Histogram { count: 10, sum: 50.0, min: 1.0, max: 9.0, ..Histogram::default() };
    histogram.buckets.add(3, 4);
    let Point::Histogram(part) = scaled(Point::Histogram(histogram), 0.5) else { panic!("its kind stays") };
    assert_eq!((part.count, part.sum, part.max), (5, 25.0, 9.0));
    assert_eq!(part.buckets.iter().collect::<Vec<_>>(), [(3, 2)]);
}

#[test]
fn part_of_a_timer_has_the_parts_of_its_histogram_and_its_meter() {
    let mut histogram = Histogram { count: 10, sum: 50.0, zeros: 2, ..Histogram::default() };
    histogram.buckets.add(3, 8);
    let at = Minute(7);
    let meter = Meter { count: 10, from: at, at, m1: 1.5, m5: 1.25, m15: 1.0 };
    let point = Point::Timer(Timer { histogram, meter });
    let Point::Timer(part) = scaled(point, 0.5) else { panic!("its kind stays") };
    assert_eq!((part.histogram.count, part.histogram.sum, part.histogram.zeros), (5, 25.0, 1));
    assert_eq!(part.histogram.buckets.iter().collect::<Vec<_>>(), [(3, 4)]);
    assert_eq!(part.meter, Meter { count: 5, ..meter }, "rates are not divided");
}

#[test]
fn gauge_of_the_oldest_minute_counts_as_a_whole() {
    let point = Point::Gauge(Gauge { at: Minute(7), sum: 4.0, n: 2, min: 1.0, max: 3.0 });
    assert_eq!(scaled(point.clone(), 0.5), point);
}
