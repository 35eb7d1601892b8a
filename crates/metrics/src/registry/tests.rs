//! Collection, ids, switches and limits of a registry.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{Point, point};

fn registry() -> Registry {
    Registry::new(Control { sample_rate: 1.0, ..Control::default() }, Monotonic::START)
}

fn name(task: u32, name: &str) -> MetricName {
    format!("3@1@t@c@{task}@default@sys@{name}").parse().expect("a name")
}

fn request(minute: u32) -> CollectRequest {
    let now = Monotonic::START.plus(Duration::from_secs(60 * u64::from(minute)));
    CollectRequest { minute: Minute(minute), now, with_gauges: true }
}

fn id(name: &MetricName) -> MetricId {
    MetricId::of(&name.to_string(), 0)
}

#[test]
fn a_report_contains_the_increments_since_the_last_report() {
    let registry = registry();
    let counter = registry.counter(name(1, "Emitted"));
    let same = registry.counter(name(1, "Emitted"));
    counter.add(3);
    same.increment();
    let leaf = |count, total| Leaf {
        id: id(&name(1, "Emitted")),
        point: Point::Counter(point::Counter { count }),
        total: Some(total),
    };
    assert_eq!(registry.collect(request(1)), [leaf(4, 4)]);
    assert_eq!(registry.collect(request(2)), [], "nothing was added");
    assert_eq!(registry.collected_totals(), [(id(&name(1, "Emitted")), 4)]);
    counter.add(2);
    assert_eq!(registry.collected_totals(), [(id(&name(1, "Emitted")), 4)], "not reported yet");
    assert_eq!(registry.collect(request(3)), [leaf(2, 6)]);
}

#[test]
fn gauges_and_rates_are_only_in_reports_that_request_them() {
    let registry = registry();
    let (gauge, meter) = (registry.gauge(name(1, "a")), registry.meter(name(1, "b")));
    registry.gauge_fn(name(1, "c"), || Some(7.0)).expect("there is room");
    let timer = registry.timer(name(1, "d"));
    let unset = registry.gauge(name(1, "e"));
    gauge.set(3.0);
    meter.mark_many(60);
    timer.update(Duration::from_micros(5));
    let points = |with_gauges| {
        let leaves = registry.collect(CollectRequest { with_gauges, ..request(1) });
        let mut points: Vec<Point> = leaves.into_iter().map(|leaf| leaf.point).collect();
        points.sort_by_key(Point::kind);
        points
    };
    let still = |count| point::Meter { count, from: Minute(1), at: Minute(1), m1: 0.0, m5: 0.0, m15: 0.0 };
    let first = points(false);
    let [Point::Meter(rate), Point::Timer(time)] = &first[..] else { panic!("{first:?}") };
    assert_eq!((rate, &time.meter), (&still(60), &still(1)));
    assert_eq!((time.histogram.count, time.histogram.max), (1, 5.0));
    assert_eq!(points(false), []);
    let second = points(true);
    let [Point::Gauge(set), Point::Gauge(asked), Point::Meter(rate), Point::Timer(time)] = &second[..] else {
        panic!("{second:?}")
    };
    let mut gauges = [set.sum, asked.sum];
    gauges.sort_by(f64::total_cmp);
    assert_eq!(gauges, [3.0, 7.0]);
    assert_eq!((rate.count, rate.m1, time.histogram.count), (0, 1.0, 0));
    drop(unset);
}

#[test]
fn no_count_is_lost_or_doubled_between_reports() {
    let registry = registry();
    let stop = AtomicBool::new(false);
    let mut reported = thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut sum = 0;
            while !stop.load(Ordering::Acquire) {
                sum += count(&registry.collect(request(1)));
            }
            sum
        });
        let counting: Vec<_> = (0..4)
            .map(|_| {
                let counter = registry.counter(name(1, "Emitted"));
                scope.spawn(move || (0..100_000).for_each(|_| counter.increment()))
            })
            .collect();
        counting.into_iter().for_each(|thread| thread.join().expect("it counts"));
        stop.store(true, Ordering::Release);
        collector.join().expect("collected")
    });
    reported += count(&registry.collect(request(1)));
    assert_eq!(reported, 400_000);
}

fn count(leaves: &[Leaf]) -> u64 {
    let counts = leaves.iter().map(|leaf| match &leaf.point {
        Point::Counter(counter) => counter.count,
        other => panic!("{other:?} is no counter"),
    });
    counts.sum()
}

