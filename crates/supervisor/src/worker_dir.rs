//! The directories of workers: `workers/<worker id>/`, one for each launch.
//!
//! The supervisor creates `pids/` and `logs/` and writes the launch spec; the worker writes
//! `heartbeat`, `report.json`, `restarts.json` and `exit-reason`, and listens at `live.sock`. Directories
//! of recent launches are kept for their logs. All functions block.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tracing::warn;

use crate::{
    dead_launches::{self, DeadLaunch},
    launch_facts, logs,
    process::ProcessId,
    run_as::{self, FilesPlace},
    user_files,
};
use stormkeeper_metric_shipping::spool;
use stormkeeper_model::{Timestamp, WorkerId};
use stormkeeper_runtime::fs::modes;
use stormkeeper_topology_package::{
    launch::{HEARTBEAT_MEMORY, LaunchSpec, SPEC_FILE},
    status_file::FILE_BYTES,
    worker_report::{EXIT_REASON_FILE, REPORT_FILE, WorkerReport},
    worker_restarts::{RESTARTS_FILE, WorkerRestarts},
};

const DIR: &str = "workers";

/// Number of directories of ended workers that are kept, so that an operator finds the log of a worker
/// that crashed in the night, and a crash loop does not fill the disk. Beyond it, the owner who has the
/// most gives way ([`dead_launches`]).
pub(super) const DEAD_KEPT: usize = 20;

/// Number of directories with undelivered metric reports that are kept on top, by the same rule:
/// a crash loop during a failover leaves some, and an hour without a leader some hundreds.
pub(super) const UNDELIVERED_KEPT: usize = 200;

/// Maximum size of a heartbeat file, which holds a format, a number and a pid.
const MAX_HEARTBEAT_BYTES: u64 = 4096;

/// A heartbeat file as read. Any change of it means that the worker is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeartbeatFile {
    modified: Option<SystemTime>,
    content: Vec<u8>,
}

/// A heartbeat as read. Any change of it means that the worker is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub(super) file: Option<HeartbeatFile>,
    /// The heartbeat in the worker's memory, read only if the file says nothing new.
    pub(super) memory: Option<Vec<u8>>,
}

impl Heartbeat {
    /// Reads the heartbeat of a worker after `last`. The file may be missing, or on a disk that
    /// cannot be written: then the memory of the process shows whether the worker lives.
    pub(super) fn read(
        dir: &Path,
        worker: &WorkerId,
        process: Option<ProcessId>,
        last: Option<&Self>,
    ) -> Self {
        let file = heartbeat(dir);
        let last_memory = || last.and_then(|last| last.memory.clone());
        if file.is_some() && file.as_ref() != last.and_then(|last| last.file.as_ref()) {
            return Self { file, memory: last_memory() };
        }
        let memory = process.and_then(|process| memory_of(process, worker));
        Self { file, memory: memory.or_else(last_memory) }
    }

    /// Returns whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_some() || self.memory.is_some()
    }
}

/// Reads the memory in which a worker writes its heartbeat.
fn memory_of(process: ProcessId, worker: &WorkerId) -> Option<Vec<u8>> {
    use io::Read as _;

    /// A worker opens this memory first, so its descriptor is one of the first.
    const N_DESCRIPTORS: usize = 4096;
    let name = format!("/memfd:{HEARTBEAT_MEMORY}{worker}");
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).ok()?;
    let mut descriptors = entries.take(N_DESCRIPTORS).filter_map(Result::ok).map(|entry| entry.path());
    let is_it =
        |path: &PathBuf| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(&name));
    let found = descriptors.find(is_it)?;
    let mut content = Vec::new();
    user_files::open_descriptor(&found).ok()?.take(MAX_HEARTBEAT_BYTES).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The directory of a worker.
pub(super) fn path(local_dir: &Path, worker: &WorkerId) -> PathBuf {
    local_dir.join(DIR).join(worker.as_str())
}

