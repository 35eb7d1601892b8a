//! Instruments under one thread and under many threads.

use std::{
    sync::{Barrier, Mutex},
    thread,
    time::Duration,
};

use super::*;
use crate::live::Total;
use stormkeeper_model::clock::Monotonic;

const THREADS: usize = 2 * stripe::STRIPES;

fn after(secs: u64) -> Monotonic {
    Monotonic::START.plus(Duration::from_secs(secs))
}

fn on_threads(n: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| (0..n).for_each(|_| drop(scope.spawn(&work))));
}

#[test]
fn counts_are_exact_with_more_threads_than_stripes() {
    const TIMES: u64 = 50_000;
    let counter = Counter::new();
    for round in 1..=2 {
        // All threads live at once, so some share; then they end, and the next reuse the stripes.
        let start = Barrier::new(THREADS);
        let stripes = Mutex::new(Vec::new());
        on_threads(THREADS, || {
            stripes.lock().expect("no thread panics").push(stripe::of_this_thread());
            start.wait();
            (0..TIMES).for_each(|_| counter.increment());
        });
        assert_eq!(counter.read(), round * THREADS as u64 * TIMES);
        let mut stripes = stripes.into_inner().expect("no thread panics");
        stripes.retain(|stripe| *stripe != stripe::SHARED);
        assert!(stripes.len() < stripe::STRIPES, "{stripes:?}: no thread shares a stripe");
        stripes.sort_unstable();
        assert!(stripes.is_sorted_by(|a, b| a < b), "{stripes:?}: one stripe has two owners");
    }
}

#[test]
fn a_counter_never_decreases() {
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
fn concurrent_takes_of_a_histogram_return_each_value_once() {
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
    // 40,000 are expected; a correct program fails this by chance once in 10^15 runs.
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
fn the_first_value_is_sampled_with_the_same_probability() {
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
fn values_that_are_not_finite_are_rejected_and_counted() {
    let shared = Shared::new(1.0);
    let (gauge, histogram) = (Gauge::new(&shared), Histogram::new(&shared));
    gauge.set(2.0);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        gauge.set(bad);
        histogram.update(bad);
    }
    assert_eq!((gauge.read(), histogram.take().count, shared.n_rejected()), (Some(2.0), 0, 6));
    assert_eq!(Gauge::asking(|| Some(f64::NAN), &shared).read(), None);
    assert_eq!(shared.n_rejected(), 7);
}

#[test]
fn disabled_instruments_ignore_updates() {
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

/// The averages by their original definition: one step for each tick of five seconds.
fn ticked(per_tick: &[u64], minutes: f64) -> f64 {
    let alpha = 1.0 - (-5.0 / 60.0 / minutes).exp();
    let mut rates = per_tick.iter().map(|n| *n as f64 / 5.0);
    let first = rates.next().unwrap_or(0.0);
    rates.fold(first, |rate, now| rate + alpha * (now - rate))
}

#[test]
fn rates_equal_those_of_five_second_ticks() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.max(1.0), "{a} for {b}");
    let per_tick = [10, 20, 0, 0, 400, 5, 5, 5, 1, 0, 0, 0, 0, 7];
    let meter = Meter::new(after(0));
    let mut rates = Rates::default();
    for (n, at) in per_tick.iter().zip(1..) {
        meter.mark_many(*n);
        rates = meter.rates(after(5 * at));
        // Until a full tick has passed, the rates do not change.
        assert_eq!(meter.rates(after(5 * at + 4)), rates);
    }
    near(rates.m1, ticked(&per_tick, 1.0));
    near(rates.m5, ticked(&per_tick, 5.0));
    near(rates.m15, ticked(&per_tick, 15.0));

    // Read once a minute, the events count as spread evenly over the ticks.
    let meter = Meter::new(after(0));
    meter.mark_many(60);
    assert_eq!(meter.rates(after(60)), Rates { m1: 1.0, m5: 1.0, m15: 1.0 });
    meter.mark_many(600);
    near(meter.rates(after(120)).m1, ticked(&[[5; 12], [50; 12]].concat(), 1.0));
    // Without events the rates decay to 0.
    assert_eq!(meter.rates(after(1_000_000)), Rates::default());
    assert_eq!(meter.read(), 660);
}

#[test]
fn total_of_a_histogram_counts_values_that_were_taken_and_takes_none() {
    let histogram = Histogram::new(&Shared::new(1.0));
    [1.0, 2.0].into_iter().for_each(|value| histogram.update(value));
    assert_eq!(histogram.total(), Total { n: 2, sum: 3.0 });
    assert_eq!((histogram.take().count, histogram.take().count), (2, 0), "reading the total takes nothing");
    histogram.update(4.0);
    assert_eq!(histogram.total(), Total { n: 3, sum: 7.0 });
}
