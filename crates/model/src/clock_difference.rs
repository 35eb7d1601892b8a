//! Difference between the clock of this host and the leader's: when to believe it and to announce it.
//!
//! A process asks the leader for its time. The leader read its clock at some moment between the request
//! and the response, so half of the round trip bounds the error. A difference is announced if it is
//! certainly above [`DIFFERENCE_MAX`], and withdrawn if it is certainly below [`WITHDRAWN_BELOW`]: the
//! gap keeps a clock at the limit from being announced again and again. At most [`CHANGES_MAX`] changes
//! are made within [`CHANGES_WINDOW`], because every change is a write to the tree.

use std::{collections::VecDeque, time::Duration};

use crate::{Timestamp, clock::Monotonic};

/// Largest difference that is no problem.
pub const DIFFERENCE_MAX: Duration = Duration::from_secs(2);

/// Difference below which an announcement is withdrawn.
pub const WITHDRAWN_BELOW: Duration = Duration::from_millis(1500);

/// Maximum number of changes of the announcement within [`CHANGES_WINDOW`]. At the limit the
/// announcement stays as it is until the oldest change is older than that.
pub const CHANGES_MAX: usize = 4;

/// See [`CHANGES_MAX`].
pub const CHANGES_WINDOW: Duration = Duration::from_secs(120);

/// Age of the last reading at which an announcement is withdrawn: the leader has not answered since.
pub const READING_AGE_MAX: Duration = Duration::from_secs(60);

/// Deviation of a reading from the announcement that changes the announcement, in addition to a tenth
/// of the announced difference and the error of the reading.
const TOLERANCE: Duration = Duration::from_secs(1);

/// One comparison of the two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Time by which this clock is ahead of the leader's, in milliseconds; negative if behind.
    pub ahead_ms: i64,
    /// Largest error of `ahead_ms`, in milliseconds.
    pub error_ms: i64,
}

impl ClockReading {
    /// Compares `own`, this clock when the response arrived, with `leader`, the time in the response.
    pub fn new(own: Timestamp, leader: Timestamp, round_trip: Duration) -> Self {
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let of = |time: Timestamp| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        // Both times and half of the round trip are rounded down, by less than a millisecond each.
        let error_ms = half.saturating_add(2);
        Self { ahead_ms: of(own).saturating_sub(of(leader)).saturating_sub(half), error_ms }
    }

    /// Returns true if the difference is certainly above `limit`.
    fn is_above(self, limit: Duration) -> bool {
        self.size().saturating_sub(self.error_ms) > millis(limit)
    }

    /// Returns true if the difference is certainly below `limit`.
    fn is_below(self, limit: Duration) -> bool {
        self.size().saturating_add(self.error_ms) < millis(limit)
    }

    fn size(self) -> i64 {
        self.ahead_ms.saturating_abs()
    }

