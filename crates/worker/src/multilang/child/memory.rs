//! The memory limit of a child, where the host allows one.

use std::sync::Once;

use tracing::{debug, warn};

use stormkeeper_runtime::cgroup::memory::MemoryCgroup;

/// The enforced limit of a child, and of what it starts. Processes that are left when this is dropped
/// are killed.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    cgroup: MemoryCgroup,
    memory_mb: u64,
    kills: Kills,
}

/// Numbers of killed processes: of those that were reported, and of those at the last look.
#[derive(Debug, Default)]
struct Kills {
    reported: u64,
    seen: u64,
}

impl MemoryLimit {
    /// Limits a process that has just been started; `None` if the host does not allow it, which is
    /// logged once.
    pub(super) fn of(pid: u32, memory_mb: u64) -> Option<Self> {
        static UNENFORCED: Once = Once::new();
        match MemoryCgroup::create(memory_mb.saturating_mul(1 << 20)) {
            Ok(cgroup) => match cgroup.add(pid) {
                Ok(()) => Some(Self { cgroup, memory_mb, kills: Kills::default() }),
                Err(error) => {
                    // The process may have exited already.
                    debug!(pid, %error, "cannot move a component into its cgroup");
                    None
                }
            },
            Err(reason) => {
                UNENFORCED.call_once(|| {
                    warn!(reason, "this host does not enforce the memory limits of components; they only guide placement");
                });
                None
            }
        }
    }

    /// Returns a report of the processes that the kernel has killed because of the limit between the
    /// last two calls but one: the child itself, which may be one of them, has ended by now.
    pub(super) fn new_kills(&mut self) -> Option<String> {
        let n_new = self.kills.new_of(self.cgroup.n_killed())?;
        Some(format!(
            "{n_new} of the processes that the component started {} killed: out of memory: with them the \
             task exceeded the {} MiB that its component requests (topology.component.resources.*)",
            if n_new == 1 { "was" } else { "were" },
            self.memory_mb
        ))
    }

    /// Returns the end of an exit status if the kernel has killed a process because of the limit.
    pub(super) fn explain(&self) -> Option<String> {
        (self.cgroup.n_killed() > 0).then(|| explanation(self.memory_mb))
    }
}

/// End of the exit status.
fn explanation(memory_mb: u64) -> String {
    format!(
        ", out of memory: the task exceeded the {memory_mb} MiB that its component requests \
         (topology.component.resources.*)"
    )
}

impl Kills {
    /// Takes note of `n_killed`, and returns how many of the last look were not reported, if any.
    fn new_of(&mut self, n_killed: u64) -> Option<u64> {
        let n_new = self.seen.saturating_sub(self.reported);
        self.reported = self.reported.max(self.seen);
        self.seen = n_killed;
        (n_new > 0).then_some(n_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_killed_process_is_reported_once_at_the_next_look() {
        let mut kills = Kills::default();
        let looks = [0, 2, 2, 3, 3, 0, 0].map(|n_killed| kills.new_of(n_killed));
        // A cgroup that was removed by hand reads as 0.
        assert_eq!(looks, [None, None, Some(2), None, Some(1), None, None]);
    }
}
