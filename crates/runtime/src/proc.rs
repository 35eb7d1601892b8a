//! Processes and their resource usage, and the usage of the host, read from `/proc`. Every
//! function blocks until the kernel has answered: microseconds for one process, milliseconds for
//! all of a thousand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// The unit of times in `/proc`: 100 a second on every Linux that Rust's standard library runs on.
pub const TICKS_PER_SECOND: u64 = 100;

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// The process.
    pub pid: u32,
    /// The process that started it, or adopted it.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// True if the process has ended and waits to be reaped.
    pub is_zombie: bool,
    /// CPU time so far, without children, in ticks.
    pub own_ticks: u64,
    /// CPU time of children that have ended and were waited for, in ticks.
    pub children_ticks: u64,
    /// Number of threads.
    pub n_threads: u64,
    /// Start time in ticks since the boot of the host.
    pub started: u64,
}

/// Resource usage of one or several processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all threads so far.
    pub cpu: Duration,
    /// CPU time of children that have ended and were waited for.
    pub children_cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Number of threads.
    pub n_threads: u64,
    /// Number of open descriptors, of those processes that this user may inspect.
    pub n_descriptors: u64,
}

/// Resource usage of a process, alone and with its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessTree {
    /// Usage of the process alone.
    pub own: Usage,
    /// Usage of the process and all of its descendants.
    pub all: Usage,
}

/// Resource usage of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostUsage {
    /// Busy time of all processors so far, in ticks.
    pub busy_ticks: u64,
    /// Total time of all processors so far, in ticks.
    pub total_ticks: u64,
    /// Size of its RAM.
    pub memory_bytes: u64,
    /// RAM that is available to programs.
    pub available_bytes: u64,
    /// Bytes received over all network interfaces except loopback.
    pub received_bytes: u64,
    /// Bytes sent over all network interfaces except loopback.
    pub sent_bytes: u64,
}

/// Returns the pids of all processes.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Returns the status of the process that has this pid now; `None` if there is none.
///
/// # Errors
/// If that cannot be determined, for example because no file can be opened. An error does not
/// mean that the process has ended.
pub fn stat(pid: u32) -> io::Result<Option<ProcessStat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => match parse_stat(&text) {
            Some(stat) => Ok(Some(stat)),
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

/// Returns the usage of one process; `None` if there is no such process.
///
/// # Errors
/// If its status cannot be read.
pub fn of_process(pid: u32) -> io::Result<Option<Usage>> {
    Ok(stat(pid)?.map(|stat| usage(&stat)))
}

/// Returns the usage of this process; takes microseconds. `None` where there is no `/proc`.
pub fn of_this_process() -> Option<Usage> {
    of_process(std::process::id()).ok().flatten()
}

/// Returns the usage of the process with this status.
fn usage(stat: &ProcessStat) -> Usage {
    let pid = stat.pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    Usage {
        cpu: time(stat.own_ticks),
        children_cpu: time(stat.children_ticks),
        n_threads: stat.n_threads,
        resident_bytes: kibibytes(&status, "VmRSS:").unwrap_or(0),
        n_descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64),
    }
}

/// Returns the usage of this process, alone and with its descendants.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn of_own_tree() -> io::Result<ProcessTree> {
    of_tree(std::process::id())
}

/// Returns the usage of process `root` and its descendants.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn of_tree(root: u32) -> io::Result<ProcessTree> {
    // A process that cannot be read has ended.
    let stats = pids()?.into_iter().filter_map(|pid| Some((pid, stat(pid).ok()??))).collect();
    let mut sum = ProcessTree::default();
    for pid in tree(root, &stats) {
        let Some(stat) = stats.get(&pid) else { continue };
        let one = usage(stat);
        if pid == root {
            sum.own = one;
        }
        sum.all.cpu += one.cpu;
        sum.all.children_cpu += one.children_cpu;
        sum.all.n_threads += one.n_threads;
        sum.all.resident_bytes += one.resident_bytes;
        sum.all.n_descriptors += one.n_descriptors;
    }
    Ok(sum)
}

/// Returns the usage of this host.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn of_host() -> io::Result<HostUsage> {
    let (busy_ticks, total_ticks) = parse_cpu(&fs::read_to_string("/proc/stat")?).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let (received_bytes, sent_bytes) = parse_net(&fs::read_to_string("/proc/net/dev")?);
    Ok(HostUsage {
        busy_ticks,
        total_ticks,
        memory_bytes: kibibytes(&memory, "MemTotal:").unwrap_or(0),
        available_bytes: kibibytes(&memory, "MemAvailable:").unwrap_or(0),
        received_bytes,
        sent_bytes,
    })
}

