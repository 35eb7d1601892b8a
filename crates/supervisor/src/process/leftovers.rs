//! Processes that a worker and its components leave behind.
//!
//! Each worker runs in a scope of its own if the host lets the supervisor create cgroups (version 2).
//! Only root can move a process out of it: what is left of a worker is found there, also by a
//! supervisor that started after its end. Elsewhere the supervisor searches once a second: a worker adopts
//! the orphans of its components, so everything that they start stays below the worker while it
//! lives, whatever session, group or environment it has. When the worker is killed, the kernel gives
//! all of it to another parent: what was seen below the worker before is then found by its identity.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use tracing::{info, warn};

use crate::process::ProcessId;
use stormkeeper_model::{BlobKey, WorkerId};
use stormkeeper_runtime::{
    blocking,
    cgroup::scope::ScopeCgroup,
    descendants,
    proc::{self, ProcessStat},
};

/// Period of the search. What a component starts and abandons within this time before its worker is
/// killed is not found without a scope, unless it kept the environment.
const PERIOD: Duration = Duration::from_secs(1);

/// Number of characters that tell the scopes of one supervisor from those of others on its host.
const OWNER_CHARS: usize = 8;

/// The processes of each worker.
#[derive(Debug, Clone)]
pub(super) struct Leftovers {
    // End of the names of its scopes.
    suffix: String,
    // Guards what is known; held for a few instructions.
    tracked: Arc<Mutex<BTreeMap<WorkerId, Tracked>>>,
}

#[derive(Debug)]
enum Tracked {
    Scope(ScopeCgroup),
    Searched(Below),
}

#[derive(Debug)]
struct Below {
    worker: ProcessId,
    /// Bounded by the number of processes of the host: those that have ended are removed.
    seen: BTreeSet<ProcessId>,
}

impl Below {
    fn of(worker: ProcessId) -> Self {
        Self { worker, seen: BTreeSet::new() }
    }

    fn update(&mut self, all: &BTreeMap<u32, ProcessStat>) {
        let exists = |process: &ProcessId| {
            all.get(&process.pid).is_some_and(|stat| stat.started == process.started && !stat.is_zombie)
        };
        self.seen.retain(exists);
        if exists(&self.worker) {
            let now = proc::tree(self.worker.pid, all).into_iter().filter_map(|pid| all.get(&pid));
            let now = now.filter(|stat| stat.pid != self.worker.pid && !stat.is_zombie);
            self.seen.extend(now.map(|stat| ProcessId { pid: stat.pid, started: stat.started }));
        }
    }

    /// Kills what was seen, with what that has started since. Returns the number of processes.
    fn kill(&self, all: &BTreeMap<u32, ProcessStat>) -> usize {
        let is_seen =
            |stat: &ProcessStat| self.seen.contains(&ProcessId { pid: stat.pid, started: stat.started });
        let seen = all.values().filter(|stat| is_seen(stat));
        let left: BTreeSet<u32> = seen.flat_map(|stat| proc::tree(stat.pid, all)).collect();
        let left = left.into_iter().filter(|pid| all.get(pid).is_some_and(|stat| !stat.is_zombie));
        left.inspect(|pid| descendants::kill(*pid)).count()
    }
}

impl Leftovers {
    /// The processes of the workers of the supervisor with this data directory.
    pub(super) fn new(supervisor_dir: &Path) -> Self {
        let owner = BlobKey::of(supervisor_dir.as_os_str().as_encoded_bytes());
        Self { suffix: format!(".{}", &owner.as_str()[..OWNER_CHARS]), tracked: Arc::default() }
    }

    fn scope_of(&self, worker: &WorkerId) -> String {
        format!("{worker}{}", self.suffix)
    }

    /// Returns the workers that have a scope of this supervisor, whether they run or have ended. Blocks.
    pub(super) fn with_scope(&self) -> Vec<WorkerId> {
        let names = ScopeCgroup::names_with(&self.suffix).into_iter();
        names.filter_map(|name| name.strip_suffix(&self.suffix)?.parse().ok()).collect()
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Tracked>> {
        self.tracked.lock().expect("no one panics while holding the workers")
    }

    /// Watches the process of `worker`, which was just started: it starts components only after it
    /// has read its assignment, so they are in its scope.
    /// A worker of another `user` may limit the memory of its components in its scope.
    pub(super) fn watch_new(&self, worker: WorkerId, process: ProcessId, user: Option<(u32, u32)>) {
        let tracked = match ScopeCgroup::create(&self.scope_of(&worker), process.pid) {
            Ok(scope) => {
                if let Some(Err(error)) = user.map(|(uid, gid)| scope.delegate(uid, gid)) {
                    warn!(%worker, %error, "a worker cannot limit the memory of its components");
                }
                Tracked::Scope(scope)
            }
            Err(reason) => {
                static SEARCHED: Once = Once::new();
                SEARCHED.call_once(|| {
                    info!(
                        reason,
                        "workers get no cgroups of their own here; what they leave is searched for"
                    );
                });
                Tracked::Searched(Below::of(process))
            }
        };
        self.workers().insert(worker, tracked);
    }

    /// Watches the process of `worker`, which an earlier supervisor started.
    pub(super) fn watch(&self, worker: WorkerId, process: ProcessId) {
        let scope = ScopeCgroup::of_process(&self.scope_of(&worker), process.pid);
        let tracked = scope.map_or_else(|| Tracked::Searched(Below::of(process)), Tracked::Scope);
        self.workers().insert(worker, tracked);
    }

    /// Searches for as long as it is polled.
    ///
    /// # Cancellation safety
    /// Safe: what was found is kept.
    pub(super) async fn search(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let is_needed = self.workers().values().any(|tracked| matches!(tracked, Tracked::Searched(_)));
            if is_needed {
                let all = blocking::run(descendants::stats).await;
                self.update(&all);
            }
        }
    }

