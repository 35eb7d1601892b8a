//! Turns of a loop between two looks at the clock.

use std::time::Duration;

use stormkeeper_model::clock::Monotonic;

/// Time between two looks at the clock while turns are short.
const PERIOD: Duration = Duration::from_micros(100);

/// Maximum number of turns between two looks.
const TURNS_MAX: u32 = 64;

/// Says when a loop whose turns take nanoseconds, or seconds, looks at the clock and at everything that
/// depends on it. Turns that take longer than before are noticed after at most [`TURNS_MAX`] of them: who
/// cannot wait for that asks the loop to look.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    turns: u32,
    looked: Monotonic,
}

impl Pace {
    /// The first turn is a look.
    pub(super) fn new(now: Monotonic) -> Self {
        Self { left: 0, turns: 1, looked: now }
    }

    /// Counts a turn, and returns whether it is one of those that look.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => true,
        }
    }

    /// Notes a look: decides on the number of turns until the next one.
    pub(super) fn looked(&mut self, now: Monotonic) {
        let n_turns = (self.turns - self.left).max(1);
        let turn = now.since(self.looked) / n_turns;
        let turns = PERIOD.as_nanos().checked_div(turn.as_nanos()).unwrap_or(TURNS_MAX.into());
        // Twice as many as before at most: the first turns say little.
        let limit = TURNS_MAX.min(2 * self.turns);
        self.turns = u32::try_from(turns).unwrap_or(limit).clamp(1, limit);
        (self.left, self.looked) = (self.turns - 1, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns of this length, and returns the number of looks.
    fn looks(turn: Duration, n_turns: u32) -> u32 {
        let mut now = Monotonic::START;
        let mut pace = Pace::new(now);
        (0..n_turns)
            .filter(|_| {
                let is_due = pace.is_due();
                if is_due {
                    pace.looked(now);
                }
                now = now.plus(turn);
                is_due
            })
            .count()
            .try_into()
            .expect("few")
    }

    #[test]
    fn short_turns_look_seldom_and_long_ones_each_time() {
        let short = looks(Duration::from_nanos(50), 6400);
        assert!((100..115).contains(&short), "{short}");
        let medium = looks(Duration::from_micros(10), 1000);
        assert!((95..120).contains(&medium), "{medium}");
        let long = looks(Duration::from_millis(1), 100);
        assert!(long >= 99, "{long}");
    }

    #[test]
    fn a_loop_that_becomes_slow_looks_again_after_64_turns() {
        let mut now = Monotonic::START;
        let mut pace = Pace::new(now);
        for _ in 0..1000 {
            if pace.is_due() {
                pace.looked(now);
            }
            now = now.plus(Duration::from_nanos(50));
        }
        let slow = (0..1000).position(|_| pace.is_due()).expect("due");
        assert!(slow < 64, "{slow}");
        pace.looked(now.plus(Duration::from_secs(64)));
        assert!(pace.is_due());
    }
}
