//! Reads return what was ingested.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{DropCause, ExportKey, ExportKind, HistoryEvent, LatestQuery, PayloadPage, SumQuery};
use stormkeeper_metrics::{
    MetaType, Window,
    protocol::{MetaQuery, PointsQuery},
};
use stormkeeper_model::TaskId;

on_each_medium!(
    all_windows_agree_and_each_report_counts_once,
    sums_over_spans_are_those_of_the_counted_points,
    latest_points_are_found_by_level_component_task_and_name,
    topologies_whose_ids_share_a_prefix_are_kept_apart,
    minute_is_exported_with_all_levels_and_again_after_more_data,
    names_are_limited_removed_and_looked_up,
    track_and_history_outlive_their_topology,
    points_expire_with_their_retention_and_nothing_else_does,
    clock_that_is_years_ahead_for_a_while_expires_nothing,
    topology_without_points_is_removed_after_the_longest_retention,
);

fn sum(points: &[(Minute, Point)]) -> u64 {
    points.iter().map(|(_, point)| count(point)).sum()
}

async fn all_windows_agree_and_each_report_counts_once(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 4).await;
    let first = NOW - 200;
    let mut all = BTreeMap::new();
    for n in 0..200_u32 {
        let points = [(ids[0], u64::from(n) + 1), (ids[1], 1)];
        ingest(store, &topology, first + n, u64::from(n) + 1, &points).await;
        // A second time, without effect.
        ingest(store, &topology, first + n, u64::from(n) + 1, &points).await;
        all.insert(first + n, u64::from(n) + 1);
    }
    let expected: u64 = all.values().sum();
    for window in Window::ALL {
        let points = store
            .points(PointsQuery { id: ids[0], window, from: Minute(0), to: Minute(NOW), limit: 10_000 })
            .await
            .expect("read");
        assert_eq!(sum(&points), expected, "{window}");
        assert!(points.iter().all(|(bucket, _)| window.bucket(*bucket) == *bucket));
    }
    for window in Window::ALL {
        for end in [NOW - 1, NOW - 7, NOW - 63] {
            let exact: u64 = all.range(end.saturating_sub(window.minutes() - 1)..=end).map(|(_, n)| n).sum();
            let point = store.window(ids[0], window, Minute(end)).await.expect("read").expect("a point");
            assert_eq!(count(&point), exact, "{window} to {end}");
        }
    }
    let page = store
        .points(PointsQuery {
            id: ids[0],
            window: Window::M1,
            from: Minute(first + 5),
            to: Minute(first + 9),
            limit: 3,
        })
        .await
        .expect("read");
    assert_eq!(page.iter().map(|(minute, _)| minute.0 - first).collect::<Vec<_>>(), [5, 6, 7]);
    home.close().await;
}

async fn latest_points_are_found_by_level_component_task_and_name(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 40).await;
    let points: Vec<_> = ids.iter().map(|id| (*id, 2)).collect();
    ingest(store, &topology, NOW - 1, 1, &points).await;
    ingest(store, &topology, NOW, 2, &points[..20]).await;
    // Late points of another worker: the last minute stays.
    let mut late = batch(&topology, NOW - 1, 3, &points);
    late.reports[0].worker = "w2".parse().expect("an id");
    late.reports[0].first = 1;
    store.ingest(TERM, late).await.expect("accepted");
    let all = LatestQuery::all(topology.clone());
    let page = store.latest(all.clone()).await.expect("read");
    assert_eq!((page.rows.len(), page.next), (40, None));
    let of = |id| page.rows.iter().find(|row| row.meta.id == id).expect("there");
    assert_eq!((of(ids[0]).minute.0, count(&of(ids[0]).point)), (NOW, 2));
    assert_eq!((of(ids[30]).minute.0, count(&of(ids[30]).point)), (NOW - 1, 4));
    let ten = store.latest(LatestQuery { window: Window::M10, ..all.clone() }).await.expect("read");
    assert_eq!(count(&ten.rows.iter().find(|row| row.meta.id == ids[0]).expect("there").point), 6);
    let n = async |query: LatestQuery| store.latest(query).await.expect("read").rows.len();
    assert_eq!(n(LatestQuery { meta: Some(MetaType::Stream), ..all.clone() }).await, 10);
    assert_eq!(n(LatestQuery { component: Some("split".parse().expect("an id")), ..all.clone() }).await, 20);
    assert_eq!(n(LatestQuery { task: Some(TaskId(4)), ..all.clone() }).await, 1);
    assert_eq!(n(LatestQuery { name: Some("m1?".to_owned()), ..all.clone() }).await, 3);
    assert_eq!(n(LatestQuery { since: Some(Minute(NOW)), ..all.clone() }).await, 20);
    // Page by page, the result is the same.
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = store.latest(LatestQuery { after, limit: 7, ..all.clone() }).await.expect("read");
        paged.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, page.rows);
    home.close().await;
}

