//! The counters of a task on disk.

use std::io;

use tracing::warn;

use super::super::Metrics;
use stormkeeper_metric_shipping::spool::CounterFile;
use stormkeeper_metrics::{Builtin, MetricName, Subject, instrument::Counter};
use stormkeeper_model::TaskId;

/// Values of the task's counters on disk.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) task: TaskId,
    pub(super) file: Option<CounterFile>,
    pub(super) counters: Vec<Counter>,
    pub(super) n_failures: u64,
}

impl Ledger {
    pub(super) fn counter(&mut self, metrics: &Metrics, metric: &Builtin, subject: &Subject) -> Counter {
        let name = metrics.name(metric, subject);
        let counter = metrics.registry().counter(name.clone());
        self.add(metrics, &name);
        counter
    }

    /// Adds a counter to the file on disk, unless the file already has it.
    pub(super) fn add(&mut self, metrics: &Metrics, name: &MetricName) {
        let Some(file) = &mut self.file else { return };
        // Only this task's loop creates counters of the task, so a new counter is the last one.
        let row = metrics.registry().counters_of(self.task);
        let next = self.counters.len();
        let (Some(id), Some(counter)) = (row.ids.get(next), row.counters.get(next)) else { return };
        match file.add_slot(*id, name) {
            Ok(()) => self.counters.push(counter.clone()),
            Err(error) => {
                warn!(%name, %error, "cannot extend the counter file of a task and stopped writing it; a crash loses counts that are not yet in a report");
                self.file = None;
            }
        }
    }

    pub(super) fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write(self.counters.iter().map(Counter::read)) {
            self.fail(&error);
        }
    }

    pub(super) fn fail(&mut self, error: &io::Error) {
        self.n_failures += 1;
        // Logged at each doubling: a full disk fails with every batch.
        if self.n_failures.is_power_of_two() {
            warn!(%error, so_far = self.n_failures, "cannot write the counter file of a task; retrying, a crash would lose its counts");
        }
    }
}
