//! Crashes after every single write: between any two writes a copy is made, opened as a restarted
//! nimbus would open it, and run to its end.

use std::collections::BTreeSet;

use super::*;
use crate::LatestQuery;
use stormkeeper_metrics::Window;

on_each_medium!(crash_between_any_two_writes_loses_nothing_and_counts_nothing_twice,);

/// Step of a leader. Each step writes at most once.
#[derive(Debug, Clone, Copy)]
enum Step {
    Contribute(u32),
    Close(u32),
    ExportLease(&'static str),
    Nack(&'static str),
}

const STEPS: [Step; 15] = [
    Step::Contribute(0),
    Step::Contribute(0),
    Step::Close(0),
    Step::ExportLease("log"),
    Step::Contribute(1),
    Step::Nack("store"),
    Step::Close(1),
    Step::ExportLease("store"),
    Step::Contribute(2),
    Step::Contribute(0),
    Step::ExportLease("log"),
    Step::Close(2),
    Step::ExportLease("store"),
    Step::ExportLease("log"),
    Step::ExportLease("log"),
];

/// Sends all reports again, as a topology master sends reports without a known outcome.
async fn resend(archive: &MetricStore, ids: &[MetricId], steps: &[Step]) {
    let mut cut = 0;
    for step in steps {
        if let Step::Contribute(n) = step {
            cut += 1;
            ingest(archive, &topology("t"), NOW - 10 + n, cut, &[(ids[0], 1), (ids[3], 10)]).await;
        }
    }
}

async fn take(archive: &MetricStore, ids: &[MetricId], before: &[Step], step: Step) {
    match step {
        Step::Contribute(n) => {
            let cut = before.iter().filter(|step| matches!(step, Step::Contribute(_))).count() as u64 + 1;
            ingest(archive, &topology("t"), NOW - 10 + n, cut, &[(ids[0], 1), (ids[3], 10)]).await;
        }
        Step::Close(n) => _ = archive.close_minutes(TERM, Minute(NOW - 10 + n)).await.expect("closed"),
        Step::ExportLease(exporter) => {
            let upload = archive.lease_export(exporter).await.expect("asked").expect("something is ready");
            archive.ack(TERM, exporter, upload.key).await.expect("written");
        }
        Step::Nack(exporter) => {
            let upload = archive.lease_export(exporter).await.expect("asked").expect("something is ready");
            archive.nack(exporter, upload.key, "no").await.expect("taken");
            archive.shared.options.clock.turn(Duration::from_secs(600));
        }
    }
}

/// Exports all entries that an exporter has not acknowledged.
async fn drain(archive: &MetricStore, exporter: &str) -> BTreeSet<(u64, u32, u64)> {
    let mut uploaded = BTreeSet::new();
    while let Some(upload) = archive.lease_export(exporter).await.expect("asked") {
        let page = archive.payload(&upload.key, &[], None, 100).await.expect("read");
        let sum = page.points.iter().map(|(_, point)| super::count(point)).sum();
        uploaded.insert((upload.key.index, upload.key.minute.0, sum));
        archive.ack(TERM, exporter, upload.key).await.expect("written");
    }
    uploaded
}

async fn crash_between_any_two_writes_loses_nothing_and_counts_nothing_twice(site: &Site) {
    let home = Home::open(&site.path().join("leader"), site.options());
    let ids = register_some(&home.archive, &topology("t"), 4).await;
    for n in 0..=STEPS.len() {
        let (before, after) = STEPS.split_at(n);
        // A copy of exactly what is on disk now, without the state in memory.
        let dir = site.path().join(format!("crash-{n}"));
        site.medium.prepare_dir(&dir).expect("made");
        home.archive.checkpoint(dir.join("db")).await.expect("copied");
        let restarted = Home::open(&dir, site.options());
        let archive = &restarted.archive;
        let at_crash = home.archive.queue_status().await.expect("read");
        let now = archive.queue_status().await.expect("read");
        assert_eq!((now.ready, now.reserved), (at_crash.ready, at_crash.reserved), "after {before:?}");
        assert!(now.exporters.values().all(|it| it.leased == 0));
        resend(archive, &ids, &STEPS).await;
        archive.close_minutes(TERM, Minute(NOW)).await.expect("closed");
        for exporter in ["log", "store"] {
            let pending = archive.queue_status().await.expect("read").exporters[exporter].pending;
            let uploaded = drain(archive, exporter).await;
            assert_eq!(uploaded.len(), pending, "{exporter} is stuck after {before:?}");
        }
        let status = archive.queue_status().await.expect("read");
        assert_eq!((status.ready, status.reserved), (0, 0), "after {before:?}");
        for (id, expected) in [(ids[0], 5), (ids[3], 50)] {
            let points = archive.points(id, Window::D1, Minute(0), Minute(NOW), 9).await.expect("read");
            let sum: u64 = points.iter().map(|(_, point)| super::count(point)).sum();
            assert_eq!(sum, expected, "after {before:?}");
        }
        let latest = archive.latest(LatestQuery::all(topology("t"))).await.expect("read");
        assert!(latest.rows.iter().all(|row| row.minute.0 == NOW - 8), "after {before:?}");
        restarted.close().await;
        if let Some(step) = after.first() {
            take(&home.archive, &ids, before, *step).await;
        }
    }
    home.close().await;
}
