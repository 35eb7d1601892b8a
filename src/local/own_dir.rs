//! The temporary directory of a local run, and what is left of runs that were killed.
//!
//! A run that gets SIGKILL cannot end its components: those that ignore the end of their stdin run on.
//! So the next run ends them. The lock on [`OWNER_FILE`] ends with its process, however it ends, and
//! proves that a directory has no owner; the environment of a process, which its descendants inherit,
//! proves that it is a component of a run in that directory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use stormkeeper_runtime::{
    descendants,
    fs::file_lock::FileLock,
    proc::{self, ProcessStat},
};
use stormkeeper_topology_package::launch::SUPERVISOR_DIR_VARIABLE;

/// Beginning of the names of all directories of local runs.
const PREFIX: &str = "stormkeeper-local-";

/// File that the process of a run keeps locked.
const OWNER_FILE: &str = "owner";

/// Period of searching for killed processes again, and maximum number of searches.
const KILL_PERIOD: Duration = Duration::from_millis(20);
const MAX_KILLS: usize = 50;

/// Directory of a local run.
#[derive(Debug)]
pub struct OwnDir {
    path: PathBuf,
    // Held until the directory is removed.
    _lock: FileLock,
}

/// What was left of a run that was killed.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its directory, which was removed.
    pub dir: PathBuf,
    /// Number of its processes, which were killed.
    pub n_processes: usize,
}

impl OwnDir {
    /// Creates a directory in `parent`.
    ///
    /// # Errors
    /// I/O error of the directory.
    pub fn create(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("{PREFIX}{:08x}", fastrand::u32(..)));
        fs::create_dir_all(&path)?;
        // The file gets its name once it is locked: an unlocked one has no owner.
        let unnamed = path.join(".owner");
        let file = File::create_new(&unnamed)?;
        file.lock()?;
        fs::rename(unnamed, path.join(OWNER_FILE))?;
        Ok(Self { path, _lock: FileLock::held(file) })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// I/O error of the directory.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Ends what is left in `parent` of runs of this user that were killed, and removes their directories.
/// A directory whose owner lives stays, as does one without its file `owner`.
pub async fn end_leftovers(parent: &Path) -> Vec<Leftover> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()));
    let mut ended = Vec::new();
    for dir in dirs {
        ended.extend(end_leftover(&dir.path()).await);
    }
    ended
}

async fn end_leftover(dir: &Path) -> Option<Leftover> {
    let me = rustix::process::geteuid().as_raw();
    // Neither a symbolic link nor the directory of another user.
    fs::symlink_metadata(dir).ok().filter(|found| found.is_dir() && found.uid() == me)?;
    let owner = File::open(dir.join(OWNER_FILE)).ok()?;
    owner.try_lock().ok()?;
    let _lock = FileLock::held(owner);
    let n_processes = kill_components(dir).await;
    fs::remove_dir_all(dir).ok()?;
    Some(Leftover { dir: dir.to_owned(), n_processes })
}

/// Kills the components of runs in `dir`, and everything below them. Returns their number.
async fn kill_components(dir: &Path) -> usize {
    let mut n_first = None;
    for _ in 0..MAX_KILLS {
        let all = descendants::stats();
        let found = all.values().filter(|stat| !stat.is_zombie && is_component_in(stat, dir));
        let below = found.flat_map(|stat| proc::tree(stat.pid, &all));
        let is_alive = |pid: &u32| all.get(pid).is_some_and(|stat| !stat.is_zombie);
        let pids: BTreeSet<u32> = below.filter(is_alive).filter(|pid| *pid != std::process::id()).collect();
        let n_first = *n_first.get_or_insert(pids.len());
        if pids.is_empty() {
            return n_first;
        }
        pids.into_iter().for_each(descendants::kill);
        tokio::time::sleep(KILL_PERIOD).await;
    }
    n_first.unwrap_or(0)
}

/// Returns whether the environment of a process names a worker in `dir`. That of another user's
/// process cannot be read.
fn is_component_in(stat: &ProcessStat, dir: &Path) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{}/environ", stat.pid)) else { return false };
    let name = format!("{SUPERVISOR_DIR_VARIABLE}=");
    let start = [name.as_bytes(), dir.as_os_str().as_bytes(), b"/"].concat();
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&start))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process as a component of a run in `dir` leaves it behind.
    fn component(dir: &Path) -> Child {
        Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 1000 & wait"])
            .env(SUPERVISOR_DIR_VARIABLE, dir.join("supervisor-1/workers/w1"))
            .stdin(Stdio::null())
            .spawn()
            .expect("sh starts")
    }

    #[tokio::test]
    async fn leftovers_of_a_killed_run_are_ended_and_those_of_a_living_one_stay() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let (killed, living) = (OwnDir::create(parent.path()), OwnDir::create(parent.path()));
        let (killed, living) = (killed.expect("created"), living.expect("created"));
        let unknown = parent.path().join("stormkeeper-local-0");
        fs::create_dir(&unknown).expect("created");
        let [mut left, mut mine] = [killed.path(), living.path()].map(component);
        let OwnDir { path, _lock: lock } = killed;
        // As the end of the process does.
        drop(lock);
        let ended = end_leftovers(parent.path()).await;
        assert!(matches!(&ended[..], [one] if one.dir == path && one.n_processes >= 1), "{ended:?}");
        assert!(!path.exists() && living.path().exists() && unknown.exists());
        left.wait().expect("killed");
        assert_eq!(mine.try_wait().expect("a child"), None, "it runs");
        assert_eq!(end_leftovers(parent.path()).await, []);
        let own = living.path().to_owned();
        living.remove().expect("removed");
        assert!(!own.exists());
        let all = descendants::stats();
        proc::tree(mine.id(), &all).into_iter().for_each(descendants::kill);
        mine.wait().expect("killed");
    }
}
