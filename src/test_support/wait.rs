//! Waiting for something that is checked by asking again.

use std::{future::Future, time::Duration};

use crate::clock::Clock;

/// How long to leave between two looks: short against what is waited for, long against the
/// cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` answers `Ok`, and answers what it found. `Err` says how
/// things stand: not yet.
///
/// # Panics
/// When `timeout` passes first, with `what` and the last state.
pub async fn wait_until<T, F, Fut>(what: &str, timeout: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let clock = Clock::new();
    let start = clock.monotonic();
    let mut last = "nothing yet".to_owned();
    loop {
        let left = timeout.saturating_sub(clock.monotonic().since(start));
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state,
            // The look itself takes too long.
            Err(_) => {}
        }
        assert!(
            clock.monotonic().since(start) < timeout,
            "waited {timeout:?} in vain until {what}; last seen: {last}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_answers_what_was_found() {
        let mut n_looks = 0;
        let found = wait_until("the third look", Duration::from_secs(1), || {
            n_looks += 1;
            let n = n_looks;
            async move { if n == 3 { Ok(n) } else { Err(format!("look {n}")) } }
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "until it rains; last seen: nothing yet")]
    async fn a_look_that_never_ends_does_not_hold_it_up() {
        wait_until("it rains", Duration::from_secs(1), std::future::pending::<Result<(), String>>).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "until pigs fly; last seen: on the ground")]
    async fn it_says_what_it_saw_last() {
        wait_until("pigs fly", Duration::from_secs(1), || async { Err::<(), _>("on the ground".to_owned()) })
            .await;
    }
}
