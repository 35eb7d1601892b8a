//! Processes of workers in the process table. All functions block for a few system calls.

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

use crate::process::ProcessId;
use stormkeeper_model::WorkerId;
use stormkeeper_runtime::proc::{self, ProcessStat};
use stormkeeper_topology_package::launch::{COMPONENT_VARIABLE, SUPERVISOR_DIR_VARIABLE, WORKER_VARIABLE};

/// Maximum bytes of an environment that are read. The kernel gives a program less; a process can point
/// it at anything that it has mapped.
const ENVIRONMENT_BYTES_MAX: u64 = 8 << 20;

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ProcessId,
    pub(super) group: u32,
    /// True for the processes of components, which have groups of their own.
    pub(super) is_component: bool,
    /// True if the process has ended and waits to be reaped.
    pub(super) is_zombie: bool,
}

impl From<ProcessStat> for Entry {
    fn from(ProcessStat { pid, group, is_zombie, started, .. }: ProcessStat) -> Self {
        Self { id: ProcessId { pid, started }, group, is_component: false, is_zombie }
    }
}

/// Returns the process that has this pid now.
///
/// # Errors
/// See [`proc::stat`].
pub(super) fn entry(pid: u32) -> io::Result<Option<Entry>> {
    Ok(proc::stat(pid)?.map(Entry::from))
}

/// Returns the user as whom a process runs. It is not the owner of the files in `/proc`, which are those
/// of root for some processes.
pub(super) fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().next()?.parse().ok()
}

/// Returns all processes of a worker that a supervisor in one of `supervisor_dirs` launched.
///
/// Processes are identified by their environment, which no other process writes and which children
/// inherit, so a process that left the worker's process group is found as well. A process of any user
/// can have the environment of a worker: such a process may be ended, and not be taken for the worker.
pub(super) fn of_worker(supervisor_dirs: &[String], worker: &WorkerId) -> Vec<Entry> {
    let pids = proc::pids().unwrap_or_default();
    pids.into_iter()
        .filter_map(|pid| entry(pid).ok().flatten())
        .filter(|entry| !entry.is_zombie)
        .filter_map(|entry| {
            let is_component = is_of(entry.id.pid, supervisor_dirs, worker)?;
            Some(Entry { is_component, ..entry })
        })
        .collect()
}

/// Returns whether a process of this worker is one of its components; `None` if the process belongs
/// to none or to another worker.
fn is_of(pid: u32, supervisor_dirs: &[String], worker: &WorkerId) -> Option<bool> {
    // Not readable: the process belongs to another user, and so to no worker of ours.
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut environment = Vec::new();
    file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment).ok()?;
    let is_ours = |has: &dyn Fn(&str) -> bool| {
        supervisor_dirs.iter().any(|dir| has(&format!("{SUPERVISOR_DIR_VARIABLE}={dir}")))
    };
    let worker = format!("{WORKER_VARIABLE}={worker}");
    let has = |wanted: &str| environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes());
    let component = format!("{COMPONENT_VARIABLE}=");
    let is_component =
        || environment.split(|b| *b == 0).any(|variable| variable.starts_with(component.as_bytes()));
    (is_ours(&has) && has(&worker)).then(is_component)
}