    /// Returns true if the announcement `ahead_ms` certainly says something else.
    fn contradicts(self, ahead_ms: i64) -> bool {
        let tolerated = millis(TOLERANCE).saturating_add(ahead_ms.saturating_abs() / 10);
        self.ahead_ms.saturating_sub(ahead_ms).saturating_abs() > tolerated.saturating_add(self.error_ms)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Decides which difference a process announces.
#[derive(Debug, Clone, Default)]
pub struct ClockDifference {
    announced: Option<i64>,
    read_at: Option<Monotonic>,
    /// Times of the changes within the window, at most [`CHANGES_MAX`].
    changes: VecDeque<Monotonic>,
}

impl ClockDifference {
    /// Takes a comparison, or `None` if there was no response. Returns the difference to announce, in
    /// milliseconds, if there is one.
    pub fn observe(&mut self, reading: Option<ClockReading>, now: Monotonic) -> Option<i64> {
        if reading.is_some() {
            self.read_at = Some(now);
        }
        let next = match reading {
            Some(reading) => next(self.announced, reading),
            None => self.announced.filter(|_| self.read_at.is_some_and(|at| now.since(at) < READING_AGE_MAX)),
        };
        if next != self.announced && self.may_change(now) {
            self.changes.push_back(now);
            self.announced = next;
        }
        self.announced
    }

    fn may_change(&mut self, now: Monotonic) -> bool {
        while self.changes.front().is_some_and(|at| now.since(*at) >= CHANGES_WINDOW) {
            self.changes.pop_front();
        }
        self.changes.len() < CHANGES_MAX
    }
}

/// Returns the announcement after a reading, if it may change.
fn next(announced: Option<i64>, reading: ClockReading) -> Option<i64> {
    let certain = || reading.is_above(DIFFERENCE_MAX).then_some(reading.ahead_ms);
    match announced {
        None => certain(),
        Some(_) if reading.is_below(WITHDRAWN_BELOW) => None,
        Some(before) if reading.contradicts(before) => certain(),
        Some(before) => Some(before),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_secs(secs))
    }

    fn reading(ahead_ms: i64, error_ms: i64) -> Option<ClockReading> {
        Some(ClockReading { ahead_ms, error_ms })
    }

    #[test]
    fn half_of_the_round_trip_is_the_error() {
        let (own, leader) = (Timestamp::from_millis(10_000), Timestamp::from_millis(4_000));
        let read = ClockReading::new(own, leader, Duration::from_millis(500));
        assert_eq!(read, ClockReading { ahead_ms: 5_750, error_ms: 252 });
        let read = ClockReading::new(leader, own, Duration::ZERO);
        assert_eq!(read, ClockReading { ahead_ms: -6_000, error_ms: 2 });
    }

    #[test]
    fn difference_is_announced_only_if_it_is_certain() {
        for (ahead_ms, error_ms, announced) in [
            (2_000, 0, None),
            (2_001, 0, Some(2_001)),
            (-2_001, 0, Some(-2_001)),
            (2_900, 900, None),
            (2_901, 900, Some(2_901)),
            (-60_000, 59_000, None),
        ] {
            let mut difference = ClockDifference::default();
            assert_eq!(difference.observe(reading(ahead_ms, error_ms), at(0)), announced, "{ahead_ms}");
        }
    }

    #[test]
    fn announcement_is_withdrawn_below_the_lower_limit_and_follows_a_large_change() {
        let mut difference = ClockDifference::default();
        let mut observe =
            |ahead_ms, error_ms, secs| difference.observe(reading(ahead_ms, error_ms), at(secs));
        assert_eq!(observe(2_500, 10, 0), Some(2_500));
        assert_eq!(observe(1_900, 10, 5), Some(2_500), "within the gap of both limits");
        assert_eq!(observe(0, 5_000, 10), Some(2_500), "the reading says nothing");
        assert_eq!(observe(1_400, 10, 15), None);
        assert_eq!(observe(10_000, 10, 20), Some(10_000));
        assert_eq!(observe(11_500, 10, 25), Some(10_000), "a tenth and a second are tolerated");
        assert_eq!(observe(-10_000, 10, 200), Some(-10_000));
        assert_eq!(observe(1_900, 10, 205), None, "the other direction, and no certain difference");
    }

    #[test]
    fn announcement_is_withdrawn_when_the_leader_does_not_answer_for_a_minute() {
        let mut difference = ClockDifference::default();
        assert_eq!(difference.observe(None, at(0)), None);
        assert_eq!(difference.observe(reading(-3_000, 10), at(5)), Some(-3_000));
        assert_eq!(difference.observe(None, at(64)), Some(-3_000));
        assert_eq!(difference.observe(None, at(65)), None);
    }

    proptest! {
        /// Readings whose true difference lies within their error.
        #[test]
        fn a_clock_within_the_limit_is_never_announced(
            readings in proptest::collection::vec((-2_000_i64..=2_000, 0_i64..5_000, -100_i64..=100), 1..60),
        ) {
            let mut difference = ClockDifference::default();
            for (n, (truth, error_ms, percent)) in readings.into_iter().enumerate() {
                let ahead_ms = truth + error_ms * percent / 100;
                let announced = difference.observe(reading(ahead_ms, error_ms), at(5 * n as u64));
                prop_assert_eq!(announced, None);
            }
        }

        #[test]
        fn changes_are_bounded_whatever_the_clock_does(
            readings in proptest::collection::vec((-20_000_i64..20_000, 0_i64..3_000, 0_u64..20), 1..200),
        ) {
            let (mut difference, mut now) = (ClockDifference::default(), 0);
            let (mut before, mut changed): (_, Vec<u64>) = (None, Vec::new());
            for (ahead_ms, error_ms, pause) in readings {
                now += pause;
                let announced = difference.observe(reading(ahead_ms, error_ms), at(now));
                if announced != before {
                    changed.push(now);
                }
                before = announced;
            }
            for window in changed.windows(CHANGES_MAX + 1) {
                prop_assert!(window[CHANGES_MAX] - window[0] >= CHANGES_WINDOW.as_secs(), "{:?}", window);
            }
        }

        /// After the clock was set right or wrong, the announcement says so once it may change.
        #[test]
        fn announcement_settles_on_the_truth(
            before in proptest::collection::vec((-20_000_i64..20_000, 0_i64..3_000), 0..40),
            truth in prop_oneof![-20_000_i64..-2_200, -1_300_i64..1_300, 2_200_i64..20_000],
        ) {
            let mut difference = ClockDifference::default();
            for (n, (ahead_ms, error_ms)) in before.iter().enumerate() {
                difference.observe(reading(*ahead_ms, *error_ms), at(5 * n as u64));
            }
            let later = 5 * before.len() as u64 + CHANGES_WINDOW.as_secs();
            match difference.observe(reading(truth, 100), at(later)) {
                None => prop_assert!(truth.abs() < 2_000),
                Some(announced) => {
                    prop_assert!(truth.abs() > 2_000, "{} is announced", announced);
                    prop_assert!((announced - truth).abs() <= 1_100 + announced.abs() / 10);
                }
            }
        }
    }
}
