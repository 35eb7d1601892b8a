//! One registered metric, and what of it was cut so far.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::CutRequest;
use crate::metrics::{
    Leaf, MetricId, MetricName, Minute, Point,
    instrument::{Counter, Gauge, Histogram, Meter, Rates, Timer},
    point,
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: MetricName,
    /// When it was registered.
    pub(super) generation: u64,
    id: AtomicU64,
    holders: AtomicUsize,
    // Guards what was cut; held during the cut of this metric.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    instrument: Instrument,
    on: bool,
    /// The count that was cut so far, of what counts.
    cut: u64,
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
            holders: AtomicUsize::new(1),
            state: Mutex::new(State { instrument, on: true, cut: 0 }),
        }
    }

    pub(super) fn id(&self) -> MetricId {
        MetricId(self.id.load(Ordering::Relaxed))
    }

    pub(super) fn set_id(&self, id: MetricId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    // Holders are counted under the registry's lock.
    pub(super) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn release(&self) {
        let left = self.holders.load(Ordering::Relaxed).saturating_sub(1);
        self.holders.store(left, Ordering::Relaxed);
    }

    pub(super) fn is_released(&self) -> bool {
        self.holders.load(Ordering::Relaxed) == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn switch(&self, on: bool) {
        let mut state = self.state();
        state.on = on;
        state.instrument.switch(on);
    }

    /// What was cut of a counter.
    pub(super) fn cut_total(&self) -> Option<u64> {
        let state = self.state();
        match &state.instrument {
            Instrument::Counter(_) => Some(state.cut),
            Instrument::Gauge(_) | Instrument::Meter(_) | Instrument::Histogram(_) | Instrument::Timer(_) => {
                None
            }
        }
    }

    /// Whether something was counted since the last cut.
    pub(super) fn has_more(&self) -> bool {
        let state = self.state();
        match &state.instrument {
            Instrument::Counter(counter) => counter.read() != state.cut,
            Instrument::Meter(meter) => meter.read() != state.cut,
            Instrument::Timer(timer) => timer.read() != state.cut,
            // Closed connections' histograms are not worth another cut.
            Instrument::Gauge(_) | Instrument::Histogram(_) => false,
        }
    }

    pub(super) fn cut(&self, request: CutRequest) -> Option<Leaf> {
        let state = &mut *self.state();
        let CutRequest { minute, now, with_gauges } = request;
        let mut total = None;
        let point = match &state.instrument {
            Instrument::Counter(counter) => {
                let count = counter.read();
                let added = count.wrapping_sub(std::mem::replace(&mut state.cut, count));
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
                let point = rated(&mut state.cut, meter.read(), minute, rates);
                (point.count > 0 || rates != Rates::default()).then_some(Point::Meter(point))?
            }
            Instrument::Histogram(histogram) => {
                let values = histogram.take();
                (values.count > 0).then_some(Point::Histogram(values))?
            }
            Instrument::Timer(timer) => {
                let rates = if with_gauges { timer.rates(now) } else { Rates::default() };
                let meter = rated(&mut state.cut, timer.read(), minute, rates);
                let histogram = timer.take();
                (meter.count > 0 || histogram.count > 0 || rates != Rates::default())
                    .then_some(Point::Timer(point::Timer { histogram, meter }))?
            }
        };
        Some(Leaf { id: self.id(), point, total })
    }
}

fn rated(cut: &mut u64, count: u64, minute: Minute, rates: Rates) -> point::Meter {
    let added = count.wrapping_sub(std::mem::replace(cut, count));
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
