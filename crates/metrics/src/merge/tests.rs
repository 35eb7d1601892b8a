//! Metric batches: each level is the sum of the level below, each report is in one batch.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    Leaf, Minute, Point, Subject,
    batch::{LaunchReadings, SequenceRange},
    point,
    tests::{kind, point_of},
};
use stormkeeper_model::Timestamp;

const TOPOLOGY: &str = "wc-1-1";

fn name(text: &str) -> MetricName {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn id(text: &str) -> MetricId {
    MetricId::of(text, 0)
}

fn counter(count: u64) -> Point {
    Point::Counter(point::Counter { count })
}

fn report(worker: &str, number: u64, minute: u32, leaves: &[(MetricId, Point)]) -> MetricReport {
    MetricReport {
        topology: TOPOLOGY.parse().expect("an id"),
        worker: worker.parse().expect("an id"),
        number,
        minute: Minute(minute),
        started: Timestamp::EPOCH,
        leaves: leaves
            .iter()
            .map(|(id, point)| Leaf { id: *id, point: point.clone(), total: None })
            .collect(),
    }
}

fn merger(names: &[&str]) -> Merger {
    let mut merger = Merger::new(TOPOLOGY.parse().expect("an id"));
    let names: Vec<_> = names.iter().map(|text| (id(text), name(text))).collect();
    assert_eq!(merger.names(&names).conflicts, []);
    merger
}

fn points(batches: &[MetricBatch]) -> BTreeMap<MetricId, Point> {
    let mut all: BTreeMap<MetricId, Point> = BTreeMap::new();
    for (id, point) in batches.iter().flat_map(|batch| &batch.points) {
        match all.get_mut(id) {
            Some(sum) => assert!(sum.merge(point)),
            None => drop(all.insert(*id, point.clone())),
        }
    }
    all
}

const STREAM: &str = "3@1@wc-1-1@split@4@default@sys@Emitted";
const OTHER_TASK: &str = "3@1@wc-1-1@split@5@default@sys@Emitted";
const SPOUT: &str = "3@1@wc-1-1@spout@1@default@sys@Emitted";

#[test]
fn each_level_is_the_sum_of_the_one_below() {
    let mut merger = merger(&[STREAM, OTHER_TASK, SPOUT]);
    let added = [(id(STREAM), counter(1)), (id(OTHER_TASK), counter(20))];
    merger.add(&report("w1", 1, 7, &added)).expect("known names");
    merger.add(&report("w2", 5, 7, &[(id(SPOUT), counter(300))])).expect("known names");
    merger.add(&report("w2", 6, 7, &[(id(SPOUT), counter(4000))])).expect("known names");
    let batches = merger.batches();
    let [one] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(one.minute, Minute(7));
    let reports =
        |worker: &str, first, last| SequenceRange { worker: worker.parse().expect("an id"), first, last };
    assert_eq!(one.reports, [reports("w1", 1, 1), reports("w2", 5, 6)]);
    let expected = BTreeMap::from([
        (id(STREAM), counter(1)),
        (id(OTHER_TASK), counter(20)),
        (id(SPOUT), counter(4300)),
        (id("1@1@wc-1-1@split@4@@sys@Emitted"), counter(1)),
        (id("1@1@wc-1-1@split@5@@sys@Emitted"), counter(20)),
        (id("1@1@wc-1-1@spout@1@@sys@Emitted"), counter(4300)),
        (id("8@1@wc-1-1@split@0@default@sys@Emitted"), counter(21)),
        (id("8@1@wc-1-1@spout@0@default@sys@Emitted"), counter(4300)),
        (id("2@1@wc-1-1@split@0@@sys@Emitted"), counter(21)),
        (id("2@1@wc-1-1@spout@0@@sys@Emitted"), counter(4300)),
        (id("5@1@wc-1-1@@0@sys@Emitted"), counter(4321)),
        (id("5@1@__CLUSTER__@@0@sys@Emitted"), counter(4321)),
    ]);
    assert_eq!(points(&batches), expected);
    assert_eq!(one.points.len(), expected.len(), "each id once");
    assert_eq!(merger.batches(), [], "nothing is sent twice");
}

#[test]
fn connections_and_workers_add_to_the_topology_and_machines_have_no_parents() {
    let connection = "6@1@wc-1-1@h@6700@netty@h:6700-g:6701.Sent";
    let other = "6@1@wc-1-1@h@6700@netty@h:6700-f:6702.Sent";
    let mut merger = merger(&[connection, other]);
    merger.add(&report("w1", 1, 7, &[(id(connection), counter(1)), (id(other), counter(2))])).expect("known");
    let points = points(&merger.batches());
    assert_eq!(points[&id("5@1@wc-1-1@@0@netty@Sent")], counter(3));
    assert_eq!(points[&id("5@1@__CLUSTER__@@0@netty@Sent")], counter(3));
    assert_eq!(points.len(), 4);
    for host in ["4@2@__SUPERVISOR__@h@0@sys@CpuUsedRatio", "7@2@__NIMBUS__@h@8080@sys@MemoryUsed"] {
        assert_eq!(rollup::parents(&name(host)), []);
    }
}

#[test]
fn a_report_is_added_as_a_whole_or_not_at_all() {
    let mut merger = merger(&[STREAM]);
    let some = report("w1", 1, 7, &[(id(STREAM), counter(1)), (MetricId(9), counter(1))]);
    let unknown = AddError::Unknown { worker: "w1".parse().expect("an id"), ids: vec![MetricId(9)] };
    assert_eq!(merger.add(&some), Err(unknown));
    assert_eq!(merger.batches(), []);
    let mut foreign = report("w1", 1, 7, &[]);
    foreign.topology = "other-1-1".parse().expect("an id");
    assert!(matches!(merger.add(&foreign), Err(AddError::Topology(..))));
    merger.add(&report("w1", 2, 7, &[])).expect("an empty report counts too");
    for number in [1, 2] {
        let again = merger.add(&report("w1", number, 7, &[(id(STREAM), counter(1))]));
        assert!(matches!(again, Err(AddError::Order { last: 2, .. })), "{again:?}");
    }
    assert_eq!(merger.batches().len(), 1);
}

#[test]
fn invalid_points_are_left_out_and_counted() {
    let gauge = "1@2@wc-1-1@split@4@@sys@Capacity";
    let mut merger = merger(&[STREAM, gauge]);
    let bad = point::Gauge { at: Minute(7), sum: f64::NAN, n: 1, min: 0.0, max: 0.0 };
    let wrong_kind = (id(STREAM), Point::Gauge(bad));
    merger.add(&report("w1", 1, 7, &[wrong_kind, (id(gauge), Point::Gauge(bad))])).expect("known");
    assert_eq!((merger.batches()[0].points.len(), merger.n_left_out()), (0, 2));
}

const THREADS: &str = "4@2@wc-1-1@h@6700@sys@Threads";
const OTHER_THREADS: &str = "4@2@wc-1-1@h@6701@sys@Threads";
const RECV_TPS: &str = "3@3@wc-1-1@split@4@default@sys@spout.RecvTps";

fn launched(worker: &str, started: u64, leaves: &[(MetricId, Point)]) -> MetricReport {
    MetricReport { started: Timestamp::from_millis(started), ..report(worker, 1, 7, leaves) }
}

fn gauge(value: f64) -> Point {
    Point::Gauge(point::Gauge::reading(Minute(7), value).expect("finite"))
}

fn meter(count: u64, m1: f64) -> Point {
    Point::Meter(point::Meter { count, from: Minute(7), at: Minute(7), m1, m5: m1, m15: m1 })
}

#[test]
fn reading_of_a_later_launch_replaces_that_of_an_earlier_one_and_counts_add_up() {
    let leaves = |threads, rate| [(id(THREADS), gauge(threads)), (id(RECV_TPS), meter(10, rate))];
    let (first, second) = (launched("w1", 100, &leaves(6.0, 3.0)), launched("w2", 200, &leaves(7.0, 2.0)));
    let other = launched("w3", 50, &[(id(OTHER_THREADS), gauge(5.0))]);
    for order in [[&first, &second, &other], [&other, &second, &first]] {
        let mut merger = merger(&[THREADS, OTHER_THREADS, RECV_TPS]);
        order.into_iter().for_each(|report| merger.add(report).expect("known"));
        let batches = merger.batches();
        let points = points(&batches);
        for above in ["5@2@wc-1-1@@0@sys@Threads", "5@2@__CLUSTER__@@0@sys@Threads"] {
            let Point::Gauge(threads) = &points[&id(above)] else { panic!("{points:?}") };
            assert_eq!((threads.sum, threads.n, threads.min, threads.max), (12.0, 2, 5.0, 7.0), "{above}");
        }
        let Point::Gauge(threads) = &points[&id(THREADS)] else { panic!("{points:?}") };
        assert_eq!((threads.sum, threads.n), (7.0, 1));
        for level in [RECV_TPS, "1@3@wc-1-1@split@4@@sys@RecvTps", "5@3@wc-1-1@@0@sys@RecvTps"] {
            assert_eq!(points[&id(level)], meter(20, 2.0), "{level}");
        }
        let readings = |started, mut leaves: Vec<MetricId>| {
            leaves.sort_unstable();
            LaunchReadings { started: Timestamp::from_millis(started), leaves }
        };
        let expected =
            [readings(50, vec![id(OTHER_THREADS)]), readings(200, vec![id(THREADS), id(RECV_TPS)])];
        assert_eq!(batches[0].readings, expected);
    }
}

#[test]
fn readings_of_one_launch_in_two_minutes_are_both_kept() {
    let mut merger = merger(&[THREADS]);
    for (number, minute) in [(1, 7), (2, 8)] {
        let reading = Point::Gauge(point::Gauge::reading(Minute(minute), 6.0).expect("finite"));
        merger.add(&report("w1", number, minute, &[(id(THREADS), reading)])).expect("known");
    }
    let batches = merger.batches();
    let readings = batches.iter().map(|batch| batch.readings.len());
    assert_eq!(readings.collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn reports_stay_in_order_when_the_clock_of_a_worker_jumps_back() {
    let mut merger = merger(&[STREAM]);
    for (number, minute) in [(1, 8), (2, 7), (3, 8), (4, 8)] {
        merger.add(&report("w1", number, minute, &[(id(STREAM), counter(1))])).expect("known");
    }
    merger.add(&report("w2", 1, 8, &[])).expect("known");
    let order: Vec<_> = merger
        .batches()
        .into_iter()
        .map(|one| {
            (
                one.minute.0,
                one.reports.iter().map(|reports| (reports.first, reports.last)).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(order, [(8, vec![(1, 1), (1, 1)]), (7, vec![(2, 2)]), (8, vec![(3, 4)])]);
}

#[test]
fn ids_assigned_by_the_leader_replace_the_old_ids() {
    let mut merger = merger(&[STREAM]);
    let (leaf, rolled_up) = (id(STREAM), id("5@1@wc-1-1@@0@sys@Emitted"));
    assert!(merger.rename(leaf, MetricId(1)) && merger.rename(rolled_up, MetricId(2)));
    assert!(!merger.rename(MetricId(77), MetricId(3)), "no metric has the old id");
    assert!(!merger.rename(MetricId(1), MetricId(2)), "another metric has the new id");
    merger.add(&report("w1", 1, 7, &[(leaf, counter(1))])).expect("known by its old id");
    merger.add(&report("w1", 2, 7, &[(MetricId(1), counter(1))])).expect("known by its new id");
    let points = points(&merger.batches());
    assert_eq!((&points[&MetricId(1)], &points[&MetricId(2)]), (&counter(2), &counter(2)));
    assert!(!points.contains_key(&leaf) && !points.contains_key(&rolled_up));
    assert!(merger.known_names().contains(&(MetricId(2), name("5@1@wc-1-1@@0@sys@Emitted"))));
}

#[test]
fn two_names_with_one_id_are_kept_apart() {
    // As if both names had the same hash.
    let mut merger = merger(&[]);
    let learned = merger.names(&[(MetricId(5), name(STREAM)), (MetricId(5), name(SPOUT))]);
    assert_eq!(learned.conflicts, [(MetricId(5), name(SPOUT))]);
    assert_eq!(learned.rolled_up.len(), 5);
    let topology_id = learned.rolled_up.iter().find(|(_, name)| *name.subject() == Subject::Topology);
    assert_eq!(merger.names(&[(MetricId(5), name(STREAM))]), Learned::default(), "known already");
    // A leaf with the id of a rolled-up name.
    let taken = topology_id.expect("rolled up").0;
    assert_eq!(merger.names(&[(taken, name(SPOUT))]).conflicts.len(), 1);
    // A rolled-up name whose id belongs to a leaf.
    let mut merger = self::merger(&[]);
    let task = "1@1@wc-1-1@split@4@@sys@Emitted";
    merger.names(&[(id(task), name(SPOUT))]);
    let learned = merger.names(&[(id(STREAM), name(STREAM))]);
    assert!(learned.rolled_up.contains(&(MetricId::of(task, 1), name(task))), "{learned:?}");
}

#[test]
fn batches_have_a_maximum_size_and_reports_are_not_split() {
    const LEAVES: usize = 120;
    let mut merger = merger(&[]);
    merger.points_max = 1000;
    let mut reports = Vec::new();
    for worker in 0..9 {
        let names: Vec<_> = (0..LEAVES)
            .map(|n| name(&format!("1@1@wc-1-1@c{}@{worker}@@sys@n{}", n % 10, n / 10)))
            .map(|name| (id(&name.to_string()), name))
            .collect();
        assert_eq!(merger.names(&names).conflicts, []);
        let leaves: Vec<_> = names.iter().map(|(id, _)| (*id, counter(1))).collect();
        reports.push(report(&format!("w{worker}"), 1, 7, &leaves));
    }
    reports.iter().for_each(|report| merger.add(report).expect("known"));
    let batches = merger.batches();
    let sizes: Vec<_> = batches.iter().map(|one| one.points.len()).collect();
    // Seven workers with 120 points each, 120 of components, 12 of topology and cluster each.
    assert_eq!(sizes, [984, 384]);
    let workers: BTreeSet<_> =
        batches.iter().flat_map(|one| &one.reports).map(|reports| &reports.worker).collect();
    assert_eq!((workers.len(), batches.iter().map(|one| one.reports.len()).sum::<usize>()), (9, 9));
    assert_eq!(points(&batches)[&id("5@1@wc-1-1@@0@sys@n0")], counter(90));
}

/// Points of one kind, with buckets close together and far apart.
fn points_of_one_kind() -> impl Strategy<Value = Vec<Point>> {
    let bucket = prop_oneof![-40i16..40, 900i16..1100, any::<i16>()];
    let buckets = prop::collection::btree_map(bucket, 1u64..9, 0..9);
    let wide = buckets.prop_map(|buckets| {
        let count = buckets.values().sum();
        let buckets = buckets.into_iter().collect();
        Point::Histogram(point::Histogram { count, buckets, ..point::Histogram::default() })
    });
    prop_oneof![
        kind().prop_flat_map(|kind| prop::collection::vec(point_of(kind), 1..8)),
        prop::collection::vec(wide, 1..8),
    ]
}

proptest! {
    #[test]
    fn a_sum_equals_the_merged_points(parts in points_of_one_kind(), others in points_of_one_kind()) {
        // The same adder: nothing is left of an earlier sum.
        let mut adder = Adder::new();
        for parts in [others, parts] {
            let mut merged = parts[0].clone();
            parts[1..].iter().for_each(|point| assert!(merged.merge(point)));
            prop_assert_eq!(adder.sum(parts.iter()), Some(merged));
        }
        prop_assert_eq!(adder.sum([].into_iter()), None);
    }

    #[test]
    fn leaves_that_are_also_rolled_up_are_added_once(on_task in 1u64..100, on_stream in 1u64..100) {
        let task = "1@1@wc-1-1@split@4@@sys@Emitted";
        let mut merger = merger(&[STREAM, task]);
        let leaves = [(id(STREAM), counter(on_stream)), (id(task), counter(on_task))];
        merger.add(&report("w1", 1, 7, &leaves)).expect("known");
        merger.add(&report("w2", 1, 7, &leaves[1..])).expect("known");
        let batches = merger.batches();
        let points = points(&batches);
        prop_assert_eq!(batches[0].points.len(), points.len(), "each id once");
        let sum = counter(on_stream + 2 * on_task);
        for above in [task, "2@1@wc-1-1@split@0@@sys@Emitted", "5@1@wc-1-1@@0@sys@Emitted"] {
            prop_assert_eq!(&points[&id(above)], &sum);
        }
    }

    #[test]
    fn every_count_is_on_every_level(
        counts in prop::collection::vec((0usize..4, 0usize..6, 0u32..3, 1u64..1000), 0..80),
    ) {
        let texts: Vec<String> = (0..6)
            .map(|n| format!("3@1@wc-1-1@c{}@{}@s{}@sys@Emitted", n / 3, n / 2, n % 2))
            .collect();
        let mut merger = merger(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut numbers = [0; 4];
        let mut total = 0;
        for (worker, leaf, minute, count) in counts {
            numbers[worker] += 1;
            total += count;
            let one = report(&format!("w{worker}"), numbers[worker], minute, &[(id(&texts[leaf]), counter(count))]);
            merger.add(&one).expect("known");
        }
        let known: BTreeMap<_, _> = merger.known_names().into_iter().collect();
        let mut sums: BTreeMap<usize, u64> = BTreeMap::new();
        let mut component_streams = 0;
        for (id, point) in points(&merger.batches()) {
            let Point::Counter(point::Counter { count }) = point else { panic!("{point:?}") };
            match known[&id].subject() {
                Subject::ComponentStream { .. } => component_streams += count,
                _ => *sums.entry(level(&known[&id])).or_default() += count,
            }
        }
        prop_assert_eq!(component_streams, total);
        prop_assert!(sums.values().all(|sum| *sum == total), "{:?} of {}", sums, total);
    }
}
