//! The page for Prometheus with about 20,000 series: reading a metric store on a real disk, and
//! encoding the page in each format.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use stormkeeper_exposition::{Family, Format, MeasuredFamilies, MeasuredSeries, measured::Level};
use stormkeeper_metric_store::{MetricStore, Options, TOTALS_MAX};
use stormkeeper_metrics::{
    MetricBatch, MetricId, MetricName, MetricType, Minute, Point,
    batch::SequenceRange,
    point::{Counter, Gauge, Histogram, Meter},
    protocol::{NAMES_MAX, RegisterRequest, Registration},
};
use stormkeeper_model::{Term, Timestamp, TopologyId, clock::Clock};
use stormkeeper_runtime::tasks::Tasks;

const NOW: u32 = 29_000_000;

/// Number of series of the page.
const SERIES: usize = 20_000;

/// Minutes with points, ten for each of three days.
const MINUTES: [u32; 30] = {
    let mut minutes = [0; 30];
    let mut n = 0;
    while n < 30 {
        minutes[n as usize] = NOW - (29 - n) / 10 * 1440 - (29 - n) % 10;
        n += 1;
    }
    minutes
};

fn topology() -> TopologyId {
    "topology-1-1700000000".parse().expect("an id")
}

/// Returns the built-in metrics of so many components that the page has [`SERIES`] series.
fn metrics() -> Vec<(MetricId, MetricName, MeasuredSeries)> {
    let kinds = [
        (1, "Emitted"),
        (1, "Transferred"),
        (1, "Executed"),
        (1, "Acked"),
        (1, "Failed"),
        (3, "RecvTps"),
        (4, "ProcessLatency"),
        (4, "ExecutorTime"),
        (2, "Capacity"),
        (2, "ExecutorQueue"),
    ];
    let (mut metrics, mut n_series) = (Vec::new(), 0);
    for component in 0.. {
        for (kind, metric) in kinds {
            let name = format!("2@{kind}@{}@component-{component}@0@@sys@{metric}", topology());
            let name: MetricName = name.parse().expect("a name");
            let series = MeasuredSeries::of(&name, "topology").expect("a built-in metric");
            n_series += series.n_series();
            metrics.push((MetricId::of(&name.to_string(), 0), name, series));
        }
        if n_series >= SERIES {
            break;
        }
    }
    println!("{} metrics, {n_series} series", metrics.len());
    metrics
}

fn point(kind: MetricType, minute: Minute) -> Point {
    match kind {
        MetricType::Counter => Point::Counter(Counter { count: 1234 }),
        MetricType::Gauge => Point::Gauge(Gauge { at: minute, sum: 0.5, n: 1, min: 0.1, max: 0.9 }),
        MetricType::Meter => {
            Point::Meter(Meter { count: 1234, from: minute, at: minute, m1: 1.0, m5: 1.0, m15: 1.0 })
        }
        MetricType::Histogram | MetricType::Timer => {
            let buckets = (0..60).map(|n| (200 + n * 4, 17)).collect();
            let (sum, max) = (1e9, 1e6);
            Point::Histogram(Histogram { count: 10_000, sum, min: 10.0, max, zeros: 0, buckets })
        }
    }
}

async fn fill(store: &MetricStore, metrics: &[(MetricId, MetricName, MeasuredSeries)]) {
    for names in metrics.chunks(NAMES_MAX) {
        let registrations =
            names.iter().map(|(id, name, _)| Registration { name: name.to_string(), id: *id });
        let request = RegisterRequest { topology: topology(), registrations: registrations.collect() };
        store.register(Term(1), request).await.expect("registered");
    }
    for (sequence, minute) in (1..).zip(MINUTES) {
        let worker = "w".parse().expect("an id");
        let points = metrics.iter().map(|(id, name, _)| (*id, point(name.kind(), Minute(minute))));
        let batch = MetricBatch {
            topology: topology(),
            minute: Minute(minute),
            reports: vec![SequenceRange { worker, first: sequence, last: sequence }],
            points: points.collect(),
            readings: Vec::new(),
        };
        store.ingest(Term(1), batch).await.expect("ingested");
    }
}

/// Reads all values as a page does that begins with the days from `from` on.
async fn read(
    store: &MetricStore,
    metrics: &[(MetricId, MetricName, MeasuredSeries)],
    from: Minute,
) -> Vec<Family> {
    let mut families = MeasuredFamilies::default();
    let is_gauge = |name: &MetricName| name.kind() == MetricType::Gauge;
    for metrics in metrics.chunks(TOTALS_MAX) {
        let gauges: Vec<_> = metrics.iter().filter(|(_, name, _)| is_gauge(name)).collect();
        let ids = gauges.iter().map(|(id, _, _)| *id).collect();
        let readings = store.readings(topology(), ids, Minute(NOW - 3)).await.expect("read");
        for ((_, _, series), point) in gauges.iter().zip(readings) {
            families.add(series, &point.expect("a reading"));
        }
        let others: Vec<_> = metrics.iter().filter(|(_, name, _)| !is_gauge(name)).collect();
        let wanted = others.iter().map(|(id, _, _)| (*id, from)).collect();
        let totals = store.totals(wanted, Minute(0)).await.expect("read");
        for ((_, _, series), total) in others.iter().zip(totals) {
            families.add(series, &total.open.expect("a total"));
        }
    }
    families.into_families()
}

fn pages(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (dir, tasks) = (tempfile::tempdir().expect("a directory"), Tasks::default());
    let clock = Clock::manual(Timestamp::from_millis(u64::from(NOW) * 60_000));
    let metrics = metrics();
    assert!(metrics.iter().all(|(_, _, series)| series.level() == Level::Component));
    let store = runtime.block_on(async {
        let store = MetricStore::open(dir.path(), Options::of_test(clock), &tasks).expect("it opens");
        fill(&store, &metrics).await;
        store
    });
    let mut group = criterion.benchmark_group("prometheus");
    group.sample_size(20);
    for (name, from) in [("read, first page", 0), ("read, later pages", NOW - 2000)] {
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(read(&store, &metrics, Minute(from))));
        });
    }
    let families = runtime.block_on(read(&store, &metrics, Minute(0)));
    for format in Format::ALL {
        println!("{format:?}: {} bytes", format.encode(&families).len());
        group.bench_function(format!("encode {format:?}"), |b| {
            b.iter(|| black_box(format.encode(black_box(&families))));
        });
    }
    group.finish();
    drop(store);
    assert!(runtime.block_on(tasks.stop(std::time::Duration::from_secs(60))), "the store closes");
}

criterion_group!(benches, pages);
criterion_main!(benches);
