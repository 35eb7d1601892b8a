//! Metrics of the transport: of the worker as a whole, and of each connection if enabled.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{peer::Address, wire::Stamp};
use crate::metrics::Metrics;
use crate::queue::{Inlet, QueueGauge};
use stormkeeper_metrics::{
    Builtin, MetricName, builtin,
    instrument::{Histogram, Meter},
};
use stormkeeper_model::{ComponentId, clock::Monotonic};

/// Instruments of a worker's transport.
#[derive(Debug)]
pub(crate) struct TransportMetrics {
    pub(super) metrics: Metrics,
    send_speed: Meter,
    batch_size: Histogram,
    receive_speed: Meter,
    transmit_time: Histogram,
    decode_time: Histogram,
}

/// Metrics enabled for each connection. Disabled metrics are not registered: with many workers,
/// metrics of connections are most of a worker's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionMetricSet {
    send_time: bool,
    pending: bool,
    cache_size: bool,
}

impl ConnectionMetricSet {
    /// Returns the set of the connection metrics that `is_wanted` accepts.
    pub(crate) fn of(is_wanted: impl Fn(&Builtin) -> bool) -> Self {
        Self {
            send_time: is_wanted(&builtin::NETTY_CLI_SEND_TIME),
            pending: is_wanted(&builtin::NETTY_CLI_SEND_PENDING),
            cache_size: is_wanted(&builtin::NETTY_CLI_CACHE_SIZE),
        }
    }
}

/// Metrics of one connection; unregistered when dropped.
pub(super) struct ConnectionMetrics {
    metrics: Metrics,
    /// Part of the metrics' names that identifies the connection.
    which: String,
    queue: QueueGauge,
    /// Size in bytes of the frame that is being written to the kernel.
    writing: Arc<AtomicUsize>,
    // Guards the registered metrics; held once for each frame, and while the set changes.
    registered: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    send_time: Option<(MetricName, Histogram)>,
    pending: Option<MetricName>,
    cache_size: Option<MetricName>,
}

impl TransportMetrics {
    /// Creates the instruments of this worker.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let worker = metrics.worker();
        let meter = |metric| metrics.registry().meter(metrics.name(metric, &worker));
        let histogram = |metric| metrics.registry().histogram(metrics.name(metric, &worker));
        Self {
            send_speed: meter(&builtin::NETTY_CLI_SEND_SPEED),
            batch_size: histogram(&builtin::NETTY_CLI_SEND_BATCH_SIZE),
            receive_speed: meter(&builtin::NETTY_SRV_RECV_SPEED),
            transmit_time: histogram(&builtin::NETTY_SRV_TRANSMIT_TIME),
            decode_time: histogram(&builtin::MSG_DECODE_TIME),
            metrics: metrics.clone(),
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.metrics.clock().monotonic()
    }

    /// Records a frame of `n_bytes` that was written to the kernel.
    pub(super) fn sent(&self, n_bytes: usize) {
        self.send_speed.mark_many(n_bytes as u64);
        self.batch_size.update(n_bytes as f64);
    }

    /// Records a received frame that was decoded since `begun`. Returns the time at which its
    /// oldest tuple was emitted, by our own clock.
    pub(super) fn received(
        &self,
        n_bytes: usize,
        begun: Monotonic,
        stamp: Option<Stamp>,
    ) -> Option<Monotonic> {
        let clock = self.metrics.clock();
        self.receive_speed.mark_many(n_bytes as u64);
        self.decode_time.update(micros(self.now().since(begun)));
        let (stamp, now) = (stamp?, clock.since_epoch());
        // The clocks of two hosts may differ: a negative difference counts as zero.
        self.transmit_time.update(micros(now.saturating_sub(stamp.sent)));
        stamp.emitted.map(|emitted| begun.minus(now.saturating_sub(emitted)))
    }

    /// Creates the metrics of the connection to a component at a peer, with the queue `queue`.
    /// Nothing is registered before [`ConnectionMetrics::apply`].
    pub(super) fn connection(
        &self,
        address: &Address,
        component: &ComponentId,
        queue: &Inlet,
    ) -> ConnectionMetrics {
        ConnectionMetrics {
            metrics: self.metrics.clone(),
            which: format!("{}:{}-{component}", address.host, address.slot.port),
            queue: queue.gauge(),
            writing: Arc::default(),
            registered: Mutex::default(),
        }
    }
}

impl ConnectionMetrics {
    /// Registers the metrics of `metric_set` and unregisters all others.
    pub(super) fn apply(&self, metric_set: ConnectionMetricSet) {
        let registry = self.metrics.registry();
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let Registered { send_time, pending, cache_size } = &mut *registered;
        match (metric_set.send_time, send_time.take()) {
            (true, None) => {
                let name = self.name(&builtin::NETTY_CLI_SEND_TIME);
                *send_time = Some((name.clone(), registry.histogram(name)));
            }
            (true, known) => *send_time = known,
            (false, Some((name, _))) => registry.release(&name),
            (false, None) => {}
        }
        let queue = self.queue.clone();
        let n_pending = move || queue.n_tuples().map(|n| n as f64);
        self.apply_gauge(metric_set.pending, pending, &builtin::NETTY_CLI_SEND_PENDING, n_pending);
        let writing = Arc::clone(&self.writing);
        let n_bytes = move || Some(writing.load(Ordering::Relaxed) as f64);
        self.apply_gauge(metric_set.cache_size, cache_size, &builtin::NETTY_CLI_CACHE_SIZE, n_bytes);
    }

