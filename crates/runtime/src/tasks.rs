//! Tasks with an owner. Tasks are spawned here and nowhere else.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
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
            // A panic in a task breaks an invariant of its owner. Nothing is logged while the panic
            // unwinds: a second panic would end the process.
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let reason = panic_message(&*panic);
                error!(task = name, reason, "task panicked; cancelling the other tasks of its owner");
                cancel.cancel();
                return;
            }
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

/// Returns the text of a panic; most have one.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
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

    /// A log that panics, as one that writes to a full disk may.
    #[derive(Debug)]
    struct PanickingLog;

    impl std::io::Write for PanickingLog {
        fn write(&mut self, _line: &[u8]) -> std::io::Result<usize> {
            assert!(!std::thread::panicking(), "logged while a panic unwinds: the process would end");
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn panic_in_a_task_cancels_the_set_and_is_not_logged_while_it_unwinds() {
        let log = tracing_subscriber::fmt().with_writer(|| PanickingLog).log_internal_errors(false).finish();
        let _log = tracing::subscriber::set_default(log);
        let tasks = Tasks::default();
        tasks.start("broken", OnExit::Ignore, async { panic!("on purpose") });
        tasks.cancelled().cancelled().await;
        assert_eq!(panic_message(&"text"), "text");
    }

    #[tokio::test]
    async fn end_of_a_vital_task_cancels_the_set() {
        let tasks = Tasks::default();
        tasks.start("vital", OnExit::StopOwner, async {});
        tasks.cancelled().cancelled().await;
    }
}