async fn topologies_whose_ids_share_a_prefix_are_kept_apart(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let store = &home.store;
    let topologies = ["t-1-1", "t-1-10"].map(|id| id.parse().expect("an id"));
    for topology in &topologies {
        let ids = register_some(store, topology, 3).await;
        let points: Vec<_> = ids.iter().map(|id| (*id, 1)).collect();
        ingest(store, topology, NOW, 1, &points).await;
        let placed = HistoryEvent::TaskPlaced {
            topology: topology.clone(),
            task: TaskId(1),
            component: "split".parse().expect("an id"),
            host: "h".parse().expect("a host"),
            port: stormkeeper_model::Port(6700),
            at: Timestamp::from_millis(1),
            reason: String::new(),
        };
        store.record_events(TERM, vec![placed]).await.expect("written");
    }
    for topology in &topologies {
        let query = MetaQuery { topology: topology.clone(), meta: None, after: None, limit: 100 };
        let metas = store.metas(query).await.expect("read").metas;
        assert!(metas.len() == 3 && metas.iter().all(|meta| meta.name.topology() == topology), "{metas:?}");
        let rows = store.latest(LatestQuery::all(topology.clone())).await.expect("read").rows;
        assert_eq!(rows.len(), 3);
        assert_eq!(store.track(topology, None, 10).await.expect("read").len(), 1);
    }
    home.close().await;
}

