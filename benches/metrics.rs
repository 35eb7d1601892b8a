//! Cost of metrics: counting on one thread and on four, histograms compared with hdrhistogram,
//! registration, a report, and a topology master's merge of 200 workers with 5,000 metrics each.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram as Peer;
use stormkeeper_metrics::{
    CollectRequest, Control, Leaf, Merger, MetricId, MetricName, MetricReport, Minute, Point, Registry,
    codec,
    instrument::{Counter, Histogram, Shared},
    point,
};
use stormkeeper_model::{Timestamp, clock::Clock};

const THREADS: usize = 4;
const WORKERS: usize = 200;
const LEAVES: usize = 5000;

/// Runs `work` `times` times on each of four threads; returns the longest time of a thread.
#[expect(clippy::disallowed_methods, reason = "criterion's own clock is not accessible from here")]
fn on_four_threads(times: u64, work: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let begin = Instant::now();
                    (0..times).for_each(|_| work());
                    begin.elapsed()
                })
            })
            .collect();
        start.wait();
        let took = threads.into_iter().map(|thread| thread.join().expect("it counts"));
        took.max().unwrap_or_default()
    })
}

fn counting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("counter");
    let counter = Counter::new();
    group.bench_function("one thread", |b| b.iter(|| black_box(&counter).increment()));
    group.bench_function("4 threads", |b| {
        b.iter_custom(|times| on_four_threads(times, || black_box(&counter).increment()));
    });
    let off = Registry::new(Control { on: false, ..Control::default() }, Clock::new().monotonic());
    let off = off.counter("3@1@t@c@1@s@sys@Emitted".parse().expect("a name"));
    group.bench_function("switched off", |b| b.iter(|| black_box(&off).increment()));
    let atomic = std::sync::atomic::AtomicU64::new(0);
    let add = || black_box(&atomic).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    group.bench_function("peer: AtomicU64, one thread", |b| b.iter(add));
    group.bench_function("peer: AtomicU64, 4 threads", |b| {
        b.iter_custom(|times| {
            on_four_threads(times, || {
                black_box(add());
            })
        });
    });
    group.finish();
}

/// Typical latencies: most near one millisecond, some far above.
fn latencies() -> Vec<f64> {
    let mut dice = fastrand::Rng::with_seed(7);
    (0..65_536).map(|_| 1000.0 * (dice.f64() + dice.f64() + dice.f64() - 1.5).exp2().powi(3)).collect()
}

fn histograms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("histogram");
    let values = latencies();
    for rate in [0.1, 1.0] {
        let histogram = Histogram::new(&Shared::new(rate));
        let mut next = 0;
        group.bench_function(format!("sample rate {rate}, one thread"), |b| {
            b.iter(|| {
                next = (next + 1) % values.len();
                black_box(&histogram).update(values[next]);
            });
        });
        group.bench_function(format!("sample rate {rate}, 4 threads"), |b| {
            b.iter_custom(|times| on_four_threads(times, || black_box(&histogram).update(1234.5)));
        });
    }
    let mut peer = Peer::<u64>::new_with_bounds(1, 3_600_000_000, 2).expect("valid bounds");
    let mut next = 0;
    group.bench_function("peer: hdrhistogram of 2 digits, every value, no lock", |b| {
        b.iter(|| {
            next = (next + 1) % values.len();
            peer.saturating_record(black_box(values[next] as u64));
        });
    });
    let mut sum = of(&values);
    let other = sum.clone();
    group.bench_function("merge two", |b| b.iter(|| sum.merge(black_box(&other))));
    let mut sum = peer.clone();
    group.bench_function("peer: hdrhistogram, merge two", |b| {
        b.iter(|| sum.add(black_box(&peer)).expect("the same bounds"));
    });
    let bytes = codec::encode(&Point::Histogram(other.clone()));
    println!("a histogram of {} values is {} bytes", other.count, bytes.len());
    group.bench_function("all percentiles", |b| b.iter(|| black_box(other.percentiles())));
    group.finish();
}

fn of(values: &[f64]) -> point::Histogram {
    let histogram = Histogram::new(&Shared::new(1.0));
    values.iter().for_each(|value| histogram.update(*value));
    histogram.take()
}

