//! The directories of workers: `workers/<worker id>/`, one for each launch.
//!
//! The supervisor makes `pids/` and `logs/` and writes the launch spec; the worker writes
//! `heartbeat`. Those of the last launches stay for their logs. All functions block.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tracing::warn;

use crate::{
    model::WorkerId,
    rpc::{cuts, launch::LaunchSpec},
    supervisor::logs,
};

const DIR: &str = "workers";

/// The directories of workers that are gone are kept for the newest this many, so that an
/// operator finds the log of a worker that crashed in the night, and a crash loop does not
/// fill the disk.
pub(super) const DEAD_KEPT: usize = 20;

/// Those whose metrics are not with the leader yet are kept beyond that, the newest this many: a
/// crash loop during a failover leaves some, and an hour without any leader some hundreds.
pub(super) const UNBROUGHT_KEPT: usize = 200;

/// A heartbeat is a number and a pid; more than this is none.
const MAX_BEAT_BYTES: u64 = 4096;

/// A heartbeat file as it was seen. Another one means that the worker lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    modified: Option<SystemTime>,
    content: Vec<u8>,
}

/// Where the worker keeps its things.
pub(super) fn path(local_dir: &Path, worker: &WorkerId) -> PathBuf {
    local_dir.join(DIR).join(worker.as_str())
}

/// Makes the directory of a launch. Not synced to disk: after a power loss there is no worker
/// that it could belong to.
pub(super) fn prepare(spec: &LaunchSpec) -> io::Result<()> {
    if let Some(parent) = spec.dir.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::create_dir(&spec.dir)?;
    fs::create_dir(spec.dir.join("pids"))?;
    fs::create_dir(spec.dir.join("logs"))?;
    fs::write(spec.path(), serde_json::to_vec_pretty(spec)?)
}

/// The heartbeat, if there is one yet.
pub(super) fn beat(dir: &Path) -> Option<Beat> {
    use io::Read as _;

    // The worker replaces the file as a whole, so a reader never sees half of one.
    let file = fs::File::open(dir.join("heartbeat")).ok()?;
    let modified = file.metadata().ok()?.modified().ok();
    let mut content = Vec::new();
    file.take(MAX_BEAT_BYTES).read_to_end(&mut content).ok()?;
    Some(Beat { modified, content })
}

/// The launches that have a directory.
pub(super) fn all(local_dir: &Path) -> io::Result<Vec<WorkerId>> {
    let dir = match fs::read_dir(local_dir.join(DIR)) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    dir.filter_map(|file| file.map(|file| file.file_name().to_str()?.parse().ok()).transpose()).collect()
}

/// Keeps the logs of `live` workers within their bound, and of the dead only the newest.
pub(super) fn keep_house(local_dir: &Path, live: &BTreeSet<WorkerId>) {
    for worker in live {
        let log = path(local_dir, worker).join(logs::WORKER_LOG);
        if let Err(error) = logs::rotate_in_place(&log) {
            warn!(log = %log.display(), %error, "cannot rotate a worker's log");
        }
    }
    if let Err(error) = remove_old(local_dir, live) {
        warn!(%error, "cannot remove the directories of old workers");
    }
}

fn remove_old(local_dir: &Path, live: &BTreeSet<WorkerId>) -> io::Result<()> {
    let dead = all(local_dir)?.into_iter().filter(|worker| !live.contains(worker));
    let mut dead: Vec<(SystemTime, PathBuf)> = dead
        .map(|worker| {
            let dir = path(local_dir, &worker);
            Ok((fs::metadata(&dir)?.modified()?, dir))
        })
        .collect::<io::Result<_>>()?;
    dead.sort();
    let (unbrought, dead): (Vec<_>, Vec<_>) = dead.into_iter().partition(|(_, dir)| cuts::may_have_left(dir));
    let n_lost = unbrought.len().saturating_sub(UNBROUGHT_KEPT);
    if n_lost > 0 {
        warn!(
            n_lost,
            "metrics of workers that are gone could not be brought to the leader in time and are lost"
        );
    }
    let n_old = dead.len().saturating_sub(DEAD_KEPT);
    let old = dead.into_iter().take(n_old).chain(unbrought.into_iter().take(n_lost));
    old.into_iter().try_for_each(|(_, dir)| fs::remove_dir_all(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_changes_with_each_write() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(beat(dir.path()), None);
        fs::write(dir.path().join("heartbeat"), "1 77").expect("written");
        let first = beat(dir.path()).expect("there");
        assert_eq!(beat(dir.path()), Some(first.clone()));
        fs::write(dir.path().join("heartbeat"), "2 77").expect("written");
        assert_ne!(beat(dir.path()), Some(first));
    }

    #[test]
    fn the_dead_are_kept_up_to_a_bound_and_the_living_always() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let worker = |n: usize| format!("w{n:02}").parse::<WorkerId>().expect("valid id");
        for n in 0..DEAD_KEPT + 5 {
            let path = path(dir.path(), &worker(n));
            fs::create_dir_all(&path).expect("created");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            fs::File::open(&path).expect("opened").set_modified(at).expect("set");
        }
        keep_house(dir.path(), &[worker(0)].into());
        let mut left = all(dir.path()).expect("listed");
        left.sort();
        let expected: Vec<WorkerId> = [0].into_iter().chain(5..DEAD_KEPT + 5).map(worker).collect();
        assert_eq!(left, expected);
    }
}
