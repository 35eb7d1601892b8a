//! Crashes after every single write: between any two writes a copy is made, opened as a restarted
//! nimbus would open it, and run to its end.

use std::collections::BTreeSet;

use super::*;
use crate::LatestQuery;
use stormkeeper_metrics::{Window, protocol::PointsQuery};

on_each_medium!(crash_between_any_two_writes_loses_nothing_and_counts_nothing_twice,);

/// Step of a leader. Each step writes at most once.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ingest(u32),
    Close(u32),
    ExportLease(&'static str),
    Nack(&'static str),
}

const STEPS: [Step; 15] = [
    Step::Ingest(0),
    Step::Ingest(0),
    Step::Close(0),
    Step::ExportLease("log"),
    Step::Ingest(1),
    Step::Nack("store"),
    Step::Close(1),
    Step::ExportLease("store"),
    Step::Ingest(2),
    Step::Ingest(0),
    Step::ExportLease("log"),
    Step::Close(2),
    Step::ExportLease("store"),
    Step::ExportLease("log"),
    Step::ExportLease("log"),
];

/// Sends all reports again, as a topology master sends reports without a known outcome.
async fn resend(store: &MetricStore, ids: &[MetricId], steps: &[Step]) {
    let mut sequence = 0;
    for step in steps {
        if let Step::Ingest(n) = step {
            sequence += 1;
            ingest(store, &topology("t"), NOW - 10 + n, sequence, &[(ids[0], 1), (ids[3], 10)]).await;
        }
    }
}

async fn take(store: &MetricStore, ids: &[MetricId], before: &[Step], step: Step) {
    match step {
        Step::Ingest(n) => {
            let sequence = before.iter().filter(|step| matches!(step, Step::Ingest(_))).count() as u64 + 1;
            ingest(store, &topology("t"), NOW - 10 + n, sequence, &[(ids[0], 1), (ids[3], 10)]).await;
        }
        Step::Close(n) => _ = store.close_minutes(TERM, Minute(NOW - 10 + n)).await.expect("closed"),
        Step::ExportLease(exporter) => {
            let export = store.lease_export(exporter).await.expect("asked").expect("something is ready");
            store.ack(TERM, exporter, export.key).await.expect("written");
        }
        Step::Nack(exporter) => {
            let export = store.lease_export(exporter).await.expect("asked").expect("something is ready");
            store.nack(exporter, export.key, "no").await.expect("accepted");
            store.shared.options.clock.advance(Duration::from_secs(600));
        }
    }
}

/// Exports all entries that an exporter has not acknowledged.
async fn drain(store: &MetricStore, exporter: &str) -> BTreeSet<(u64, u32, u64)> {
    let mut exported = BTreeSet::new();
    while let Some(export) = store.lease_export(exporter).await.expect("asked") {
        let page = store.payload(&export.key, &[], None, 100).await.expect("read");
        let sum = page.points.iter().map(|(_, point)| super::count(point)).sum();
        exported.insert((export.key.number, export.key.minute.0, sum));
        store.ack(TERM, exporter, export.key).await.expect("written");
    }
    exported
}

async fn crash_between_any_two_writes_loses_nothing_and_counts_nothing_twice(site: &Site) {
    let home = Home::open(&site.path().join("leader"), site.options());
    let ids = register_some(&home.store, &topology("t"), 4).await;
    for n in 0..=STEPS.len() {
        let (before, after) = STEPS.split_at(n);
        // A copy of exactly what is on disk now, without the state in memory.
        let dir = site.path().join(format!("crash-{n}"));
        site.medium.prepare_dir(&dir).expect("made");
        home.store.checkpoint(dir.join("db")).await.expect("copied");
        let restarted = Home::open(&dir, site.options());
        let store = &restarted.store;
        let at_crash = home.store.queue_status().await.expect("read");
        let now = store.queue_status().await.expect("read");
        assert_eq!((now.ready, now.reserved), (at_crash.ready, at_crash.reserved), "after {before:?}");
        assert!(now.exporters.values().all(|it| it.leased == 0));
        resend(store, &ids, &STEPS).await;
        store.close_minutes(TERM, Minute(NOW)).await.expect("closed");
        for exporter in ["log", "store"] {
            let pending = store.queue_status().await.expect("read").exporters[exporter].pending;
            let exported = drain(store, exporter).await;
            assert_eq!(exported.len(), pending, "{exporter} is stuck after {before:?}");
        }
        let status = store.queue_status().await.expect("read");
        assert_eq!((status.ready, status.reserved), (0, 0), "after {before:?}");
        for (id, expected) in [(ids[0], 5), (ids[3], 50)] {
            let points = store
                .points(PointsQuery { id, window: Window::D1, from: Minute(0), to: Minute(NOW), limit: 9 })
                .await
                .expect("read");
            let sum: u64 = points.iter().map(|(_, point)| super::count(point)).sum();
            assert_eq!(sum, expected, "after {before:?}");
        }
        let latest = store.latest(LatestQuery::all(topology("t"))).await.expect("read");
        assert!(latest.rows.iter().all(|row| row.minute.0 == NOW - 8), "after {before:?}");
        restarted.close().await;
        if let Some(step) = after.first() {
            take(&home.store, &ids, before, *step).await;
        }
    }
    home.close().await;
}
