//! The metric store on a real disk: ingest, history, a page of a topology, sums of Storm's pages,
//! registration, and the catch-up of a follower. Each is run a few times and printed; `-- NAME`
//! selects one.

#![expect(clippy::print_stdout, reason = "its output is for a terminal")]

use std::{path::Path, time::Duration};

use stormkeeper_metric_store::{LatestQuery, MetricStore, Options, SumQuery};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point, Window,
    batch::SequenceRange,
    point::{Counter, Gauge, Histogram, Meter, Timer},
    protocol::{LogPage, LogQuery, NAMES_MAX, PointsQuery, RegisterRequest, Registered, Registration},
};
use stormkeeper_model::{Term, Timestamp, TopologyId, clock::Clock};
use stormkeeper_runtime::tasks::Tasks;

const TERM: Term = Term(1);
const NOW: u32 = 29_000_000;

struct Home {
    store: MetricStore,
    tasks: Tasks,
}

impl Home {
    fn open(dir: &Path) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(u64::from(NOW) * 60_000));
        let tasks = Tasks::default();
        let options = Options { exporters: vec!["log".to_owned()], ..Options::of_test(clock) };
        Self { store: MetricStore::open(dir, options, &tasks).expect("the metric store opens"), tasks }
    }

    async fn close(self) {
        assert!(self.tasks.stop(Duration::from_secs(120)).await, "the writer stops");
    }
}

fn topology(n: usize) -> TopologyId {
    format!("topology-{n}-{n}-1700000000").parse().expect("an id")
}

/// Names with the usual mix of a topology: mostly streams of tasks.
fn name(topology: &TopologyId, n: usize) -> String {
    let (task, metric) = (n / 10, n % 10);
    format!(
        "3@{}@{topology}@splitter@{task}@default@sys@Metric{metric}",
        [1, 1, 1, 2, 3, 3, 4, 4, 5, 5][metric]
    )
}

fn request(topology: &TopologyId, names: std::ops::Range<usize>) -> RegisterRequest {
    let registration = |n| {
        let name = name(topology, n);
        Registration { id: MetricId::of(&name, 0), name }
    };
    RegisterRequest { topology: topology.clone(), registrations: names.map(registration).collect() }
}

async fn register(store: &MetricStore, topology: &TopologyId, n_names: usize) -> Vec<MetricId> {
    let mut ids = Vec::with_capacity(n_names);
    for first in (0..n_names).step_by(NAMES_MAX) {
        let request = request(topology, first..(first + NAMES_MAX).min(n_names));
        let answer = store.register(TERM, request).await.expect("registered");
        ids.extend(answer.results.into_iter().map(|answer| match answer {
            Registered::Accepted(id) => id,
            Registered::Rejected(reason) => panic!("{reason}"),
        }));
    }
    ids
}

/// Point of metric `n`. Ten metrics are three counters, a gauge, two meters, two histograms and two
/// timers. A histogram has 20 buckets in use.
fn point(n: usize, minute: Minute) -> Point {
    let count = n as u64 % 1000 + 1;
    let meter = Meter { count, from: minute, at: minute, m1: 1.5, m5: 1.25, m15: 1.125 };
    let histogram = || Histogram {
        count: count * 10,
        sum: count as f64 * 15.0,
        min: 1.0,
        max: 900.0,
        zeros: 0,
        buckets: (0..20).map(|i| (100 + i * 3 + i16::try_from(n % 5).expect("small"), count)).collect(),
    };
    match n % 10 {
        0..=2 => Point::Counter(Counter { count }),
        3 => Point::Gauge(Gauge { at: minute, sum: count as f64, n: 1, min: 0.0, max: count as f64 }),
        4 | 5 => Point::Meter(meter),
        6 | 7 => Point::Histogram(histogram()),
        _ => Point::Timer(Timer { histogram: histogram(), meter }),
    }
}

fn batch(topology: &TopologyId, ids: &[MetricId], minute: u32, sequence: u64) -> MetricBatch {
    let minute = Minute(minute);
    MetricBatch {
        topology: topology.clone(),
        minute,
        reports: vec![SequenceRange {
            worker: format!("{topology}-w").parse().expect("an id"),
            first: sequence,
            last: sequence,
        }],
        points: ids.iter().enumerate().map(|(n, id)| (*id, point(n, minute))).collect(),
        readings: Vec::new(),
    }
}

/// CPU seconds of this process so far, and its memory in MiB.
fn usage() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().expect("a number");
    let memory = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line").trim();
    let kib: u64 = kib.trim_end_matches(" kB").parse().expect("a number");
    ((ticks(11) + ticks(12)) / 100.0, kib / 1024)
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    format!(
        "median {:?}, {:?} to {:?} in {} runs",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1],
        times.len()
    )
}

