//! Metrics of a worker without components, for simulated clusters: the instruments, the spool, the
//! reporter and the topology master of a real worker.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::sync::watch;

use super::{
    MasterEnd, MasterLink, Metrics, StreamIndex, TaskMetrics, WorkerMetrics, control,
    reporter::MasterLocation,
};
use crate::{Options, settings::MetricSettings, transport::Identity};
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_metrics::{MetricId, MetricName, MetricType, instrument::Counter, name::UDF};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId, assignment::Assignment, clock::Clock, metric_control::MetricControl,
    topology::Topology,
};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_stream::Origin;

/// Short name of the counter of a fake worker itself.
pub const WORKER_COUNTER: &str = "SimulatedTuples";

/// Metrics of a fake worker.
#[derive(Debug)]
pub struct FakeWorkerMetrics(WorkerMetrics);

/// Metrics of one task of a fake worker.
#[derive(Debug)]
pub struct FakeTaskMetrics {
    metrics: TaskMetrics,
    counter_file: PathBuf,
    clock: Clock,
}

/// Counter of a fake worker itself.
#[derive(Debug)]
pub struct FakeWorkerCounter {
    counter: Counter,
    id: MetricId,
    metrics: Metrics,
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

    /// Registers the counter of the worker itself: real workers count on this level in meters only.
    pub fn worker_counter(&self) -> FakeWorkerCounter {
        let metrics = self.0.metrics().clone();
        let (topology, subject) = (metrics.topology().clone(), metrics.worker());
        let name = MetricName::new(topology, MetricType::Counter, subject, UDF, WORKER_COUNTER)
            .expect("hosts of a simulation are valid in names");
        let id = MetricId::of(&name.to_string(), 0);
        FakeWorkerCounter { counter: metrics.registry().counter(name), id, metrics }
    }

    /// Creates the metrics of a task.
    pub fn task(&self, component: ComponentId, task: TaskId) -> FakeTaskMetrics {
        let metrics = self.0.metrics();
        FakeTaskMetrics {
            clock: metrics.clock().clone(),
            counter_file: metrics.dir().join(format!("counters-{task}")),
            metrics: TaskMetrics::new(metrics, component, task),
        }
    }

    /// Stops reporting, with a last report.
    pub async fn stop(self, patience: Duration) {
        self.0.stop(patience).await;
    }
}

impl FakeWorkerCounter {
    /// Counts `n`. Returns the total that is in reports: the rest is lost if the worker dies.
    pub fn count(&self, n: u64) -> u64 {
        self.counter.add(n);
        let totals = self.metrics.registry().collected_totals();
        totals.into_iter().find(|(id, _)| *id == self.id).map_or(0, |(_, total)| total)
    }
}

impl FakeTaskMetrics {
    /// Counts `n` tuples that failed, or were in flight when the component died.
    pub fn fail(&mut self, n: u64) {
        for _ in 0..n {
            self.metrics.failed(StreamIndex::UNKNOWN);
        }
        self.metrics.settle();
    }

    /// Sets the time of the counter file to the worker's clock: the last report of a dead worker
    /// counts for the minute of this file.
    ///
    /// # Errors
    /// If there is no counter file.
    pub fn touch(&self) -> io::Result<()> {
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.now().as_millis());
        File::options().write(true).open(&self.counter_file)?.set_modified(now)
    }

    /// Counts `n` emits to `stream`, as a task loop does for the messages of one read.
    pub fn emit(&mut self, stream: &StreamId, n: u64) {
        for _ in 0..n {
            let index = self.metrics.emitted(stream);
            self.metrics.transferred(index, 1);
        }
        self.metrics.settle();
    }

    /// Counts `n` tuples from `component` as executed and acked.
    pub fn execute(&mut self, origin: &Arc<Origin>, n: u64) {
        let now = self.clock.monotonic();
        for _ in 0..n {
            let source = self.metrics.executed(origin, None, now);
            self.metrics.acked(source, now, now);
        }
        self.metrics.bolt_messages_handled(now);
        self.metrics.settle();
    }
}
