//! Everything that measures in one worker, as its assembly sees it.

use std::time::Duration;

use tokio::sync::watch;

use super::{
    Metrics, control,
    master::{self, Master},
    reporter::{MasterAt, Reporter},
};
use crate::{
    Error, Options,
    settings::MetricSettings,
    transport::{Identity, Inboxes, Wanted},
};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_shipping::ingest_client::IngestClient;
use stormkeeper_metrics::{Control, Subject, builtin};
use stormkeeper_model::{
    assignment::Assignment, metric_control::MetricControl, task_set::TaskSet, topology::TaskTable,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// The measuring of one worker, while it runs.
#[derive(Debug)]
pub(crate) struct Measuring {
    metrics: Metrics,
    settings: MetricSettings,
    changes: Option<MetricControl>,
    me: Identity,
    client: IngestClient,
    master: watch::Sender<MasterAt>,
    n_workers: watch::Sender<usize>,
    // What the master of this process runs in; dropping it ends that.
    mastering: Option<Tasks>,
    tasks: Tasks,
}

impl Measuring {
    /// Begins to report. Blocks for a moment.
    pub(crate) fn start(
        metrics: Metrics,
        settings: MetricSettings,
        options: &Options,
        me: &Identity,
        store: &Store,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let (master, n_workers) = (watch::Sender::new(MasterAt::Nowhere), watch::Sender::new(1));
        let tasks = tasks.child();
        let period = options.metrics.unwrap_or(Duration::from_secs(60));
        let reporter = Reporter::new(&metrics, me.clone(), period, master.subscribe(), tasks.child());
        let reporter = reporter.map_err(|source| Error::Dir { path: metrics.dir().to_owned(), source })?;
        tasks.start_graceful("reports of metrics", OnExit::Ignore, reporter.run(tasks.cancelled()));
        let client = IngestClient::new(store.clone())?;
        let me = me.clone();
        Ok(Self { metrics, settings, changes: None, me, client, master, n_workers, mastering: None, tasks })
    }

    /// What tasks and transport measure with.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where the topology master is.
    pub(crate) fn master(&self) -> watch::Receiver<MasterAt> {
        self.master.subscribe()
    }

    /// Reads how full the inboxes are with every report.
    pub(crate) fn watch_inboxes(&self, inboxes: &Inboxes, table: &TaskTable, local: &TaskSet) {
        for task in local.iter() {
            let Some(component) = table.component_of(task).cloned() else { continue };
            let name = self.metrics.name(&builtin::EXECUTOR_QUEUE, &Subject::Task { component, task });
            let fill = inboxes.fill_of(task);
            // A worker that is full of metrics does without; the refusal is counted.
            let _full = self.metrics.registry().gauge_fn(name, move || fill().map(|fill| 100.0 * fill));
        }
    }

    /// Follows the assignment and what operators changed.
    pub(crate) fn follow(&mut self, assignment: &Assignment, changes: Option<&MetricControl>) {
        if self.changes.as_ref() != changes {
            self.changes = changes.cloned();
            tracing::info!(?changes, "metrics are measured otherwise from now on");
            self.metrics.control(&self.control());
        }
        self.n_workers.send_replace(assignment.workers.len());
        let slot = master::of(assignment);
        if slot == Some(&self.me.slot) {
            if self.mastering.is_none() {
                self.become_master();
            }
            return;
        }
        // What it holds is on the disks of the workers, who bring it to the next one.
        self.mastering = None;
        let at = slot.and_then(|slot| Some((slot.clone(), assignment.workers.get(slot)?.host.clone())));
        let at = at.map_or(MasterAt::Nowhere, |(slot, host)| MasterAt::There { slot, host });
        self.master.send_if_modified(|current| {
            let changed = *current != at;
            if changed {
                *current = at;
            }
            changed
        });
    }

    /// The switches of now.
    fn control(&self) -> Control {
        control::with_changes(&self.settings.control, self.changes.as_ref())
    }

    /// What is measured of each connection: everything while there are few workers, and what is
    /// enabled by name in any case.
    pub(crate) fn connections(&self) -> Wanted {
        let are_few = *self.n_workers.borrow() <= self.settings.max_workers_for_connections;
        let control = self.control();
        Wanted::of(|metric| control.on && (are_few || control.enabled.contains(metric.name)))
    }

    fn become_master(&mut self) {
        let tasks = self.tasks.child();
        let (master, door) = Master::new(
            self.me.topology.clone(),
            self.client.clone(),
            self.metrics.clock().clone(),
            self.n_workers.subscribe(),
            tasks.child(),
        );
        tasks.start("topology master", OnExit::Ignore, master.run());
        self.mastering = Some(tasks);
        self.master.send_replace(MasterAt::Here(door));
    }

    /// Takes a last cut, which the supervisor brings to the leader.
    pub(crate) async fn stop(self, patience: Duration) {
        self.tasks.stop(patience).await;
    }
}
