//! What the transport measures: of the worker, and of each connection unless there are too many.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{
    peer::Address,
    wire::{Addressed, Stamp},
};
use crate::{
    clock::Monotonic,
    metrics::{
        MetricName, Registry, builtin,
        instrument::{Histogram, Meter},
    },
    model::ComponentId,
    worker::metrics::Metrics,
};

/// The instruments of a worker's transport.
#[derive(Debug)]
pub(in crate::worker) struct Measures {
    pub(super) metrics: Metrics,
    send_speed: Meter,
    batch_size: Histogram,
    receive_speed: Meter,
    transmit_time: Histogram,
    decode_time: Histogram,
    each_connection: bool,
}

/// The instruments of one connection; released when it is gone.
#[derive(Debug)]
pub(super) struct Connection {
    registry: Registry,
    names: Vec<MetricName>,
    send_time: Histogram,
}

impl Measures {
    /// Of this worker; of each connection as well when that is wanted.
    pub(in crate::worker) fn new(metrics: &Metrics, each_connection: bool) -> Self {
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
            each_connection,
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

    /// Of the connection to a component at a peer, whose queue is `queue`.
    pub(super) fn connection(
        &self,
        address: &Address,
        component: &ComponentId,
        queue: &mpsc::Sender<Addressed>,
    ) -> Option<Connection> {
        if !self.each_connection {
            return None;
        }
        let which = format!("{}:{}-{component}", address.host, address.slot.port);
        let subject = self.metrics.connection();
        let pending = self.metrics.name_of_one(&builtin::NETTY_CLI_SEND_PENDING, &subject, &which);
        let send_time = self.metrics.name_of_one(&builtin::NETTY_CLI_SEND_TIME, &subject, &which);
        let registry = self.metrics.registry().clone();
        let queue = queue.downgrade();
        let n_pending = move || queue.upgrade().map(|queue| (queue.max_capacity() - queue.capacity()) as f64);
        // A worker that is full of metrics does without; the refusal is counted.
        let _full = registry.gauge_asking(pending.clone(), n_pending);
        let histogram = registry.histogram(send_time.clone());
        Some(Connection { registry, names: vec![pending, send_time], send_time: histogram })
    }
}

impl Connection {
    /// One frame was handed to the kernel.
    pub(super) fn sent(&self, took: Duration) {
        self.send_time.update(micros(took));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for name in &self.names {
            self.registry.release(name);
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
