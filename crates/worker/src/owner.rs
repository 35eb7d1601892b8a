//! Owner of this worker: its supervisor, as far as the worker can see it on this host.
//!
//! The supervisor writes its process into the lock file of its data directory. A worker remembers the
//! last process that it read there, and begins with its parent.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use stormkeeper_runtime::{fs::locked_dir::Holder, proc};
use stormkeeper_topology_package::launch::LaunchSpec;

/// State of the supervisor of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SupervisorState {
    Lives,
    Gone,
    /// A supervisor of an earlier build does not tell its process.
    Unknown,
}

/// The supervisor of this worker. Clones share what was last seen.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    lock_file: Option<PathBuf>,
    // The process that was last known to be the supervisor; locked for a few instructions.
    last: Arc<Mutex<Option<Holder>>>,
}

impl Owner {
    /// The supervisor that launched a worker: `workers/{worker}` is in its data directory.
    pub(super) fn of(spec: &LaunchSpec) -> Self {
        let data_dir = spec.dir.parent().and_then(Path::parent);
        let parent = proc::stat(std::process::id()).ok().flatten().map(|me| me.parent);
        let parent = parent.and_then(|pid| Some(Holder { pid, started: proc::stat(pid).ok()??.started }));
        Self {
            lock_file: data_dir.map(|dir| dir.join("supervisor.lock")),
            last: Arc::new(Mutex::new(parent)),
        }
    }

    /// Reads whether the supervisor runs. Blocks.
    pub(super) fn supervisor(&self) -> SupervisorState {
        let text = self.lock_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match text.as_deref().map(str::parse::<Holder>) {
            Some(Ok(holder)) => *last = Some(holder),
            // There is a supervisor, or was one, that does not tell.
            Some(Err(_)) => return SupervisorState::Unknown,
            None => {}
        }
        match *last {
            Some(holder) if holder.lives() => SupervisorState::Lives,
            Some(_) => SupervisorState::Gone,
            None => SupervisorState::Unknown,
        }
    }
}
