//! Totals and readings of a metric store that the test fills.

use std::path::Path;

use super::*;
use stormkeeper_exposition::SampleValue;
use stormkeeper_metric_store::{Medium, MemoryDisk, Options};
use stormkeeper_metrics::{
    MetricBatch,
    batch::SequenceRange,
    point::{Counter, Gauge, Histogram},
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::{Term, clock::Clock};
use stormkeeper_runtime::tasks::Tasks;

/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// First minute of a day, shortly before which the tests begin.
const MIDNIGHT: u32 = 20_000 * DAY;

const EMITTED: &str = "2@1@wc-1-1@split@0@@sys@Emitted";
const OF_TOPOLOGY: &str = "5@1@wc-1-1@@0@sys@Emitted";
const OF_STREAM: &str = "8@1@wc-1-1@split@0@default@sys@Emitted";
const CAPACITY: &str = "2@2@wc-1-1@split@0@@sys@Capacity";
const LATENCY: &str = "2@4@wc-1-1@split@0@@sys@ProcessLatency";

/// A metric store, and what a nimbus knows of it.
struct Fixture {
    store: MetricStore,
    clock: Clock,
    stored: StoredMetrics,
    wanted: Wanted,
    sequence: u64,
    _tasks: Tasks,
}

impl Fixture {
    fn new() -> Self {
        let clock = Clock::manual(Minute(MIDNIGHT - 30).start());
        let tasks = Tasks::default();
        let medium = Medium::Memory(MemoryDisk::default());
        let options = Options { medium, ..Options::of_test(clock.clone()) };
        let store = MetricStore::open(Path::new("/memory"), options, &tasks).expect("it opens");
        let wanted = Wanted {
            topologies: [(topology(), "wc".to_owned())].into(),
            me: ("h".to_owned(), 8080),
            max: 1000,
        };
        Self { store, clock, stored: StoredMetrics::default(), wanted, sequence: 0, _tasks: tasks }
    }

    /// Registers the metrics of a topology, and stores a point of each in a minute.
    async fn ingest(&mut self, minute: u32, points: &[(&str, Point)]) {
        let names: Vec<MetricName> = points.iter().map(|(name, _)| name.parse().expect("a name")).collect();
        let of = names[0].topology().clone();
        let registrations = names.iter().map(ToString::to_string);
        let registrations =
            registrations.map(|name| Registration { id: MetricId::of(&name, 0), name }).collect();
        let request = RegisterRequest { topology: of.clone(), registrations };
        self.store.register(Term(1), request).await.expect("registered");
        self.sequence += 1;
        let reports = vec![SequenceRange {
            worker: "w1".parse().expect("an id"),
            first: self.sequence,
            last: self.sequence,
        }];
        let points = points.iter().map(|(name, point)| (MetricId::of(name, 0), point.clone())).collect();
        let batch =
            MetricBatch { topology: of, minute: Minute(minute), reports, points, readings: Vec::new() };
        self.store.ingest(Term(1), batch).await.expect("accepted");
    }

    /// Moves the clock to a minute.
    fn turn_clock_to(&self, minute: u32) {
        let to = Minute(minute).start();
        self.clock.advance(to.since(self.clock.now()));
    }

    async fn families(&mut self, now: Minute, is_shown: impl Fn(Level) -> bool) -> Vec<Family> {
        self.stored.update(&self.store, &self.wanted).await;
        self.stored.families(&self.store, now.start(), is_shown).await
    }

    /// Returns the value of a family's only sample in a page of now, or of another time.
    async fn value(&mut self, name: &str) -> Option<SampleValue> {
        let now = Minute::of(self.clock.now());
        self.value_at(now, name).await
    }

    async fn value_at(&mut self, now: Minute, name: &str) -> Option<SampleValue> {
        let families = self.families(now, |_| true).await;
        let family = families.into_iter().find(|family| family.about.name == name)?;
        let [sample] = &family.samples[..] else { panic!("{family:?}") };
        Some(sample.value.clone())
    }
}

fn topology() -> TopologyId {
    "wc-1-1".parse().expect("an id")
}

fn counter(count: u64) -> Point {
    Point::Counter(Counter { count })
}

fn gauge(minute: u32, value: f64) -> Point {
    Point::Gauge(Gauge { at: Minute(minute), sum: value, n: 1, min: value, max: value })
}

/// Histogram of `n` sampled values of about 1 s.
fn histogram(n: u64) -> Point {
    let mut histogram =
        Histogram { count: n, sum: 1e6 * n as f64, min: 1e6, max: 1e6, ..Histogram::default() };
    histogram.buckets.add(stormkeeper_metrics::percentile::bucket(1e6), n);
    Point::Histogram(histogram)
}

const COMPONENT: &str = "stormkeeper_component_emitted_tuples";

#[tokio::test]
async fn counter_is_the_sum_of_all_days_also_when_the_first_ones_are_not_read_again() {
    let mut fixture = Fixture::new();
    let mut expected = 0;
    // Some points before each midnight and after it, and a page at each moment.
    for day in 0..6_u32 {
        for minute in [MIDNIGHT + day * DAY - 20, MIDNIGHT + day * DAY + 20] {
            fixture.turn_clock_to(minute);
            let count = u64::from(minute % 1009) + 1;
            fixture.ingest(minute, &[(EMITTED, counter(count))]).await;
            expected += count;
            assert_eq!(fixture.value(COMPONENT).await, Some(SampleValue::Count(expected)), "day {day}");
        }
        // A late report of the day before.
        fixture.ingest(MIDNIGHT + day * DAY - 5, &[(EMITTED, counter(1000))]).await;
        expected += 1000;
        assert_eq!(fixture.value(COMPONENT).await, Some(SampleValue::Count(expected)), "late, day {day}");
    }
    // A nimbus that has just started has the same number.
    fixture.stored = StoredMetrics::default();
    assert_eq!(fixture.value(COMPONENT).await, Some(SampleValue::Count(expected)));
}

#[tokio::test]
async fn clock_that_was_ahead_loses_and_doubles_nothing() {
    let mut fixture = Fixture::new();
    fixture.ingest(MIDNIGHT - 35, &[(EMITTED, counter(5))]).await;
    let now = Minute::of(fixture.clock.now());
    assert_eq!(fixture.value_at(now.plus(10 * DAY), COMPONENT).await, Some(SampleValue::Count(5)));
    fixture.ingest(MIDNIGHT - 34, &[(EMITTED, counter(7))]).await;
    assert_eq!(fixture.value_at(now, COMPONENT).await, Some(SampleValue::Count(12)));
}

#[tokio::test]
async fn histogram_is_merged_over_days() {
    let mut fixture = Fixture::new();
    for (day, n) in [(0, 3), (1, 4), (2, 5)] {
        fixture.turn_clock_to(MIDNIGHT + day * DAY + 9);
        fixture.ingest(MIDNIGHT + day * DAY + 8, &[(LATENCY, histogram(n))]).await;
        fixture.value(COMPONENT).await;
    }
    let found = fixture.value("stormkeeper_component_process_latency_seconds").await;
    let Some(SampleValue::Distribution(of)) = found else { panic!("{found:?}") };
    assert_eq!((of.count, of.native.len(), of.cumulative.last()), (12, 1, Some(&12)), "{of:?}");
    let sum = fixture.value("stormkeeper_component_process_latency_accumulated_seconds").await;
    assert_eq!(sum, Some(SampleValue::Real(12.0)));
}

#[tokio::test]
async fn reading_of_the_past_is_not_shown_as_present() {
    let mut fixture = Fixture::new();
    let minute = MIDNIGHT - 31;
    fixture.ingest(minute, &[(CAPACITY, gauge(minute, 0.5))]).await;
    let name = "stormkeeper_component_capacity_ratio";
    let at = |age| Minute(minute + age);
    assert_eq!(fixture.value_at(at(READING_AGE_MAX), name).await, Some(SampleValue::Real(0.5)));
    assert_eq!(fixture.value_at(at(READING_AGE_MAX + 1), name).await, None);
}

#[tokio::test]
async fn level_that_was_left_out_is_read_again_once_it_is_shown() {
    let mut fixture = Fixture::new();
    let all = [EMITTED, OF_TOPOLOGY, OF_STREAM].map(|name| (name, counter(1)));
    fixture.ingest(MIDNIGHT - 31, &all).await;
    let now = Minute(MIDNIGHT - 30);
    let names = |families: Vec<Family>| {
        families.iter().map(|family| family.about.name.to_string()).collect::<Vec<_>>()
    };
    let of = |level: &str| format!("stormkeeper_{level}_emitted_tuples");
    let every = [of("component"), of("component_stream"), of("topology")];
    assert_eq!(names(fixture.families(now, |_| true).await), every);
    assert_eq!(names(fixture.families(now, |level| level == Level::Topology).await), [of("topology")]);
    let forgotten = |fixture: &Fixture| {
        let levels = fixture.stored.topologies.values().flat_map(|topology| topology.levels.values());
        levels.filter(|level| level.metrics.is_none()).count()
    };
    assert_eq!((forgotten(&fixture), fixture.stored.n_series(Level::Component)), (2, 1));
    fixture.families(now, |_| true).await;
    assert_eq!(names(fixture.families(now, |_| true).await), every);
    // A level that is too large alone is counted and not kept.
    (fixture.wanted.max, fixture.stored) = (0, StoredMetrics::default());
    assert_eq!(names(fixture.families(now, |_| false).await), [""; 0]);
    assert_eq!((forgotten(&fixture), fixture.stored.n_series(Level::ComponentStream)), (3, 1));
}

#[tokio::test]
async fn page_has_the_topologies_of_the_view_and_the_nimbus_itself_only() {
    let mut fixture = Fixture::new();
    let minute = MIDNIGHT - 31;
    fixture.ingest(minute, &[(EMITTED, counter(1))]).await;
    let self_metrics =
        ["h@8080", "h@8081", "other@8080"].map(|at| format!("7@1@__NIMBUS__@{at}@sys@Registered"));
    let points: Vec<_> = (1..).zip(&self_metrics).map(|(n, name)| (name.as_str(), counter(n))).collect();
    fixture.ingest(minute, &points).await;
    fixture
        .ingest(minute, &[("1@1@wc-1-1@split@4@@sys@Emitted", counter(9)), (OF_TOPOLOGY, counter(9))])
        .await;
    assert_eq!(fixture.value("stormkeeper_nimbus_registered_names").await, Some(SampleValue::Count(1)));
    assert_eq!(fixture.value(COMPONENT).await, Some(SampleValue::Count(1)));
    assert_eq!(fixture.value("stormkeeper_task_emitted_tuples").await, None);
    fixture.wanted.topologies.clear();
    assert_eq!(fixture.value(COMPONENT).await, None);
    assert_eq!(fixture.value("stormkeeper_nimbus_registered_names").await, Some(SampleValue::Count(1)));
}
