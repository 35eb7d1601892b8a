//! Metrics of a worker without components, for simulated clusters: the instruments, the spool, the
//! reporter and the topology master of a real worker.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use super::master_link::{MasterAddress, MasterEnd, MasterLink};
use super::{Metrics, TaskMetrics, WorkerMetrics, control, reporter::MasterLocation};
use crate::{Options, settings::MetricSettings, transport::Identity};
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_model::{
    ComponentId, StreamId, TaskId, assignment::Assignment, clock::Clock, metric_control::MetricControl,
    topology::Topology,
};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_stream::{Origin, Tuple};

/// Metrics of a fake worker.
#[derive(Debug)]
pub struct FakeWorkerMetrics(WorkerMetrics);

/// Metrics of one task of a fake worker.
#[derive(Debug)]
pub struct FakeTaskMetrics {
    metrics: TaskMetrics,
    clock: Clock,
}

/// The topology master of a fake worker, if the worker is the master at the moment.
#[derive(Debug, Clone)]
pub struct MasterPort(watch::Receiver<MasterLocation>);

impl MasterPort {
    /// Connects `end` to the master. Returns whether this worker is the master and accepts it.
    pub fn connect(&self, end: MasterEnd) -> bool {
        match &*self.0.borrow() {
            MasterLocation::Local(handle) => handle.connect(end.0),
            MasterLocation::Remote { .. } | MasterLocation::Unknown => false,
        }
    }
}

impl FakeWorkerMetrics {
    /// Starts the metrics as a real worker does, with the spool in the worker's directory. Batches
    /// go to the leader by `transport`, reports to the topology master by `link`. Blocks.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn start(
        options: &Options,
        topology: &Topology,
        connections: (Arc<dyn IngestTransport>, Arc<dyn MasterLink>),
        clock: &Clock,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let settings = MetricSettings::of(topology, options);
        let metrics = Metrics::start(options, control::with_changes(&settings.control, None), clock)?;
        let me = Identity { topology: options.spec.topology.clone(), slot: options.spec.slot.clone() };
        let started = WorkerMetrics::start(metrics, settings, options, &me, connections, tasks);
        started.map(Self).map_err(io::Error::other)
    }

    /// Follows the assignment, which determines the topology master.
    pub fn follow(&mut self, assignment: &Assignment, changes: Option<&MetricControl>) {
        self.0.follow(assignment, changes);
    }

    /// Returns the place at which other workers find the topology master.
    pub fn master(&self) -> MasterPort {
        MasterPort(self.0.master())
    }

    /// Creates the metrics of a task.
    pub fn task(&self, component: ComponentId, task: TaskId) -> FakeTaskMetrics {
        let metrics = self.0.metrics();
        FakeTaskMetrics {
            clock: metrics.clock().clone(),
            metrics: TaskMetrics::new(metrics, component, task),
        }
    }

    /// Stops reporting, with a last report.
    pub async fn stop(self, patience: Duration) {
        self.0.stop(patience).await;
    }
}

impl FakeTaskMetrics {
    /// Counts `n` emits to `stream`, as a task loop does for the messages of one read.
    pub fn emit(&mut self, stream: &StreamId, n: u64) {
        for _ in 0..n {
            let index = self.metrics.emitted(stream);
            self.metrics.transferred(index);
        }
        self.metrics.settle();
    }

    /// Counts `n` tuples from `component` as executed and acked.
    pub fn execute(&mut self, origin: &Arc<Origin>, n: u64) {
        let now = self.clock.monotonic();
        for _ in 0..n {
            let source = self.metrics.executed(&Tuple::new(Arc::clone(origin), Vec::new()), now);
            self.metrics.acked(source, now, now);
        }
        self.metrics.bolt_messages_handled(now);
        self.metrics.settle();
    }
}
