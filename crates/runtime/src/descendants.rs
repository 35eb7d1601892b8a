//! Descendants of this process that left their session, their process group or their environment.
//!
//! A process whose parent has ended becomes a child of its nearest ancestor that adopts orphans
//! ([`adopt_orphans`]), else of PID 1. A worker adopts, so whatever its components start stays below
//! the worker for as long as the worker lives, and [`kill_all`] ends all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Mutex,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tracing::{debug, warn};

use crate::{
    blocking,
    proc::{self, ProcessStat},
    tasks::{OnExit, Tasks},
};

/// Period of the search for zombies.
const REAP_PERIOD: Duration = Duration::from_secs(1);

/// Period of searching for killed processes again, and maximum number of searches: a killed process
/// that still exists after two seconds hangs in the kernel and cannot be ended from here.
const KILL_PERIOD: Duration = Duration::from_millis(20);
const MAX_KILLS: usize = 100;

/// Children for which somebody in this process waits. Held for an insertion or a removal.
static OWN_CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Mark on a child of this process for which its owner waits. The mark ends when this is dropped.
#[derive(Debug)]
pub struct OwnChild(Option<u32>);

impl OwnChild {
    /// Marks the child with this pid; nothing is marked without one.
    pub fn mark(pid: Option<u32>) -> Self {
        if let Some(pid) = pid {
            own_children().insert(pid);
        }
        Self(pid)
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            own_children().remove(&pid);
        }
    }
}

fn own_children() -> std::sync::MutexGuard<'static, BTreeSet<u32>> {
    OWN_CHILDREN.lock().expect("no one panics while holding the set of children")
}

/// Makes this process the parent of descendants whose own parent ends. The caller must
/// [reap](reap_orphans) them.
///
/// # Errors
/// Errors of the operating system: a kernel before Linux 3.4.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(Pid::INIT))?)
}

/// Reaps children of this process that have ended and that nobody waits for, for as long as it is
/// polled.
///
/// # Cancellation safety
/// Safe: a search that is dropped has reaped some of them.
pub async fn reap_orphans(is_own: impl Fn(&ProcessStat) -> bool) {
    let mut before = BTreeSet::new();
    loop {
        tokio::time::sleep(REAP_PERIOD).await;
        let found: Vec<ProcessStat> = blocking::run(zombies).await;
        let is_awaited = |zombie: &ProcessStat| own_children().contains(&zombie.pid) || is_own(zombie);
        // A child that has just been started may not be marked yet, so only a zombie that was there
        // before is reaped.
        let id = |zombie: &ProcessStat| (zombie.pid, zombie.started);
        for zombie in found.iter().filter(|zombie| before.contains(&id(zombie)) && !is_awaited(zombie)) {
            reap(zombie.pid);
        }
        before = found.iter().map(id).collect();
    }
}

/// Returns the zombies that wait for this process.
fn zombies() -> Vec<ProcessStat> {
    let me = std::process::id();
    stats().into_values().filter(|stat| stat.is_zombie && stat.parent == me).collect()
}

fn reap(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match waitpid(pid, WaitOptions::NOHANG) {
        Ok(_) | Err(rustix::io::Errno::CHILD) => {}
        Err(error) => debug!(?pid, %error, "cannot reap a process"),
    }
}

/// All processes that can be read, by pid.
pub fn stats() -> BTreeMap<u32, ProcessStat> {
    let pids = proc::pids().unwrap_or_default().into_iter();
    pids.filter_map(|pid| Some((pid, proc::stat(pid).ok()??))).collect()
}

/// Kills all descendants of this process, waits until they have ended, for about two seconds, and
/// reaps them: the next parent may be slow to. Returns the number of those that were found first.
pub async fn kill_all() -> usize {
    let mut n_first = None;
    for _ in 0..MAX_KILLS {
        let left = blocking::run(|| {
            let me = std::process::id();
            let all = stats();
            let below = proc::tree(me, &all).into_iter().filter(|pid| *pid != me);
            below.filter_map(|pid| all.get(&pid).copied()).filter(|stat| !stat.is_zombie).collect::<Vec<_>>()
        })
        .await;
        let n_first = *n_first.get_or_insert(left.len());
        if left.is_empty() {
            let zombies = blocking::run(zombies).await.into_iter();
            zombies
                .filter(|zombie| !own_children().contains(&zombie.pid))
                .for_each(|zombie| reap(zombie.pid));
            return n_first;
        }
        for ProcessStat { pid, .. } in left {
            kill(pid);
        }
        tokio::time::sleep(KILL_PERIOD).await;
    }
    warn!("killed descendants of this process still exist after two seconds");
    n_first.unwrap_or(0)
}

/// Keeps the processes that components start below this process, wherever they hide, until [`end_all`].
pub fn keep_orphans(tasks: &Tasks) {
    match adopt_orphans() {
        Ok(()) => tasks.start("reap orphans", OnExit::Ignore, reap_orphans(|_| false)),
        Err(error) => warn!(%error, "processes that components abandon are not found at the end"),
    }
}

/// Kills what the components have left behind, and logs how much that was.
pub async fn end_all() {
    let n_processes = kill_all().await;
    if n_processes > 0 {
        warn!(n_processes, "killed processes that components left behind");
    }
}

/// Kills one process; it may be gone already.
pub fn kill(pid: u32) {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    match kill_process(target, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => warn!(pid, %error, "cannot kill a process that a component left behind"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::test_support::wait_until;

    /// Starts a process that leaves its session, its group and its environment, and whose parents end.
    fn start_daemon(script: &str) -> u32 {
        let start = format!("env -i setsid sh -c '{script}' >/dev/null & echo $!");
        let shell = Command::new("sh").args(["-c", &start]).stderr(Stdio::null()).output().expect("run");
        String::from_utf8_lossy(&shell.stdout).trim().parse().expect("a pid")
    }

    async fn is_gone(pid: u32) {
        wait_until("the process is gone", Duration::from_secs(30), async || {
            match proc::stat(pid).expect("Linux") {
                Some(stat) => Err(format!("{stat:?}")),
                None => Ok(()),
            }
        })
        .await;
    }

    // One test: orphans belong to the whole process.
    #[tokio::test]
    async fn orphans_are_adopted_reaped_and_killed_wherever_they_hide() {
        adopt_orphans().expect("Linux");
        let reaping = reap_orphans(|_| false);
        let checks = async {
            is_gone(start_daemon("sleep 0.1")).await;
            let hidden = start_daemon("exec /bin/sleep 1000");
            wait_until("it is ours", Duration::from_secs(30), async || match proc::stat(hidden) {
                Ok(Some(stat)) if stat.parent == std::process::id() => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
            assert_eq!(kill_all().await, 1);
            assert!(matches!(proc::stat(hidden), Ok(None)), "it was reaped as well");
            assert_eq!(kill_all().await, 0);

            let mut awaited = Command::new("true").spawn().expect("run");
            let mark = OwnChild::mark(Some(awaited.id()));
            tokio::time::sleep(3 * REAP_PERIOD).await;
            assert!(awaited.wait().expect("not reaped by anybody else").success());
            drop(mark);
        };
        tokio::select! {
            () = checks => {}
            () = reaping => {}
        }
    }
}