#[test]
fn switches_apply_at_once_to_existing_and_new_metrics() {
    let registry = registry();
    let emitted = registry.counter(name(1, "Emitted"));
    let emit_time = registry.histogram(name(1, "EmitTime"));
    let counted = || {
        emitted.increment();
        emit_time.update(1.0);
        registry.counter(name(2, "Emitted")).increment();
        registry.collect(request(1)).len()
    };
    assert_eq!(counted(), 2, "EmitTime is off by default");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    registry.control(&Control { disabled: names(&["Emitted"]), ..Control::default() });
    assert_eq!(counted(), 0);
    let both = Control {
        disabled: names(&["Emitted"]),
        enabled: names(&["Emitted", "EmitTime"]),
        ..Control::default()
    };
    registry.control(&both);
    assert_eq!(counted(), 3, "metrics enabled by name are measured");
    registry.control(&Control { on: false, ..both });
    assert_eq!(counted(), 0);
    registry.control(&Control { sample_rate: 0.0, ..Control::default() });
    registry.histogram(name(1, "x")).update(1.0);
    let leaves = registry.collect(request(1));
    assert!(
        matches!(&leaves[..], [Leaf { point: Point::Histogram(h), .. }] if h.n_sampled() == 0),
        "{leaves:?}"
    );
}

#[test]
fn debug_metrics_are_returned_with_their_names() {
    let registry = registry();
    registry.counter(name(1, "Emitted")).increment();
    registry.counter(name(1, "Acked")).increment();
    let leaves = registry.collect(request(1));
    assert_eq!(registry.debugged(&leaves), []);
    registry.control(&Control { debug: ["Acked".to_owned()].into(), ..Control::default() });
    let debugged = registry.debugged(&leaves);
    assert!(matches!(&debugged[..], [(named, _)] if *named == name(1, "Acked")), "{debugged:?}");
}

#[test]
fn new_names_are_returned_once() {
    let registry = registry();
    registry.counter(name(1, "a"));
    registry.counter(name(2, "b"));
    let (generation, names) = registry.names_since(0);
    assert_eq!(names, [(id(&name(1, "a")), name(1, "a")), (id(&name(2, "b")), name(2, "b"))]);
    assert_eq!(registry.names_since(generation), (generation, vec![]));
    registry.counter(name(1, "a"));
    registry.counter(name(3, "c"));
    let (_, names) = registry.names_since(generation);
    assert_eq!(names, [(id(&name(3, "c")), name(3, "c"))]);
    assert_eq!(registry.names_since(0).1.len(), 3);
}

#[test]
fn an_id_of_another_metric_is_avoided() {
    let registry = registry();
    registry.counter(name(1, "a")).increment();
    let taken = id(&name(1, "b"));
    // Another metric has the id that follows from b's name, as if both had the same hash.
    assert!(registry.rename(id(&name(1, "a")), taken));
    registry.counter(name(1, "b")).increment();
    let probed = MetricId::of(&name(1, "b").to_string(), 1);
    assert_ne!(probed, taken);
    let mut ids = [taken, probed];
    ids.sort();
    assert_eq!(registry.collect(request(1)).iter().map(|leaf| leaf.id).collect::<Vec<_>>(), ids);
    assert!(!registry.rename(taken, probed), "b has the new id");
    assert!(!registry.rename(MetricId(1), MetricId(2)), "no metric has the old id");
    assert!(registry.rename(taken, taken));
}

#[test]
fn the_counters_of_a_task_keep_their_order() {
    let registry = registry();
    let row = || registry.counters_of(TaskId(1));
    assert_eq!(row().counters.len(), 0);
    let first = registry.counter(name(1, "z"));
    registry.counter(name(2, "y"));
    registry.histogram(name(1, "x"));
    first.add(5);
    assert_eq!((row().ids.to_vec(), row().counters[0].read()), (vec![id(&name(1, "z"))], 5));
    let generation = registry.generation();
    registry.counter(name(1, "a"));
    assert_ne!(registry.generation(), generation);
    assert_eq!(row().ids.to_vec(), [id(&name(1, "z")), id(&name(1, "a"))]);
}

#[test]
fn a_metric_is_removed_after_its_last_release() {
    let registry = registry();
    let closed = name(1, "x");
    let counter = registry.counter(closed.clone());
    registry.counter(closed.clone());
    registry.release(&closed);
    registry.collect(request(1));
    assert_eq!(registry.len(), 1, "one registration is left");
    counter.add(2);
    registry.release(&closed);
    assert_eq!(count(&registry.collect(request(1))), 2, "the last increments are reported");
    assert!(registry.is_empty());
    assert_eq!(registry.counters_of(TaskId(1)).counters.len(), 0);
    registry.counter(closed).increment();
    assert_eq!(count(&registry.collect(request(1))), 1);
}

#[test]
fn metrics_over_the_limit_are_rejected_and_counted() {
    let registry = registry();
    for n in 0..METRICS_MAX {
        registry.counter(name(1, &format!("n{n}")));
    }
    let more = registry.counter(name(1, "more"));
    more.increment();
    assert_eq!((more.read(), registry.n_rejected(), registry.len()), (0, 1, METRICS_MAX));
    assert!(registry.try_gauge(name(1, "more")).is_err());
    registry.try_counter(name(1, "n0")).expect("registered before");
    registry.release(&name(1, "n0"));
    registry.release(&name(1, "n0"));
    registry.collect(request(1));
    registry.try_counter(name(1, "more")).expect("below the limit again");
}
