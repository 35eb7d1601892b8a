//! Tests of the whole store, on each medium.

mod crash;
mod failures;
mod following;
mod inline;
mod late_reports;
mod reading;
mod relaunch;
pub(crate) mod site;
mod swap;
mod totals;
mod track;

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{IngestOutcome, Medium, MetricStore, Options, inspection, key::Table};
use site::{Site, on_each_medium};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point,
    batch::SequenceRange,
    point::Counter,
    protocol::{RegisterRequest, Registered, Registration},
};
use stormkeeper_model::{Term, Timestamp, TopologyId, clock::Clock};
use stormkeeper_runtime::tasks::Tasks;

/// Current minute of all tests.
const NOW: u32 = 28_000_000;
const TERM: Term = Term(7);

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(u64::from(NOW) * 60_000 + 1000))
}

/// Store and its tasks.
struct Home {
    store: MetricStore,
    tasks: Tasks,
}

impl Home {
    fn open(dir: &Path, options: Options) -> Self {
        let tasks = Tasks::default();
        let store = MetricStore::open(dir, options, &tasks).expect("it opens");
        Self { store, tasks }
    }

    async fn close(self) {
        assert!(self.tasks.stop(Duration::from_secs(30)).await, "the writer ends");
    }
}

fn topology(name: &str) -> TopologyId {
    format!("{name}-1-1").parse().expect("an id")
}

fn name(topology: &TopologyId, n: u32) -> String {
    match n % 4 {
        0 => format!("3@1@{topology}@split@{n}@default@sys@Emitted"),
        1 => format!("1@1@{topology}@split@{n}@@sys@Emitted"),
        2 => format!("2@1@{topology}@c{n}@0@@sys@Emitted"),
        _ => format!("5@1@{topology}@@0@sys@m{n}"),
    }
}

/// Registers names and returns their ids.
async fn register(store: &MetricStore, topology: &TopologyId, names: Vec<String>) -> Vec<MetricId> {
    let registrations =
        names.into_iter().map(|name| Registration { id: MetricId::of(&name, 0), name }).collect();
    let request = RegisterRequest { topology: topology.clone(), registrations };
    let answer = store.register(TERM, request).await.expect("registered");
    let id = |answer| match answer {
        Registered::Accepted(id) => id,
        Registered::Rejected(reason) => panic!("{reason}"),
    };
    answer.results.into_iter().map(id).collect()
}

async fn register_some(store: &MetricStore, topology: &TopologyId, n: u32) -> Vec<MetricId> {
    register(store, topology, (0..n).map(|n| name(topology, n)).collect()).await
}

fn counter(count: u64) -> Point {
    Point::Counter(Counter { count })
}

fn batch(topology: &TopologyId, minute: u32, sequence: u64, points: &[(MetricId, u64)]) -> MetricBatch {
    MetricBatch {
        topology: topology.clone(),
        minute: Minute(minute),
        reports: vec![SequenceRange {
            worker: "w1".parse().expect("an id"),
            first: sequence,
            last: sequence,
        }],
        points: points.iter().map(|(id, count)| (*id, counter(*count))).collect(),
        readings: Vec::new(),
    }
}

async fn ingest(
    store: &MetricStore,
    topology: &TopologyId,
    minute: u32,
    sequence: u64,
    points: &[(MetricId, u64)],
) {
    let taken = store.ingest(TERM, batch(topology, minute, sequence, points)).await.expect("accepted");
    assert!(matches!(taken, IngestOutcome::Accepted(_)), "{taken:?}");
}

/// Returns all stored records except those that each nimbus decides for itself: the extent of its
/// log and the retention clock.
fn dump(store: &MetricStore) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut all = BTreeMap::new();
    let read = store.shared.store.with(|view| {
        for table in Table::ALL {
            view.cursor(table).from(&[], |key, value| {
                if inspection::is_replicated(table, key) {
                    all.insert((table, key.to_vec()), value.to_vec());
                }
                std::ops::ControlFlow::Continue(())
            })?;
        }
        Ok(())
    });
    read.expect("readable");
    all
}

fn count(point: &Point) -> u64 {
    let Point::Counter(counter) = point else { panic!("{point:?}") };
    counter.count
}
