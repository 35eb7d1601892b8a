//! Bounds of a snapshot, and topologies that do not change any more.

use super::*;
use stormkeeper_metric_store::Options;
use stormkeeper_metrics::{
    MetricBatch,
    batch::SequenceRange,
    point::Counter,
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::Term;
use stormkeeper_runtime::tasks::Tasks;

const NOW: u64 = 1_700_000_000_000;

/// Metric store with one counter of a component and of its three tasks, for each topology.
struct Fixture {
    store: MetricStore,
    clock: Clock,
    _tasks: Tasks,
    _dir: tempfile::TempDir,
}

fn id(name: &str) -> TopologyId {
    format!("{name}-1-1").parse().expect("valid")
}

impl Fixture {
    async fn of(topologies: &[&str]) -> Self {
        let (dir, tasks) = (tempfile::tempdir().expect("a directory"), Tasks::default());
        let clock = Clock::manual(Timestamp::from_millis(NOW));
        let store = MetricStore::open(dir.path(), Options::of_test(clock.clone()), &tasks).expect("it opens");
        let fixture = Self { store, clock, _tasks: tasks, _dir: dir };
        for topology in topologies {
            fixture.report(topology, 1).await;
        }
        fixture
    }

    /// Counts one event of each counter.
    async fn report(&self, topology: &str, sequence: u64) {
        let topology = id(topology);
        let tasks = (1..=3).map(|task| format!("1@1@{topology}@c@{task}@@udf@x"));
        let names: Vec<String> = tasks.chain([format!("2@1@{topology}@c@0@@udf@x")]).collect();
        let ids: Vec<MetricId> = names.iter().map(|name| MetricId::of(name, 0)).collect();
        let registrations = ids.iter().zip(names).map(|(id, name)| Registration { id: *id, name }).collect();
        let request = RegisterRequest { topology: topology.clone(), registrations };
        self.store.register(Term(1), request).await.expect("registered");
        let worker = "w1".parse().expect("valid");
        let batch = MetricBatch {
            topology,
            minute: Minute::of(self.clock.now()),
            reports: vec![SequenceRange { worker, first: sequence, last: sequence }],
            points: ids.into_iter().map(|id| (id, Point::Counter(Counter { count: 1 }))).collect(),
            readings: Vec::new(),
        };
        self.store.ingest(Term(1), batch).await.expect("accepted");
    }

    async fn snapshot(
        &self,
        ends: &[(&str, Option<u64>)],
        max: usize,
        before: Option<&Snapshot>,
    ) -> Snapshot {
        let head = |end_ms| Head { name: "t".to_owned(), start_ms: 0, end_ms };
        let heads = ends.iter().map(|(name, end_ms)| (id(name), head(*end_ms))).collect();
        let mut collector = Collector::new(self.store.clone(), self.clock.now(), max);
        let topologies = collector.topologies(&heads, before).await.expect("read");
        Snapshot { topologies, heads, ..Snapshot::default() }
    }
}

/// Number of tasks with metrics, and the count of the component.
fn of(snapshot: &Snapshot, topology: &str) -> (usize, String) {
    let component = &snapshot.topologies[&id(topology)].components[&"c".parse().expect("valid")];
    (component.tasks.len(), component.own.get("udf.x").expect("measured").to_string())
}

#[tokio::test]
async fn topologies_beyond_the_limit_are_without_the_metrics_of_tasks() {
    let fixture = Fixture::of(&["a", "b", "c"]).await;
    let live = [("a", None), ("b", None), ("c", None)];
    let all = fixture.snapshot(&live, 12, None).await;
    assert_eq!(["a", "b", "c"].map(|name| of(&all, name).0), [3, 3, 3]);
    let some = fixture.snapshot(&live, 7, None).await;
    assert_eq!(["a", "b", "c"].map(|name| of(&some, name)), [3, 0, 0].map(|n| (n, "1".to_owned())));
    // A killed topology comes after the live ones.
    let killed = [("a", Some(NOW)), ("b", None), ("c", None)];
    let some = fixture.snapshot(&killed, 11, None).await;
    assert_eq!(["a", "b", "c"].map(|name| of(&some, name).0), [0, 3, 3]);
}

#[tokio::test]
async fn late_report_of_a_killed_topology_counts_after_ten_minutes_at_the_latest() {
    let fixture = Fixture::of(&["a"]).await;
    let killed = [("a", Some(NOW - FINAL_MS - 1))];
    let before = fixture.snapshot(&killed, 100, None).await;
    fixture.report("a", 2).await;
    fixture.clock.advance(Duration::from_millis(FINAL_MS - 1));
    let kept = fixture.snapshot(&killed, 100, Some(&before)).await;
    assert!(Arc::ptr_eq(&kept.topologies[&id("a")], &before.topologies[&id("a")]), "it was read again");
    fixture.clock.advance(Duration::from_millis(1));
    let read = fixture.snapshot(&killed, 100, Some(&kept)).await;
    assert_eq!(of(&read, "a"), (3, "2".to_owned()));
    // Directly after its end, a topology is read for each snapshot.
    let ending = [("a", Some(NOW + FINAL_MS))];
    fixture.report("a", 3).await;
    assert_eq!(of(&fixture.snapshot(&ending, 100, Some(&read)).await, "a"), (3, "3".to_owned()));
}
