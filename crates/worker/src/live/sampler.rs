//! Sample of the counts of this worker.

use std::collections::BTreeMap;

use crate::{counters::CounterRegistry, metrics::Metrics, queue::QueueGauge};
use stormkeeper_metrics::live::{LiveSample, TaskSample};
use stormkeeper_model::{
    ComponentId, TaskId,
    clock::{Clock, Monotonic},
};

/// A task that is sampled.
#[derive(Debug, Clone)]
pub(crate) struct LiveTask {
    pub(crate) task: TaskId,
    pub(crate) component: ComponentId,
    /// Queue of the tuples that wait for it; a spout has none.
    pub(crate) queue: Option<QueueGauge>,
}

/// Makes samples. Clones make the same.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    pub(crate) tasks: Vec<LiveTask>,
    pub(crate) counters: CounterRegistry,
    /// `None` without metrics: then samples have the counts of tasks only.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) began: Monotonic,
}

impl Sampler {
    /// Returns the counts of this moment. Takes a short time for each metric.
    pub(crate) fn sample(&self) -> LiveSample {
        let mut tasks: BTreeMap<TaskId, TaskSample> =
            self.tasks.iter().map(|task| (task.task, self.counted(task))).collect();
        if let Some(metrics) = &self.metrics {
            metrics.registry().read_tasks(|task, name, reading| {
                if let Some(sample) = tasks.get_mut(&task) {
                    sample.take(name, reading);
                }
            });
        }
        let uptime = self.clock.monotonic().since(self.began);
        let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        LiveSample { uptime_ms, tasks: tasks.into_values().collect() }
    }

    fn counted(&self, LiveTask { task, component, queue }: &LiveTask) -> TaskSample {
        let (counts, pending) = self.counters.read(*task);
        let mut sample = TaskSample::new(*task, component.clone(), counts, pending);
        sample.queue = queue.as_ref().and_then(QueueGauge::fill);
        sample.busy_us = self.metrics.as_ref().and_then(|metrics| metrics.busy_micros(*task));
        sample
    }
}
