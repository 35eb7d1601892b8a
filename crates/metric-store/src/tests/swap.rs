//! Replacement of a database: committed entries that the copy is missing are never lost, whenever
//! the process dies.

use super::*;
use crate::Error;
use stormkeeper_model::LogPosition;

on_each_medium!(
    interrupted_replacement_is_finished_at_the_next_start,
    diverged_database_is_quarantined_whenever_the_process_dies,
    full_quarantine_prevents_the_replacement_and_changes_nothing,
);

async fn interrupted_replacement_is_finished_at_the_next_start(site: &Site) {
    let dir = site.path().join("metrics");
    let home = Home::open(&dir, site.options());
    register_some(&home.store, &topology("old"), 3).await;
    home.close().await;
    let home = Home::open(&site.path().join("other"), site.options());
    register_some(&home.store, &topology("new"), 3).await;
    home.store.checkpoint(dir.join("next")).await.expect("copied");
    home.close().await;
    // Left by an earlier replacement.
    site.leave(&dir.join("before"));
    // State after the first rename, then after the second one.
    for crash in 0..2 {
        if crash == 1 {
            site.rename(&dir.join("db"), &dir.join("next"));
            site.leave(&dir.join("before"));
        }
        let home = Home::open(&dir, site.options());
        assert_eq!(home.store.topologies().await.expect("read"), [topology("new")], "crash {crash}");
        assert!(!site.exists(&dir.join("next")) && !site.exists(&dir.join("before")));
        home.close().await;
    }
}

/// Makes a store in `dir` with metrics of the topology `name`, and a copy of it.
async fn make(site: &Site, dir: &Path, name: &str, copy: Option<&Path>) -> LogPosition {
    let home = Home::open(dir, site.options());
    register_some(&home.store, &topology(name), 3).await;
    if let Some(copy) = copy {
        home.store.checkpoint(copy.to_owned()).await.expect("copied");
    }
    let position = home.store.position();
    home.close().await;
    position
}

async fn topologies_in(site: &Site, dir: &Path) -> Vec<TopologyId> {
    let home = Home::open(dir, site.options());
    let topologies = home.store.topologies().await.expect("read");
    home.close().await;
    topologies
}

async fn diverged_database_is_quarantined_whenever_the_process_dies(site: &Site) {
    // A crash before the first rename, after the first one, and after the second one.
    for crash in 0..3 {
        let folder = site.dir(&format!("crash-{crash}"));
        let dir = folder.join("metrics");
        let position = make(site, &dir, "old", None).await;
        let quarantined = format!("quarantine-{}-{}", position.term, position.index);
        let next = dir.join(format!("next-{quarantined}"));
        make(site, &folder.join("other"), "new", Some(&next)).await;
        // Left by an earlier replacement that was interrupted.
        site.leave(&dir.join("before"));
        if crash >= 1 {
            site.rename(&dir.join("db"), &dir.join(&quarantined));
        }
        if crash >= 2 {
            site.rename(&next, &dir.join("db"));
        }
        for start in 0..2 {
            let home = Home::open(&dir, site.options());
            let topologies = home.store.topologies().await.expect("read");
            assert_eq!(topologies, [topology("new")], "crash {crash}, start {start}");
            assert_eq!(
                home.store.quarantined().await.expect("listed"),
                [dir.join(&quarantined)],
                "crash {crash}"
            );
            home.close().await;
        }
        assert!(!site.exists(&next) && !site.exists(&dir.join("before")), "crash {crash}");
        // The quarantined database is complete: moved back, it is the store.
        site.rename(&dir.join("db"), &folder.join("later"));
        site.rename(&dir.join(&quarantined), &dir.join("db"));
        assert_eq!(topologies_in(site, &dir).await, [topology("old")], "crash {crash}");
    }
}

async fn full_quarantine_prevents_the_replacement_and_changes_nothing(site: &Site) {
    let dir = site.path().join("metrics");
    let home = Home::open(&dir, site.options());
    let mut expected = Vec::new();
    for n in 0..3 {
        register_some(&home.store, &topology(&format!("mine-{n}")), n + 1).await;
        let (before, room) = (dump(&home.store), home.store.check_quarantine_room().await);
        let copy = site.path().join(format!("copy-{n}"));
        make(site, &site.path().join(format!("other-{n}")), &format!("other-{n}"), Some(&copy)).await;
        let own = home.store.position();
        let replaced = home.store.replace_and_quarantine(copy.clone()).await;
        if n < 2 {
            room.expect("there is room");
            replaced.expect("replaced");
            assert_eq!(home.store.topologies().await.expect("read"), [topology(&format!("other-{n}"))]);
            expected.push(dir.join(format!("quarantine-{}-{}", own.term, own.index)));
            assert_eq!(home.store.quarantined().await.expect("listed"), expected);
        } else {
            let error = replaced.expect_err("there is no room");
            assert!(
                matches!(&error, Error::QuarantineFull { quarantined } if *quarantined == expected),
                "{error}"
            );
            assert!(matches!(room, Err(Error::QuarantineFull { .. })), "{room:?}");
            assert_eq!(dump(&home.store), before, "the database is unchanged");
            assert!(site.exists(&copy), "the copy is unchanged");
        }
    }
    // A copy with all committed entries replaces the database regardless of the quarantine.
    home.store.replace_with(site.path().join("copy-2")).await.expect("replaced");
    assert_eq!(home.store.topologies().await.expect("read"), [topology("other-2")]);
    assert_eq!(home.store.quarantined().await.expect("listed"), expected);
    home.close().await;
}
