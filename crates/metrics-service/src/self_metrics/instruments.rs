//! Instruments of a nimbus.

use stormkeeper_metrics::{
    Control, MetricName, Registry, Subject,
    builtin::{self, Builtin},
    instrument::{Counter, Gauge, Histogram, Meter},
    name::NIMBUS,
};
use stormkeeper_model::{
    TopologyId,
    clock::{Clock, Monotonic},
};

/// Instruments of a nimbus.
#[derive(Debug)]
pub(crate) struct NimbusInstruments {
    pub(super) registry: Registry,
    ingest: IngestInstruments,
    pub(super) dropped: Counter,
    points_rejected: Counter,
    pub(super) cpu: Gauge,
    pub(super) memory: Gauge,
    pub(super) files: Gauge,
    pub(super) store_bytes: Gauge,
    pub(super) store_queue: Gauge,
    pub(super) export_queue: Gauge,
    pub(super) view_age: Gauge,
    requests: Histogram,
    refused: Counter,
    decisions: Histogram,
}

/// Instruments that the ingest updates. Clones share the same values.
#[derive(Debug, Clone)]
pub(crate) struct IngestInstruments {
    pub(crate) points: Meter,
    pub(crate) batches: Meter,
    pub(crate) rejected: Counter,
    pub(crate) registered: Counter,
}

/// Measures the time of one request or decision; records it when dropped, also if that ended early.
#[derive(Debug)]
pub struct Stopwatch {
    started: Monotonic,
    clock: Clock,
    times: Histogram,
}

impl Stopwatch {
    fn start(clock: &Clock, times: &Histogram) -> Self {
        Self { started: clock.monotonic(), clock: clock.clone(), times: times.clone() }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let took = self.clock.monotonic().since(self.started);
        self.times.update(took.as_secs_f64() * 1e6);
    }
}

/// Returns the topology id of self metrics.
pub(super) fn topology() -> TopologyId {
    NIMBUS.parse().expect("a fixed id is valid")
}

impl NimbusInstruments {
    /// Creates the instruments of the nimbus at `api` on `host`.
    pub(crate) fn new(host: &str, api: &str, now: Monotonic) -> Self {
        let port = api.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
        let name = |metric: &Builtin| -> MetricName {
            let of = |host: &str| metric.of(topology(), Subject::Nimbus { host: host.to_owned(), port });
            // A configured host may contain characters that a metric name must not contain.
            of(host).or_else(|_| of("unnamed")).expect("fixed parts make a name")
        };
        let registry = Registry::new(Control::default(), now);
        Self {
            ingest: IngestInstruments {
                points: registry.meter(name(&builtin::NIMBUS_INGEST_POINTS)),
                batches: registry.meter(name(&builtin::NIMBUS_INGEST_BATCHES)),
                rejected: registry.counter(name(&builtin::NIMBUS_INGEST_REJECTED)),
                registered: registry.counter(name(&builtin::NIMBUS_REGISTERED)),
            },
            dropped: registry.counter(name(&builtin::NIMBUS_EXPORT_DROPPED)),
            points_rejected: registry.counter(name(&builtin::NIMBUS_EXPORT_REJECTED)),
            cpu: registry.gauge(name(&builtin::NIMBUS_CPU_USED_RATIO)),
            memory: registry.gauge(name(&builtin::NIMBUS_MEMORY_USED)),
            files: registry.gauge(name(&builtin::NIMBUS_OPEN_FILES)),
            store_bytes: registry.gauge(name(&builtin::NIMBUS_METRIC_STORE_BYTES)),
            store_queue: registry.gauge(name(&builtin::NIMBUS_METRIC_STORE_QUEUE)),
            export_queue: registry.gauge(name(&builtin::NIMBUS_EXPORT_QUEUE)),
            requests: registry.histogram(name(&builtin::NIMBUS_REQUEST_TIME)),
            refused: registry.counter(name(&builtin::NIMBUS_REFUSED_REQUESTS)),
            decisions: registry.histogram(name(&builtin::NIMBUS_DECISION_TIME)),
            view_age: registry.gauge(name(&builtin::NIMBUS_VIEW_AGE)),
            registry,
        }
    }

    /// Starts to measure the time of a request.
    pub(crate) fn time_request(&self, clock: &Clock) -> Stopwatch {
        Stopwatch::start(clock, &self.requests)
    }

    /// Starts to measure the time of a decision.
    pub(crate) fn time_decision(&self, clock: &Clock) -> Stopwatch {
        Stopwatch::start(clock, &self.decisions)
    }

    /// Counts a refused request.
    pub(crate) fn count_refused_request(&self) {
        self.refused.increment();
    }

    /// Returns the counter of points that external stores reject for good.
    pub(crate) fn of_export(&self) -> Counter {
        self.points_rejected.clone()
    }

    /// Returns the instruments that the ingest updates.
    pub(crate) fn of_ingest(&self) -> IngestInstruments {
        self.ingest.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stormkeeper_model::Timestamp;

    use super::*;

    #[test]
    fn refused_requests_are_counted() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let instruments = NimbusInstruments::new("h", "h:8080", clock.monotonic());
        for _ in 0..3 {
            instruments.count_refused_request();
        }
        assert_eq!(instruments.refused.read(), 3);
    }

    #[test]
    fn requests_and_decisions_are_timed_apart_until_their_stopwatch_is_dropped() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let instruments = NimbusInstruments::new("h", "h:8080", clock.monotonic());
        for millis in [2, 5] {
            let stopwatch = instruments.time_request(&clock);
            clock.advance(Duration::from_millis(millis));
            drop(stopwatch);
        }
        let stopwatch = instruments.time_decision(&clock);
        clock.advance(Duration::from_millis(9));
        drop(stopwatch);
        let times = [instruments.requests.take(), instruments.decisions.take()];
        assert_eq!(times.map(|times| (times.count, times.sum)), [(2, 7000.0), (1, 9000.0)]);
    }
}
