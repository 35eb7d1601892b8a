//! Turns of submitted topologies to be read and checked: one at a time.
//!
//! Reading and checking a topology takes up to a second of one core, and anybody may send
//! topologies. One core at most is busy with them; the others are for leading and for reads.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;
use stormkeeper_runtime::blocking;

/// Longest wait of a submit for its turn; then the sender must retry.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives turns. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct CheckTurns(Arc<Semaphore>);

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
pub(crate) struct CheckTurn {
    _permit: OwnedSemaphorePermit,
}

impl CheckTurns {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if there is none in time.
    pub(crate) async fn next(&self) -> Result<CheckTurn, Refusal> {
        let permit = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.0).acquire_owned()).await;
        // The semaphore is never closed.
        let permit = permit.ok().and_then(Result::ok).ok_or(Refusal::Busy)?;
        Ok(CheckTurn { _permit: permit })
    }
}

impl CheckTurn {
    /// Runs `work` on the pool of blocking threads. The turn lasts until `work` ends, also if the
    /// caller is dropped: a sender that disconnects does not make room for more work.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> (Self, T) {
        blocking::run(move || {
            let result = work();
            (self, result)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use stormkeeper_runtime::tasks::{OnExit, Tasks};

    #[tokio::test(start_paused = true)]
    async fn a_turn_begins_when_the_turn_before_has_ended_and_the_wait_is_bounded() {
        let turns = CheckTurns::new();
        let first = turns.next().await.expect("free");
        assert!(matches!(turns.next().await, Err(Refusal::Busy)));
        drop(first);
        let _second = turns.next().await.expect("free again");
    }

    #[tokio::test]
    async fn a_turn_lasts_until_its_work_ends_although_the_caller_is_gone() {
        let (turns, tasks) = (CheckTurns::new(), Tasks::default());
        let (go_on, wait) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let turn = turns.next().await.expect("free");
        let (done, dropped) = tokio::sync::oneshot::channel::<()>();
        tasks.start("caller", OnExit::Ignore, async move {
            let work = turn.run(move || {
                began.send(()).expect("awaited");
                wait.recv().expect("sent");
            });
            tokio::select! {
                (_turn, ()) = work => {}
                _ = dropped => {}
            }
        });
        begun.await.expect("begun");
        done.send(()).expect("awaited");
        assert!(tasks.stop(TURN_TIMEOUT).await);
        assert_eq!(turns.0.available_permits(), 0);
        go_on.send(()).expect("awaited");
        turns.next().await.expect("its work has ended");
    }
}
