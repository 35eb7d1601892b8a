//! Resource usage of this process, from `/proc/self`.

use std::time::Duration;

/// Resource usage as `/proc/self` reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory.
    pub(crate) memory_bytes: u64,
    /// CPU time of all threads so far.
    pub(crate) cpu: Duration,
    /// Number of open files and connections.
    pub(crate) fds: u64,
}

/// Linux counts CPU time for programs in hundredths of a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// Reads the usage; takes microseconds. `None` where there is no `/proc/self`.
pub(crate) fn usage() -> Option<Usage> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fds = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(Usage { memory_bytes: resident(&status)?, cpu: cpu(&stat)?, fds: fds as u64 })
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu(stat: &str) -> Option<Duration> {
    // The second field is a name in parentheses that may contain any character.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * u32::try_from(user + system).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_format_of_proc_self_is_parsed() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nVmData: 1 kB\n"), Some(1234 * 1024));
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        let usage = usage().expect("this is Linux");
        assert!(usage.memory_bytes > 1 << 20 && usage.fds >= 3, "{usage:?}");
    }
}
