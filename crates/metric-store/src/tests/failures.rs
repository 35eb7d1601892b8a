//! Databases on disk that are locked, damaged or too new, and full disks.

use super::*;
use crate::{Error, key, record, store::Store};
use stormkeeper_metrics::protocol::PointsQuery;

on_each_medium!(full_disk_acknowledges_nothing_and_writes_succeed_once_there_is_space);

fn options() -> Options {
    Site::on_disk().options()
}

#[tokio::test]
async fn database_that_cannot_be_opened_is_reported_and_left_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::open(folder.path(), options());
    register_some(&home.store, &topology("t"), 3).await;
    let tasks = Tasks::default();
    let locked = MetricStore::open(folder.path(), options(), &tasks).expect_err("open already");
    assert!(matches!(locked, Error::Locked { .. }), "{locked}");
    assert!(locked.to_string().contains(&folder.path().display().to_string()));
    home.close().await;

    let current = folder.path().join("db/CURRENT");
    std::fs::write(&current, "rubbish").expect("written");
    let corrupt = MetricStore::open(folder.path(), options(), &tasks).expect_err("damaged");
    assert!(matches!(corrupt, Error::Corrupt { .. }), "{corrupt}");
    assert!(corrupt.to_string().contains("move the directory away"));
    assert_eq!(std::fs::read_to_string(&current).expect("still there"), "rubbish", "nothing is wiped");
}

#[test]
fn database_of_another_format_is_refused_and_the_readable_format_is_named() {
    for (format, expected) in [(1, "has format 1, and this build reads only 2"), (99, "reads up to 2")] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), &options()).expect("opened");
        let written = store.with(|view| {
            let mut batch = view.batch();
            batch.put(Table::State, &key::setting(key::Setting::Format), &record::encode(&format));
            view.write(batch)?;
            view.sync()
        });
        written.expect("written");
        drop(store);
        let refused = Store::open(folder.path(), &options()).expect_err("another format");
        assert!(matches!(refused, Error::Version { found, .. } if found == format), "{refused}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

#[test]
fn directory_of_an_earlier_build_is_refused_and_not_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("db")).expect("created");
    let refused = Store::open(folder.path(), &options()).expect_err("another layout");
    assert!(matches!(refused, Error::Layout(_)), "{refused}");
    assert!(refused.to_string().contains("the metric store directory"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path().join("db")).expect("listed").count(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
}

#[tokio::test]
async fn missing_file_is_reported_as_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::open(folder.path(), options());
    let (store, topology) = (&home.store, topology("t"));
    register_some(store, &topology, 3).await;
    // A checkpoint flushes the memory to files.
    store.checkpoint(folder.path().join("copy")).await.expect("copied");
    home.close().await;
    let files =
        std::fs::read_dir(folder.path().join("db")).expect("read").map(|entry| entry.expect("read").path());
    let table =
        files.into_iter().find(|path| path.extension().is_some_and(|it| it == "sst")).expect("a file");
    std::fs::remove_file(table).expect("removed");
    let corrupt = MetricStore::open(folder.path(), options(), &Tasks::default()).expect_err("damaged");
    assert!(matches!(corrupt, Error::Corrupt { .. }), "{corrupt}");
}

async fn full_disk_acknowledges_nothing_and_writes_succeed_once_there_is_space(site: &Site) {
    let Some(small) = site.small_disk() else {
        println!("not tested: no tmpfs can be mounted here");
        return;
    };
    let home = Home::open(&small.dir().join("metrics"), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 4).await;
    let mut stored = 0_u64;
    ingest(store, &topology, NOW, 1, &[(ids[0], 1)]).await;
    stored += 1;
    small.fill();
    let mut sequence = 2;
    let failed = loop {
        let next = batch(&topology, NOW, sequence, &[(ids[0], 1)]);
        match store.ingest(TERM, next).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        sequence += 1;
        assert!(sequence < 100_000, "the disk never fills up");
    };
    assert!(matches!(failed, Error::Write { .. }) && failed.is_retryable(), "{failed}");
    assert!(store.status().await.expect("read").failure.is_some());
    let again = store.ingest(TERM, batch(&topology, NOW, sequence, &[(ids[0], 1)])).await;
    assert!(matches!(again, Err(Error::Write { .. })));
    small.free();
    store.shared.options.clock.advance(Duration::from_secs(2));
    ingest(store, &topology, NOW, sequence, &[(ids[0], 1)]).await;
    stored += 1;
    assert_eq!(store.status().await.expect("read").failure, None);
    let points = store
        .points(PointsQuery {
            id: ids[0],
            window: stormkeeper_metrics::Window::D1,
            from: Minute(0),
            to: Minute(NOW),
            limit: 9,
        })
        .await
        .expect("read");
    assert_eq!(points[0].1, counter(stored), "acknowledged counts are stored once");
    home.close().await;
}