async fn timed<T>(clock: &Clock, times: &mut Vec<Duration>, work: impl Future<Output = T>) -> T {
    let start = clock.monotonic();
    let done = work.await;
    times.push(clock.monotonic().since(start));
    done
}

/// Ingest of five minutes of ten topologies with 100,000 metrics each.
async fn intake(dir: &Path, clock: &Clock) {
    let home = Home::open(dir);
    let topologies: Vec<TopologyId> = (0..10).map(topology).collect();
    let mut ids = Vec::new();
    for topology in &topologies {
        ids.push(register(&home.store, topology, 100_000).await);
    }
    for minute in 0..6_u32 {
        let made: Vec<MetricBatch> = topologies
            .iter()
            .zip(&ids)
            .map(|(topology, ids)| batch(topology, ids, NOW - 10 + minute, u64::from(minute) + 1))
            .collect();
        let (before, start) = (usage().0, clock.monotonic());
        for batch in made {
            home.store.ingest(TERM, batch).await.expect("accepted");
        }
        home.store.close_minutes(TERM, Minute(NOW - 10 + minute)).await.expect("closed");
        let took = clock.monotonic().since(start);
        // Background work of RocksDB counts as well: it needs part of the rest of the minute.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (after, mib) = usage();
        println!("ingest of 1,000,000 values: {took:?}, {:.2} s of CPU time, {mib} MiB", after - before);
    }
    let status = home.store.status().await.expect("read");
    println!("  on disk: {} MiB", status.bytes >> 20);
    home.close().await;
}

/// History of one metric over a day of minutes, and a page of 2,000 metrics, in a store of 2,000.
async fn reads(dir: &Path, clock: &Clock) {
    let home = Home::open(dir);
    let topology = topology(1);
    let ids = register(&home.store, &topology, 2000).await;
    for n in 0..1440_u32 {
        let batch = batch(&topology, &ids, NOW - 1440 + n, u64::from(n) + 1);
        home.store.ingest(TERM, batch).await.expect("accepted");
    }
    for (what, n) in [("a counter", 0), ("a timer", 8)] {
        let mut times = Vec::new();
        for run in 0..50 {
            let id = ids[n + run * 10];
            let (window, from, to) = (Window::M1, Minute(NOW - 1440), Minute(NOW));
            let points = home.store.points(PointsQuery { id, window, from, to, limit: 2000 });
            assert_eq!(timed(clock, &mut times, points).await.expect("read").len(), 1440);
        }
        println!("history of {what}, 1,440 points: {}", median(times));
    }
    for window in Window::ALL {
        let mut times = Vec::new();
        for _ in 0..20 {
            let query = LatestQuery { window, limit: 2000, ..LatestQuery::all(topology.clone()) };
            assert_eq!(
                timed(clock, &mut times, home.store.latest(query)).await.expect("read").rows.len(),
                2000
            );
        }
        println!("a topology's page of 2,000 metrics, window {window}: {}", median(times));
    }
    home.close().await;
}

/// Begins of the windows of Storm's pages: ten minutes, three hours, a day, and all time.
fn windows() -> [Timestamp; 4] {
    let begin = |minutes: u32| Timestamp::from_millis(u64::from(NOW - minutes) * 60_000 + 20_000);
    [begin(10), begin(180), begin(1440), Window::D1.bucket(Minute(NOW - 1440)).start()]
}

/// Metrics of a component or of one of its tasks, as Storm's pages read them: the name, and the number
/// of a metric of this kind for [`point`].
const OF_PAGES: [(&str, usize); 8] = [
    ("1@{}@sys@Emitted", 0),
    ("1@{}@sys@Transferred", 0),
    ("1@{}@sys@Acked", 0),
    ("1@{}@sys@Failed", 0),
    ("1@{}@sys@Executed", 0),
    ("4@{}@sys@ProcessLatency", 6),
    ("4@{}@sys@ExecutorTime", 6),
    ("2@{}@sys@Capacity", 3),
];

