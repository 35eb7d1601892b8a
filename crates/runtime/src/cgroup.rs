//! Memory limits of processes by cgroup v2, where this process may create cgroups.
//!
//! A limited process gets a cgroup of its own, below the cgroup of this process or beside it. The
//! first works where no process is in the cgroup of this process, the second in a systemd unit with
//! `Delegate=memory` and `DelegateSubgroup=`: cgroup v2 allows no limits below a cgroup with
//! processes. Every function blocks for microseconds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Mount point of cgroup v2.
const MOUNT: &str = "/sys/fs/cgroup";

/// Begin of the names of cgroups that are created here.
const PREFIX: &str = "stormkeeper-";

/// Name of the subgroup in which a unit with `DelegateSubgroup=` runs its processes. Cgroups beside
/// another one would belong to others.
const SUBGROUP: &str = "supervisor";

/// A cgroup with a memory limit. It is removed when dropped, with the processes that are left in it.
#[derive(Debug)]
pub struct MemoryCgroup {
    dir: PathBuf,
}

impl MemoryCgroup {
    /// Creates a cgroup that is limited to `bytes`.
    ///
    /// # Errors
    /// The reason why this host does not allow it, with what to do.
    pub fn create(bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        Self::create_in(Path::new(MOUNT), &own, bytes)
    }

    /// As [`create`](Self::create), with the mount and the text of `/proc/self/cgroup`.
    fn create_in(mount: &Path, own: &str, bytes: u64) -> Result<Self, String> {
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let Some(own) = own.filter(|_| mount.join("cgroup.controllers").exists()) else {
            return Err("the host does not use cgroup v2".to_owned());
        };
        let own = mount.join(own);
        let beside = own.file_name().is_some_and(|name| name == SUBGROUP).then(|| own.parent()).flatten();
        let mut reason = String::new();
        for parent in beside.into_iter().chain([own.as_path()]) {
            match Self::create_below(parent, bytes) {
                Ok(cgroup) => return Ok(cgroup),
                Err(error) => reason = format!("{}: {error}", parent.display()),
            }
        }
        Err(format!(
            "{reason}; let systemd delegate the cgroup: `Delegate=memory`, `DelegateSubgroup={SUBGROUP}`"
        ))
    }

    fn create_below(parent: &Path, bytes: u64) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        remove_empty(parent);
        // Fails where the controller is on already and may not be changed.
        let _as_it_is = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = parent.join(name);
        fs::create_dir(&dir)?;
        let cgroup = Self { dir };
        // Not created: the file exists exactly if the controller is on.
        let limit = cgroup.dir.join("memory.max");
        let mut file = fs::OpenOptions::new().write(true).open(&limit)?;
        io::Write::write_all(&mut file, bytes.to_string().as_bytes())?;
        // Swap would only delay the end; without the file there is no swap to limit.
        let _no_swap = fs::OpenOptions::new()
            .write(true)
            .open(cgroup.dir.join("memory.swap.max"))
            .and_then(|mut file| io::Write::write_all(&mut file, b"0"));
        Ok(cgroup)
    }

    /// Moves a process into the cgroup. Its later children belong to the cgroup too.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// Returns the number of processes that the kernel has killed because of the limit.
    pub fn n_killed(&self) -> u64 {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // The file exists since Linux 5.14; without it the process group has been killed.
        let _older = fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("cgroup.kill"))
            .and_then(|mut file| io::Write::write_all(&mut file, b"1"));
        // While a process of it ends the cgroup stays, and is removed before the next one is created.
        let _busy = fs::remove_dir(&self.dir);
    }
}

/// Removes the cgroups that earlier processes left below `parent`, if they are empty.
fn remove_empty(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in left {
        if !is_populated(&entry.path()) {
            // Fails if a process has entered it since.
            let _busy = fs::remove_dir(entry.path());
        }
    }
}

/// Returns whether a process is in the cgroup, or may be about to enter it: its creator lives.
fn is_populated(dir: &Path) -> bool {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let creator = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
    let lives = creator.is_some_and(|pid| Path::new("/proc").join(pid).exists());
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    lives || events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a mount of cgroup v2, without the kernel behind it.
    fn mount() -> tempfile::TempDir {
        let mount = tempfile::tempdir().expect("temporary directory");
        fs::write(mount.path().join("cgroup.controllers"), "memory").expect("written");
        fs::create_dir_all(mount.path().join("unit/supervisor")).expect("created");
        mount
    }

    #[test]
    fn host_without_cgroup_v2_or_without_delegation_gives_the_reason() {
        let none = tempfile::tempdir().expect("temporary directory");
        let error = MemoryCgroup::create_in(none.path(), "0::/a\n", 1).expect_err("no mount");
        assert_eq!(error, "the host does not use cgroup v2");
        let mount = mount();
        let error = MemoryCgroup::create_in(mount.path(), "4:memory:/a\n", 1).expect_err("v1");
        assert_eq!(error, "the host does not use cgroup v2");
        // The new cgroup has no `memory.max`: the controller is off.
        let error = MemoryCgroup::create_in(mount.path(), "0::/unit/supervisor\n", 1).expect_err("off");
        assert!(error.contains("unit/supervisor: ") && error.contains("Delegate=memory"), "{error}");
        let left = fs::read_dir(mount.path().join("unit")).expect("readable").count();
        // The file `cgroup.subtree_control` stands for the kernel's.
        assert_eq!(left, 2, "nothing is left behind");
    }

    #[test]
    fn limit_and_process_are_written_and_kills_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cgroup = MemoryCgroup { dir: dir.path().to_owned() };
        cgroup.add(7).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.procs")).expect("read"), "7");
        assert_eq!(cgroup.n_killed(), 0);
        fs::write(dir.path().join("memory.events"), "low 0\noom 2\noom_kill 1\n").expect("written");
        assert_eq!(cgroup.n_killed(), 1);
    }

    #[test]
    fn empty_cgroups_of_processes_that_ended_are_removed_and_others_stay() {
        let mount = mount();
        let cgroup = |name: &str| {
            let dir = mount.path().join(name);
            fs::create_dir(&dir).expect("created");
            dir
        };
        let ended = cgroup("stormkeeper-999999999-1");
        let mine = cgroup(&format!("stormkeeper-{}-9", std::process::id()));
        let other = cgroup("system.slice");
        remove_empty(mount.path());
        assert!(!ended.exists() && mine.exists() && other.exists());
    }
}
