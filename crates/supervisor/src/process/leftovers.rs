//! Processes that were seen below a worker.
//!
//! A worker adopts the orphans of its components, so everything that they start stays below the
//! worker while it lives, whatever session, group or environment it has. When the worker is killed,
//! the kernel gives all of it to another parent: what was seen below the worker before is then
//! found by its identity.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::process::ProcessId;
use stormkeeper_model::WorkerId;
use stormkeeper_runtime::{
    blocking, descendants,
    proc::{self, ProcessStat},
};

/// Period of the search. What a component starts and abandons within this time before its worker is
/// killed is not found, unless it kept the environment.
const PERIOD: Duration = Duration::from_secs(1);

/// The processes below each worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Leftovers(Arc<Mutex<BTreeMap<WorkerId, Below>>>);

#[derive(Debug)]
struct Below {
    worker: ProcessId,
    /// Bounded by the number of processes of the host: those that have ended are removed.
    seen: BTreeSet<ProcessId>,
}

impl Leftovers {
    fn workers(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Below>> {
        self.0.lock().expect("no one panics while holding the workers")
    }

    /// Watches what is below `process`, the process of `worker`.
    pub(super) fn watch(&self, worker: WorkerId, process: ProcessId) {
        self.workers().insert(worker, Below { worker: process, seen: BTreeSet::new() });
    }

    /// Searches for as long as it is polled.
    ///
    /// # Cancellation safety
    /// Safe: what was found is kept.
    pub(super) async fn search(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if !self.workers().is_empty() {
                let all = blocking::run(descendants::stats).await;
                self.update(&all);
            }
        }
    }

    /// Returns whether the process with this pid was seen below the worker.
    #[cfg(test)]
    pub(super) fn has_seen(&self, worker: &WorkerId, pid: u32) -> bool {
        self.workers().get(worker).is_some_and(|below| below.seen.iter().any(|process| process.pid == pid))
    }

    fn update(&self, all: &BTreeMap<u32, ProcessStat>) {
        for below in self.workers().values_mut() {
            let exists = |process: &ProcessId| {
                all.get(&process.pid).is_some_and(|stat| stat.started == process.started && !stat.is_zombie)
            };
            below.seen.retain(exists);
            if exists(&below.worker) {
                let now = proc::tree(below.worker.pid, all).into_iter().filter_map(|pid| all.get(&pid));
                let now = now.filter(|stat| stat.pid != below.worker.pid && !stat.is_zombie);
                below.seen.extend(now.map(|stat| ProcessId { pid: stat.pid, started: stat.started }));
            }
        }
    }

    /// Kills what is left of a worker that has ended. Returns the number of these processes.
    pub(super) async fn kill(&self, worker: &WorkerId) -> usize {
        if !self.workers().contains_key(worker) {
            return 0;
        }
        // Processes that the seen ones have started since belong to them.
        let all = blocking::run(descendants::stats).await;
        let Some(below) = self.workers().remove(worker) else { return 0 };
        let is_seen =
            |stat: &ProcessStat| below.seen.contains(&ProcessId { pid: stat.pid, started: stat.started });
        let seen = all.values().filter(|stat| is_seen(stat));
        let left: BTreeSet<u32> = seen.flat_map(|stat| proc::tree(stat.pid, &all)).collect();
        let left = left.into_iter().filter(|pid| all.get(pid).is_some_and(|stat| !stat.is_zombie));
        left.inspect(|pid| descendants::kill(*pid)).count()
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
        let leftovers = Leftovers::default();
        let seen = || {
            let workers = leftovers.workers();
            workers[&worker].seen.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        leftovers.watch(worker.clone(), ProcessId { pid: 10, started: 1 });
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
