//! Launches that follow each other within a minute: the last one's readings count, once.

use super::*;
use stormkeeper_metrics::{
    MetricName, Window,
    batch::LaunchReadings,
    point::{Gauge, Meter},
    protocol::PointsQuery,
    rollup,
};

on_each_medium!(
    last_launch_of_a_minute_counts_on_every_level_and_window,
    new_leader_replaces_the_reading_that_its_predecessor_stored,
    launches_of_other_leaves_and_other_minutes_are_added,
);

const THREADS: &str = "4@2@t-1-1@h@6700@sys@Threads";
const OTHER_THREADS: &str = "4@2@t-1-1@h@6701@sys@Threads";
const RECV_TPS: &str = "3@3@t-1-1@split@4@default@sys@spout.RecvTps";

fn id(name: &str) -> MetricId {
    MetricId::of(name, 0)
}

fn with_ancestors(name: &str) -> Vec<String> {
    let above = rollup::ancestors(&name.parse::<MetricName>().expect("a name"));
    std::iter::once(name.to_owned()).chain(above.iter().map(ToString::to_string)).collect()
}

async fn register_leaves(store: &MetricStore) {
    let names = [THREADS, OTHER_THREADS, RECV_TPS].into_iter().flat_map(with_ancestors);
    register(store, &topology("t"), names.collect()).await;
}

/// One report of a launch, rolled up: readings of leaves, and ten counts with each meter.
fn launch(worker: &str, started: u64, minute: u32, leaves: &[(&str, f64)]) -> MetricBatch {
    let at = Minute(minute);
    let mut batch = batch(&topology("t"), minute, 1, &[]);
    batch.reports[0].worker = worker.parse().expect("an id");
    for (leaf, value) in leaves {
        let point = if *leaf == RECV_TPS {
            Point::Meter(Meter { count: 10, from: at, at, m1: *value, m5: *value, m15: *value })
        } else {
            Point::Gauge(Gauge::reading(at, *value).expect("finite"))
        };
        for name in with_ancestors(leaf) {
            match batch.points.iter_mut().find(|(other, _)| *other == id(&name)) {
                Some((_, sum)) => assert!(sum.merge(&point)),
                None => batch.points.push((id(&name), point.clone())),
            }
        }
    }
    let leaves = leaves.iter().map(|(leaf, _)| id(leaf)).collect();
    batch.readings = vec![LaunchReadings { started: Timestamp::from_millis(started), leaves }];
    batch
}

async fn accept(store: &MetricStore, term: Term, batch: MetricBatch) {
    let taken = store.ingest(term, batch).await.expect("accepted");
    assert!(matches!(taken, IngestOutcome::Accepted(_)), "{taken:?}");
}

/// Sum and number of the readings of a gauge, or rate and count of a meter, in the last bucket.
async fn shown(store: &MetricStore, name: &str, window: Window) -> (f64, u64) {
    let (from, to) = (Minute(0), Minute(NOW));
    let points = store.points(PointsQuery { id: id(name), window, from, to, limit: 100 }).await;
    match points.expect("read").last().expect("a point") {
        (_, Point::Gauge(gauge)) => (gauge.sum, gauge.n),
        (_, Point::Meter(meter)) => (meter.m1, meter.count),
        (_, other) => panic!("{other:?}"),
    }
}

async fn last_launch_of_a_minute_counts_on_every_level_and_window(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let store = &home.store;
    register_leaves(store).await;
    // The report of the second launch arrives last, as after a crash of its supervisor.
    accept(store, TERM, launch("w1", 1, NOW, &[(THREADS, 6.0), (RECV_TPS, 4.0)])).await;
    accept(store, TERM, launch("w3", 3, NOW, &[(THREADS, 8.0), (RECV_TPS, 2.0)])).await;
    accept(store, TERM, launch("w2", 2, NOW, &[(THREADS, 7.0), (RECV_TPS, 3.0)])).await;
    for window in Window::ALL {
        for level in with_ancestors(THREADS) {
            assert_eq!(shown(store, &level, window).await, (8.0, 1), "{level} {window}");
        }
        for level in with_ancestors(RECV_TPS) {
            assert_eq!(shown(store, &level, window).await, (2.0, 30), "{level} {window}");
        }
    }
    home.close().await;
}

async fn new_leader_replaces_the_reading_that_its_predecessor_stored(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let store = &home.store;
    register_leaves(store).await;
    accept(store, TERM, launch("w1", 1, NOW, &[(THREADS, 6.0)])).await;
    accept(store, Term(TERM.0 + 1), launch("w2", 2, NOW, &[(THREADS, 7.0)])).await;
    for level in with_ancestors(THREADS) {
        assert_eq!(shown(store, &level, Window::M1).await, (7.0, 1), "{level}");
    }
    home.close().await;
}

async fn launches_of_other_leaves_and_other_minutes_are_added(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let store = &home.store;
    register_leaves(store).await;
    accept(store, TERM, launch("w1", 1, NOW - 1, &[(THREADS, 6.0)])).await;
    accept(store, TERM, launch("w2", 2, NOW, &[(THREADS, 7.0)])).await;
    accept(store, TERM, launch("w3", 3, NOW, &[(OTHER_THREADS, 5.0)])).await;
    let top = with_ancestors(THREADS).pop().expect("the cluster");
    assert_eq!(shown(store, &top, Window::M1).await, (12.0, 2));
    // A report of the first launch for the earlier minute does not change the later one.
    let mut late = launch("w1", 1, NOW - 1, &[(OTHER_THREADS, 3.0)]);
    (late.reports[0].first, late.reports[0].last) = (2, 2);
    accept(store, TERM, late).await;
    assert_eq!(shown(store, &top, Window::D1).await, (12.0, 2));
    home.close().await;
}