/// Creates the directory of a launch. It is not synced to disk: after a power loss there is no
/// worker to which it could belong.
pub(super) fn prepare(spec: &LaunchSpec) -> io::Result<()> {
    if let Some(parent) = spec.dir.parent() {
        modes::create_dir_all(parent)?;
    }
    fs::create_dir(&spec.dir)?;
    fs::create_dir(spec.dir.join("pids"))?;
    fs::create_dir(spec.dir.join("logs"))?;
    // Whatever the umask of a caller that is no daemon.
    modes::restrict(&spec.dir);
    if let Some(files) = &spec.files {
        run_as::create_files_dir(files)?;
    }
    match &spec.user {
        Some(_) => {
            let text = String::from_utf8(spec.encode()?).map_err(io::Error::other)?;
            FilesPlace::of_spec(spec).write_spec(&text)
        }
        None => fs::write(spec.path(), spec.encode()?),
    }
}

/// Reads the heartbeat file, if there is one yet.
pub(super) fn heartbeat(dir: &Path) -> Option<HeartbeatFile> {
    use io::Read as _;

    // A reader may see a part of a heartbeat; that is a change as well.
    let file = user_files::open(dir, "heartbeat").ok()?;
    let modified = file.metadata().ok()?.modified().ok();
    let mut content = Vec::new();
    file.take(MAX_HEARTBEAT_BYTES).read_to_end(&mut content).ok()?;
    Some(HeartbeatFile { modified, content })
}

/// Reads the report of a worker; `None` if there is none, or if it is being written.
pub(super) fn report(dir: &Path) -> Option<WorkerReport> {
    WorkerReport::decode(&read_start(dir, REPORT_FILE, FILE_BYTES as u64)?)
}

/// Reads the reason why a worker ended, if it wrote one.
pub(super) fn exit_reason(dir: &Path) -> Option<String> {
    const MAX_BYTES: u64 = 1024;
    let reason = read_start(dir, EXIT_REASON_FILE, MAX_BYTES)?;
    let reason = String::from_utf8_lossy(&reason).trim().to_owned();
    (!reason.is_empty()).then_some(reason)
}

/// Reads the restarts of the components of a worker; `None` if there is no such file, as of an older
/// worker, or if it is being written.
pub(super) fn restarts(dir: &Path) -> Option<WorkerRestarts> {
    WorkerRestarts::decode(&read_start(dir, RESTARTS_FILE, FILE_BYTES as u64)?)
}

fn read_start(dir: &Path, name: &str, max_bytes: u64) -> Option<Vec<u8>> {
    use io::Read as _;

    let mut content = Vec::new();
    user_files::open(dir, name).ok()?.take(max_bytes).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The launches that have a directory, in order.
pub(super) fn all(local_dir: &Path) -> io::Result<Vec<WorkerId>> {
    let dir = match fs::read_dir(local_dir.join(DIR)) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let launch =
        |file: io::Result<fs::DirEntry>| file.map(|file| file.file_name().to_str()?.parse().ok()).transpose();
    let mut launches = dir.filter_map(launch).collect::<io::Result<Vec<WorkerId>>>()?;
    launches.sort();
    Ok(launches)
}

/// Rotates the logs of `live` workers and removes all but the newest directories of dead workers.
pub(super) fn housekeep(local_dir: &Path, live: &BTreeSet<WorkerId>) {
    for worker in live {
        let dir = path(local_dir, worker);
        if let Err(error) = logs::rotate_in_place(&dir) {
            warn!(dir = %dir.display(), %error, "cannot rotate a worker's log");
        }
    }
    if let Err(error) = remove_old(local_dir, live) {
        warn!(%error, "cannot remove the directories of ended workers");
    }
}

/// Returns whether an id has the form of a launch: port, seconds and six hexadecimal digits.
fn is_launch(worker: &WorkerId) -> bool {
    launched_at(worker).is_some()
}

/// Returns the time in the id of a launch, by the clock of its supervisor.
pub(super) fn launched_at(worker: &WorkerId) -> Option<Timestamp> {
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok())?;
    let [port, secs, random] = worker.as_str().split('-').collect::<Vec<_>>()[..] else { return None };
    let is_random = random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    number(port).filter(|_| is_random)?;
    number(secs).map(|secs| Timestamp::from_millis(secs.saturating_mul(1000)))
}

