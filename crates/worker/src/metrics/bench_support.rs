//! Metric calls of two task loops for each tuple, for `benches/tuples.rs`: the same calls in the
//! same order, without components.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use super::{Metrics, TaskMetrics};
use crate::transport::Identity;
use stormkeeper_metrics::Control;
use stormkeeper_model::{ComponentId, TaskId, Timestamp, clock::Clock, topology::Settings};
use stormkeeper_stream::{Origin, Tuple, Value};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Metrics of a worker.
#[derive(Debug)]
pub struct Measuring(Metrics);

/// Metrics of a task that emits.
#[derive(Debug)]
pub struct Emitting {
    metrics: TaskMetrics,
    clock: Clock,
}

/// Metrics of a task that receives.
#[derive(Debug)]
pub struct Receiving {
    metrics: TaskMetrics,
    clock: Clock,
}

impl Measuring {
    /// Starts the metrics as a worker does, with its files in `dir`.
    ///
    /// # Errors
    /// I/O error if `dir` is not writable.
    pub fn start(me: &Identity, dir: PathBuf) -> io::Result<Self> {
        let spec = LaunchSpec {
            topology: me.topology.clone(),
            slot: me.slot.clone(),
            start: Timestamp::EPOCH,
            worker: "bench".parse().map_err(io::Error::other)?,
            host: "127.0.0.1".to_owned(),
            code: dir.clone(),
            dir,
            defaults: Settings::default(),
            heartbeat_period: Duration::from_secs(1),
            task_heartbeat_period: Duration::from_secs(1),
            subprocess_timeout: Duration::from_secs(1),
            metric_report_period: Duration::from_secs(60),
            config_file: None,
            overrides: Vec::new(),
            tasks: stormkeeper_model::task_set::TaskSet::default(),
            withheld_variables: Vec::new(),
            abandoned_after: Duration::from_secs(3600),
            owner: String::new(),
            files: None,
            user: None,
            connections: None,
        };
        Metrics::start(&spec.into(), Control::default(), &Clock::new()).map(Self)
    }

    /// Returns the metrics of a task that emits; disabled if `on` is `None`.
    pub fn emitting(on: Option<&Self>, component: ComponentId, task: TaskId) -> Emitting {
        Emitting { metrics: Self::task(on, component, task), clock: Clock::new() }
    }

    /// Returns the metrics of a task that receives; disabled if `on` is `None`.
    pub fn receiving(on: Option<&Self>, component: ComponentId, task: TaskId) -> Receiving {
        Receiving { metrics: Self::task(on, component, task), clock: Clock::new() }
    }

    fn task(on: Option<&Self>, component: ComponentId, task: TaskId) -> TaskMetrics {
        on.map_or_else(TaskMetrics::default, |on| TaskMetrics::new(&on.0, component, task))
    }
}

impl Emitting {
    /// Records the emit of a tuple to one receiver, and returns the tuple.
    #[inline]
    pub fn emit(&mut self, origin: &Arc<Origin>, values: Vec<Value>) -> Tuple {
        let stream = self.metrics.emitted(&origin.stream);
        let now = self.metrics.now(&self.clock);
        self.metrics.transferred(stream, 1);
        Tuple::new(Arc::clone(origin), values).at(now)
    }

    /// Ends a batch of messages.
    pub fn settle(&mut self) {
        self.metrics.settle();
    }
}

impl Receiving {
    /// Records that `tuples` were received, passed to the component and acked.
    pub fn take(&mut self, tuples: &[Tuple]) {
        let now = self.clock.monotonic();
        if self.metrics.is_on() {
            self.metrics.batch_received(now);
        }
        for tuple in tuples {
            let source = self.metrics.executed(tuple.origin(), tuple.emitted_at(), now);
            self.metrics.child_acked(source, now, now);
        }
        if self.metrics.is_on() {
            self.metrics.bolt_messages_handled(self.clock.monotonic());
        }
        self.metrics.settle();
    }
}
