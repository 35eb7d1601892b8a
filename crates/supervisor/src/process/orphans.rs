//! Reaping of orphans by a supervisor that is PID 1 of its container.
//!
//! An orphan is a process whose parent has ended: the kernel makes PID 1 its parent, and keeps it as a
//! zombie after its exit until PID 1 waits for it. Orphans of components and of killed workers would
//! fill the process table of a container that runs for months.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::{Pid, WaitOptions, waitpid};
use tracing::debug;

use super::{ProcessId, os::OsProcesses};
use stormkeeper_runtime::{blocking, proc};

/// Period of the search.
const PERIOD: Duration = Duration::from_secs(1);

/// Reaps orphans for as long as it is polled. Needed only in PID 1: no other supervisor
/// becomes the parent of orphans.
///
/// # Cancellation safety
/// Safe: a search that is dropped has reaped some of the orphans.
pub async fn reap(processes: &OsProcesses) {
    let mut before = BTreeSet::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let found = blocking::run(zombies).await;
        // A child of our own that has just been started may not be known yet, so only a zombie that was
        // there before is reaped.
        for orphan in found.intersection(&before).filter(|zombie| !processes.is_child(**zombie)) {
            reap_one(*orphan);
        }
        before = found;
    }
}

/// Returns the zombies that wait for this process.
fn zombies() -> BTreeSet<ProcessId> {
    let me = std::process::id();
    let stats = proc::pids().unwrap_or_default().into_iter().filter_map(|pid| proc::stat(pid).ok().flatten());
    let ours = stats.filter(|stat| stat.is_zombie && stat.parent == me);
    ours.map(|stat| ProcessId { pid: stat.pid, started: stat.started }).collect()
}

fn reap_one(orphan: ProcessId) {
    let pid = i32::try_from(orphan.pid).ok().and_then(Pid::from_raw);
    match waitpid(pid, WaitOptions::NOHANG) {
        Ok(_) | Err(rustix::io::Errno::CHILD) => {}
        Err(error) => debug!(process = %orphan, %error, "cannot reap a process"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::process::environment::WorkerEnvironment;
    use stormkeeper_runtime::test_support::wait_until;

    #[tokio::test]
    async fn orphans_are_reaped() {
        // As PID 1 does, this process takes the orphans of its descendants.
        rustix::process::set_child_subreaper(Pid::from_raw(1)).expect("Linux");
        let script = "sleep 0.1 & echo $!";
        let shell = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).output().expect("run");
        let orphan: u32 = String::from_utf8_lossy(&shell.stdout).trim().parse().expect("a pid");
        let processes = OsProcesses::new("true".into(), "/".into(), WorkerEnvironment::default());
        let gone = wait_until("the orphan is reaped", Duration::from_secs(30), async || {
            match proc::stat(orphan).expect("Linux") {
                Some(stat) => Err(format!("{stat:?}")),
                None => Ok(()),
            }
        });
        tokio::select! {
            () = gone => {}
            () = reap(&processes) => {}
        }
    }
}
