//! One registered metric, and the part of it that is already reported.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{CollectRequest, Reading};
use crate::{
    Leaf, MetricId, MetricName, Minute, Point,
    instrument::{Counter, Gauge, Histogram, Meter, Rates, Timer},
    point,
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: MetricName,
    /// Generation of the registration.
    pub(super) generation: u64,
    id: AtomicU64,
    registrations: AtomicUsize,
    // Guards the state; held while this metric is collected.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    instrument: Instrument,
    on: bool,
    /// The count that is already reported, of an instrument that counts.
    reported: u64,
}

#[derive(Debug)]
pub(super) enum Instrument {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
    Timer(Timer),
}

impl Entry {
    pub(super) fn new(name: MetricName, id: MetricId, generation: u64, instrument: Instrument) -> Self {
        Self {
            name,
            generation,
            id: AtomicU64::new(id.0),
            registrations: AtomicUsize::new(1),
            state: Mutex::new(State { instrument, on: true, reported: 0 }),
        }
    }

    pub(super) fn id(&self) -> MetricId {
        MetricId(self.id.load(Ordering::Relaxed))
    }

    pub(super) fn set_id(&self, id: MetricId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    // Registrations are counted under the registry's lock.
    pub(super) fn hold(&self) {
        self.registrations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn release(&self) {
        let left = self.registrations.load(Ordering::Relaxed).saturating_sub(1);
        self.registrations.store(left, Ordering::Relaxed);
    }

    pub(super) fn is_released(&self) -> bool {
        self.registrations.load(Ordering::Relaxed) == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn switch(&self, on: bool) {
        let mut state = self.state();
        state.on = on;
        state.instrument.switch(on);
    }

    /// Returns the reported count of a counter; `None` for other types.
    pub(super) fn reported_total(&self) -> Option<u64> {
        let state = self.state();
        match &state.instrument {
            Instrument::Counter(_) => Some(state.reported),
            Instrument::Gauge(_) | Instrument::Meter(_) | Instrument::Histogram(_) | Instrument::Timer(_) => {
                None
            }
        }
    }

    /// Returns whether something was counted since the last collection.
    pub(super) fn has_more(&self) -> bool {
        let state = self.state();
        match &state.instrument {
            Instrument::Counter(counter) => counter.read() != state.reported,
            Instrument::Meter(meter) => meter.read() != state.reported,
            Instrument::Timer(timer) => timer.read() != state.reported,
            // Histograms of closed connections are not worth another report.
            Instrument::Gauge(_) | Instrument::Histogram(_) => false,
        }
    }

    /// Reads the total of a counter or a histogram; `None` for other types.
    pub(super) fn read(&self) -> Option<Reading> {
        let state = self.state();
        match &state.instrument {
            Instrument::Counter(counter) => Some(Reading::Count(counter.read())),
            Instrument::Histogram(histogram) => Some(Reading::Total(histogram.total())),
            Instrument::Gauge(_) | Instrument::Meter(_) | Instrument::Timer(_) => None,
        }
    }

    pub(super) fn collect(&self, request: CollectRequest) -> Option<Leaf> {
        let state = &mut *self.state();
        let CollectRequest { minute, now, with_gauges } = request;
        let mut total = None;
        let point = match &state.instrument {
            Instrument::Counter(counter) => {
                let count = counter.read();
                let added = count.wrapping_sub(std::mem::replace(&mut state.reported, count));
                total = Some(count);
                (added > 0).then_some(Point::Counter(point::Counter { count: added }))?
            }
            Instrument::Gauge(gauge) => {
                if !with_gauges {
                    return None;
                }
                Point::Gauge(point::Gauge::reading(minute, gauge.read()?)?)
            }
            Instrument::Meter(meter) => {
                let rates = if with_gauges { meter.rates(now) } else { Rates::default() };
                let point = rated(&mut state.reported, meter.read(), minute, rates);
                (point.count > 0 || rates != Rates::default()).then_some(Point::Meter(point))?
            }
            Instrument::Histogram(histogram) => {
                let values = histogram.take();
                (values.count > 0).then_some(Point::Histogram(values))?
            }
            Instrument::Timer(timer) => {
                let rates = if with_gauges { timer.rates(now) } else { Rates::default() };
                let meter = rated(&mut state.reported, timer.read(), minute, rates);
                let histogram = timer.take();
                (meter.count > 0 || histogram.count > 0 || rates != Rates::default())
                    .then_some(Point::Timer(point::Timer { histogram, meter }))?
            }
        };
        Some(Leaf { id: self.id(), point, total })
    }
}

fn rated(reported: &mut u64, count: u64, minute: Minute, rates: Rates) -> point::Meter {
    let added = count.wrapping_sub(std::mem::replace(reported, count));
    point::Meter { count: added, from: minute, at: minute, m1: rates.m1, m5: rates.m5, m15: rates.m15 }
}

macro_rules! instrument {
    ($($method:ident: $kind:ident),*) => {
        impl Entry {
            $(
                pub(super) fn $method(&self) -> Option<$kind> {
                    match &self.state().instrument {
                        Instrument::$kind(instrument) => Some(instrument.clone()),
                        _ => None,
                    }
                }
            )*
        }
    };
}

instrument!(counter: Counter, gauge: Gauge, meter: Meter, histogram: Histogram, timer: Timer);

impl Entry {
    pub(super) fn replace_gauge(&self, gauge: Gauge) {
        let mut state = self.state();
        gauge.switch(state.on);
        state.instrument = Instrument::Gauge(gauge);
    }
}

impl Instrument {
    fn switch(&self, on: bool) {
        match self {
            Self::Counter(counter) => counter.switch(on),
            Self::Gauge(gauge) => gauge.switch(on),
            Self::Meter(meter) => meter.switch(on),
            Self::Histogram(histogram) => histogram.switch(on),
            Self::Timer(timer) => timer.switch(on),
        }
    }
}
