//! Restarts within the last minutes: whatever starts again and again is not healthy.

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Monotonic, text};

/// Time for which a restart counts.
pub const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// Number of restarts within [`RESTART_WINDOW`] that is a problem: one crash, or a worker that was
/// killed by hand, is none.
pub const RESTARTS_TOLERATED: u32 = 2;

/// Maximum number of restarts that are counted; more are shown as this number.
pub const RESTARTS_COUNTED_MAX: usize = 100;

/// Maximum length of the reason of a restart, in bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// Restarts of one thing within the window, and the reason of the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartHistory {
    times: VecDeque<Monotonic>,
    reason: String,
}

impl RestartHistory {
    /// Adds a restart. The oldest is discarded beyond [`RESTARTS_COUNTED_MAX`].
    pub fn add(&mut self, now: Monotonic, reason: &str) {
        if self.times.len() >= RESTARTS_COUNTED_MAX {
            self.times.pop_front();
        }
        self.times.push_back(now);
        self.reason = one_line(reason);
    }

    /// Discards the restarts before the window, and returns the number of the others.
    pub fn count(&mut self, now: Monotonic) -> u32 {
        while self.times.front().is_some_and(|at| now.since(*at) >= RESTART_WINDOW) {
            self.times.pop_front();
        }
        u32::try_from(self.times.len()).unwrap_or(u32::MAX)
    }

    /// Time of the last restart.
    pub fn last(&self) -> Option<Monotonic> {
        self.times.back().copied()
    }

    /// Reason of the last restart, of one line.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Returns the first line of `reason`, shortened to [`REASON_BYTES_MAX`], with `?` for control
/// characters.
pub fn one_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default().replace(char::is_control, "?");
    text::shortened(&line, REASON_BYTES_MAX).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Timestamp, clock::Clock};

    #[test]
    fn restarts_count_for_the_window_and_not_longer() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let mut history = RestartHistory::default();
        history.add(clock.monotonic(), "a");
        clock.advance(Duration::from_secs(400));
        history.add(clock.monotonic(), "b\nmore");
        assert_eq!((history.count(clock.monotonic()), history.reason()), (2, "b"));
        clock.advance(Duration::from_secs(200));
        assert_eq!(history.count(clock.monotonic()), 1);
        clock.advance(Duration::from_secs(400));
        assert_eq!((history.count(clock.monotonic()), history.last()), (0, None));
    }

    #[test]
    fn history_is_bounded() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let mut history = RestartHistory::default();
        (0..RESTARTS_COUNTED_MAX + 50).for_each(|_| history.add(clock.monotonic(), &"é".repeat(500)));
        assert_eq!(history.count(clock.monotonic()) as usize, RESTARTS_COUNTED_MAX);
        assert!(history.reason().len() <= REASON_BYTES_MAX, "{}", history.reason().len());
    }
}
