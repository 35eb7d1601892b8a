//! Time as a value that is passed in, so that tests can turn it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::model::Timestamp;

/// A reading of a clock that only goes forward; it means something only against another
/// reading of the same [`Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This reading plus `after`.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }
}

/// The real clock, or one that a test turns by hand. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real { start: tokio::time::Instant },
    // Guards the two hands of the test clock; held for a few instructions.
    Manual(Arc<Mutex<(Timestamp, Duration)>>),
}

impl Clock {
    /// The machine's clock. Its monotonic side follows tokio's, so a paused runtime
    /// pauses it as well.
    #[expect(clippy::new_without_default, reason = "reading the time is not a default value")]
    pub fn new() -> Self {
        Self(Source::Real { start: tokio::time::Instant::now() })
    }

    /// A clock that stands at `at` until it is turned.
    pub fn manual(at: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new((at, Duration::ZERO)))))
    }

    /// Turns a manual clock forward.
    ///
    /// # Panics
    /// When the clock is the real one, which no one turns.
    pub fn turn(&self, by: Duration) {
        let Source::Manual(hands) = &self.0 else { panic!("only a manual clock can be turned") };
        let mut hands = hands.lock().expect("no one panics while holding the hands of a clock");
        hands.0 = hands.0.plus(by);
        hands.1 += by;
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Real { .. } => wall_clock(),
            Source::Manual(hands) => {
                hands.lock().expect("no one panics while holding the hands of a clock").0
            }
        }
    }

    /// The monotonic time.
    pub fn monotonic(&self) -> Monotonic {
        match &self.0 {
            Source::Real { start } => Monotonic(start.elapsed()),
            Source::Manual(hands) => {
                Monotonic(hands.lock().expect("no one panics while holding the hands of a clock").1)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall_clock() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    // A machine whose clock stands before 1970 reads as the epoch itself.
    Timestamp::from_millis(since_epoch.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}