async fn minute_is_exported_with_all_levels_and_again_after_more_data(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let mut names: Vec<String> = (0..8).map(|n| name(&topology, n)).collect();
    names.push("5@1@__CLUSTER__@@0@sys@Emitted".to_owned());
    let ids = register(store, &topology, names).await;
    let metas = store.metas_since("log", 5).await.expect("read");
    assert_eq!(metas.len(), 5);
    store.ack_metas(TERM, "log", &metas).await.expect("written");
    assert_eq!(store.metas_since("log", 50).await.expect("read").len(), 4);
    let mut all = store.metas_since("store", 50).await.expect("read");
    assert_eq!(all.len(), 9);
    // Acknowledged in any order.
    all.reverse();
    store.ack_metas(TERM, "store", &all).await.expect("written");
    assert_eq!(store.metas_since("store", 50).await.expect("read"), []);
    let points: Vec<_> = ids.iter().map(|id| (*id, 1)).collect();
    ingest(store, &topology, NOW - 2, 1, &points).await;
    assert_eq!(store.lease_export("log").await.expect("asked"), None, "the minute is not closed");
    let mut changed = store.queue_changed();
    assert_eq!(store.close_minutes(TERM, Minute(NOW - 2)).await.expect("closed"), 2);
    changed.changed().await.expect("recorded");
    let cluster = store.lease_export("log").await.expect("asked").expect("the cluster");
    assert_eq!(store.lease_export("log").await.expect("asked"), None, "one at a time");
    store.ack(TERM, "log", cluster.key.clone()).await.expect("written");
    let all = store.lease_export("log").await.expect("asked").expect("the topology");
    assert_eq!((cluster.key.topology.as_str(), cluster.key.kind), ("__CLUSTER__", ExportKind::Topology));
    assert_eq!((&all.key.topology, all.key.kind, all.points), (&topology, ExportKind::All, 8));
    let PayloadPage { points: payload, next } = store.payload(&all.key, &[], None, 5).await.expect("read");
    let rest = store.payload(&all.key, &[], next, 5).await.expect("read");
    assert_eq!((payload.len(), rest.points.len(), rest.next), (5, 3, None));
    let tasks = store.payload(&all.key, &[MetaType::Task], None, 50).await.expect("read");
    assert_eq!(tasks.points.len(), 2);
    store.ack(TERM, "log", all.key.clone()).await.expect("written");
    assert_eq!(store.lease_export("log").await.expect("asked"), None);
    // The parts of a large export cover it completely, with each metric once.
    let mut of_parts = Vec::new();
    for part in 0..3 {
        let key = ExportKey { part, parts: 3, ..all.key.clone() };
        let page = store.payload(&key, &[], None, 50).await.expect("read");
        assert!(page.points.len() < 8, "part {part} is not all");
        of_parts.extend(page.points);
    }
    assert_eq!(of_parts, [payload.clone(), rest.points].concat());
    // After more data for that minute, the levels that changed are exported again, with the sum.
    ingest(store, &topology, NOW - 2, 2, &points[..1]).await;
    assert_eq!(store.close_minutes(TERM, Minute(NOW - 1)).await.expect("closed"), 1);
    let again = store.lease_export("log").await.expect("asked").expect("again");
    let payload = store.payload(&again.key, &[], None, 50).await.expect("read").points;
    assert_eq!(again.key.kind, ExportKind::Task);
    assert_eq!(payload.iter().map(|(_, point)| count(point)).sum::<u64>(), 5);
    let status = store.queue_status().await.expect("read");
    assert_eq!((status.ready, status.exporters["log"].acked, status.exporters["store"].pending), (3, 2, 3));
    home.close().await;
}

async fn names_are_limited_removed_and_looked_up(site: &Site) {
    let home = Home::open(site.path(), Options { names_per_topology_max: 3, ..site.options() });
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 3).await;
    let fourth = Registration { name: name(&topology, 3), id: MetricId(1) };
    let request = RegisterRequest { topology: topology.clone(), registrations: vec![fourth] };
    let answer = store.register(TERM, request).await.expect("answered");
    assert!(matches!(answer.results[0], Registered::Rejected(_)));
    assert_eq!(store.status().await.expect("read").drops[&topology][&DropCause::TooManyNames], 1);
    let before = store.fingerprint(&topology).await.expect("read");
    assert_eq!(before.count, 3);
    assert_eq!(store.meta(ids[1]).await.expect("read").expect("known").name.to_string(), name(&topology, 1));
    store.forget(TERM, (topology.clone(), vec![ids[1]])).await.expect("written");
    assert_eq!(store.meta(ids[1]).await.expect("read"), None);
    let taken = store.ingest(TERM, batch(&topology, NOW, 1, &[(ids[0], 1), (ids[1], 1)])).await;
    assert_eq!(taken.expect("answered"), IngestOutcome::UnknownMetrics(vec![ids[1]]));
    let query = MetaQuery { topology: topology.clone(), meta: None, after: None, limit: 1 };
    let page = store.metas(query.clone()).await.expect("read");
    let last = store.metas(MetaQuery { after: page.next, ..query }).await.expect("read");
    assert_eq!((page.metas.len(), last.metas.len(), last.next), (1, 1, None));
    register_some(store, &topology, 2).await;
    assert_eq!(store.fingerprint(&topology).await.expect("read"), before);
    assert_eq!(store.topologies().await.expect("read"), [topology]);
    let stale = store.close_minutes(Term(TERM.0 - 1), Minute(1)).await.expect_err("a deposed leader");
    assert!(stale.to_string().contains("term 6 is over"), "{stale}");
    home.close().await;
}