/// Returns the number of file descriptors that this process may have; `None` if it is not limited.
pub fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Returns the used share of a disk, 0 to 1, as an unprivileged user sees it.
///
/// # Errors
/// If the file system cannot be queried.
pub fn of_disk(path: &Path) -> io::Result<f64> {
    let disk = rustix::fs::statvfs(path)?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree) as f64;
    let usable = used + disk.f_bavail as f64;
    Ok(if usable > 0.0 { used / usable } else { 0.0 })
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that an unprivileged user may still write.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// Returns the room on the disk of `path`.
///
/// # Errors
/// If the file system cannot be queried.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let disk = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(DiskSpace { free_bytes: bytes(disk.f_bavail), total_bytes: bytes(disk.f_blocks) })
}

/// Returns `root` and its descendants.
pub fn tree(root: u32, stats: &BTreeMap<u32, ProcessStat>) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in stats {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let (mut found, mut next) = (BTreeSet::new(), vec![root]);
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Parses `pid (name) state ppid pgrp …`. The name may contain anything, also parentheses and
/// spaces, so fields are counted after its end; the first of them is the state.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let (before, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(ProcessStat {
        pid: before.split(' ').next()?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
        n_threads: number(17)?,
        started: number(19)?,
    })
}

/// Returns busy and total ticks. Waiting for a disk counts as idle; the time of a guest is already
/// part of user time.
fn parse_cpu(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let total: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((total.saturating_sub(idle), total))
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|n| n * 1024)
}

/// Returns received and sent bytes of all interfaces except loopback.
fn parse_net(text: &str) -> (u64, u64) {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let bytes = interfaces.filter(|(name, _)| name.trim() != "lo").filter_map(|(_, counts)| {
        let counts: Vec<&str> = counts.split_ascii_whitespace().collect();
        Some((counts.first()?.parse::<u64>().ok()?, counts.get(8)?.parse::<u64>().ok()?))
    });
    bytes.fold((0, 0), |sum, bytes| (sum.0 + bytes.0, sum.1 + bytes.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_found_with_parentheses_and_spaces_in_the_name() {
        let text =
            "42 (a) b) S 7 41 42 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 9 0 12345 1000 50 18446744073709551615";
        let expected = ProcessStat {
            pid: 42,
            parent: 7,
            group: 41,
            is_zombie: false,
            own_ticks: 7,
            children_ticks: 11,
            n_threads: 9,
            started: 12345,
        };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("42 (a"), None);
        let zombie = "15995 (a) S (b)) Z 15954 15951 11347 0 -1 4227084 76 0 0 0 0 0 0 0 20 0 1 0 175412 0 0";
        let zombie = parse_stat(zombie).expect("parsed");
        assert_eq!((zombie.pid, zombie.group, zombie.started), (15995, 15951, 175_412));
        assert!(zombie.is_zombie);
    }

    #[test]
    fn own_process_is_found_and_a_missing_pid_is_none() {
        let me = std::process::id();
        let found = stat(me).expect("readable").expect("this process");
        assert!(found.pid == me && !found.is_zombie && found.started > 0, "{found:?}");
        assert!(pids().expect("Linux").contains(&me));
        // Above the largest pid that Linux gives.
        assert_eq!(of_process(1 << 30).expect("readable"), None);
    }

    #[test]
    fn machine_usage_is_parsed_and_read() {
        let cpu = "cpu  10 1 5 80 4 0 0 0 3 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_cpu(cpu), Some((16, 100)));
        let net = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  lo: 9 0 0 0 0 0 0 0 9 0\n\
                   eth0: 100 1 0 0 0 0 0 0 200 2 0\neth1:1 1 0 0 0 0 0 0 2 2 0\n";
        assert_eq!(parse_net(net), (101, 202));
        let host = of_host().expect("Linux");
        assert!(host.memory_bytes > host.available_bytes && host.total_ticks > 0, "{host:?}");
        assert!((0.0..=1.0).contains(&of_disk(Path::new("/")).expect("a disk")));
    }

    #[test]
    fn process_tree_includes_grandchildren_and_excludes_unrelated_processes() {
        let stat = |pid, parent| {
            let text = format!("{pid} (a) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1");
            (pid, parse_stat(&text).expect("valid"))
        };
        let stats = BTreeMap::from([stat(5, 1), stat(6, 5), stat(7, 6), stat(8, 1)]);
        assert_eq!(tree(5, &stats), BTreeSet::from([5, 6, 7]));
        let me = of_tree(std::process::id()).expect("Linux").own;
        assert!(me.resident_bytes > 1 << 20 && me.n_threads > 0 && me.n_descriptors > 2, "{me:?}");
    }
}
