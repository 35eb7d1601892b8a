//! Up to when what is kept is over. A machine's clock can jump years ahead, and what expires on
//! its word is gone when the clock is right again: so expiry follows the clock slowly.

use std::time::Duration;

use stormkeeper_metrics::Minute;
use stormkeeper_model::clock::Monotonic;

/// Expiry goes on by at most so many minutes in each minute that really passes: it catches up on
/// a month in which nimbus was off in another month, and of a year that the clock was ahead for
/// a day it takes two days.
const PACE: u32 = 2;

const MINUTE: Duration = Duration::from_secs(60);

/// What the time is as far as expiry is concerned: never later than the clock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    at: Minute,
    /// Up to when passed minutes were counted.
    since: Monotonic,
}

impl Expiry {
    /// Goes on from where it was `before`, if that is known.
    pub(super) fn new(before: Option<Minute>, clock: Minute, now: Monotonic) -> Self {
        Self { at: before.map_or(clock, |before| before.min(clock)), since: now }
    }

    /// What it is now.
    pub(super) fn at(&self) -> Minute {
        self.at
    }

    /// Follows the clock.
    pub(super) fn follow(&mut self, clock: Minute, now: Monotonic) {
        let n_passed = u32::try_from(now.since(self.since).as_secs() / MINUTE.as_secs()).unwrap_or(u32::MAX);
        self.since = self.since.plus(MINUTE * n_passed);
        self.at = clock.min(self.at.plus(n_passed.saturating_mul(PACE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_clock_and_no_jump_of_it() {
        let now = |minutes: u32| Monotonic::START.plus(MINUTE * minutes);
        let mut expiry = Expiry::new(None, Minute(1000), now(0));
        let mut check = |clock, minutes, expected| {
            expiry.follow(Minute(clock), now(minutes));
            assert_eq!(expiry.at(), Minute(expected));
        };
        check(1000, 0, 1000);
        check(1010, 10, 1010);
        check(900_000, 10, 1010);
        check(900_005, 15, 1020);
        // Right again, and then too early.
        check(1016, 16, 1016);
        check(500, 17, 500);
        check(1018, 18, 502);
        check(1100, 100, 666);
        check(1500, 500, 1466);
        check(1600, 600, 1600);
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let of = |before| Expiry::new(before, Minute(1000), Monotonic::START).at();
        assert_eq!(of(None), Minute(1000));
        assert_eq!(of(Some(Minute(900))), Minute(900));
        assert_eq!(of(Some(Minute(2000))), Minute(1000));
    }
}
