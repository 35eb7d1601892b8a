//! Cgroups of version 2 that this process creates for others, where the host lets it.
//!
//! [`memory::MemoryCgroup`] limits the memory of a process, [`scope::ScopeCgroup`] keeps a process
//! together with everything that it starts. Both are created below the cgroup of this process, or
//! beside it in a unit with `DelegateSubgroup=`. Every function blocks for microseconds.

pub mod memory;
pub mod scope;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Mount points of cgroup v2: alone, and beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Begin of the names of cgroups that are created here. The pid of the creator follows.
const PREFIX: &str = "stormkeeper-";

/// Names of cgroups beside which others are created: the subgroup in which a unit with
/// `DelegateSubgroup=` runs its processes, and the one for the processes of a scope. Cgroups beside
/// any other one would belong to others.
const SUBGROUPS: [&str; 2] = ["supervisor", scope::INNER];

/// A mount of cgroup v2, and the cgroup of this process in it.
#[derive(Debug)]
struct Own {
    mount: PathBuf,
    dir: PathBuf,
}

impl Own {
    fn find() -> Result<Self, String> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        Self::find_in(&MOUNTS.map(PathBuf::from), &cgroups)
    }

    /// As [`find`](Self::find), with the mount points and the text of `/proc/self/cgroup`.
    fn find_in(mounts: &[PathBuf], cgroups: &str) -> Result<Self, String> {
        let mount = mounts.iter().find(|mount| mount.join("cgroup.controllers").exists());
        let (Some(mount), Some(path)) = (mount, path_of(cgroups)) else {
            return Err("the host does not use cgroup v2".to_owned());
        };
        Ok(Self { mount: mount.clone(), dir: mount.join(path) })
    }

    /// Cgroups below which this process may create others, the best first.
    fn parents(&self) -> impl Iterator<Item = &Path> {
        let is_subgroup = self.dir.file_name().is_some_and(|name| SUBGROUPS.iter().any(|one| *one == name));
        let beside = is_subgroup.then(|| self.dir.parent()).flatten();
        beside.into_iter().chain([self.dir.as_path()])
    }
}

/// Returns the path of the cgroup of version 2 from the text of `/proc/PID/cgroup`, relative to the
/// mount.
fn path_of(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// Creates a cgroup below `parent`, with the memory controller if it is available there. `name`
/// begins with [`PREFIX`] and the pid of this process.
fn create(parent: &Path, name: &str) -> io::Result<PathBuf> {
    remove_empty(parent);
    // Fails where the controller is on already, is not available or may not be changed.
    let _as_it_is = fs::write(parent.join("cgroup.subtree_control"), "+memory");
    let dir = parent.join(name);
    fs::create_dir(&dir)?;
    Ok(dir)
}

/// Returns a name that this process has not used.
fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Moves a process into a cgroup. Its later children belong to the cgroup too.
fn add(dir: &Path, pid: u32) -> io::Result<()> {
    write(&dir.join("cgroup.procs"), &pid.to_string())
}

/// Writes a file that the kernel provides. It is not created: it exists exactly if the kernel has
/// the feature.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// Removes a cgroup with those below it. Fails without harm if a process is in one of them.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Removes the cgroups that earlier processes left below `parent`, if they are empty.
fn remove_empty(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in left {
        if !creator_lives(&entry.path()) && !is_populated(&entry.path()) {
            // Fails if a process has entered it since.
            let _busy = remove(&entry.path());
        }
    }
}

/// Returns whether the process that created the cgroup lives: it may be about to put a process in.
fn creator_lives(dir: &Path) -> bool {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let creator = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
    creator.is_some_and(|pid| Path::new("/proc").join(pid).exists())
}

/// Returns whether a process is in the cgroup or below it. Zombies do not count.
fn is_populated(dir: &Path) -> bool {
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_beside_version_1_is_found() {
        let host = tempfile::tempdir().expect("temporary directory");
        let mounts = [host.path().to_owned(), host.path().join("unified")];
        fs::create_dir(&mounts[1]).expect("created");
        let error = Own::find_in(&mounts, "0::/a\n").expect_err("no mount");
        assert_eq!(error, "the host does not use cgroup v2");
        fs::write(mounts[1].join("cgroup.controllers"), "").expect("written");
        assert!(Own::find_in(&mounts, "4:memory:/a\n").is_err(), "a kernel without version 2");
        let own = Own::find_in(&mounts, "4:memory:/b\n0::/a\n").expect("found");
        assert_eq!(own.dir, mounts[1].join("a"));
        fs::write(mounts[0].join("cgroup.controllers"), "").expect("written");
        assert_eq!(Own::find_in(&mounts, "0::/a\n").expect("found").dir, mounts[0].join("a"));
    }

    #[test]
    fn parents_are_beside_a_subgroup_and_below_any_other_cgroup() {
        let parents = |dir: &str| {
            let own = Own { mount: "/m".into(), dir: dir.into() };
            own.parents().map(|parent| parent.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(parents("/m/unit"), ["/m/unit"]);
        assert_eq!(parents("/m/unit/supervisor"), ["/m/unit", "/m/unit/supervisor"]);
        let scope = "/m/unit/stormkeeper-7-w1";
        assert_eq!(parents("/m/unit/stormkeeper-7-w1/worker"), [scope, "/m/unit/stormkeeper-7-w1/worker"]);
    }

    #[test]
    fn empty_cgroups_of_processes_that_ended_are_removed_and_others_stay() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let cgroup = |name: &str| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).expect("created");
            dir
        };
        let ended = cgroup("stormkeeper-999999999-1");
        fs::create_dir(ended.join("worker")).expect("created");
        let used = cgroup("stormkeeper-999999999-2");
        fs::write(used.join("cgroup.events"), "populated 1\nfrozen 0\n").expect("written");
        let mine = cgroup(&format!("stormkeeper-{}-9", std::process::id()));
        let other = cgroup("system.slice");
        remove_empty(parent.path());
        assert!(!ended.exists() && used.exists() && mine.exists() && other.exists());
    }
}
