//! Waiting for a condition by polling.

use std::{future::Future, time::Duration};

use stormkeeper_model::clock::Clock;

/// Pause between two polls: short against the wait, long against the cost of a poll.
const PAUSE: Duration = Duration::from_millis(5);

/// Polls until `poll` returns `Ok`, and returns its value. `Err` describes the state that does not
/// satisfy the condition yet.
///
/// # Panics
/// If `timeout` passes first, with `what` and the last state.
pub async fn wait_until<T, F, Fut>(what: &str, timeout: Duration, mut poll: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let clock = Clock::new();
    let start = clock.monotonic();
    let mut last = "nothing yet".to_owned();
    loop {
        let left = timeout.saturating_sub(clock.monotonic().since(start));
        match tokio::time::timeout(left, poll()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state,
            // The poll itself takes too long.
            Err(_) => {}
        }
        assert!(
            clock.monotonic().since(start) < timeout,
            "timed out after {timeout:?} waiting until {what}; last state: {last}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn value_of_the_first_successful_poll_is_returned() {
        let mut n_polls = 0;
        let found = wait_until("the third poll", Duration::from_secs(1), || {
            n_polls += 1;
            let n = n_polls;
            async move { if n == 3 { Ok(n) } else { Err(format!("poll {n}")) } }
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "until it rains; last state: nothing yet")]
    async fn poll_that_never_ends_does_not_block_the_timeout() {
        wait_until("it rains", Duration::from_secs(1), std::future::pending::<Result<(), String>>).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "until pigs fly; last state: on the ground")]
    async fn timeout_reports_the_last_state() {
        wait_until("pigs fly", Duration::from_secs(1), || async { Err::<(), _>("on the ground".to_owned()) })
            .await;
    }
}
