//! Kills by the kernel's out-of-memory killer, from the counter of a cgroup.
//!
//! A process that is killed for memory ends with signal 9, like one that a person killed. The cgroup
//! of the process counts such kills (`memory.events` of cgroup v2, `memory.oom_control` of v1). The
//! counter is of the whole cgroup, so only kills of the last seconds are taken for the cause: the
//! watch is sampled every few seconds, and compares with the sample before the last.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

/// Period in which a watch should be sampled.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(5);

const CGROUPS: &str = "/sys/fs/cgroup";

/// Watch of the kills in one cgroup. It finds none where the host has no counter.
#[derive(Debug)]
pub struct OomWatch {
    counter: Option<PathBuf>,
    // Guards the last two samples; held for a few instructions.
    samples: Mutex<Samples>,
}

#[derive(Debug, Clone, Copy)]
struct Samples {
    before: u64,
    last: u64,
}

impl OomWatch {
    /// Watches the cgroup of a process. Blocks for a few system calls, as all methods do.
    pub fn of_process(pid: u32) -> Self {
        Self::at(Path::new(CGROUPS), &fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default())
    }

    /// Watches the cgroup of this process.
    pub fn of_this_process() -> Self {
        Self::of_process(std::process::id())
    }

    fn at(root: &Path, cgroups: &str) -> Self {
        let counter = candidates(root, cgroups).into_iter().find(|file| read(file).is_some());
        let n = counter.as_deref().and_then(read).unwrap_or(0);
        Self { counter, samples: Mutex::new(Samples { before: n, last: n }) }
    }

    /// Reads the counter.
    pub fn sample(&self) {
        if let Some(n) = self.counter.as_deref().and_then(read) {
            let mut samples = self.samples();
            *samples = Samples { before: samples.last, last: n };
        }
    }

    /// True if the kernel has killed a process of the cgroup for memory in the last two periods.
    pub fn has_killed(&self) -> bool {
        self.counter.as_deref().and_then(read).is_some_and(|n| n > self.samples().before)
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().expect("no one panics while holding the samples")
    }
}

/// Files that may have the counter, the most specific first. A cgroup of version 2 for which the
/// memory controller is off has none, and the one above it counts. In a container the path may be of the
/// host, and the cgroup of the container is mounted at the root.
fn candidates(root: &Path, cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            let above = Path::new(path).ancestors();
            let cgroups = above.flat_map(|path| [root.join(path), root.join("unified").join(path)]);
            files.extend(cgroups.map(|cgroup| cgroup.join("memory.events")));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let memory = root.join("memory");
            files.extend([memory.join(path), memory].map(|cgroup| cgroup.join("memory.oom_control")));
        }
    }
    files
}

fn read(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(root: &Path, path: &str, n: u64) {
        fs::create_dir_all(root.join(path)).expect("created");
        let text = format!("low 0\nhigh 0\nmax 7\noom 3\noom_kill {n}\n");
        fs::write(root.join(path).join("memory.events"), text).expect("written");
    }

    #[test]
    fn kills_count_only_for_two_samples() {
        let root = tempfile::tempdir().expect("temporary directory");
        cgroup(root.path(), "a/b", 5);
        let watch = OomWatch::at(root.path(), "0::/a/b\n");
        assert!(!watch.has_killed(), "kills before the watch");
        cgroup(root.path(), "a/b", 6);
        assert!(watch.has_killed());
        watch.sample();
        assert!(watch.has_killed(), "sampled between the kill and the question");
        watch.sample();
        assert!(!watch.has_killed());
    }

    #[test]
    fn counter_of_a_container_and_of_version_1_is_found() {
        let root = tempfile::tempdir().expect("temporary directory");
        cgroup(root.path(), "", 1);
        let watch = OomWatch::at(root.path(), "0::/system.slice/docker-1.scope\n");
        assert_eq!(watch.counter, Some(root.path().join("memory.events")));
        let root = tempfile::tempdir().expect("temporary directory");
        let v1 = root.path().join("memory/x");
        fs::create_dir_all(&v1).expect("created");
        fs::write(v1.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
            .expect("written");
        let watch = OomWatch::at(root.path(), "9:name=systemd:/\n4:memory:/x\n0::/\n");
        assert_eq!(watch.counter, Some(v1.join("memory.oom_control")));
        assert!(!OomWatch::at(root.path(), "").has_killed());
        let root = tempfile::tempdir().expect("temporary directory");
        cgroup(root.path(), "unit", 1);
        let watch = OomWatch::at(root.path(), "0::/unit/stormkeeper-7-w1/worker\n");
        assert_eq!(watch.counter, Some(root.path().join("unit/memory.events")), "no controller below");
    }
}
