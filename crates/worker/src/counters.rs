//! What each task counts while it runs. Exact: nothing is sampled.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;

use stormkeeper_model::{TaskId, heartbeat::TaskCounts};

/// The counts of one task, added to by its loop and read by anyone.
#[derive(Debug, Default)]
pub struct TaskCounters {
    pub(super) emitted: Count,
    pub(super) transferred: Count,
    pub(super) executed: Count,
    pub(super) acked: Count,
    pub(super) failed: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        // Each count stands alone: no order with other memory is asked for.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TaskCounters {
    /// Reads all counts; each is exact, together they are not one instant.
    pub fn read(&self) -> TaskCounts {
        TaskCounts {
            emitted: self.emitted.read(),
            transferred: self.transferred.read(),
            executed: self.executed.read(),
            acked: self.acked.read(),
            failed: self.failed.read(),
        }
    }
}

/// The counters of every task of a worker. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<DashMap<TaskId, Arc<TaskCounters>>>);

impl Registry {
    /// The counters of `task`, which start at zero when it has none.
    pub fn of(&self, task: TaskId) -> Arc<TaskCounters> {
        self.0.entry(task).or_default().clone()
    }

    /// The counts of `task`; zero when it has none.
    pub fn read(&self, task: TaskId) -> TaskCounts {
        self.0.get(&task).map(|counters| counters.read()).unwrap_or_default()
    }
}
