//! Followers have the same data as the leader.

use super::*;
use crate::{Error, ExportKey};
use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetaQuery, MetricMeta};
use stormkeeper_model::LogPosition;

on_each_medium!(
    follower_that_applies_all_entries_has_the_same_data,
    diverged_or_late_follower_continues_from_a_checkpoint,
    begin_of_the_log_is_identified_by_its_entry_also_after_a_restart,
    replaced_metas_equal_those_of_the_leader,
);

/// Fetches log entries until the follower has all; false if the logs diverged.
async fn follow(leader: &MetricStore, follower: &MetricStore) -> bool {
    loop {
        let LogPosition { term, index } = follower.position();
        let query =
            LogQuery { nimbus: "n2".parse().expect("an id"), term, index, max_bytes: 300, leader_term: None };
        match leader.log_after(&query).await.expect("read") {
            LogPage::Diverged | LogPage::DivergedCommitted => return false,
            LogPage::Entries { entries, last } if entries.is_empty() => {
                assert_eq!(follower.position(), last);
                return true;
            }
            LogPage::Entries { entries, .. } => {
                follower.apply(entries).await.expect("applied");
            }
        }
    }
}

/// Random mixture of all operations, by a seed.
pub(super) async fn live(store: &MetricStore, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let topologies = [topology("t"), topology("u")];
    let mut reports = [0_u64; 2];
    let mut ids = [Vec::new(), Vec::new()];
    for step in 0..60_u32 {
        let n = random.usize(0..2);
        let minute = NOW - 100 + step + random.u32(0..5);
        match random.u32(0..8) {
            0 => ids[n] = register_some(store, &topologies[n], random.u32(1..20)).await,
            1..=4 if !ids[n].is_empty() => {
                reports[n] += 1 + u64::from(random.u32(0..10) == 0);
                let mut points: Vec<_> = ids[n].iter().map(|id| (*id, random.u64(0..100))).collect();
                random.shuffle(&mut points);
                ingest(store, &topologies[n], minute, reports[n], &points).await;
            }
            5 => _ = store.close_minutes(TERM, Minute(minute)).await.expect("closed"),
            6 => {
                let exporter = ["log", "store"][n];
                if let Some(export) = store.lease_export(exporter).await.expect("asked") {
                    store.ack(TERM, exporter, export.key).await.expect("written");
                }
            }
            _ => {
                let metas = store.metas_since("log", 3).await.expect("read");
                store.ack_metas(TERM, "log", &metas).await.expect("written");
            }
        }
    }
}

async fn follower_that_applies_all_entries_has_the_same_data(site: &Site) {
    for seed in 0..4 {
        let dirs = ["leader", "follower"].map(|name| site.dir(&format!("{name}-{seed}")));
        let [leader, follower] = dirs.each_ref().map(|dir| Home::open(dir, site.options()));
        live(&leader.store, seed).await;
        assert!(follow(&leader.store, &follower.store).await, "seed {seed}");
        assert!(leader.store.position().index > 10);
        assert_eq!(dump(&leader.store), dump(&follower.store), "seed {seed}");
        let status = async |home: &Home| {
            let mut status = home.store.queue_status().await.expect("read");
            // Leases exist only on the leader.
            status.exporters.values_mut().for_each(|it| it.leased = 0);
            (status, home.store.shared.catalog().topologies().cloned().collect::<Vec<_>>())
        };
        assert_eq!(status(&leader).await, status(&follower).await);
        // The state in memory equals the state on disk.
        let before = status(&follower).await;
        follower.close().await;
        let follower = Home::open(&dirs[1], site.options());
        assert_eq!(status(&follower).await, before);
        leader.close().await;
        follower.close().await;
    }
}

