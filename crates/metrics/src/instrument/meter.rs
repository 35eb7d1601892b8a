//! Event rate per second: an exact count, and exponentially decaying averages.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Counter;
use stormkeeper_model::clock::Monotonic;

/// Shortest tick. Counts of a shorter interval wait for the next tick, so that a burst does not
/// count as a rate.
const TICK: Duration = Duration::from_secs(5);

/// Rates below one event per day are shown as 0.
const LEAST: f64 = 1.0 / 86_400.0;

/// Events per second, averaged over about one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Average over about one minute.
    pub m1: f64,
    /// Average over about five minutes.
    pub m5: f64,
    /// Average over about fifteen minutes.
    pub m15: f64,
}

/// Counts events and computes their rates.
#[derive(Debug, Clone)]
pub struct Meter {
    count: Counter,
    // Guards the averages; held for a few instructions, and never by the counting threads.
    averages: Arc<Mutex<Averages>>,
}

#[derive(Debug)]
struct Averages {
    since: Monotonic,
    count: u64,
    rates: Option<Rates>,
}

impl Meter {
    /// A meter that measures from `now` on.
    pub fn new(now: Monotonic) -> Self {
        Self::switched(true, now)
    }

    pub(crate) fn switched(on: bool, now: Monotonic) -> Self {
        let averages = Averages { since: now, count: 0, rates: None };
        Self { count: Counter::switched(on), averages: Arc::new(Mutex::new(averages)) }
    }

    /// Counts one event.
    #[inline]
    pub fn mark(&self) {
        self.count.increment();
    }

    /// Counts `n` events.
    #[inline]
    pub fn mark_many(&self, n: u64) {
        self.count.add(n);
    }

    /// Number of events since the meter was created.
    pub fn read(&self) -> u64 {
        self.count.read()
    }

    /// Returns the averages at `now`. Events since the last tick are spread evenly over the ticks
    /// that passed, each with the weight `1 - exp(-5 / 60 / minutes)`; no tick is shorter than
    /// five seconds.
    pub fn rates(&self, now: Monotonic) -> Rates {
        let mut averages = self.averages.lock().unwrap_or_else(PoisonError::into_inner);
        averages.tick(now, self.count.read());
        let shown = |rate: f64| if rate < LEAST { 0.0 } else { rate };
        let rates = averages.rates.unwrap_or_default();
        Rates { m1: shown(rates.m1), m5: shown(rates.m5), m15: shown(rates.m15) }
    }

    pub(crate) fn switch(&self, on: bool) {
        self.count.switch(on);
    }
}

impl Averages {
    fn tick(&mut self, now: Monotonic, count: u64) {
        let passed = now.since(self.since);
        if passed < TICK {
            return;
        }
        let per_second = count.wrapping_sub(self.count) as f64 / passed.as_secs_f64();
        // n ticks at one rate with the weight a each equal one tick with 1 - (1 - a)^n.
        let toward = |old: f64, minutes: f64| {
            let kept = (-passed.as_secs_f64() / 60.0 / minutes).exp();
            old * kept + per_second * (1.0 - kept)
        };
        self.rates = Some(match self.rates {
            None => Rates { m1: per_second, m5: per_second, m15: per_second },
            Some(old) => {
                Rates { m1: toward(old.m1, 1.0), m5: toward(old.m5, 5.0), m15: toward(old.m15, 15.0) }
            }
        });
        (self.since, self.count) = (now, count);
    }
}