async fn track_and_history_outlive_their_topology(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let at = Timestamp::from_millis;
    let placed = |task, host: &str, millis| HistoryEvent::TaskPlaced {
        topology: topology.clone(),
        task: TaskId(task),
        component: "split".parse().expect("an id"),
        host: host.parse().expect("a host"),
        port: stormkeeper_model::Port(6700),
        at: at(millis),
        reason: format!("to {host}"),
    };
    let started = HistoryEvent::TopologyStarted {
        topology: topology.clone(),
        name: "t".parse().expect("a name"),
        at: at(1),
        by: Some("me".to_owned()),
        sample_rate: 0.1,
    };
    let events = vec![started, placed(1, "a", 2), placed(2, "a", 2), placed(1, "b", 5)];
    store.record_events(TERM, events.clone()).await.expect("written");
    let before = dump(store).into_iter().filter(|((table, _), _)| *table == Table::State).count();
    store.record_events(TERM, events).await.expect("written");
    assert_eq!(before, dump(store).into_iter().filter(|((table, _), _)| *table == Table::State).count());
    // An event older than the record arrived late, or was sent again by another leader.
    let gone = HistoryEvent::TaskGone {
        topology: topology.clone(),
        task: TaskId(1),
        at: at(3),
        reason: "it left a".to_owned(),
    };
    let known = store.track(&topology, None, 10).await.expect("read");
    store.record_events(TERM, vec![placed(1, "a", 2), gone]).await.expect("written");
    assert_eq!(store.track(&topology, None, 10).await.expect("read"), known);
    let by = Some("you".to_owned());
    let killed =
        HistoryEvent::TopologyKilled { topology: topology.clone(), at: at(9), by, reason: "done".to_owned() };
    store.record_events(TERM, vec![killed]).await.expect("written");
    let track = store.track(&topology, Some(TaskId(1)), 10).await.expect("read");
    let places: Vec<_> =
        track.iter().map(|it| (it.host.as_str(), it.from, it.to, it.ended.as_str())).collect();
    assert_eq!(places, [("a", at(2), Some(at(5)), "to b"), ("b", at(5), Some(at(9)), "done")]);
    assert_eq!(store.track(&topology, None, 10).await.expect("read").len(), 3);
    let history = store.history(Some(&"t".parse().expect("a name")), 10).await.expect("read");
    assert_eq!(
        (history.len(), history[0].killed, history[0].killed_by.as_deref()),
        (1, Some(at(9)), Some("you"))
    );
    assert_eq!(store.history(Some(&"u".parse().expect("a name")), 10).await.expect("read"), []);
    home.close().await;
}

async fn points_expire_with_their_retention_and_nothing_else_does(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 1).await;
    ingest(store, &topology, NOW, 1, &[(ids[0], 5)]).await;
    let points = async |window| {
        store
            .points(PointsQuery { id: ids[0], window, from: Minute(0), to: Minute(NOW), limit: 9 })
            .await
            .expect("read")
            .len()
    };
    store.shared.options.clock.advance(Duration::from_secs(3 * 24 * 3600));
    store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
    store.compact().await.expect("done");
    assert_eq!([points(Window::M1).await, points(Window::M10).await, points(Window::D1).await], [0, 1, 1]);
    let n_points = dump(store).into_keys().filter(|(table, _)| *table == Table::Points).count();
    assert_eq!(n_points, 3, "expired minutes are removed from disk");
    assert_eq!(
        dump(store).into_keys().filter(|(table, key)| *table == Table::State && key[0] == 4).count(),
        0,
        "old reports are removed"
    );
    // After the longest retention, nothing of the topology is left.
    store.shared.options.clock.advance(Duration::from_secs(370 * 24 * 3600));
    store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
    assert_eq!(store.topologies().await.expect("read"), []);
    home.close().await;
}

