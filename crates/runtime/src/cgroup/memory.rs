//! Memory limits of processes.
//!
//! A limited process gets a cgroup of its own. Cgroup v2 allows no limits below a cgroup with
//! processes, so it must be beside the one of this process: in the scope of a worker, or in a systemd
//! unit with `Delegate=memory` and `DelegateSubgroup=`.

use std::{fs, io, path::Path, path::PathBuf};

use super::{Own, SUBGROUPS, add, create, remove, unique_name, write};

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
        Self::create_in(&Own::find()?, bytes)
    }

    fn create_in(own: &Own, bytes: u64) -> Result<Self, String> {
        let controllers = fs::read_to_string(own.mount.join("cgroup.controllers")).unwrap_or_default();
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return Err("the host does not use cgroup v2 for memory".to_owned());
        }
        let mut reason = String::new();
        for parent in own.parents() {
            match Self::create_below(parent, bytes) {
                Ok(cgroup) => return Ok(cgroup),
                Err(error) => reason = format!("{}: {error}", parent.display()),
            }
        }
        let subgroup = SUBGROUPS[0];
        Err(format!(
            "{reason}; let systemd delegate the cgroup: `Delegate=memory`, `DelegateSubgroup={subgroup}`"
        ))
    }

    fn create_below(parent: &Path, bytes: u64) -> io::Result<Self> {
        let cgroup = Self { dir: create(parent, &unique_name())? };
        write(&cgroup.dir.join("memory.max"), &bytes.to_string())?;
        // Swap would only delay the end; without the file there is no swap to limit.
        let _no_swap = write(&cgroup.dir.join("memory.swap.max"), "0");
        Ok(cgroup)
    }

    /// Moves a process into the cgroup. Its later children belong to the cgroup too.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        add(&self.dir, pid)
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
        let _older = write(&self.dir.join("cgroup.kill"), "1");
        // While a process of it ends the cgroup stays, and is removed before the next one is created.
        let _busy = remove(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_without_the_controller_or_without_delegation_gives_the_reason() {
        let mount = tempfile::tempdir().expect("temporary directory");
        let unit = mount.path().join("unit");
        fs::create_dir_all(unit.join("supervisor")).expect("created");
        let own = Own { mount: mount.path().to_owned(), dir: unit.join("supervisor") };
        fs::write(mount.path().join("cgroup.controllers"), "cpu io").expect("written");
        let error = MemoryCgroup::create_in(&own, 1).expect_err("version 1 has the controller");
        assert_eq!(error, "the host does not use cgroup v2 for memory");
        // The new cgroup has no `memory.max`: the controller is off.
        fs::write(mount.path().join("cgroup.controllers"), "cpu memory").expect("written");
        let error = MemoryCgroup::create_in(&own, 1).expect_err("off");
        assert!(error.contains("unit/supervisor: ") && error.contains("Delegate=memory"), "{error}");
        let left = fs::read_dir(unit).expect("readable").count();
        // The file `cgroup.subtree_control` stands for the kernel's.
        assert_eq!(left, 2, "nothing is left behind");
    }

    #[test]
    fn limit_and_process_are_written_and_kills_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("cgroup.procs"), "").expect("written");
        let cgroup = MemoryCgroup { dir: dir.path().to_owned() };
        cgroup.add(7).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.procs")).expect("read"), "7");
        assert_eq!(cgroup.n_killed(), 0);
        fs::write(dir.path().join("memory.events"), "low 0\noom 2\noom_kill 1\n").expect("written");
        assert_eq!(cgroup.n_killed(), 1);
    }
}
