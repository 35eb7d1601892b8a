//! Tasks with an owner. Tasks are spawned here and nowhere else.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error};

/// Meaning of a task that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Expected: the task has finished its job.
    Ignore,
    /// The owner cannot work without the task: all tasks of the owner are cancelled.
    StopOwner,
}

/// A set of tasks that start under one cancellation token and are joined together.
///
/// Dropping the set cancels its tasks without waiting; [`Tasks::stop`] waits.
#[derive(Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new(CancellationToken::new())
    }
}

impl Tasks {
    /// Creates a set whose tasks end when `cancel` is cancelled.
    pub fn new(cancel: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), cancel }
    }

    /// Creates a set whose tasks end with the tasks of this set and can be stopped earlier.
    pub fn child(&self) -> Self {
        Self::new(self.cancel.child_token())
    }

    /// Returns the token that is cancelled when the set must stop. Every loop of its tasks must
    /// end on it.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts a task. The future is dropped at its next await when the set is cancelled,
    /// unless it watches [`Tasks::cancelled`] itself and is started by
    /// [`Tasks::start_graceful`].
    pub fn start<F>(&self, name: &'static str, ending: OnExit, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        self.start_graceful(name, ending, async move {
            tokio::select! {
                biased;
                // Dropping the future cancels the task; each task documents the effect.
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Starts a task that ends by itself, in its own time, after the set is cancelled.
    pub fn start_graceful<F>(&self, name: &'static str, ending: OnExit, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let guarded = async move {
            let guard = CancelOnPanic { cancel: &cancel, name };
            task.await;
            std::mem::forget(guard);
            if ending == OnExit::StopOwner && !cancel.is_cancelled() {
                error!(task = name, "task ended unexpectedly; cancelling the other tasks of its owner");
                cancel.cancel();
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        tokio::spawn(self.tracker.track_future(guarded.instrument(tracing::Span::current())));
    }

    /// Cancels every task and waits at most `patience` for all of them to end. Returns whether
    /// all tasks ended.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A panic in a task breaks an invariant of its owner, so the guard stops the owner.
struct CancelOnPanic<'a> {
    cancel: &'a CancellationToken,
    name: &'static str,
}

impl Drop for CancelOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(task = self.name, "task panicked; cancelling the other tasks of its owner");
            self.cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_joins_every_task() {
        let tasks = Tasks::default();
        tasks.start("forever", OnExit::Ignore, std::future::pending());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn end_of_a_vital_task_cancels_the_set() {
        let tasks = Tasks::default();
        tasks.start("vital", OnExit::StopOwner, async {});
        tasks.cancelled().cancelled().await;
    }
}
