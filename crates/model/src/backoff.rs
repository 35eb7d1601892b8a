//! Exponential backoff with jitter.

use std::time::Duration;

/// Bounds of the delays of a [`Backoff`], checked when a constant of them is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    min: Duration,
    max: Duration,
}

impl Delays {
    /// Delays that begin at `min` and grow to `max`.
    ///
    /// # Panics
    /// If `min` is zero or above `max`. In a constant this is an error of the compiler.
    pub const fn between(min: Duration, max: Duration) -> Self {
        assert!(!min.is_zero(), "the smallest delay must be above zero");
        assert!(min.as_nanos() <= max.as_nanos(), "the smallest delay must be at most the largest");
        Self { min, max }
    }

    /// Returns a backoff with these delays and random jitter.
    pub fn backoff(self) -> Backoff {
        self.backoff_with(fastrand::Rng::new())
    }

    /// Returns a backoff with these delays that takes its jitter from `random`.
    pub fn backoff_with(self, random: fastrand::Rng) -> Backoff {
        Backoff { delays: self, next: self.min, random }
    }
}

/// Delays that double from a minimum to a maximum. Each delay is shortened at random by up to half,
/// so that many clients of one restarted server do not reconnect at the same instant.
#[derive(Debug, Clone)]
pub struct Backoff {
    delays: Delays,
    next: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Returns the delay before the next try. Each call doubles the delay, up to the maximum.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.delays.max);
        full.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// Resets the delay to the minimum, after a success.
    pub fn reset(&mut self) {
        self.next = self.delays.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_reset_to_the_minimum() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Delays::between(min, max).backoff_with(fastrand::Rng::with_seed(7));
        let delays: Vec<Duration> = (0..8).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= min && delays[0] >= min / 2);
        assert!(delays[7] <= max && delays[7] >= max / 2);
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }

    #[test]
    #[should_panic(expected = "above zero")]
    fn zero_delay_is_rejected() {
        Delays::between(Duration::ZERO, Duration::from_secs(1));
    }

    #[test]
    #[should_panic(expected = "at most the largest")]
    fn bounds_out_of_order_are_rejected() {
        Delays::between(Duration::from_secs(2), Duration::from_secs(1));
    }
}
