//! The local directories of daemons: shared, deleted, on a full disk, and what other users may read.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Network, Process, Reaper, Shape, WAIT_MAX, kill9, processes_with};

const ONE_EACH: Shape = Shape { zookeepers: 1, nimbuses: 1, supervisors: 1, network: Network::Direct };

/// Timeouts that a fault in this test would reach.
const SHORT_TIMEOUTS: &str = "supervisor.worker.timeout.secs: 8\n";

/// Directory of a test outside of its cluster's, and the processes in it, which end with the test.
struct Home {
    dir: tempfile::TempDir,
    _reaper: Reaper,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let _reaper = Reaper::start(dir.path());
        Self { dir, _reaper }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for dir in [self.path().join("storm-local"), self.path().join("disk/storm-local")] {
            workers(&dir).iter().for_each(|process| kill9(process.pid));
        }
    }
}

/// File system of a limited size.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it at `path`.
    fn mount(path: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(path).expect("a directory");
        let options = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        let mounted = mounted.expect("mount starts");
        assert!(
            mounted.status.success(),
            "this test mounts a small file system, which needs root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(path.to_owned())
    }

    /// Writes until nothing more can be written.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("filler");
        let mut dd = Command::new("dd");
        dd.arg("if=/dev/zero").arg(format!("of={}", file.display())).arg("bs=4k").stderr(Stdio::null());
        let filled = dd.status().expect("dd starts");
        assert!(!filled.success(), "the disk is not full");
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: processes of a test that failed may still use it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The workers of the cluster whose `storm.local.dir` is `dir`, with their components.
fn workers(dir: &Path) -> Vec<Process> {
    processes_with(&format!("STORMKEEPER_SUPERVISOR_DIR={}", dir.display())).into_iter().collect()
}

/// Files and directories below `dir` that other users may use, and links that lead out of it.
fn open_to_others(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.mode() & 0o7777;
        let allowed = if metadata.is_dir() { 0o700 } else { 0o700 & (mode | 0o600) };
        if mode & !allowed != 0 {
            found.push(format!("{} {mode:o}", path.display()));
        }
        if metadata.is_dir() {
            todo.extend(
                fs::read_dir(&path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())),
            );
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn both_daemons_share_one_directory_that_only_their_user_may_read() {
    let home = Home::new();
    let dir = home.path().join("storm-local");
    let settings = format!("storm.local.dir: {}\n{SHORT_TIMEOUTS}", dir.display());
    let mut cluster = Cluster::with(ONE_EACH, &settings).await;
    fs::write(dir.join("nimbus/blobs/notes"), "of the operator").expect("written");
    let file = cluster.ticker();
    cluster.ok(&["submit", file.to_str().expect("text")]);
    cluster.wait_until_whole("ticker").await;
    cluster.wait_until_tuples_flow("ticker").await;
    let before = workers(&dir);
    assert!(!before.is_empty());
    // As an earlier build left them.
    let former =
        ["nimbus", "nimbus/blobs", "supervisor/workers", "supervisor/blobs"].map(|name| dir.join(name));
    former.iter().for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set"));
    let ids = ["nimbus/nimbus-id", "supervisor/supervisor-id"].map(|name| dir.join(name));
    ids.iter().for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o644)).expect("set"));
    for n in 0..2 {
        let daemon = if n == 0 { &mut cluster.nimbuses[0] } else { &mut cluster.supervisors[0] };
        daemon.terminate();
        daemon.start_again();
    }
    cluster.wait_until_ready().await;
    cluster.wait_until_whole("ticker").await;
    cluster.wait_until_tuples_flow("ticker").await;
    assert_eq!(workers(&dir), before, "the same processes after both daemons were started again");
    assert_eq!(fs::read_to_string(dir.join("nimbus/blobs/notes")).expect("kept"), "of the operator");
    wait_until("the modes are corrected", WAIT_MAX, async || {
        let open = open_to_others(&dir);
        if open.is_empty() { Ok(()) } else { Err(open.join("\n")) }
    })
    .await;
    cluster.ok(&["kill", "ticker", "-w", "0"]);
    cluster.wait_until_nothing_is_left().await;
}

