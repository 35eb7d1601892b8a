//! A cgroup for a process and everything that it starts, whatever session, group, parent or
//! environment that has. systemd calls such a cgroup a scope.
//!
//! The process itself runs in a cgroup below the scope, so that the scope has no processes and may
//! hold cgroups with memory limits as well:
//!
//! ```text
//! stormkeeper-PID-NAME/      the scope; PID is of its creator
//!     worker/                the process and its descendants
//!     stormkeeper-PID-1/     a descendant with a memory limit
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{MOUNTS, Own, PREFIX, add, create, is_populated, path_of, remove, write};

/// Name of the cgroup of the processes in a scope.
pub(super) const INNER: &str = "worker";

/// A cgroup for a process and its descendants. It outlives this value, as its processes do.
#[derive(Debug)]
pub struct ScopeCgroup {
    dir: PathBuf,
}

impl ScopeCgroup {
    /// Creates the scope `name` and moves a process into it. What the process has started before is
    /// not in it.
    ///
    /// # Errors
    /// The reason why this host does not allow it; nothing is left of the scope then.
    pub fn create(name: &str, pid: u32) -> Result<Self, String> {
        Self::create_in(&Own::find()?, name, pid)
    }

    fn create_in(own: &Own, name: &str, pid: u32) -> Result<Self, String> {
        let mut reason = String::new();
        for parent in own.parents() {
            match Self::create_below(parent, name, pid) {
                Ok(scope) => return Ok(scope),
                Err(error) => reason = format!("{}: {error}", parent.display()),
            }
        }
        Err(reason)
    }

    fn create_below(parent: &Path, name: &str, pid: u32) -> io::Result<Self> {
        let scope = Self { dir: create(parent, &format!("{PREFIX}{}-{name}", std::process::id()))? };
        let inner = scope.dir.join(INNER);
        match fs::create_dir(&inner).and_then(|()| add(&inner, pid)) {
            Ok(()) => Ok(scope),
            Err(error) => {
                scope.remove();
                Err(error)
            }
        }
    }

    /// Lets a user create cgroups in the scope and move processes between them. Nobody but root can move a
    /// process out of it.
    ///
    /// # Errors
    /// If the owner of a file cannot be changed.
    pub fn delegate(&self, uid: u32, gid: u32) -> io::Result<()> {
        let files = ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
        let dirs = [self.dir.clone(), self.dir.join(INNER)];
        let paths = dirs.iter().flat_map(|dir| files.iter().map(move |file| dir.join(file)));
        paths.into_iter().try_for_each(|path| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
    }

    /// Finds the scope `name` of the process `pid`, which an earlier process created.
    pub fn of_process(name: &str, pid: u32) -> Option<Self> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mount = MOUNTS.map(PathBuf::from).into_iter().find(|one| one.join("cgroup.controllers").exists());
        Self::in_path(&mount?, name, path_of(&cgroups)?)
    }

    /// Finds the scope `name` in the path of the cgroup of its process.
    fn in_path(mount: &Path, name: &str, path: &str) -> Option<Self> {
        let dir = mount.join(path);
        let scope = dir.ancestors().find(|dir| is_named(dir, name))?;
        Some(Self { dir: scope.to_owned() })
    }

    /// Finds the scope `name` where this process would create it. Its process has ended.
    pub fn find(name: &str) -> Option<Self> {
        let own = Own::find().ok()?;
        own.parents().find_map(|parent| Self::below(parent, name))
    }

    /// Returns the names that end with `suffix`, of the scopes where this process would create them.
    pub fn names_with(suffix: &str) -> Vec<String> {
        let Ok(own) = Own::find() else { return Vec::new() };
        let entries = own.parents().flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
        let names = entries.filter_map(|entry| Some(name_of(&entry.path())?.to_owned()));
        names.filter(|name| name.ends_with(suffix)).collect()
    }

    fn below(parent: &Path, name: &str) -> Option<Self> {
        let entries = fs::read_dir(parent).ok()?.flatten();
        entries.map(|entry| entry.path()).find(|dir| is_named(dir, name)).map(|dir| Self { dir })
    }

    /// Kills every process of the scope. Returns the number of those that it had.
    pub fn kill(&self) -> usize {
        let pids = pids(&self.dir);
        // The file exists since Linux 5.14; before, a process may start another one meanwhile, so
        // the caller repeats this until the scope is empty.
        if write(&self.dir.join("cgroup.kill"), "1").is_err() {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have ended.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        pids.len()
    }

    /// Returns whether no process is left; zombies do not count.
    pub fn is_empty(&self) -> bool {
        !is_populated(&self.dir)
    }

    /// Removes the scope if it is empty.
    pub fn remove(&self) {
        // A process that has entered it since stays; the scope is removed before the next one is created.
        let _busy = remove(&self.dir);
    }
}

/// Returns whether the directory is the scope `name`, of whichever creator.
fn is_named(dir: &Path, name: &str) -> bool {
    name_of(dir) == Some(name)
}

/// Returns the name of the scope with this directory.
fn name_of(dir: &Path) -> Option<&str> {
    let of_creator = dir.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    of_creator.split_once('-').map(|(_pid, name)| name)
}

/// Returns the processes of a cgroup and of those below it. Zombies are not among them.
fn pids(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    own.chain(below.flat_map(|entry| pids(&entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_found_by_name_and_by_the_cgroup_of_its_process() {
        let mount = tempfile::tempdir().expect("temporary directory");
        let scope = mount.path().join("unit/stormkeeper-7-6700-1-ab");
        fs::create_dir_all(scope.join("worker")).expect("created");
        let found = ScopeCgroup::in_path(mount.path(), "6700-1-ab", "unit/stormkeeper-7-6700-1-ab/worker");
        assert_eq!(found.expect("found").dir, scope);
        assert!(ScopeCgroup::in_path(mount.path(), "1-ab", "unit/stormkeeper-7-6700-1-ab/worker").is_none());
        assert!(ScopeCgroup::in_path(mount.path(), "6700-1-ab", "unit/supervisor").is_none());
        assert!(ScopeCgroup::below(&mount.path().join("unit"), "6700-1-ab").is_some());
        assert!(ScopeCgroup::below(&mount.path().join("unit"), "ab").is_none());
    }

    #[test]
    fn host_that_refuses_leaves_nothing_behind() {
        let unit = tempfile::tempdir().expect("temporary directory");
        let own = Own { mount: unit.path().to_owned(), dir: unit.path().to_owned() };
        // The kernel would provide `cgroup.procs`.
        let error = ScopeCgroup::create_in(&own, "w1", 7).expect_err("refused");
        assert!(error.contains("No such file"), "{error}");
        let left = fs::read_dir(unit.path()).expect("readable").flatten().map(|entry| entry.file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["cgroup.subtree_control"]);
    }

    #[test]
    fn processes_of_all_cgroups_of_a_scope_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (path, text) in [("worker", "1\n2\n"), ("stormkeeper-1-1", "3\n")] {
            fs::create_dir(dir.path().join(path)).expect("created");
            fs::write(dir.path().join(path).join("cgroup.procs"), text).expect("written");
        }
        fs::write(dir.path().join("cgroup.procs"), "").expect("written");
        let mut found = pids(dir.path());
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
    }
}
