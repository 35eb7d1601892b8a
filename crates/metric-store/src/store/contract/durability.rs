//! Cases about durability: syncs and crashes, full disks, formats, checkpoints.

use super::*;
use crate::store::{Medium, MemoryDisk};

contract!(
    everything_survives_a_close,
    synced_writes_survive_a_crash_and_others_do_so_in_order,
    writes_after_a_crash_do_not_bring_lost_ones_back,
    full_disk_rejects_writes_until_the_database_is_opened_again,
    database_of_a_later_format_is_rejected_and_left_unchanged,
    database_is_open_once,
    closed_store_reads_nothing,
    removed_database_begins_empty,
    checkpoint_is_a_complete_copy_of_its_own,
    checkpoint_is_copied_to_another_directory,
);

fn everything_survives_a_close(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1")]);
    sync(&store);
    put(&store, &[("b", "2")]);
    drop(store);
    assert_eq!(all(&open(site, site.path())), ["a1", "b2"]);
    let store = open(site, site.path());
    put(&store, &[("c", "3")]);
    store.reopen().expect("reopened");
    assert_eq!(all(&store), ["a1", "b2", "c3"]);
}

fn synced_writes_survive_a_crash_and_others_do_so_in_order(site: &Site) {
    let dir = site.dir("metrics");
    let store = open(site, &dir);
    put(&store, &[("a", "1"), ("b", "1"), ("c", "1")]);
    sync(&store);
    let batches: [&[(&str, &str)]; 2] = [&[("a", "2"), ("d", "2")], &[("a", "3"), ("e", "3")]];
    batches.iter().for_each(|batch| put(&store, batch));
    write(&store, |batch| batch.delete_range(TABLE, &range("b", "d"))).expect("written");
    site.crash(&dir, store);
    let found = all(&open(site, &dir));
    let possible = [
        &["a1", "b1", "c1"][..],
        &["a2", "b1", "c1", "d2"],
        &["a3", "b1", "c1", "d2", "e3"],
        &["a3", "d2", "e3"],
    ];
    assert!(possible.iter().any(|possible| found == *possible), "{found:?}");
    if matches!(site.medium, Medium::Memory(_)) {
        assert_eq!(found, possible[0], "nothing but synced writes survives");
    }
}

fn writes_after_a_crash_do_not_bring_lost_ones_back(site: &Site) {
    let dir = site.dir("metrics");
    let store = open(site, &dir);
    put(&store, &[("a", "1")]);
    site.crash(&dir, store);
    let store = open(site, &dir);
    write(&store, |batch| batch.delete(TABLE, b"a")).expect("written");
    put(&store, &[("b", "2")]);
    sync(&store);
    site.crash(&dir, store);
    assert_eq!(all(&open(site, &dir)), ["b2"]);
}

fn full_disk_rejects_writes_until_the_database_is_opened_again(site: &Site) {
    let Some(small) = site.small_disk() else {
        println!("not tested: no tmpfs can be mounted here");
        return;
    };
    let store = open(site, &small.dir().join("metrics"));
    store.probe_write().expect("there is room");
    put(&store, &[("a", "1")]);
    sync(&store);
    small.fill();
    store.probe_write().expect_err("there is no room");
    let (value, mut n) = (vec![7; 32 << 10], 0_u32);
    let failed = loop {
        let written = write(&store, |batch| {
            batch.put(Table::State, &n.to_be_bytes(), &value);
            batch.put(TABLE, b"z", &n.to_be_bytes());
        });
        match written.and_then(|()| store.with(|view| view.sync())) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
        assert!(n < 10_000, "the disk never fills up");
    };
    assert!(matches!(failed, Error::Write { .. }), "{failed}");
    let a = store.with(|view| view.get(TABLE, b"a")).expect("reads go on");
    assert_eq!(a, Some(b"1".to_vec()));
    small.free();
    let put_b = || write(&store, |batch| batch.put(TABLE, b"b", b"2"));
    assert!(matches!(put_b(), Err(Error::Write { .. })), "no write after a failed one");
    store.probe_write().expect("there is room again");
    store.reopen().expect("opened again");
    put_b().expect("written");
    sync(&store);
    assert_eq!(scan(&store, &range("", "c")), ["a1", "b2"]);
    // All of a batch or nothing.
    let (one, other) = store
        .with(|view| Ok((view.get(Table::State, &n.to_be_bytes())?, view.get(TABLE, b"z")?)))
        .expect("read");
    let is_in = other.is_some_and(|last| last == n.to_be_bytes());
    assert_eq!(one.is_some(), is_in, "batch {n}");
}

