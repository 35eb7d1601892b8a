//! The process group that a child and its descendants belong to.

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::debug;

/// The process group of a child. Its processes are killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The group of a process that was started as the first one of its group.
    pub(super) fn led_by(process: &tokio::process::Child) -> Self {
        Self(process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    /// Kills all processes of the group. Its number stays taken while one of them is left, so the
    /// processes of another group are not meant by it.
    pub(super) fn kill(&self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            debug!(%error, "cannot kill the process group of a component");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
