//! Metrics of one worker, as seen by its assembly: reporter, topology master, settings.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Metrics, control,
    master_link::MasterLink,
    reporter::{MasterLocation, MetricReporter},
    topology_master::{self, TopologyMaster},
};
use crate::{
    Error, Options,
    settings::MetricSettings,
    transport::{ConnectionMetricSet, Identity, Inboxes},
};
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_metrics::{Control, Subject, builtin};
use stormkeeper_model::{
    assignment::Assignment, metric_control::MetricControl, task_set::TaskSet, topology::TaskTable,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Running metrics of one worker.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    metrics: Metrics,
    settings: MetricSettings,
    changes: Option<MetricControl>,
    me: Identity,
    transport: Arc<dyn IngestTransport>,
    master: watch::Sender<MasterLocation>,
    n_workers: watch::Sender<usize>,
    // Tasks of the topology master in this process; dropping them ends the master.
    local_master: Option<Tasks>,
    tasks: Tasks,
}

impl WorkerMetrics {
    /// Starts reporting. Blocks for a moment.
    pub(crate) fn start(
        metrics: Metrics,
        settings: MetricSettings,
        options: &Options,
        me: &Identity,
        (transport, link): (Arc<dyn IngestTransport>, Arc<dyn MasterLink>),
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let (master, n_workers) = (watch::Sender::new(MasterLocation::Unknown), watch::Sender::new(1));
        let tasks = tasks.child();
        let period = options.spec.metric_report_period;
        let masters = (master.subscribe(), link);
        let reporter = MetricReporter::new(&metrics, me.clone(), period, masters, tasks.child());
        let reporter = reporter.map_err(|source| Error::Dir { path: metrics.dir().to_owned(), source })?;
        tasks.start_graceful("metric reports", OnExit::Ignore, reporter.run(tasks.cancelled()));
        let me = me.clone();
        Ok(Self {
            metrics,
            settings,
            changes: None,
            me,
            transport,
            master,
            n_workers,
            local_master: None,
            tasks,
        })
    }

    /// Returns the metrics that tasks and transport use.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the location of the topology master.
    pub(crate) fn master(&self) -> watch::Receiver<MasterLocation> {
        self.master.subscribe()
    }

    /// Registers gauges of the fill level of the inboxes, which are read for every report.
    pub(crate) fn watch_inboxes(&self, inboxes: &Inboxes, table: &TaskTable, local: &TaskSet) {
        for task in local.iter() {
            let Some(component) = table.component_of(task).cloned() else { continue };
            let name = self.metrics.name(&builtin::EXECUTOR_QUEUE, &Subject::Task { component, task });
            let Some(inbox) = inboxes.gauge_of(task) else { continue };
            // If the registry is full, this gauge is missing; the registry counts the rejection.
            let _full = self.metrics.registry().gauge_fn(name, move || Some(100.0 * inbox.fill()?));
        }
    }

    /// Follows the assignment and the metric settings that operators changed.
    pub(crate) fn follow(&mut self, assignment: &Assignment, changes: Option<&MetricControl>) {
        if self.changes.as_ref() != changes {
            self.changes = changes.cloned();
            tracing::info!(?changes, "metric settings changed");
            self.metrics.control(&self.control());
        }
        self.n_workers.send_replace(assignment.workers.len());
        let slot = topology_master::of(assignment);
        if slot == Some(&self.me.slot) {
            if self.local_master.is_none() {
                self.become_master();
            }
            return;
        }
        // The reports that the ended master held are in the workers' spools, and the workers send
        // them to the next master.
        self.local_master = None;
        let at = slot.and_then(|slot| Some((slot.clone(), assignment.workers.get(slot)?.host.clone())));
        let at = at.map_or(MasterLocation::Unknown, |(slot, host)| MasterLocation::Remote { slot, host });
        self.master.send_if_modified(|current| {
            let changed = *current != at;
            if changed {
                *current = at;
            }
            changed
        });
    }

    /// Returns the current metric settings.
    fn control(&self) -> Control {
        control::with_changes(&self.settings.control, self.changes.as_ref())
    }

    /// Returns the metrics of each connection: all metrics while there are few workers, and
    /// metrics that are enabled by name in any case.
    pub(crate) fn connections(&self) -> ConnectionMetricSet {
        let are_few = *self.n_workers.borrow() <= self.settings.max_workers_for_connections;
        let control = self.control();
        ConnectionMetricSet::of(|metric| control.on && (are_few || control.enabled.contains(metric.name)))
    }

    fn become_master(&mut self) {
        let tasks = self.tasks.child();
        let (master, handle) = TopologyMaster::new(
            self.me.topology.clone(),
            Arc::clone(&self.transport),
            self.metrics.clock().clone(),
            self.n_workers.subscribe(),
            tasks.child(),
        );
        tasks.start("topology master", OnExit::Ignore, master.run());
        self.local_master = Some(tasks);
        self.master.send_replace(MasterLocation::Local(handle));
    }

    /// Stops reporting and writes a last report, which the supervisor sends to the leader.
    pub(crate) async fn stop(self, patience: Duration) {
        self.tasks.stop(patience).await;
    }
}
