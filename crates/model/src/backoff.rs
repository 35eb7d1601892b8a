//! Exponential backoff with jitter.

use std::time::Duration;

/// Delays that double from `min` to `max`. Each delay is shortened at random by up to half, so
/// that many clients of one restarted server do not reconnect at the same instant.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: fastrand::Rng,
}

/// Bounds that do not form a backoff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid backoff from {min:?} to {max:?}: the minimum must be above zero and at most the maximum")]
pub struct InvalidBackoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Creates a backoff from `min` to `max` that takes its jitter from `random`.
    ///
    /// # Errors
    /// [`InvalidBackoff`] when `min` is zero or above `max`.
    pub fn new(min: Duration, max: Duration, random: fastrand::Rng) -> Result<Self, InvalidBackoff> {
        if min.is_zero() || min > max {
            return Err(InvalidBackoff { min, max });
        }
        Ok(Self { min, max, next: min, random })
    }

    /// Returns the delay before the next try. Each call doubles the delay, up to the maximum.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.max);
        full.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// Resets the delay to the minimum, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_reset_to_the_minimum() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max, fastrand::Rng::with_seed(7)).expect("valid");
        let delays: Vec<Duration> = (0..8).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= min && delays[0] >= min / 2);
        assert!(delays[7] <= max && delays[7] >= max / 2);
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }

    #[test]
    fn invalid_bounds_are_rejected() {
        let secs = Duration::from_secs;
        assert!(Backoff::new(Duration::ZERO, secs(1), fastrand::Rng::with_seed(1)).is_err());
        assert!(Backoff::new(secs(2), secs(1), fastrand::Rng::with_seed(1)).is_err());
    }
}
