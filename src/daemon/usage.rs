//! What processes and the machine use, as `/proc` tells it. Everything here blocks for as long
//! as the kernel takes to say it: milliseconds with a thousand processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// The unit of times in `/proc`: 100 a second on every Linux that Rust's standard library runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What some processes use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processes {
    /// The time on processors so far, with that of children that ended.
    pub cpu: Duration,
    /// What of their memory is in RAM.
    pub resident_bytes: u64,
    /// Their threads.
    pub n_threads: u64,
    /// Their open descriptors, as far as we may see them.
    pub n_descriptors: u64,
}

/// What a process uses, alone and with its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tree {
    /// Alone.
    pub own: Processes,
    /// With all of its descendants.
    pub all: Processes,
}

/// What a machine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// The time that its processors worked so far, in ticks.
    pub busy_ticks: u64,
    /// All of their time.
    pub total_ticks: u64,
    /// Its RAM.
    pub memory_bytes: u64,
    /// What of it programs could still have.
    pub available_bytes: u64,
    /// What came over all networks but the machine's own.
    pub received_bytes: u64,
    /// What went there.
    pub sent_bytes: u64,
}

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    n_threads: u64,
}

/// What process `root` and its descendants use.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn of_tree(root: u32) -> io::Result<Tree> {
    let mut stats = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that cannot be read is gone.
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

/// What this machine uses.
///
/// # Errors
/// When `/proc` cannot be read.
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

/// The part of a disk that is used, 0 to 1, as an ordinary user sees it.
///
/// # Errors
/// When the system does not tell.
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

/// The name stands in parentheses and may hold anything, so fields are counted after its end:
/// state is the first.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks, n_threads: number(17)? })
}

/// Busy and all ticks. Waiting for a disk is idle; a guest's time stands in user time already.
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

/// Received and sent bytes of all interfaces but loopback.
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
    fn the_fields_of_a_process_are_found_whatever_its_name() {
        let text =
            "42 (a) b) S 7 42 42 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 9 0 12345 1000 50 18446744073709551615";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 18, n_threads: 9 }));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn the_machine_is_read() {
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
    fn a_tree_holds_grandchildren_and_no_strangers() {
        let stat = |parent| Stat { parent, ticks: 0, n_threads: 1 };
        let stats = BTreeMap::from([(5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        assert_eq!(tree(5, &stats), BTreeSet::from([5, 6, 7]));
        let me = of_tree(std::process::id()).expect("Linux").own;
        assert!(me.resident_bytes > 1 << 20 && me.n_threads > 0 && me.n_descriptors > 2, "{me:?}");
    }
}
