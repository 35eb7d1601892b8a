//! Retention clock: points older than its retention have expired. A host's clock can jump years
//! ahead, and points that expire during the jump are lost when the clock is right again, so the
//! retention clock follows the wall clock slowly.

use std::time::Duration;

use stormkeeper_metrics::Minute;
use stormkeeper_model::clock::Monotonic;

/// Maximum advance of the retention clock, in minutes per minute of real time. After nimbus was off
/// for a month, the clock catches up within a month; after the wall clock was a year ahead for a
/// day, the retention clock has advanced by two days.
const RATE_MAX: u32 = 2;

const MINUTE: Duration = Duration::from_secs(60);

/// Retention clock; never later than the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetentionClock {
    at: Minute,
    /// Time up to which passed minutes are counted.
    since: Monotonic,
}

impl RetentionClock {
    /// Continues from the value `before`, if it is known.
    pub(super) fn new(before: Option<Minute>, clock: Minute, now: Monotonic) -> Self {
        Self { at: before.map_or(clock, |before| before.min(clock)), since: now }
    }

    /// Returns the current value.
    pub(super) fn at(&self) -> Minute {
        self.at
    }

    /// Advances toward the wall clock.
    pub(super) fn advance(&mut self, clock: Minute, now: Monotonic) {
        let n_passed = u32::try_from(now.since(self.since).as_secs() / MINUTE.as_secs()).unwrap_or(u32::MAX);
        self.since = self.since.plus(MINUTE * n_passed);
        self.at = clock.min(self.at.plus(n_passed.saturating_mul(RATE_MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_with_the_wall_clock_but_does_not_follow_its_jumps() {
        let now = |minutes: u32| Monotonic::START.plus(MINUTE * minutes);
        let mut retention_clock = RetentionClock::new(None, Minute(1000), now(0));
        let mut check = |clock, minutes, expected| {
            retention_clock.advance(Minute(clock), now(minutes));
            assert_eq!(retention_clock.at(), Minute(expected));
        };
        check(1000, 0, 1000);
        check(1010, 10, 1010);
        check(900_000, 10, 1010);
        check(900_005, 15, 1020);
        // The clock is right again, and then slow.
        check(1016, 16, 1016);
        check(500, 17, 500);
        check(1018, 18, 502);
        check(1100, 100, 666);
        check(1500, 500, 1466);
        check(1600, 600, 1600);
    }

    #[test]
    fn continues_from_the_previous_value_but_never_after_the_wall_clock() {
        let of = |before| RetentionClock::new(before, Minute(1000), Monotonic::START).at();
        assert_eq!(of(None), Minute(1000));
        assert_eq!(of(Some(Minute(900))), Minute(900));
        assert_eq!(of(Some(Minute(2000))), Minute(1000));
    }
}
