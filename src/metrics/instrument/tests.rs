//! Instruments under one thread and under many.

use std::{
    sync::{Barrier, Mutex},
    thread,
    time::Duration,
};

use super::*;
use crate::clock::Monotonic;

const THREADS: usize = 2 * lane::LANES;

fn after(secs: u64) -> Monotonic {
    Monotonic::START.plus(Duration::from_secs(secs))
}

fn on_threads(n: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| (0..n).for_each(|_| drop(scope.spawn(&work))));
}

#[test]
fn counts_are_exact_with_more_threads_than_lanes() {
    const TIMES: u64 = 50_000;
    let counter = Counter::new();
    for round in 1..=2 {
        // All live at once, so some share; then they end, and others take their lanes.
        let start = Barrier::new(THREADS);
        let lanes = Mutex::new(Vec::new());
        on_threads(THREADS, || {
            lanes.lock().expect("no thread panics").push(lane::of_this_thread());
            start.wait();
            (0..TIMES).for_each(|_| counter.increment());
        });
        assert_eq!(counter.read(), round * THREADS as u64 * TIMES);
        let mut lanes = lanes.into_inner().expect("no thread panics");
        lanes.retain(|lane| *lane != lane::SHARED);
        assert!(lanes.len() < lane::LANES, "{lanes:?}: too few share");
        lanes.sort_unstable();
        assert!(lanes.is_sorted_by(|a, b| a < b), "{lanes:?}: one lane has two owners");
    }
}

#[test]
fn a_count_is_never_less_than_it_was() {
    let counter = Counter::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50_000).for_each(|_| counter.increment()));
        }
        let mut last = 0;
        while last < 200_000 {
            let now = counter.read();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
}

#[test]
fn a_histogram_takes_each_value_once_with_threads_and_cuts() {
    let shared = Shared::new(0.5);
    let histogram = Histogram::new(&shared);
    let mut sum = thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (1..=10_000).for_each(|n| histogram.update(f64::from(n))));
        }
        let mut sum = histogram.take();
        for _ in 0..100 {
            sum.merge(&histogram.take());
        }
        sum
    });
    sum.merge(&histogram.take());
    assert_eq!((sum.count, sum.min, sum.max), (80_000, 1.0, 10_000.0));
    assert_eq!(sum.sum, 8.0 * 50_005_000.0);
    // Forty thousand are expected; this is off by chance once in 10^15 runs.
    assert!((38_800..41_200).contains(&sum.n_sampled()), "{}", sum.n_sampled());
}

#[test]
fn the_sample_rate_can_be_changed_at_any_time() {
    let shared = Shared::new(0.0);
    let histogram = Histogram::new(&shared);
    let sampled = || {
        (0..10_000).for_each(|_| histogram.update(1.0));
        let taken = histogram.take();
        assert_eq!(taken.count, 10_000);
        taken.n_sampled()
    };
    assert_eq!(sampled(), 0);
    shared.set_sample_rate(1.0);
    assert_eq!(sampled(), 10_000);
    shared.set_sample_rate(0.1);
    assert!((700..1300).contains(&sampled()));
    shared.set_sample_rate(f64::NAN);
    assert_eq!(sampled(), 0);
    shared.set_sample_rate(7.0);
    assert_eq!((sampled(), shared.sample_rate()), (10_000, 1.0));
}

#[test]
fn the_first_value_has_the_same_chance_as_any_other() {
    let shared = Shared::new(0.1);
    let first_is_sampled = || {
        let histogram = Histogram::new(&shared);
        histogram.update(1.0);
        histogram.take().n_sampled()
    };
    let n: u64 = (0..10_000).map(|_| first_is_sampled()).sum();
    assert!((700..1300).contains(&n), "{n}");
}

#[test]
fn what_is_no_number_is_refused_and_counted() {
    let shared = Shared::new(1.0);
    let (gauge, histogram) = (Gauge::new(&shared), Histogram::new(&shared));
    gauge.set(2.0);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        gauge.set(bad);
        histogram.update(bad);
    }
    assert_eq!((gauge.read(), histogram.take().count, shared.refused()), (Some(2.0), 0, 6));
    assert_eq!(Gauge::asking(|| Some(f64::NAN), &shared).read(), None);
    assert_eq!(shared.refused(), 7);
}

#[test]
fn what_is_switched_off_does_nothing() {
    let shared = Shared::new(1.0);
    let (counter, gauge) = (Counter::new(), Gauge::new(&shared));
    let (meter, timer) = (Meter::new(after(0)), Timer::new(&shared, after(0)));
    gauge.set(1.0);
    let all = |on| {
        counter.switch(on);
        gauge.switch(on);
        meter.switch(on);
        timer.switch(on);
    };
    let count = || {
        counter.increment();
        meter.mark_many(2);
        timer.update(Duration::from_millis(1));
        (counter.read(), meter.read(), timer.read(), gauge.read())
    };
    all(false);
    assert_eq!(count(), (0, 0, 0, None));
    all(true);
    assert_eq!(count(), (1, 2, 1, Some(1.0)));
    let taken = timer.take();
    assert_eq!((taken.count, taken.min), (1, 1000.0));
}

/// The averages as their inventors compute them: one step for each tick of five seconds.
fn ticked(per_tick: &[u64], minutes: f64) -> f64 {
    let alpha = 1.0 - (-5.0 / 60.0 / minutes).exp();
    let mut rates = per_tick.iter().map(|n| *n as f64 / 5.0);
    let first = rates.next().unwrap_or(0.0);
    rates.fold(first, |rate, now| rate + alpha * (now - rate))
}

#[test]
fn rates_are_those_of_ticks_of_five_seconds() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.max(1.0), "{a} for {b}");
    let per_tick = [10, 20, 0, 0, 400, 5, 5, 5, 1, 0, 0, 0, 0, 7];
    let meter = Meter::new(after(0));
    let mut rates = Rates::default();
    for (n, at) in per_tick.iter().zip(1..) {
        meter.mark_many(*n);
        rates = meter.rates(after(5 * at));
        // Less than a tick later nothing changed, whatever happened.
        assert_eq!(meter.rates(after(5 * at + 4)), rates);
    }
    near(rates.m1, ticked(&per_tick, 1.0));
    near(rates.m5, ticked(&per_tick, 5.0));
    near(rates.m15, ticked(&per_tick, 15.0));

    // Asked once a minute, it is as if the events were spread over the ticks.
    let meter = Meter::new(after(0));
    meter.mark_many(60);
    assert_eq!(meter.rates(after(60)), Rates { m1: 1.0, m5: 1.0, m15: 1.0 });
    meter.mark_many(600);
    near(meter.rates(after(120)).m1, ticked(&[[5; 12], [50; 12]].concat(), 1.0));
    // In the end it is still, and says so.
    assert_eq!(meter.rates(after(1_000_000)), Rates::default());
    assert_eq!(meter.read(), 660);
}
