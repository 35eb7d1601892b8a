//! Replacement of a database: committed entries that the copy is missing are never lost, whenever
//! the process dies.

use super::*;
use crate::Error;
use stormkeeper_model::LogPosition;

#[tokio::test]
async fn interrupted_replacement_is_finished_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("metrics");
    let home = Home::open(&dir, options());
    register_some(&home.archive, &topology("old"), 3).await;
    home.close().await;
    let home = Home::open(&folder.path().join("other"), options());
    register_some(&home.archive, &topology("new"), 3).await;
    home.archive.checkpoint(dir.join("next")).await.expect("copied");
    home.close().await;
    // Left by an earlier replacement.
    std::fs::create_dir(dir.join("before")).expect("made");
    std::fs::write(dir.join("before/CURRENT"), "x").expect("written");
    // State after the first rename, then after the second one.
    for crash in 0..2 {
        if crash == 1 {
            std::fs::rename(dir.join("db"), dir.join("next")).expect("moved");
            std::fs::create_dir(dir.join("before")).expect("made");
        }
        let home = Home::open(&dir, options());
        assert_eq!(home.archive.topologies().await.expect("read"), [topology("new")], "crash {crash}");
        assert!(!dir.join("next").exists() && !dir.join("before").exists());
        home.close().await;
    }
}

/// Makes a store in `dir` with metrics of the topology `name`, and a copy of it.
async fn make(dir: &Path, name: &str, copy: Option<&Path>) -> LogPosition {
    let home = Home::open(dir, options());
    register_some(&home.archive, &topology(name), 3).await;
    if let Some(copy) = copy {
        home.archive.checkpoint(copy.to_owned()).await.expect("copied");
    }
    let position = home.archive.position();
    home.close().await;
    position
}

async fn topologies_in(dir: &Path) -> Vec<TopologyId> {
    let home = Home::open(dir, options());
    let topologies = home.archive.topologies().await.expect("read");
    home.close().await;
    topologies
}

#[tokio::test]
async fn diverged_database_is_quarantined_whenever_the_process_dies() {
    // A crash before the first rename, after the first one, and after the second one.
    for crash in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("metrics");
        let position = make(&dir, "old", None).await;
        let quarantined = format!("quarantine-{}-{}", position.term, position.index);
        let next = dir.join(format!("next-{quarantined}"));
        make(&folder.path().join("other"), "new", Some(&next)).await;
        // Left by an earlier replacement that was interrupted.
        std::fs::create_dir(dir.join("before")).expect("made");
        if crash >= 1 {
            std::fs::rename(dir.join("db"), dir.join(&quarantined)).expect("moved");
        }
        if crash >= 2 {
            std::fs::rename(&next, dir.join("db")).expect("moved");
        }
        for start in 0..2 {
            let home = Home::open(&dir, options());
            let topologies = home.archive.topologies().await.expect("read");
            assert_eq!(topologies, [topology("new")], "crash {crash}, start {start}");
            assert_eq!(
                home.archive.quarantined().await.expect("listed"),
                [dir.join(&quarantined)],
                "crash {crash}"
            );
            home.close().await;
        }
        assert!(!next.exists() && !dir.join("before").exists(), "crash {crash}");
        // The quarantined database is complete: moved back, it is the store.
        std::fs::rename(dir.join("db"), folder.path().join("later")).expect("moved");
        std::fs::rename(dir.join(&quarantined), dir.join("db")).expect("moved");
        assert_eq!(topologies_in(&dir).await, [topology("old")], "crash {crash}");
    }
}

#[tokio::test]
async fn full_quarantine_prevents_the_replacement_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("metrics");
    let home = Home::open(&dir, options());
    let mut expected = Vec::new();
    for n in 0..3 {
        register_some(&home.archive, &topology(&format!("mine-{n}")), n + 1).await;
        let (before, room) = (dump(&home.archive), home.archive.check_quarantine_room().await);
        let copy = folder.path().join(format!("copy-{n}"));
        make(&folder.path().join(format!("other-{n}")), &format!("other-{n}"), Some(&copy)).await;
        let own = home.archive.position();
        let replaced = home.archive.replace_and_quarantine(copy.clone()).await;
        if n < 2 {
            room.expect("there is room");
            replaced.expect("replaced");
            assert_eq!(home.archive.topologies().await.expect("read"), [topology(&format!("other-{n}"))]);
            expected.push(dir.join(format!("quarantine-{}-{}", own.term, own.index)));
            assert_eq!(home.archive.quarantined().await.expect("listed"), expected);
        } else {
            let error = replaced.expect_err("there is no room");
            assert!(
                matches!(&error, Error::QuarantineFull { quarantined } if *quarantined == expected),
                "{error}"
            );
            assert!(matches!(room, Err(Error::QuarantineFull { .. })), "{room:?}");
            assert_eq!(dump(&home.archive), before, "the database is unchanged");
            assert!(copy.exists(), "the copy is unchanged");
        }
    }
    // A copy with all committed entries replaces the database regardless of the quarantine.
    home.archive.replace_with(folder.path().join("copy-2")).await.expect("replaced");
    assert_eq!(home.archive.topologies().await.expect("read"), [topology("other-2")]);
    assert_eq!(home.archive.quarantined().await.expect("listed"), expected);
    home.close().await;
}