fn set_format(store: &Store, format: u32) {
    let key = key::setting(Setting::Format);
    write(store, |batch| batch.put(Table::State, &key, &record::encode(&format))).expect("written");
    sync(store);
}

fn database_of_a_later_format_is_rejected_and_left_unchanged(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1")]);
    set_format(&store, 99);
    drop(store);
    for _ in 0..2 {
        let error = try_open(site, site.path()).expect_err("too new");
        assert!(matches!(&error, Error::Version { found: 99, path, .. } if path == site.path()), "{error}");
    }
}

fn database_is_open_once(site: &Site) {
    let store = open(site, site.path());
    let error = try_open(site, site.path()).expect_err("open already");
    assert!(matches!(&error, Error::Locked { path } if path == site.path()), "{error}");
    // The attempt has no effect on the open database.
    put(&store, &[("a", "1")]);
    try_open(site, site.path()).expect_err("still open");
    drop(store);
    assert_eq!(all(&open(site, site.path())), ["a1"]);
}

fn closed_store_reads_nothing(site: &Site) {
    let store = open(site, site.path());
    assert!(store.is_open());
    store.close_for_good();
    assert!(!store.is_open());
    assert!(matches!(store.with(|view| view.get(TABLE, b"a")), Err(Error::Stopped)));
    // The database itself is free.
    drop(open(site, site.path()));
}

fn removed_database_begins_empty(site: &Site) {
    let [dir, other] = ["metrics", "other"].map(|name| site.dir(name));
    for dir in [&dir, &other] {
        let store = open(site, dir);
        put(&store, &[("a", "1")]);
        sync(&store);
    }
    site.medium.remove_dir(&dir).expect("removed");
    site.medium.remove_dir(&dir).expect("nothing to do");
    assert_eq!(all(&open(site, &dir)), Vec::<String>::new());
    assert_eq!(all(&open(site, &other)), ["a1"]);
}

fn checkpoint_is_a_complete_copy_of_its_own(site: &Site) {
    let [dir, copy] = ["metrics", "copy"].map(|name| site.dir(name));
    let store = open(site, &dir);
    put(&store, &[("a", "1")]);
    sync(&store);
    put(&store, &[("b", "1")]);
    // A store opens the database that is called `db`.
    site.medium.prepare_dir(&copy).expect("made");
    store.checkpoint(&copy.join("db")).expect("copied");
    let again = store.checkpoint(&copy.join("db")).expect_err("it is there");
    assert!(matches!(&again, Error::Write { path, .. } if *path == copy.join("db")), "{again}");
    put(&store, &[("a", "2")]);
    sync(&store);
    let copied = open(site, &copy);
    put(&copied, &[("c", "3")]);
    assert_eq!(all(&copied), ["a1", "b1", "c3"]);
    assert_eq!(all(&store), ["a2", "b1"]);
}

fn checkpoint_is_copied_to_another_directory(site: &Site) {
    let [dir, made, other] = ["metrics", "made", "other"].map(|name| site.dir(name));
    let store = open(site, &dir);
    put(&store, &[("a", "1")]);
    store.checkpoint(&made).expect("copied");
    let source = CheckpointSource::new(&site.medium, made.clone());
    let received = site.dir("received");
    source.copy_to(&site.medium, &received).expect("copied");
    source.copy_to(&site.medium, &received).expect_err("it is there");
    site.medium.remove_dir(&made).expect("removed");
    source.copy_to(&site.medium, &site.dir("late")).expect_err("it is gone");
    let foreign = match site.medium {
        Medium::Disk => Medium::Memory(MemoryDisk::default()),
        Medium::Memory(_) => Medium::Disk,
    };
    let error = CheckpointSource::new(&site.medium, received.clone()).copy_to(&foreign, &other);
    assert_eq!(error.expect_err("another kind").kind(), std::io::ErrorKind::Unsupported);
    let replaced = open(site, &other);
    replaced.replace_with(&received, OldDatabase::Remove).expect("installed");
    assert_eq!(all(&replaced), ["a1"]);
}
