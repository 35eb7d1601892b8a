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
}

/// Instruments that the ingest updates. Clones share the same values.
#[derive(Debug, Clone)]
pub(crate) struct IngestInstruments {
    pub(crate) points: Meter,
    pub(crate) batches: Meter,
    pub(crate) rejected: Counter,
    pub(crate) registered: Counter,
}

/// Measures the time of one request; records it when dropped, also if the client has gone away.
#[derive(Debug)]
pub struct RequestTimer {
    started: Monotonic,
    clock: Clock,
    requests: Histogram,
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        let took = self.clock.monotonic().since(self.started);
        self.requests.update(took.as_secs_f64() * 1e6);
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
            view_age: registry.gauge(name(&builtin::NIMBUS_VIEW_AGE)),
            registry,
        }
    }

    /// Starts to measure the time of a request.
    pub(crate) fn time_request(&self, clock: &Clock) -> RequestTimer {
        let (started, clock, requests) = (clock.monotonic(), clock.clone(), self.requests.clone());
        RequestTimer { started, clock, requests }
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
    fn a_request_is_timed_until_its_timer_is_dropped() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let instruments = NimbusInstruments::new("h", "h:8080", clock.monotonic());
        for millis in [2, 5] {
            let timer = instruments.time_request(&clock);
            clock.advance(Duration::from_millis(millis));
            drop(timer);
        }
        let times = instruments.requests.take();
        assert_eq!((times.count, times.sum), (2, 7000.0));
    }
}