    fn update(&self, all: &BTreeMap<u32, ProcessStat>) {
        for tracked in self.workers().values_mut() {
            if let Tracked::Searched(below) = tracked {
                below.update(all);
            }
        }
    }

    /// Kills what is left of a worker that has ended. Returns the number of processes that were found:
    /// call it again until it is zero.
    ///
    /// # Cancellation safety
    /// Not safe: what was seen of the worker may be forgotten.
    pub(super) async fn kill(&self, worker: &WorkerId) -> usize {
        let tracked = self.workers().remove(worker);
        let name = self.scope_of(worker);
        let (n_found, scope) = match tracked {
            Some(Tracked::Searched(below)) => {
                return below.kill(&blocking::run(descendants::stats).await);
            }
            Some(Tracked::Scope(scope)) => blocking::run(move || end(scope)).await,
            // Launched by an earlier supervisor, and ended before this one could adopt it.
            None => blocking::run(move || ScopeCgroup::find(&name).map_or((0, None), end)).await,
        };
        self.workers().extend(scope.map(|scope| (worker.clone(), Tracked::Scope(scope))));
        n_found
    }

    /// Gives up what could not be killed.
    pub(super) fn forget(&self, worker: &WorkerId) {
        self.workers().remove(worker);
    }

    /// Searches for what is below `process`, as on a host that allows no scopes.
    #[cfg(test)]
    pub(super) fn search_for(&self, worker: WorkerId, process: ProcessId) {
        self.workers().insert(worker, Tracked::Searched(Below::of(process)));
    }

    /// Returns whether the worker has a scope.
    #[cfg(test)]
    pub(super) fn has_scope(&self, worker: &WorkerId) -> bool {
        matches!(self.workers().get(worker), Some(Tracked::Scope(_)))
    }

    /// Returns whether the process with this pid was seen below the worker.
    #[cfg(test)]
    pub(super) fn has_seen(&self, worker: &WorkerId, pid: u32) -> bool {
        match self.workers().get(worker) {
            Some(Tracked::Searched(below)) => below.seen.iter().any(|process| process.pid == pid),
            _ => false,
        }
    }
}

/// Kills what is in a scope, and removes the scope if it is empty. Returns the number of processes
/// that were found, and the scope if it is still there.
fn end(scope: ScopeCgroup) -> (usize, Option<ScopeCgroup>) {
    let n_found = scope.kill();
    if scope.is_empty() {
        scope.remove();
        (n_found, None)
    } else {
        (n_found.max(1), Some(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32, started: u64) -> (u32, ProcessStat) {
        let rest = ProcessStat {
            pid,
            parent,
            started,
            group: pid,
            is_zombie: false,
            own_ticks: 0,
            children_ticks: 0,
            n_threads: 1,
        };
        (pid, rest)
    }

    #[test]
    fn processes_below_a_worker_are_remembered_until_they_end() {
        let worker: WorkerId = "w1".parse().expect("valid id");
        let leftovers = Leftovers::new(Path::new("/s"));
        let seen = || match &leftovers.workers()[&worker] {
            Tracked::Searched(below) => below.seen.iter().map(|process| process.pid).collect::<Vec<_>>(),
            Tracked::Scope(scope) => panic!("{scope:?}"),
        };
        leftovers.search_for(worker.clone(), ProcessId { pid: 10, started: 1 });
        leftovers.update(&BTreeMap::from([stat(10, 1, 1), stat(11, 10, 2), stat(12, 11, 3), stat(20, 1, 3)]));
        assert_eq!(seen(), [11, 12]);
        // The worker was killed, and its pid was taken by another process with a child of its own.
        leftovers.update(&BTreeMap::from([stat(10, 1, 9), stat(13, 10, 9), stat(11, 1, 2), stat(12, 11, 3)]));
        assert_eq!(seen(), [11, 12]);
        // A process ended, and its pid was taken.
        leftovers.update(&BTreeMap::from([stat(11, 1, 8), stat(12, 1, 3)]));
        assert_eq!(seen(), [12]);
    }
}
