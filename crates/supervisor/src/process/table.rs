//! The process table in `/proc`. All functions block for a few system calls.

use std::{fs, io};

use crate::process::ProcessId;
use stormkeeper_model::WorkerId;
use stormkeeper_topology_package::launch::{SUPERVISOR_DIR_VARIABLE, WORKER_VARIABLE};

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ProcessId,
    pub(super) group: u32,
    /// True if the process has ended and waits to be reaped.
    pub(super) is_zombie: bool,
}

/// Returns the process that has this pid now.
///
/// # Errors
/// If that cannot be determined, for example because no file can be opened. An error does not
/// mean that the process has ended.
pub(super) fn entry(pid: u32) -> io::Result<Option<Entry>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => match parse_stat(&stat) {
            Some(entry) => Ok(Some(entry)),
            None => Err(io::Error::other(format!("cannot parse /proc/{pid}/stat"))),
        },
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if the file does not exist or is unreadable because the process ended after it was opened.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Returns all processes of a worker that the supervisor in `supervisor_dir` launched.
///
/// Processes are identified by their environment, which no other process writes and which children
/// inherit, so a process that left the worker's process group is found as well.
pub(super) fn of_worker(supervisor_dir: &str, worker: &WorkerId) -> Vec<Entry> {
    let Ok(table) = fs::read_dir("/proc") else { return Vec::new() };
    table
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| entry(pid).ok().flatten())
        .filter(|entry| !entry.is_zombie && is_of(entry.id.pid, supervisor_dir, worker))
        .collect()
}

fn is_of(pid: u32, supervisor_dir: &str, worker: &WorkerId) -> bool {
    // Not readable: the process belongs to another user, and so to no worker of ours.
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let dir = format!("{SUPERVISOR_DIR_VARIABLE}={supervisor_dir}");
    let worker = format!("{WORKER_VARIABLE}={worker}");
    let has = |wanted: &str| environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes());
    has(&dir) && has(&worker)
}

/// Parses `pid (name) state ppid pgrp … starttime …`. The name may contain anything, also
/// parentheses and spaces.
fn parse_stat(stat: &str) -> Option<Entry> {
    const STATE: usize = 0;
    const GROUP: usize = 2;
    const START_TIME: usize = 19;
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    Some(Entry {
        id: ProcessId { pid, started: fields.get(START_TIME)?.parse().ok()? },
        group: fields.get(GROUP)?.parse().ok()?,
        is_zombie: matches!(*fields.get(STATE)?, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_with_parentheses_is_parsed() {
        let stat = "15995 (a) S (b)) Z 15954 15951 11347 0 -1 4227084 76 0 0 0 0 0 0 0 20 0 1 0 175412 0 0";
        let expected =
            Entry { id: ProcessId { pid: 15995, started: 175_412 }, group: 15951, is_zombie: true };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("15995 (a"), None);
    }

    #[test]
    fn own_process_is_found() {
        let me = entry(std::process::id()).expect("readable").expect("this process");
        assert_eq!(me.id.pid, std::process::id());
        assert!(!me.is_zombie && me.id.started > 0);
    }
}
