//! Instruments of a nimbus.

use stormkeeper_metrics::{
    Control, MetricName, Registry, Subject,
    builtin::{self, Builtin},
    instrument::{Counter, Gauge, Meter},
    name::NIMBUS,
};
use stormkeeper_model::{TopologyId, clock::Monotonic};

/// Instruments of a nimbus.
#[derive(Debug)]
pub(crate) struct NimbusInstruments {
    pub(super) registry: Registry,
    ingest: IngestInstruments,
    pub(super) dropped: Counter,
    pub(super) cpu: Gauge,
    pub(super) memory: Gauge,
    pub(super) files: Gauge,
    pub(super) store_bytes: Gauge,
    pub(super) store_queue: Gauge,
    pub(super) upload_queue: Gauge,
    pub(super) view_age: Gauge,
}

/// Instruments that the ingest updates. Clones share the same values.
#[derive(Debug, Clone)]
pub(crate) struct IngestInstruments {
    pub(crate) points: Meter,
    pub(crate) batches: Meter,
    pub(crate) rejected: Counter,
    pub(crate) registered: Counter,
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
            cpu: registry.gauge(name(&builtin::NIMBUS_CPU_USED_RATIO)),
            memory: registry.gauge(name(&builtin::NIMBUS_MEMORY_USED)),
            files: registry.gauge(name(&builtin::NIMBUS_OPEN_FILES)),
            store_bytes: registry.gauge(name(&builtin::NIMBUS_METRIC_STORE_BYTES)),
            store_queue: registry.gauge(name(&builtin::NIMBUS_METRIC_STORE_QUEUE)),
            upload_queue: registry.gauge(name(&builtin::NIMBUS_EXPORT_QUEUE)),
            view_age: registry.gauge(name(&builtin::NIMBUS_VIEW_AGE)),
            registry,
        }
    }

    /// Returns the instruments that the ingest updates.
    pub(crate) fn of_ingest(&self) -> IngestInstruments {
        self.ingest.clone()
    }
}
