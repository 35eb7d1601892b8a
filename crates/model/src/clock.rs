//! Time as a value that is passed in, so that tests can control it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::Timestamp;

/// Nanoseconds between two ticks of a clock that is not the host's.
const COARSE_NANOS: u64 = 4_000_000;

/// Reading of a clock that never goes backwards. Readings are comparable only with readings of
/// the same [`Clock`]. In nanoseconds since the clock was created, which is enough for five hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The moment at which a clock was created.
    #[cfg(any(test, feature = "test-support"))]
    pub const START: Self = Self(0);

    /// Returns the time from `earlier` to this reading; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns this reading minus `before`, at least the start of the clock.
    pub fn minus(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(before)))
    }

    /// Returns the nanoseconds since the clock was created.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the reading of which [`as_nanos`](Self::as_nanos) returned `nanos`.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns this reading plus `after`.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(nanos(after)))
    }
}

/// The real clock, or a clock that a test controls. Clones share the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real { start: tokio::time::Instant },
    // The mutex guards the wall-clock time at `start`; held for a few instructions.
    Paced { start: tokio::time::Instant, wall: Arc<Mutex<Timestamp>> },
    // The mutex guards the wall-clock and the monotonic time; held for a few instructions.
    Manual(Arc<Mutex<(Timestamp, Duration)>>),
}

impl Clock {
    /// Creates the host's clock. Its monotonic time follows tokio's, so it stops while the
    /// runtime is paused.
    #[expect(clippy::new_without_default, reason = "reading the time is not a default value")]
    pub fn new() -> Self {
        Self(Source::Real { start: tokio::time::Instant::now() })
    }

    /// Creates a clock that stays at `at` until [`Clock::advance`] advances it.
    pub fn manual(at: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new((at, Duration::ZERO)))))
    }

    /// Creates a clock whose wall-clock time is `at` now and advances with tokio's time, paused
    /// or not.
    pub fn paced(at: Timestamp) -> Self {
        Self(Source::Paced { start: tokio::time::Instant::now(), wall: Arc::new(Mutex::new(at)) })
    }

    /// Sets the wall-clock time of a paced clock, as an operator or a time server does.
    ///
    /// # Panics
    /// If this is not a paced clock.
    pub fn set(&self, to: Timestamp) {
        let Source::Paced { start, wall } = &self.0 else { panic!("only a paced clock can be set") };
        // A clock that is set to a time before its own start shows slightly more than `to`.
        let at_start = to.as_millis().saturating_sub(millis(start.elapsed()));
        *wall.lock().expect("no one panics while holding a clock") = Timestamp::from_millis(at_start);
    }

    /// Advances a manual clock.
    ///
    /// # Panics
    /// If this is not a manual clock.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(times) = &self.0 else { panic!("only a manual clock can be advanced") };
        let mut times = times.lock().expect("no one panics while holding a clock");
        times.0 = times.0.plus(by);
        times.1 += by;
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Real { .. } => wall_clock(),
            Source::Paced { start, wall } => {
                wall.lock().expect("no one panics while holding a clock").plus(start.elapsed())
            }
            Source::Manual(times) => times.lock().expect("no one panics while holding a clock").0,
        }
    }

    /// Returns the wall-clock time since 1970, at the clock's full resolution.
    pub fn since_epoch(&self) -> Duration {
        match &self.0 {
            Source::Real { .. } => since_epoch(),
            Source::Paced { .. } | Source::Manual(_) => Duration::from_millis(self.now().as_millis()),
        }
    }

    /// Returns a number that changes every few milliseconds, and costs a quarter of a reading.
    pub fn coarse_tick(&self) -> u64 {
        match &self.0 {
            Source::Real { .. } => coarse_nanos(),
            Source::Paced { .. } | Source::Manual(_) => self.monotonic().0 / COARSE_NANOS,
        }
    }

    /// Returns the monotonic time.
    pub fn monotonic(&self) -> Monotonic {
        match &self.0 {
            Source::Real { start } | Source::Paced { start, .. } => Monotonic(nanos(start.elapsed())),
            Source::Manual(times) => {
                Monotonic(nanos(times.lock().expect("no one panics while holding a clock").1))
            }
        }
    }
}

fn coarse_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Never negative, and wrapping would only make the number of a tick another one.
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}

fn wall_clock() -> Timestamp {
    Timestamp::from_millis(millis(since_epoch()))
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn since_epoch() -> Duration {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    // A host whose clock is before 1970 reads as the epoch itself.
    since_epoch.unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paced_clock_follows_paused_time_and_can_be_set() {
        let at = Timestamp::from_millis(1_000_000);
        let clock = Clock::paced(at);
        let (start, pause) = (clock.monotonic(), Duration::from_secs(7));
        tokio::time::sleep(pause).await;
        assert_eq!(clock.now(), at.plus(pause));
        clock.set(Timestamp::from_millis(500_000));
        tokio::time::sleep(pause).await;
        assert_eq!(clock.now(), Timestamp::from_millis(507_000));
        assert_eq!(clock.monotonic().since(start), 2 * pause, "set() changed the monotonic time");
    }
}
