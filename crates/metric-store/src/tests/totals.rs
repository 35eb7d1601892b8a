//! Totals over days, and readings of the last minute.

use super::*;
use crate::Total;

on_each_medium!(
    total_is_the_sum_of_all_minutes_divided_at_a_day,
    total_from_a_later_day_leaves_out_the_days_before,
    reading_of_an_old_minute_is_left_out,
    readings_come_in_the_order_of_the_ids,
);

/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// First minute of the current day of all tests.
const TODAY: u32 = NOW - NOW % DAY;

/// Stores 1, 2, 4, 8 in four minutes: two days ago, twice yesterday, and today.
async fn filled(store: &MetricStore, topology: &TopologyId) -> Vec<MetricId> {
    let ids = register_some(store, topology, 4).await;
    let minutes = [TODAY - DAY - 5, TODAY - 7, TODAY - 3, TODAY];
    for (n, minute) in minutes.into_iter().enumerate() {
        let points = [(ids[0], 1 << n), (ids[2], 100)];
        ingest(store, topology, minute, n as u64 + 1, &points).await;
    }
    ids
}

fn counts(totals: &[Total]) -> Vec<(Option<u64>, Option<u64>)> {
    let count = |point: &Option<Point>| point.as_ref().map(count);
    totals.iter().map(|total| (count(&total.closed), count(&total.open))).collect()
}

async fn total_is_the_sum_of_all_minutes_divided_at_a_day(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = filled(store, &topology).await;
    let wanted: Vec<_> = [ids[0], ids[1], ids[2]].map(|id| (id, Minute(0))).to_vec();
    let totals = store.totals(wanted.clone(), Minute(TODAY)).await.expect("read");
    assert_eq!(counts(&totals), [(Some(7), Some(8)), (None, None), (Some(300), Some(100))]);
    let totals = store.totals(wanted, Minute(TODAY - DAY)).await.expect("read");
    assert_eq!(counts(&totals), [(Some(1), Some(14)), (None, None), (Some(100), Some(300))]);
    home.close().await;
}

async fn total_from_a_later_day_leaves_out_the_days_before(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = filled(store, &topology).await;
    let totals = store.totals(vec![(ids[0], Minute(TODAY - DAY))], Minute(TODAY)).await.expect("read");
    assert_eq!(counts(&totals), [(Some(6), Some(8))]);
    home.close().await;
}

async fn reading_of_an_old_minute_is_left_out(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = filled(store, &topology).await;
    let read = async |since| {
        let ids = vec![ids[0], ids[1]];
        let readings = store.readings(topology.clone(), ids, Minute(since)).await.expect("read");
        readings.iter().map(|point| point.as_ref().map(count)).collect::<Vec<_>>()
    };
    assert_eq!(read(TODAY).await, [Some(8), None]);
    assert_eq!(read(TODAY + 1).await, [None, None]);
    home.close().await;
}

async fn readings_come_in_the_order_of_the_ids(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 20).await;
    let points: Vec<_> = (0..).zip(&ids).map(|(n, id)| (*id, n)).collect();
    ingest(store, &topology, NOW, 1, &points).await;
    // Ids are hashes, so neither order is that of the database.
    for order in [ids.clone(), ids.iter().rev().copied().collect()] {
        let readings = store.readings(topology.clone(), order.clone(), Minute(NOW)).await.expect("read");
        let read: Vec<_> = order.into_iter().zip(readings.iter().flatten().map(count)).collect();
        assert_eq!(read.len(), 20);
        assert!(points.iter().all(|point| read.contains(point)), "{read:?}");
    }
    home.close().await;
}
