//! Descriptors that every program started by this process inherits, beyond the standard ones.
//!
//! A daemon opens none itself. Whoever started the daemon may have left some open, and a worker of another
//! user could read what is behind them.

use std::fs;

/// Flag of a descriptor that ends with `exec`, as in `/proc/self/fdinfo`.
const CLOSE_ON_EXEC: u64 = 0o2_000_000;

/// Returns the descriptors, each with what it is, in order of their numbers. Blocks shortly.
pub fn descriptors() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = numbers.filter(|n| *n > 2).filter_map(|n| Some((n, target(n)?))).collect();
    found.sort();
    found
}

/// Returns what a descriptor is, if it is inherited.
fn target(n: u32) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{n}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let is_closed = u64::from_str_radix(flags.trim(), 8).ok()? & CLOSE_ON_EXEC != 0;
    let target = fs::read_link(format!("/proc/self/fd/{n}")).ok()?;
    (!is_closed).then(|| target.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{Mode, OFlags, open};

    use super::*;

    #[test]
    fn descriptor_that_a_program_would_inherit_is_named_and_others_are_not() {
        let closed = fs::File::open("/dev/null").expect("opened");
        let left_open = open("/dev/zero", OFlags::RDONLY, Mode::empty()).expect("opened");
        let found = descriptors();
        let number = |raw: i32| u32::try_from(raw).expect("a number");
        assert!(found.contains(&(number(left_open.as_raw_fd()), "/dev/zero".to_owned())), "{found:?}");
        assert!(found.iter().all(|(n, _)| *n != number(closed.as_raw_fd())), "{found:?}");
    }
}
