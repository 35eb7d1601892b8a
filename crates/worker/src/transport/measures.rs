//! What the transport measures: of the worker, and of each connection as far as that is wanted.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    peer::Address,
    wire::{Addressed, Stamp},
};
use crate::metrics::Metrics;
use stormkeeper_metrics::{
    Builtin, MetricName, builtin,
    instrument::{Histogram, Meter},
};
use stormkeeper_model::{ComponentId, clock::Monotonic};

/// The instruments of a worker's transport.
#[derive(Debug)]
pub(crate) struct Measures {
    pub(super) metrics: Metrics,
    send_speed: Meter,
    batch_size: Histogram,
    receive_speed: Meter,
    transmit_time: Histogram,
    decode_time: Histogram,
}

/// What is measured of each connection. Beyond what is wanted nothing is registered: with many
/// workers connections are most of what a worker could measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    send_time: bool,
    pending: bool,
    cache_size: bool,
}

impl Wanted {
    /// What `is_wanted` says of each metric of connections.
    pub(crate) fn of(is_wanted: impl Fn(&Builtin) -> bool) -> Self {
        Self {
            send_time: is_wanted(&builtin::NETTY_CLI_SEND_TIME),
            pending: is_wanted(&builtin::NETTY_CLI_SEND_PENDING),
            cache_size: is_wanted(&builtin::NETTY_CLI_CACHE_SIZE),
        }
    }
}

/// What is measured of one connection; released when it is gone.
pub(super) struct Connection {
    metrics: Metrics,
    /// Which it is, as a part of its metrics' names.
    which: String,
    queue: mpsc::WeakSender<Addressed>,
    /// Bytes of the frame that is being handed to the kernel.
    in_hand: Arc<AtomicUsize>,
    // Guards what is registered; taken once for each frame, and when that changes.
    registered: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    send_time: Option<(MetricName, Histogram)>,
    pending: Option<MetricName>,
    cache_size: Option<MetricName>,
}

impl Measures {
    /// Of this worker.
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

    /// A frame of so many bytes was handed to the kernel.
    pub(super) fn sent(&self, n_bytes: usize) {
        self.send_speed.mark_many(n_bytes as u64);
        self.batch_size.update(n_bytes as f64);
    }

    /// A frame has arrived, and was read since `begun`. Answers when the oldest of its tuples was
    /// emitted, by our own clock.
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
        // By two machines' clocks, so what is negative is as good as nothing.
        self.transmit_time.update(micros(now.saturating_sub(stamp.sent)));
        stamp.emitted.map(|emitted| begun.minus(now.saturating_sub(emitted)))
    }

    /// Of the connection to a component at a peer, whose queue is `queue`. Nothing yet: see
    /// [`Connection::follow`].
    pub(super) fn connection(
        &self,
        address: &Address,
        component: &ComponentId,
        queue: &mpsc::Sender<Addressed>,
    ) -> Connection {
        Connection {
            metrics: self.metrics.clone(),
            which: format!("{}:{}-{component}", address.host, address.slot.port),
            queue: queue.downgrade(),
            in_hand: Arc::default(),
            registered: Mutex::default(),
        }
    }
}

impl Connection {
    /// Measures what is wanted from now on, and nothing else.
    pub(super) fn follow(&self, wanted: Wanted) {
        let registry = self.metrics.registry();
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let Registered { send_time, pending, cache_size } = &mut *registered;
        match (wanted.send_time, send_time.take()) {
            (true, None) => {
                let name = self.name(&builtin::NETTY_CLI_SEND_TIME);
                *send_time = Some((name.clone(), registry.histogram(name)));
            }
            (true, known) => *send_time = known,
            (false, Some((name, _))) => registry.release(&name),
            (false, None) => {}
        }
        let queue = self.queue.clone();
        let n_pending = move || queue.upgrade().map(|queue| (queue.max_capacity() - queue.capacity()) as f64);
        self.follow_gauge(wanted.pending, pending, &builtin::NETTY_CLI_SEND_PENDING, n_pending);
        let in_hand = Arc::clone(&self.in_hand);
        let n_bytes = move || Some(in_hand.load(Ordering::Relaxed) as f64);
        self.follow_gauge(wanted.cache_size, cache_size, &builtin::NETTY_CLI_CACHE_SIZE, n_bytes);
    }