/// Storm's pages of a topology with 20 components and of a component with 60 tasks, after a day of
/// minutes.
async fn pages(dir: &Path, clock: &Clock) {
    let (home, topology) = (Home::open(dir), topology(1));
    let of = |level: u8, subject: &str| {
        let name = |(form, n): (&str, usize)| {
            let subject = format!("{topology}@{subject}@");
            (format!("{level}@{}", form.replace("{}", &subject)), n)
        };
        OF_PAGES.map(name)
    };
    let components: Vec<_> = (0..20).map(|n| of(2, &format!("component-{n}@0"))).collect();
    let tasks: Vec<_> = (0..60).map(|n| of(1, &format!("component-0@{n}"))).collect();
    let names: Vec<_> = components.iter().chain(&tasks).flatten().collect();
    let registrations =
        names.iter().map(|(name, _)| Registration { id: MetricId::of(name, 0), name: name.clone() });
    let request = RegisterRequest { topology: topology.clone(), registrations: registrations.collect() };
    home.store.register(TERM, request).await.expect("registered");
    for n in 0..1440_u32 {
        let minute = Minute(NOW - 1440 + n);
        let points = names.iter().map(|(name, n)| (MetricId::of(name, 0), point(*n, minute))).collect();
        let batch = MetricBatch { points, ..batch(&topology, &[], minute.0, u64::from(n) + 1) };
        home.store.ingest(TERM, batch).await.expect("accepted");
    }
    let query = |(name, _): &(String, usize), from: &[Timestamp]| SumQuery {
        name: name.parse().expect("a name"),
        from: from.to_vec(),
    };
    for (window, shown) in [("all time", 3), ("a day", 2)] {
        let own = &windows()[shown..=shown];
        let of_topology = components.iter().flat_map(|of| {
            let first = of[..2].iter().map(|metric| query(metric, &windows()));
            let others = of[2..7].iter().map(|metric| query(metric, own));
            first.chain(others).chain([query(&of[7], &windows()[..1])])
        });
        let of_component = tasks.iter().flatten().map(|metric| query(metric, own));
        for (page, queries) in [
            ("a topology with 20 components", of_topology.collect::<Vec<_>>()),
            ("a component with 60 tasks", of_component.collect()),
        ] {
            let (mut times, before) = (Vec::new(), usage().0);
            for _ in 0..50 {
                let sums = timed(clock, &mut times, home.store.sums(queries.clone())).await.expect("read");
                assert!(sums.iter().flatten().all(Option::is_some));
            }
            let cpu = Duration::from_secs_f64((usage().0 - before) / 50.0);
            println!("sums for Storm's page of {page}, window {window}: {}, CPU {cpu:?}", median(times));
        }
    }
    home.close().await;
}

/// Registration of 100,000 new names, of the same names again, and catch-up of an empty follower.
async fn registration(dir: &Path, clock: &Clock) {
    let (mut new, mut again, mut follow, mut load) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..5 {
        let leader = Home::open(&dir.join(format!("leader-{run}")));
        let topology = topology(run);
        timed(clock, &mut new, register(&leader.store, &topology, 100_000)).await;
        timed(clock, &mut again, register(&leader.store, &topology, 100_000)).await;
        let follower_dir = dir.join(format!("follower-{run}"));
        let follower = Home::open(&follower_dir);
        timed(clock, &mut follow, catch_up(&leader.store, &follower.store)).await;
        assert_eq!(
            follower.store.fingerprint(&topology).await.expect("read"),
            leader.store.fingerprint(&topology).await.expect("read")
        );
        follower.close().await;
        leader.close().await;
        let follower = timed(clock, &mut load, async { Home::open(&follower_dir) }).await;
        follower.close().await;
    }
    println!("registration of 100,000 new names: {}", median(new));
    println!("registration of 100,000 known names: {}", median(again));
    println!("catch-up of a follower on 100,000 metric metas: {}", median(follow));
    println!("opening a metric store of 100,000 metas: {}", median(load));
}

async fn catch_up(leader: &MetricStore, follower: &MetricStore) {
    loop {
        let at = follower.position();
        let nimbus = "n2".parse().expect("an id");
        let query =
            LogQuery { nimbus, term: at.term, index: at.index, max_bytes: 8 << 20, leader_term: None };
        match leader.log_after(&query).await.expect("read") {
            LogPage::Entries { entries, .. } if entries.is_empty() => return,
            LogPage::Entries { entries, .. } => _ = follower.apply(entries).await.expect("applied"),
            LogPage::Diverged | LogPage::DivergedCommitted => panic!("the log reaches back to its beginning"),
        }
    }
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // Next to the program: /tmp may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    runtime.block_on(async {
        let clock = Clock::new();
        if is_wanted("registration") {
            registration(&folder.path().join("registration"), &clock).await;
        }
        if is_wanted("reads") {
            reads(&folder.path().join("reads"), &clock).await;
        }
        if is_wanted("pages") {
            pages(&folder.path().join("pages"), &clock).await;
        }
        if is_wanted("intake") {
            intake(&folder.path().join("intake"), &clock).await;
        }
    });
}
