//! Another archive in place of one's own: nothing that the other one lacks is lost, whenever the
//! process dies.

use super::*;
use crate::Error;
use stormkeeper_model::LogPosition;

#[tokio::test]
async fn a_swap_that_was_cut_off_is_finished_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("metrics");
    let home = Home::open(&dir, options());
    register_some(&home.archive, &topology("old"), 3).await;
    home.close().await;
    let home = Home::open(&folder.path().join("other"), options());
    register_some(&home.archive, &topology("new"), 3).await;
    home.archive.checkpoint(dir.join("next")).await.expect("copied");
    home.close().await;
    // Left by a swap before that.
    std::fs::create_dir(dir.join("before")).expect("made");
    std::fs::write(dir.join("before/CURRENT"), "x").expect("written");
    // As after the first rename, then after the second one.
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

/// Makes an archive in `dir` that knows metrics of the topology `name`, and a copy of it.
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
async fn what_the_other_one_lacks_is_put_aside_whenever_the_process_dies() {
    // Before anything was moved, after the first rename, and after the second one.
    for crash in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("metrics");
        let position = make(&dir, "old", None).await;
        let aside = format!("aside-{}-{}", position.term, position.index);
        let next = dir.join(format!("next-{aside}"));
        make(&folder.path().join("other"), "new", Some(&next)).await;
        // Left by a swap that was cut off earlier.
        std::fs::create_dir(dir.join("before")).expect("made");
        if crash >= 1 {
            std::fs::rename(dir.join("db"), dir.join(&aside)).expect("moved");
        }
        if crash >= 2 {
            std::fs::rename(&next, dir.join("db")).expect("moved");
        }
        for start in 0..2 {
            let home = Home::open(&dir, options());
            let topologies = home.archive.topologies().await.expect("read");
            assert_eq!(topologies, [topology("new")], "crash {crash}, start {start}");
            assert_eq!(home.archive.aside().await.expect("listed"), [dir.join(&aside)], "crash {crash}");
            home.close().await;
        }
        assert!(!next.exists() && !dir.join("before").exists(), "crash {crash}");
        // What was put aside is whole: moved back, it is the archive.
        std::fs::rename(dir.join("db"), folder.path().join("later")).expect("moved");
        std::fs::rename(dir.join(&aside), dir.join("db")).expect("moved");
        assert_eq!(topologies_in(&dir).await, [topology("old")], "crash {crash}");
    }
}

#[tokio::test]
async fn no_more_is_put_aside_than_there_is_room_for_and_nothing_is_replaced_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("metrics");
    let home = Home::open(&dir, options());
    let mut expected = Vec::new();
    for n in 0..3 {
        register_some(&home.archive, &topology(&format!("mine-{n}")), n + 1).await;
        let (before, room) = (dump(&home.archive), home.archive.has_room_aside().await);
        let copy = folder.path().join(format!("copy-{n}"));
        make(&folder.path().join(format!("other-{n}")), &format!("other-{n}"), Some(&copy)).await;
        let own = home.archive.position();
        let replaced = home.archive.give_way_to(copy.clone()).await;
        if n < 2 {
            room.expect("there is room");
            replaced.expect("replaced");
            assert_eq!(home.archive.topologies().await.expect("read"), [topology(&format!("other-{n}"))]);
            expected.push(dir.join(format!("aside-{}-{}", own.term, own.index)));
            assert_eq!(home.archive.aside().await.expect("listed"), expected);
        } else {
            let error = replaced.expect_err("there is no room");
            assert!(matches!(&error, Error::NoRoomAside { aside } if *aside == expected), "{error}");
            assert!(matches!(room, Err(Error::NoRoomAside { .. })), "{room:?}");
            assert_eq!(dump(&home.archive), before, "it is as it was");
            assert!(copy.exists(), "so is the copy");
        }
    }
    // One that lacks nothing takes its place all the same.
    home.archive.replace_with(folder.path().join("copy-2")).await.expect("replaced");
    assert_eq!(home.archive.topologies().await.expect("read"), [topology("other-2")]);
    assert_eq!(home.archive.aside().await.expect("listed"), expected);
    home.close().await;
}