async fn diverged_or_late_follower_continues_from_a_checkpoint(site: &Site) {
    let [leader, follower] = ["leader", "follower"]
        .map(|name| Home::open(&site.dir(name), Options { log_bytes_max: 0, ..site.options() }));
    live(&leader.store, 1).await;
    // The follower led for a moment, and stored metrics that no other nimbus has.
    let query = |position: LogPosition| LogQuery {
        nimbus: "n2".parse().expect("an id"),
        term: position.term,
        index: position.index,
        max_bytes: 1 << 20,
        leader_term: None,
    };
    register_some(&follower.store, &topology("lost"), 3).await;
    let other = LogPosition { term: TERM.0 + 1, ..follower.store.position() };
    assert_eq!(leader.store.log_after(&query(other)).await.expect("read"), LogPage::Diverged);
    let ahead = LogPosition { term: TERM.0, index: 10_000 };
    assert_eq!(leader.store.log_after(&query(ahead)).await.expect("read"), LogPage::Diverged);
    let copy = site.dir("copy");
    leader.store.checkpoint(copy.clone()).await.expect("copied");
    let bad = site.dir("bad");
    site.medium.prepare_dir(&bad).expect("made");
    follower.store.replace_with(bad.clone()).await.expect_err("no database");
    if matches!(site.medium, Medium::Disk) {
        std::fs::write(bad.join("CURRENT"), "rubbish").expect("written");
        assert!(matches!(follower.store.replace_with(bad).await, Err(Error::Corrupt { .. })));
    }
    assert_eq!(follower.store.topologies().await.expect("read"), [topology("lost")], "unchanged");
    follower.store.replace_with(copy).await.expect("replaced");
    assert_eq!(dump(&leader.store), dump(&follower.store));
    assert_eq!(follower.store.position(), leader.store.position());
    live(&leader.store, 2).await;
    assert!(follow(&leader.store, &follower.store).await);
    assert_eq!(dump(&leader.store), dump(&follower.store));
    follower.close().await;
    // The directory was replaced, not only the state in memory.
    let follower = Home::open(&site.dir("follower"), site.options());
    assert_eq!(dump(&leader.store), dump(&follower.store));
    leader.close().await;
    follower.close().await;
}

async fn begin_of_the_log_is_identified_by_its_entry_also_after_a_restart(site: &Site) {
    let options = || Options { log_bytes_max: 0, ..site.options() };
    let home = Home::open(site.path(), options());
    let topology = topology("t");
    for n in 1..=5 {
        register_some(&home.store, &topology, n).await;
        // After this time a segment of the log is complete.
        home.store.shared.options.clock.advance(Duration::from_secs(11 * 60));
    }
    let before = home.store.status().await.expect("read");
    assert!(before.log_from > 2 && before.log_bytes > 0, "{before:?}");
    let base = LogPosition { term: TERM.0, index: before.log_from - 1 };
    let ask = async |term, index| {
        let query = LogQuery {
            nimbus: "n2".parse().expect("an id"),
            term,
            index,
            max_bytes: 1 << 20,
            leader_term: None,
        };
        home.store.log_after(&query).await.expect("read")
    };
    assert!(
        matches!(ask(base.term, base.index).await, LogPage::Entries { entries, .. } if !entries.is_empty())
    );
    assert_eq!(ask(base.term + 1, base.index).await, LogPage::Diverged, "another leader's entry");
    assert_eq!(ask(base.term, base.index - 1).await, LogPage::Diverged, "the next entry is truncated");
    home.close().await;
    let home = Home::open(site.path(), options());
    let after = home.store.status().await.expect("read");
    assert_eq!((after.log_from, after.log_bytes), (before.log_from, before.log_bytes));
    home.close().await;
}

async fn replaced_metas_equal_those_of_the_leader(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    register_some(store, &topology, 6).await;
    let query = MetaQuery { topology: topology.clone(), meta: None, after: None, limit: 100 };
    let known = store.metas(query.clone()).await.expect("read").metas;
    let fingerprint = store.fingerprint(&topology).await.expect("read");
    // One meta is missing, one is surplus, and one has the id of another.
    let mut wanted = known[2..].to_vec();
    wanted[0].id = MetricId(4);
    wanted.push(MetricMeta { id: MetricId(5), name: name(&topology, 99).parse().expect("a name") });
    store.replace_metas(&topology, wanted.clone()).await.expect("written");
    let mut now = store.metas(query).await.expect("read").metas;
    wanted.sort();
    now.sort();
    assert_eq!(now, wanted);
    assert_ne!(store.fingerprint(&topology).await.expect("read"), fingerprint);
    store.replace_metas(&topology, known).await.expect("written");
    assert_eq!(store.fingerprint(&topology).await.expect("read"), fingerprint);
    let foreign =
        vec![MetricMeta { id: MetricId(5), name: name(&super::topology("u"), 1).parse().expect("a name") }];
    store.replace_metas(&topology, foreign).await.expect_err("of another topology");
    let strange = vec![(LogPosition { term: 1, index: 99 }, Vec::new())];
    assert!(matches!(store.apply(strange).await, Err(Error::NotNext { .. })));
    let next = LogPosition { term: TERM.0, index: store.position().index + 1 };
    assert!(matches!(store.apply(vec![(next, vec![0xc1])]).await, Err(Error::Unreadable { .. })));
    let key =
        ExportKey { number: 9, topology, minute: Minute(1), kind: crate::ExportKind::All, part: 0, parts: 0 };
    store.ack(TERM, "nobody", key.clone()).await.expect("nothing to do");
    assert_eq!(store.payload(&key, &[], None, 0).await.expect("read").points, []);
    home.close().await;
}