/// Removes old directories of dead workers, also if one of them cannot be removed: its user may write
/// into it meanwhile.
fn remove_old(local_dir: &Path, live: &BTreeSet<WorkerId>) -> io::Result<()> {
    // Anything else is not ours. On a full disk the launch spec may be missing.
    let is_ours = |worker: &WorkerId| is_launch(worker) || path(local_dir, worker).join(SPEC_FILE).exists();
    let dead = all(local_dir)?.into_iter().filter(|worker| !live.contains(worker)).filter(is_ours);
    let dead: Vec<WorkerId> = dead.collect();
    if dead.len() <= DEAD_KEPT {
        return Ok(());
    }
    let dead = dead.into_iter().filter_map(|worker| {
        let modified = fs::metadata(path(local_dir, &worker)).and_then(|dir| dir.modified()).ok()?;
        let facts = launch_facts::read(local_dir, &worker);
        let of = facts.map(|facts| (facts.owner, facts.topology));
        Some(DeadLaunch { worker, modified, of })
    });
    // Reports in the directory of another user are not read.
    let may_be_read = |dir: &Path| run_as::owner_if_other(dir).is_ok_and(|other| other.is_none());
    let (undelivered, dead): (Vec<_>, Vec<_>) = dead.partition(|dead| {
        let dir = path(local_dir, &dead.worker);
        may_be_read(&dir) && spool::may_be_orphaned(&dir)
    });
    let lost = dead_launches::to_remove(undelivered, UNDELIVERED_KEPT);
    if !lost.is_empty() {
        warn!(
            n_lost = lost.len(),
            "discarded metric reports of ended workers that could not be sent to the leader in time"
        );
    }
    let old = dead_launches::to_remove(dead, DEAD_KEPT).into_iter().chain(lost);
    let removed: Vec<io::Result<()>> = old.map(|worker| remove(local_dir, &worker)).collect();
    removed.into_iter().collect()
}

/// Removes the directories of a dead worker.
fn remove(local_dir: &Path, worker: &WorkerId) -> io::Result<()> {
    fs::remove_dir_all(path(local_dir, worker))?;
    match fs::remove_dir_all(run_as::files_dir(local_dir).join(worker.as_str())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_differs_after_each_write() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(heartbeat(dir.path()), None);
        fs::write(dir.path().join("heartbeat"), "1 77").expect("written");
        let first = heartbeat(dir.path()).expect("there");
        assert_eq!(heartbeat(dir.path()), Some(first.clone()));
        fs::write(dir.path().join("heartbeat"), "2 77").expect("written");
        assert_ne!(heartbeat(dir.path()), Some(first));
    }

    #[test]
    fn crash_loop_of_one_owner_leaves_the_logs_of_others() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let launch = |n: usize, owner: &str, topology: &str| {
            let worker: WorkerId = format!("6700-{n}-00000a").parse().expect("valid id");
            let path = path(dir.path(), &worker);
            fs::create_dir_all(&path).expect("created");
            let slot = serde_json::json!({ "supervisor": "s", "port": 6700 });
            let spec =
                serde_json::json!({ "topology": topology, "slot": slot, "start_ms": n, "owner": owner });
            fs::write(path.join(SPEC_FILE), spec.to_string()).expect("written");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            fs::File::open(&path).expect("opened").set_modified(at).expect("set");
            worker
        };
        let of_victim: Vec<WorkerId> = (0..8).map(|n| launch(n, "ann", "wc-1-1")).collect();
        for n in 100..160 {
            launch(n, "bob", "crash-2-2");
            housekeep(dir.path(), &BTreeSet::new());
        }
        let left = all(dir.path()).expect("listed");
        assert_eq!(left.len(), DEAD_KEPT);
        assert!(of_victim.iter().all(|worker| left.contains(worker)), "{left:?}");
    }

    #[test]
    fn old_dead_directories_are_removed_and_live_ones_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let worker = |n: usize| format!("6700-{n:02}-00000a").parse::<WorkerId>().expect("valid id");
        let notes = "notes".parse::<WorkerId>().expect("valid id");
        fs::create_dir_all(path(dir.path(), &notes)).expect("of an operator");
        for n in 0..DEAD_KEPT + 5 {
            let path = path(dir.path(), &worker(n));
            fs::create_dir_all(&path).expect("created");
            fs::write(path.join(SPEC_FILE), "{}").expect("written");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            fs::File::open(&path).expect("opened").set_modified(at).expect("set");
        }
        housekeep(dir.path(), &[worker(0)].into());
        let left = all(dir.path()).expect("listed");
        let launches = [0].into_iter().chain(5..DEAD_KEPT + 5).map(worker);
        let expected: Vec<WorkerId> = launches.chain([notes]).collect();
        assert_eq!(left, expected);
    }
}