    fn apply_gauge(
        &self,
        is_wanted: bool,
        registered: &mut Option<MetricName>,
        metric: &Builtin,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let registry = self.metrics.registry();
        match (is_wanted, registered.is_some()) {
            (true, false) => {
                let name = self.name(metric);
                // If the registry is full, this gauge is missing; the registry counts the rejection.
                *registered = registry.gauge_fn(name.clone(), read).is_ok().then_some(name);
            }
            (false, true) => {
                if let Some(name) = registered.take() {
                    registry.release(&name);
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    fn name(&self, metric: &Builtin) -> MetricName {
        self.metrics.instance_name(metric, &self.metrics.connection(), &self.which)
    }

    /// Records the start of writing a frame of `n_bytes` to the kernel.
    pub(super) fn write_started(&self, n_bytes: usize) {
        self.writing.store(n_bytes, Ordering::Relaxed);
    }

    /// Records that the frame was completely written.
    pub(super) fn write_finished(&self, took: Duration) {
        self.writing.store(0, Ordering::Relaxed);
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, send_time)) = &registered.send_time {
            send_time.update(micros(took));
        }
    }
}

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics").field("which", &self.which).finish_non_exhaustive()
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.apply(ConnectionMetricSet::default());
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{queue::queue, tests::options, transport::PEER_QUEUE};
    use stormkeeper_metrics::{CollectRequest, Control, Minute, Point};
    use stormkeeper_model::{Port, Slot, TaskId, clock::Clock};
    use stormkeeper_stream::Tuple;

    /// Returns the values of the connection's gauges, and the number of timed frames.
    fn collect(metrics: &Metrics, minute: u32) -> Vec<(String, f64)> {
        let registry = metrics.registry();
        let names = registry.names_since(0).1;
        let request =
            CollectRequest { minute: Minute(minute), now: metrics.clock().monotonic(), with_gauges: true };
        let leaves = registry.collect(request).into_iter();
        let mut values: Vec<(String, f64)> = leaves
            .filter_map(|leaf| {
                let (_, name) = names.iter().find(|(id, _)| *id == leaf.id)?;
                let value = match leaf.point {
                    Point::Gauge(gauge) => gauge.sum,
                    Point::Histogram(histogram) => histogram.count as f64,
                    point => panic!("{name}: {point:?}"),
                };
                Some((name.short_name().to_owned(), value))
            })
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    }

    #[test]
    fn connection_records_only_enabled_metrics_and_unregisters_them_when_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::start(&options(dir.path()), Control::default(), &Clock::new()).expect("begun");
        let component: ComponentId = "count".parse().expect("valid");
        let origin = stormkeeper_stream::Origin {
            component: component.clone(),
            stream: stormkeeper_model::StreamId::default_stream(),
            task: TaskId(1),
        };
        let (queue, _receiver) = queue(PEER_QUEUE);
        let slot = Slot { supervisor: "s".parse().expect("valid"), port: Port(6701) };
        let address = Address { slot, host: "h".to_owned() };
        let connection = TransportMetrics::new(&metrics).connection(&address, &component, &queue);
        let tuple = Tuple::new(Arc::new(origin), Vec::new());
        queue.lane().push_tuple(&[TaskId(2)], &tuple).expect("there is room");
        let frame = |n| {
            connection.write_started(n);
            connection.write_finished(Duration::from_micros(5));
        };
        let expect = |minute, expected: &[(&str, f64)]| {
            let found = collect(&metrics, minute);
            let found: Vec<(&str, f64)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
            assert_eq!(found, expected, "in minute {minute}");
        };
        frame(10);
        expect(1, &[]);
        connection.apply(ConnectionMetricSet::of(|metric| metric.name == "NettyCliSendTime"));
        frame(10);
        expect(2, &[("NettyCliSendTime", 1.0)]);
        let all = ConnectionMetricSet::of(|_| true);
        connection.apply(all);
        connection.apply(all);
        frame(10);
        connection.write_started(70);
        expect(3, &[("NettyCliCacheSize", 70.0), ("NettyCliSendPending", 1.0), ("NettyCliSendTime", 1.0)]);
        connection.apply(ConnectionMetricSet::default());
        // The last values are collected once more, and then the metric is removed.
        drop(collect(&metrics, 4));
        frame(10);
        expect(5, &[]);
        connection.apply(all);
        connection.write_finished(Duration::ZERO);
        expect(6, &[("NettyCliCacheSize", 0.0), ("NettyCliSendPending", 1.0), ("NettyCliSendTime", 1.0)]);
        drop(connection);
        drop(collect(&metrics, 7));
        expect(8, &[]);
        assert!(metrics.registry().names_since(0).1.iter().all(|(_, name)| !name.name().contains("h:6701")));
    }
}