    fn follow_gauge(
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
                // A worker that is full of metrics does without; the refusal is counted.
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
        self.metrics.name_of_one(metric, &self.metrics.connection(), &self.which)
    }

    /// A frame of so many bytes is about to be handed to the kernel.
    pub(super) fn begins(&self, n_bytes: usize) {
        self.in_hand.store(n_bytes, Ordering::Relaxed);
    }

    /// That frame was handed to the kernel.
    pub(super) fn sent(&self, took: Duration) {
        self.in_hand.store(0, Ordering::Relaxed);
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, send_time)) = &registered.send_time {
            send_time.update(micros(took));
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("which", &self.which).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.follow(Wanted::default());
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::options;
    use stormkeeper_metrics::{CollectRequest, Control, Minute, Point};
    use stormkeeper_model::{Port, Slot, TaskId, clock::Clock};
    use stormkeeper_stream::Tuple;

    /// The readings of the connection's gauges, and how often frames were timed.
    fn cut(metrics: &Metrics, minute: u32) -> Vec<(String, f64)> {
        let registry = metrics.registry();
        let names = registry.names_since(0).1;
        let request =
            CollectRequest { minute: Minute(minute), now: metrics.clock().monotonic(), with_gauges: true };
        let leaves = registry.collect(request).into_iter();
        let mut cut: Vec<(String, f64)> = leaves
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
        cut.sort_by(|a, b| a.0.cmp(&b.0));
        cut
    }

    #[test]
    fn a_connection_measures_what_is_wanted_of_it_and_nothing_when_it_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::start(&options(dir.path()), Control::default(), &Clock::new()).expect("begun");
        let component: ComponentId = "count".parse().expect("valid");
        let origin = stormkeeper_stream::Origin {
            component: component.clone(),
            stream: stormkeeper_model::StreamId::default_stream(),
            task: TaskId(1),
        };
        let (queue, _receiver) = mpsc::channel(10);
        let slot = Slot { supervisor: "s".parse().expect("valid"), port: Port(6701) };
        let address = Address { slot, host: "h".to_owned() };
        let connection = Measures::new(&metrics).connection(&address, &component, &queue);
        let tuple = Tuple::new(Arc::new(origin), Vec::new());
        queue.try_send(Addressed { task: TaskId(2), tuple }).expect("there is room");
        let frame = |n| {
            connection.begins(n);
            connection.sent(Duration::from_micros(5));
        };
        let expect = |minute, expected: &[(&str, f64)]| {
            let found = cut(&metrics, minute);
            let found: Vec<(&str, f64)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
            assert_eq!(found, expected, "in minute {minute}");
        };
        frame(10);
        expect(1, &[]);
        connection.follow(Wanted::of(|metric| metric.name == "NettyCliSendTime"));
        frame(10);
        expect(2, &[("NettyCliSendTime", 1.0)]);
        let all = Wanted::of(|_| true);
        connection.follow(all);
        connection.follow(all);
        frame(10);
        connection.begins(70);
        expect(3, &[("NettyCliCacheSize", 70.0), ("NettyCliSendPending", 1.0), ("NettyCliSendTime", 1.0)]);
        connection.follow(Wanted::default());
        // What was added is cut once more, and then it is forgotten.
        drop(cut(&metrics, 4));
        frame(10);
        expect(5, &[]);
        connection.follow(all);
        connection.sent(Duration::ZERO);
        expect(6, &[("NettyCliCacheSize", 0.0), ("NettyCliSendPending", 1.0), ("NettyCliSendTime", 1.0)]);
        drop(connection);
        drop(cut(&metrics, 7));
        expect(8, &[]);
        assert!(metrics.registry().names_since(0).1.iter().all(|(_, name)| !name.name().contains("h:6701")));
    }
}
