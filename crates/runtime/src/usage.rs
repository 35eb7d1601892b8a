//! Resource usage of processes and of the machine, read from `/proc`. Every function blocks until
//! the kernel has answered: milliseconds with a thousand processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// The unit of times in `/proc`: 100 a second on every Linux that Rust's standard library runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Resource usage of one or several processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processes {
    /// CPU time so far, including that of children that have ended.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Number of threads.
    pub n_threads: u64,
    /// Number of open descriptors, of those processes that this user may inspect.
    pub n_descriptors: u64,
}

/// Resource usage of a process, alone and with its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tree {
    /// Usage of the process alone.
    pub own: Processes,
    /// Usage of the process and all of its descendants.
    pub all: Processes,
}

/// Resource usage of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
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

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    n_threads: u64,
}

/// Returns the usage of process `root` and its descendants.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn of_tree(root: u32) -> io::Result<Tree> {
    let mut stats = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that cannot be read has ended.
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(stat) = parse_stat(&text) {
            stats.insert(pid, stat);
        }
    }
    let mut sum = Tree::default();
    for pid in tree(root, &stats) {
        let Some(stat) = stats.get(&pid) else { continue };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let one = Processes {
            cpu: Duration::from_millis(stat.ticks * 1000 / TICKS_PER_SECOND),
            n_threads: stat.n_threads,
            resident_bytes: kibibytes(&status, "VmRSS:").unwrap_or(0),
            n_descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64),
        };
        if pid == root {
            sum.own = one;
        }
        sum.all.cpu += one.cpu;
        sum.all.n_threads += one.n_threads;
        sum.all.resident_bytes += one.resident_bytes;
        sum.all.n_descriptors += one.n_descriptors;
    }
    Ok(sum)
}

/// Returns the usage of this machine.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn of_machine() -> io::Result<Machine> {
    let (busy_ticks, total_ticks) = parse_cpu(&fs::read_to_string("/proc/stat")?).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let (received_bytes, sent_bytes) = parse_net(&fs::read_to_string("/proc/net/dev")?);
    Ok(Machine {
        busy_ticks,
        total_ticks,
        memory_bytes: kibibytes(&memory, "MemTotal:").unwrap_or(0),
        available_bytes: kibibytes(&memory, "MemAvailable:").unwrap_or(0),
        received_bytes,
        sent_bytes,
    })
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

fn tree(root: u32, stats: &BTreeMap<u32, Stat>) -> BTreeSet<u32> {
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

/// Parses `/proc/<pid>/stat`. The name is in parentheses and may contain anything, so fields are
/// counted after its end; the first of them is the state.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks, n_threads: number(17)? })
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
            "42 (a) b) S 7 42 42 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 9 0 12345 1000 50 18446744073709551615";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 18, n_threads: 9 }));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn machine_usage_is_parsed_and_read() {
        let cpu = "cpu  10 1 5 80 4 0 0 0 3 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_cpu(cpu), Some((16, 100)));
        let net = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  lo: 9 0 0 0 0 0 0 0 9 0\n\
                   eth0: 100 1 0 0 0 0 0 0 200 2 0\neth1:1 1 0 0 0 0 0 0 2 2 0\n";
        assert_eq!(parse_net(net), (101, 202));
        let machine = of_machine().expect("Linux");
        assert!(machine.memory_bytes > machine.available_bytes && machine.total_ticks > 0, "{machine:?}");
        assert!((0.0..=1.0).contains(&of_disk(Path::new("/")).expect("a disk")));
    }

    #[test]
    fn process_tree_includes_grandchildren_and_excludes_unrelated_processes() {
        let stat = |parent| Stat { parent, ticks: 0, n_threads: 1 };
        let stats = BTreeMap::from([(5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        assert_eq!(tree(5, &stats), BTreeSet::from([5, 6, 7]));
        let me = of_tree(std::process::id()).expect("Linux").own;
        assert!(me.resident_bytes > 1 << 20 && me.n_threads > 0 && me.n_descriptors > 2, "{me:?}");
    }
}
