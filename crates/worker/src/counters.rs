//! Tuple counts of each task. Exact: no sampling.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;

use stormkeeper_model::{TaskId, heartbeat::TaskCounts};

/// Counts of one task, incremented by its loop and read by other tasks.
#[derive(Debug, Default)]
pub struct TaskCounters {
    pub(super) emitted: Count,
    pub(super) transferred: Count,
    pub(super) executed: Count,
    pub(super) acked: Count,
    pub(super) failed: Count,
    pending: AtomicU64,
}

/// Monotonic count with one writer.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        // Each count is independent: no ordering with other memory is needed. Nobody else writes it: an
        // addition that is atomic costs as much as the emit of a tuple does otherwise.
        self.0.store(self.read().wrapping_add(n), Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TaskCounters {
    /// Sets the number of tuples that the task has received and its component has not finished; of a
    /// spout, 1 while its component owes the answer to a command.
    pub(super) fn set_pending(&self, n: u64) {
        self.pending.store(n, Ordering::Relaxed);
    }

    /// Returns the number that was set last.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Reads all counts. Each is exact; together they are not one instant.
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

/// Counters of all tasks of a worker. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CounterRegistry(Arc<DashMap<TaskId, Arc<TaskCounters>>>);

impl CounterRegistry {
    /// Returns the counters of `task`; creates them at zero if needed.
    pub fn of(&self, task: TaskId) -> Arc<TaskCounters> {
        self.0.entry(task).or_default().clone()
    }

    /// Returns the counts of `task` and its number of pending tuples; zeros if it has no counters.
    pub fn read(&self, task: TaskId) -> (TaskCounts, u64) {
        self.0.get(&task).map(|counters| (counters.read(), counters.pending())).unwrap_or_default()
    }
}