async fn clock_that_is_years_ahead_for_a_while_expires_nothing(site: &Site) {
    let right = Timestamp::from_millis(u64::from(NOW) * 60_000 + 1000);
    let clock = Clock::paced(right);
    let home = Home::open(site.path(), Options { clock: clock.clone(), ..site.options() });
    let topology = topology("t");
    let ids = register_some(&home.store, &topology, 1).await;
    ingest(&home.store, &topology, NOW, 1, &[(ids[0], 5)]).await;
    clock.set(right.plus(Duration::from_secs(3 * 365 * 24 * 3600)));
    home.store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
    home.store.compact().await.expect("done");
    home.close().await;
    // Nor does a nimbus that starts while the clock is wrong.
    let home = Home::open(site.path(), Options { clock: clock.clone(), ..site.options() });
    let store = &home.store;
    store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
    store.compact().await.expect("done");
    clock.set(right);
    for window in Window::ALL {
        let points = store
            .points(PointsQuery { id: ids[0], window, from: Minute(0), to: Minute(NOW), limit: 9 })
            .await
            .expect("read");
        assert_eq!(sum(&points), 5, "{window}");
    }
    ingest(store, &topology, NOW, 2, &[(ids[0], 1)]).await;
    home.close().await;
}

async fn topology_without_points_is_removed_after_the_longest_retention(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, at) = (&home.store, store_time(NOW));
    for (name, is_killed) in [("gone", true), ("there", false)] {
        let topology = topology(name);
        let started = HistoryEvent::TopologyStarted {
            topology: topology.clone(),
            name: name.parse().expect("a name"),
            at,
            by: None,
            sample_rate: 0.1,
        };
        let killed = HistoryEvent::TopologyKilled { topology, at, by: None, reason: String::new() };
        let events = [started].into_iter().chain(is_killed.then_some(killed)).collect();
        store.record_events(TERM, events).await.expect("recorded");
    }
    let known = async || {
        store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
        let history = store.history(None, 9).await.expect("read");
        history.iter().map(|entry| entry.name.to_string()).collect::<BTreeSet<_>>()
    };
    store.shared.options.clock.advance(Duration::from_secs(360 * 24 * 3600));
    assert_eq!(known().await.len(), 2);
    store.shared.options.clock.advance(Duration::from_secs(10 * 24 * 3600));
    assert_eq!(known().await, BTreeSet::from(["there".to_owned()]));
    home.close().await;
}

fn store_time(minute: u32) -> Timestamp {
    Timestamp::from_millis(u64::from(minute) * 60_000)
}

async fn sums_over_spans_are_those_of_the_counted_points(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 2).await;
    let mut counted = BTreeMap::new();
    // The clock is one second after the begin of NOW.
    for n in (0..1500_u32).rev() {
        if !(100..130).contains(&n) {
            let (minute, count) = (NOW - n, u64::from(n % 7) + 1);
            ingest(store, &topology, minute, u64::from(1500 - n), &[(ids[0], count)]).await;
            counted.insert(minute, count);
        }
    }
    let now = clock().now().as_millis();
    let name = |n| -> stormkeeper_metrics::MetricName { name(&topology, n).parse().expect("a name") };
    let ago = |minutes: u64| Timestamp::from_millis(now - 1000 - minutes * 60_000);
    let minutes = [0, 1, 10, 90, 180, 1440, 5000];
    let query = |n| SumQuery { name: name(n), from: minutes.into_iter().map(ago).collect() };
    let sums = store.sums(vec![query(0), query(1), query(9)]).await.expect("read");
    for (minutes, sum) in minutes.into_iter().zip(&sums[0]) {
        let first = NOW - u32::try_from(minutes).expect("small");
        let exact: u64 = counted.range(first..).map(|(_, count)| count).sum();
        assert_eq!(sum.as_ref().map(count), Some(exact), "{minutes} minutes");
    }
    assert_eq!((&sums[1], &sums[2]), (&vec![None; 7], &vec![None; 7]), "no points, and no such metric");
    let holes = |from: u64, to: u64| store.holes(name(0), ago(from), ago(to));
    assert_eq!(holes(200, 10).await.expect("read"), Some(vec![(ago(129), ago(99))]));
    assert_eq!(holes(90, 10).await.expect("read"), Some(Vec::new()));
    assert_eq!(store.holes(name(9), ago(9), ago(1)).await.expect("read"), None);
    home.close().await;
}