/// Metrics of a worker with ten tasks: 200 stream counters, 150 gauges and meters, and 150
/// histograms with about fifty buckets for each task.
fn leaves(worker: usize) -> Vec<(MetricName, Point)> {
    let mut dice = fastrand::Rng::with_seed(worker as u64);
    let values = latencies();
    let histogram = |dice: &mut fastrand::Rng| {
        let at = dice.usize(..values.len() - 200);
        Point::Histogram(of(&values[at..at + 100]))
    };
    let (minute, mut made) = (Minute(1), Vec::with_capacity(LEAVES));
    for n in 0..LEAVES {
        let (task, n) = (worker * 10 + n % 10, n / 10);
        let component = task % 50;
        let (name, point) = match n {
            0..200 => (
                format!("3@1@t-1-1@c{component}@{task}@s{}@sys@n{}", n % 4, n / 4),
                Point::Counter(point::Counter { count: dice.u64(1..1000) }),
            ),
            200..275 => (
                format!("1@2@t-1-1@c{component}@{task}@@sys@n{n}"),
                Point::Gauge(point::Gauge::reading(minute, dice.f64()).expect("finite")),
            ),
            275..350 => (
                format!("3@3@t-1-1@c{component}@{task}@s{}@sys@n{}", n % 4, n / 4),
                Point::Meter(point::Meter { count: 9, from: minute, at: minute, m1: 1.0, m5: 2.0, m15: 3.0 }),
            ),
            _ => (format!("3@4@t-1-1@c{component}@{task}@s{}@sys@n{}", n % 4, n / 4), histogram(&mut dice)),
        };
        made.push((name.parse().expect("a name"), point));
    }
    made
}

fn merging(criterion: &mut Criterion) {
    let mut merger = Merger::new("t-1-1".parse().expect("an id"));
    let mut reports = Vec::new();
    for worker in 0..WORKERS {
        let leaves = leaves(worker);
        let names: Vec<_> =
            leaves.iter().map(|(name, _)| (MetricId::of(&name.to_string(), 0), name.clone())).collect();
        merger.names(&names);
        let leaves =
            names.iter().zip(leaves).map(|((id, _), (_, point))| Leaf { id: *id, point, total: None });
        reports.push(MetricReport {
            topology: "t-1-1".parse().expect("an id"),
            worker: format!("w{worker}").parse().expect("an id"),
            number: 1,
            minute: Minute(1),
            started: Timestamp::EPOCH,
            leaves: leaves.collect(),
        });
    }
    let mut merge = |reports: Vec<MetricReport>| {
        reports.into_iter().for_each(|report| merger.add_owned(report).expect("known names"));
        merger.batches()
    };
    let merged = merge(reports.clone());
    let points: usize = merged.iter().map(|one| one.points.len()).sum();
    println!("200 workers with 5,000 metrics: {points} points in {} batches", merged.len());
    drop(merged);
    let mut group = criterion.benchmark_group("topology master");
    group.sample_size(10);
    // Batches are dropped outside of the measured time: they are sent first.
    group.bench_function("merge 200 workers x 5,000 leaves", |b| {
        b.iter_batched(|| reports.clone(), &mut merge, BatchSize::PerIteration);
    });
    group.finish();
}

fn registering(criterion: &mut Criterion) {
    let names: Vec<MetricName> = leaves(0).into_iter().map(|(name, _)| name).collect();
    let clock = Clock::new();
    let mut group = criterion.benchmark_group("registry");
    let registry = || Registry::new(Control::default(), clock.monotonic());
    group.bench_function("register 5,000 counters", |b| {
        b.iter_batched_ref(
            || (registry(), names.clone()),
            |(registry, names)| names.drain(..).for_each(|name| drop(registry.counter(name))),
            BatchSize::PerIteration,
        );
    });
    let registry = registry();
    let counters: Vec<_> = names.into_iter().map(|name| registry.counter(name)).collect();
    let request = CollectRequest { minute: Minute(1), now: clock.monotonic(), with_gauges: true };
    group.bench_function("collect 5,000 counters", |b| {
        b.iter_batched(
            || counters.iter().for_each(Counter::increment),
            |()| registry.collect(request),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn bytes(criterion: &mut Criterion) {
    let counter = codec::encode(&Point::Counter(point::Counter { count: 12_345 }));
    let histogram = codec::encode(&Point::Histogram(of(&latencies()[..1000])));
    let mut group = criterion.benchmark_group("codec");
    let mut out = Vec::with_capacity(4096);
    for (what, bytes) in [("counters", &counter), ("histograms", &histogram)] {
        group.bench_function(format!("merge two {what}"), |b| {
            b.iter(|| {
                out.clear();
                black_box(codec::merge_all([bytes.as_slice(), bytes.as_slice()], &mut out))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, counting, histograms, registering, bytes, merging);
criterion_main!(benches);