/// Deletes the directories of both daemons under load: no worker and no leader is lost.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_directories_cost_no_worker_and_no_leader() {
    let home = Home::new();
    let dir = home.path().join("storm-local");
    let settings = format!("storm.local.dir: {}\n{SHORT_TIMEOUTS}", dir.display());
    let mut cluster = Cluster::with(ONE_EACH, &settings).await;
    let file = cluster.ticker();
    cluster.ok(&["submit", file.to_str().expect("text")]);
    cluster.wait_until_whole("ticker").await;
    cluster.wait_until_tuples_flow("ticker").await;
    let (before, leading) = (workers(&dir), cluster.leading().await.expect("a leader"));
    let ids = ["nimbus/nimbus-id", "supervisor/supervisor-id"].map(|name| dir.join(name));
    let ids_before = ids.each_ref().map(|path| fs::read_to_string(path).expect("an id"));

    fs::remove_dir_all(&dir).or_else(|_written_meanwhile| fs::remove_dir_all(&dir)).expect("deleted");
    wait_until("what was deleted is put back", WAIT_MAX, async || {
        let ids_now = ids.each_ref().map(|path| fs::read_to_string(path).unwrap_or_default());
        let ledger = fs::read_dir(dir.join("supervisor/ledger")).into_iter().flatten().count();
        let beats = fs::read_dir(dir.join("supervisor/workers")).into_iter().flatten();
        let beats =
            beats.filter(|one| one.as_ref().is_ok_and(|one| one.path().join("heartbeat").exists())).count();
        if ids_now == ids_before && ledger == 2 && beats == 2 {
            Ok(())
        } else {
            Err(format!("{ids_now:?}, {ledger} entries, {beats} heartbeats\n{}", cluster.logs()))
        }
    })
    .await;
    wait_until("the lost blob and the lost metrics are shown", WAIT_MAX, async || {
        let shown = cluster.json(&["nimbuses"])["nimbuses"][0].clone();
        let problem = shown["metricsProblem"].as_str().unwrap_or_default();
        if shown["blobsMissing"] == 1 && problem.contains("was deleted") {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    })
    .await;
    // Longer than a worker may be silent.
    let mut supervisor_log = String::new();
    tokio::time::timeout(WAIT_MAX, async {
        for _ in 0..3 {
            cluster.wait_until_tuples_flow("ticker").await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            supervisor_log = cluster.supervisors[0].log();
        }
    })
    .await
    .expect("tuples flow");
    assert_eq!(workers(&dir), before, "{supervisor_log}");
    assert_eq!(cluster.leading().await.expect("a leader").term, leading.term);
    // The next supervisor knows the workers.
    cluster.supervisors[0].terminate();
    cluster.supervisors[0].start_again();
    cluster.wait_until_ready().await;
    cluster.wait_until_whole("ticker").await;
    assert_eq!(workers(&dir), before, "{}", cluster.logs());
}

/// Fills the disk of both daemons and their workers for longer than a worker may be silent.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_costs_no_worker_and_no_leader() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home.path().join("disk"), 24);
    let dir = disk.0.join("storm-local");
    let settings = format!("storm.local.dir: {}\n{SHORT_TIMEOUTS}", dir.display());
    let cluster = Cluster::with(ONE_EACH, &settings).await;
    let file = cluster.ticker();
    cluster.ok(&["submit", file.to_str().expect("text")]);
    cluster.wait_until_whole("ticker").await;
    cluster.wait_until_tuples_flow("ticker").await;
    let (before, leading) = (workers(&dir), cluster.leading().await.expect("a leader"));
    let filler = disk.fill();
    wait_until("the list of nimbuses says it", Duration::from_secs(10), async || {
        let shown = String::from_utf8_lossy(&cluster.run(&["nimbuses"]).stdout).into_owned();
        if shown.contains("nimbus.disk.free.bytes.min") { Ok(()) } else { Err(shown) }
    })
    .await;
    let refused = cluster.run(&["submit", file.to_str().expect("text"), "--name", "second"]);
    let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refusal.contains("nimbus.disk.free.bytes.min"), "{refusal}");
    for _ in 0..4 {
        cluster.wait_until_tuples_flow("ticker").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert_eq!(workers(&dir), before, "{}", cluster.logs());
    assert_eq!(cluster.leading().await.expect("a leader").term, leading.term);
    fs::remove_file(filler).expect("removed");
    cluster.wait_until_tuples_flow("ticker").await;
    assert_eq!(workers(&dir), before, "{}", cluster.logs());
}

/// A blob is deleted on the disk of one nimbus, then all announcements in the tree.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_blob_and_deleted_announcements_come_back() {
    let cluster = Cluster::of(Shape { supervisors: 1, ..Shape::SMALL }).await;
    let file = cluster.ticker();
    cluster.ok(&["submit", file.to_str().expect("text")]);
    let blobs = [1, 2].map(|n| cluster.path(&format!("nimbus-{n}/nimbus/blobs")));
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.len() == 64).collect()
    };
    let announced = async || {
        let parent = layout::blobs();
        let mut found = Vec::new();
        for key in cluster.tree.children(&parent).await.ok().flatten().unwrap_or_default() {
            let path = parent.child(&key).expect("a name");
            found.extend(cluster.tree.children(&path).await.ok().flatten().unwrap_or_default());
        }
        found.sort();
        found
    };
    let whole = async |what: &str| {
        wait_until(what, WAIT_MAX, async || {
            let (on_disk, announced) = (blobs.each_ref().map(|dir| names(dir).len()), announced().await);
            if on_disk == [1, 1] && announced.len() == 2 {
                Ok(announced)
            } else {
                Err(format!("{on_disk:?} {announced:?}\n{}", cluster.logs()))
            }
        })
        .await
    };
    let before = whole("both nimbuses have the blob").await;
    let key = names(&blobs[0])[0].clone();
    fs::remove_file(blobs[0].join(&key)).expect("deleted");
    wait_until("the nimbus notices it", WAIT_MAX, async || {
        let log = cluster.nimbuses[0].log();
        if log.contains("no longer on the disk") { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    assert_eq!(whole("the blob is fetched again").await, before);

    let key = layout::blobs().child(&key).expect("a name");
    for holder in &before {
        let holder = key.child(holder).expect("a name");
        cluster.tree.delete(&holder, None).await.expect("deleted");
    }
    // The nimbuses may create it again meanwhile.
    for path in [&key, &layout::blobs()] {
        let _not_empty = cluster.tree.delete(path, None).await;
    }
    assert_eq!(whole("the announcements come back").await, before);
}
