//! Value that is made again at most once per period, by one task, however many ask for it.
//!
//! For values that are expensive to make and that strangers ask for: the cost does not depend on
//! how many ask, nor on whether they stay to read the answer.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    tasks::{OnExit, Tasks},
    watch,
};
use stormkeeper_model::clock::{Clock, Monotonic};

/// A value, and when it may be made again. Clones share the value.
#[derive(Debug)]
pub struct Refreshed<T> {
    period: Duration,
    clock: Clock,
    state: watch::Sender<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: Option<Arc<T>>,
    /// End of the last making, also of one that failed.
    ended: Option<Monotonic>,
    is_being_made: bool,
}

impl<T> Clone for Refreshed<T> {
    fn clone(&self) -> Self {
        Self { period: self.period, clock: self.clock.clone(), state: self.state.clone() }
    }
}

/// Making in flight. If it is dropped without a value, because its task panicked or was cancelled,
/// the value before stays for a period.
struct Making<T> {
    of: Refreshed<T>,
    value: Option<Arc<T>>,
}

impl<T> Making<T> {
    fn finish(mut self, value: T) {
        self.value = Some(Arc::new(value));
    }
}

impl<T> Drop for Making<T> {
    fn drop(&mut self) {
        let (now, value) = (self.of.clock.monotonic(), self.value.take());
        self.of.state.send_modify(|state| {
            state.is_being_made = false;
            state.ended = Some(now);
            if value.is_some() {
                state.value = value;
            }
        });
    }
}

impl<T: Send + Sync + 'static> Refreshed<T> {
    /// Creates a value that has not been made yet.
    pub fn new(period: Duration, clock: Clock) -> Self {
        let state = State { value: None, ended: None, is_being_made: false };
        Self { period, clock, state: watch::Sender::new(state) }
    }

    /// Returns the value. If it is older than the period, and is not being made, a task of `tasks`
    /// makes it; `make` receives the value before. Waits for a value that is being made, at most
    /// `patience`; then returns the value before, which is `None` if there is none.
    ///
    /// # Cancellation safety
    /// A making that has begun goes on.
    pub async fn get<M, F>(&self, tasks: &Tasks, patience: Duration, make: M) -> Option<Arc<T>>
    where
        M: FnOnce(Option<Arc<T>>) -> F,
        F: Future<Output = T> + Send + 'static,
    {
        let mut reader = self.state.subscribe();
        if let Some(before) = self.begin() {
            let (making, made) = (Making { of: self.clone(), value: None }, make(before));
            tasks.start("refresh", OnExit::Ignore, async move {
                making.finish(made.await);
            });
        }
        let waiting = reader.wait_for(|state| !state.is_being_made);
        // Also when the time is over: the value before is better than none.
        let _in_time = tokio::time::timeout(patience, waiting).await;
        self.state.borrow().value.clone()
    }

    /// Marks the value as being made if it is due; returns the value before then.
    fn begin(&self) -> Option<Option<Arc<T>>> {
        let (now, mut before) = (self.clock.monotonic(), None);
        self.state.send_if_modified(|state| {
            let is_due = state.ended.is_none_or(|ended| now.since(ended) >= self.period);
            if is_due && !state.is_being_made {
                state.is_being_made = true;
                before = Some(state.value.clone());
            }
            // Readers wait for the end only.
            false
        });
        before
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(3);

    struct Fixture {
        value: Refreshed<usize>,
        tasks: Tasks,
        n_made: Arc<AtomicUsize>,
    }

    impl Fixture {
        fn new() -> Self {
            let value = Refreshed::new(PERIOD, Clock::new());
            Self { value, tasks: Tasks::default(), n_made: Arc::default() }
        }

        /// Asks for the value, which is the number of the making and takes `secs` to make.
        async fn get(&self, secs: u64) -> Option<usize> {
            let n_made = Arc::clone(&self.n_made);
            let make = |_before| async move {
                let n = n_made.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::time::sleep(Duration::from_secs(secs)).await;
                n
            };
            self.value.get(&self.tasks, PATIENCE, make).await.map(|value| *value)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_wait_for_one_making() {
        let fixture = Fixture::new();
        let all = futures_util::future::join_all((0..100).map(|_| fixture.get(1))).await;
        assert_eq!(all, vec![Some(1); 100]);
        assert_eq!(fixture.n_made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn value_is_made_again_only_after_the_period() {
        let fixture = Fixture::new();
        assert_eq!(fixture.get(1).await, Some(1));
        tokio::time::advance(PERIOD - Duration::from_millis(1)).await;
        assert_eq!(fixture.get(1).await, Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fixture.get(1).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn reader_that_waited_long_enough_gets_the_value_before() {
        let fixture = Fixture::new();
        assert_eq!(fixture.get(5).await, None, "there is no value before");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(fixture.get(1).await, Some(1), "the first making went on without its reader");
        tokio::time::advance(PERIOD).await;
        assert_eq!(fixture.get(5).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn reader_that_goes_away_causes_no_second_making() {
        let fixture = Fixture::new();
        for _ in 0..10 {
            let gone = tokio::time::timeout(Duration::from_millis(10), fixture.get(2)).await;
            assert!(gone.is_err(), "{gone:?}");
        }
        assert_eq!(fixture.get(2).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_making_keeps_the_value_before_and_is_not_repeated_within_the_period() {
        let fixture = Fixture::new();
        assert_eq!(fixture.get(1).await, Some(1));
        tokio::time::advance(PERIOD).await;
        let failing = Tasks::default();
        failing.cancelled().cancel();
        let make = |before: Option<Arc<usize>>| async move {
            assert_eq!(before.as_deref(), Some(&1));
            std::future::pending().await
        };
        assert_eq!(fixture.value.get(&failing, PATIENCE, make).await.as_deref(), Some(&1));
        assert_eq!(fixture.get(1).await, Some(1));
        tokio::time::advance(PERIOD).await;
        assert_eq!(fixture.get(1).await, Some(2));
    }
}
