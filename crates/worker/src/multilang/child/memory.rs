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
}

impl MemoryLimit {
    /// Limits a process that has just been started; `None` if the host does not allow it, which is
    /// logged once.
    pub(super) fn of(pid: u32, memory_mb: u64) -> Option<Self> {
        static UNENFORCED: Once = Once::new();
        match MemoryCgroup::create(memory_mb.saturating_mul(1 << 20)) {
            Ok(cgroup) => match cgroup.add(pid) {
                Ok(()) => Some(Self { cgroup, memory_mb }),
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
