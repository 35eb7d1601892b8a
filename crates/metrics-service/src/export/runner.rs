//! Runner of the exporters, each in a loop of its own: a fault of one exporter does not affect the
//! others.
//!
//! A call of an exporter runs as a task that may panic, and that is dropped at its timeout. A task
//! that blocks its thread cannot be dropped: the exporter is suspended until the task has ended, and
//! the export queue keeps the minutes that the exporter missed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    ExporterActivity, ExporterState,
    export::Export,
    exporters::{ExportCounts, ExportError, MetricExporter, PayloadSource},
};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::{ExportKey, ExportLease, HistoryEvent, MetricStore, PayloadPage};
use stormkeeper_metrics::{MetaType, MetricId};
use stormkeeper_model::Term;
use stormkeeper_runtime::error_chain;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Maximum number of points in one page of a payload.
const PAGE_POINTS_MAX: usize = 2000;

/// Maximum number of metas that are registered with an exporter in one call.
const METAS_MAX: usize = 5000;

/// Longest sleep of an exporter without work, in case no change wakes it.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Grace for a timed-out call to end before its exporter counts as stuck.
const END_GRACE: Duration = Duration::from_secs(1);

/// Timeout for the cleanup of an exporter.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Payload of one entry of the export queue, for one exporter.
struct Payload {
    store: MetricStore,
    key: ExportKey,
    levels: Vec<MetaType>,
}

#[async_trait]
impl PayloadSource for Payload {
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
        let page = self.store.payload(&self.key, &self.levels, after, PAGE_POINTS_MAX).await;
        page.map_err(ExportError::Payload)
    }
}

/// Runs one exporter.
pub(crate) struct ExporterTask {
    export: Arc<Export>,
    store: MetricStore,
    term: Term,
    exporter: Arc<dyn MetricExporter>,
    name: String,
    tasks: Tasks,
    /// A call that timed out and has not ended.
    stuck: Option<Tasks>,
}

impl ExporterTask {
    pub(crate) fn new(
        export: Arc<Export>,
        store: MetricStore,
        term: Term,
        exporter: Arc<dyn MetricExporter>,
        owner: &Tasks,
    ) -> Self {
        let name = exporter.name().to_owned();
        let now = export.clock().now();
        export.update_state(&name, |state| *state = ExporterState::new(now));
        Self { export, store, term, exporter, name, tasks: owner.child(), stuck: None }
    }

    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<HistoryEvent>,
        cancelled: CancellationToken,
    ) {
        tokio::select! {
            biased;
            // An export that is dropped here was not acknowledged, and is repeated later.
            () = cancelled.cancelled() => {}
            () = self.work(&mut events) => {}
        }
        if self.stuck.is_none() {
            // The exporter's task set ends with the leadership; the cleanup runs in this task.
            let cleanup = AssertUnwindSafe(self.exporter.cleanup()).catch_unwind();
            if !matches!(tokio::time::timeout(CLEANUP_TIMEOUT, cleanup).await, Ok(Ok(()))) {
                warn!(
                    exporter = self.name,
                    timeout = ?CLEANUP_TIMEOUT,
                    "an exporter failed to clean up, or timed out"
                );
            }
        }
    }

    async fn work(&mut self, events: &mut mpsc::Receiver<HistoryEvent>) {
        let pause = self.export.intervals().export_pause;
        loop {
            self.set_activity(ExporterActivity::Starting);
            let exporter = Arc::clone(&self.exporter);
            match self.call("init", None, async move { exporter.init().await }).await {
                Ok(()) => break,
                Err(reason) => self.note_failure("an exporter cannot be started; retrying", &reason),
            }
            self.set_activity(ExporterActivity::Pausing);
            tokio::time::sleep(pause).await;
        }
        let mut queue = self.store.queue_changed();
        loop {
            let _seen = *queue.borrow_and_update();
            while let Ok(event) = events.try_recv() {
                self.send_event(event).await;
            }
            let wait = match self.step().await {
                Ok(true) => continue,
                Ok(false) => self.idle().await,
                Err(reason) => {
                    self.note_failure("an exporter failed; retrying", &reason);
                    self.set_activity(ExporterActivity::Pausing);
                    pause
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: an event that is not returned stays in the queue, the others only wait.
                Some(event) = events.recv() => self.send_event(event).await,
                // Closed together with the store: then the timeout wakes.
                Ok(()) = queue.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Registers new metas, and sends one entry of the queue. Returns whether there may be more.
    async fn step(&mut self) -> Result<bool, String> {
        let text = |error: metric_store::Error| error_chain(&error);
        loop {
            let metas = self.store.metas_since(&self.name, METAS_MAX).await.map_err(text)?;
            if metas.is_empty() {
                break;
            }
            self.set_activity(ExporterActivity::Exporting);
            let (exporter, new_metas) = (Arc::clone(&self.exporter), metas.clone());
            self.call("register_metrics", None, async move { exporter.register_metrics(&new_metas).await })
                .await?;
            self.store.ack_metas(self.term, &self.name, &metas).await.map_err(text)?;
        }
        let Some(export) = self.store.lease_export(&self.name).await.map_err(text)? else {
            return Ok(false);
        };
        self.set_activity(ExporterActivity::Exporting);
        let ExportLease { key, timeout, .. } = export;
        let (exporter, its) = (Arc::clone(&self.exporter), key.clone());
        let levels = exporter.levels().to_vec();
        let source = Payload { store: self.store.clone(), key: key.clone(), levels };
        // Shorter than the timeout after which the queue treats the export as failed.
        let limit = timeout.saturating_sub(timeout / 10);
        match self.call("export", Some(limit), async move { exporter.export(&its, &source).await }).await {
            Ok(ExportCounts { points, refused }) => {
                debug!(exporter = self.name, export = %key, points, refused, "exported a minute");
                self.export.count_rejected(refused);
                let reason = (refused > 0).then(|| self.exporter.last_rejection()).flatten();
                self.export.update_state(&self.name, |state| {
                    state.points += points;
                    state.rejected += refused;
                    state.last_rejection = reason.or(state.last_rejection.take());
                });
                self.store.ack(self.term, &self.name, key).await.map_err(text)?;
            }
            Err(reason) => {
                self.note_failure("an exporter failed to export a minute; retrying after a pause", &reason);
                self.store.nack(&self.name, key, &reason).await.map_err(text)?;
            }
        }
        Ok(true)
    }

    async fn send_event(&mut self, event: HistoryEvent) {
        let exporter = Arc::clone(&self.exporter);
        match self.call("send_event", None, async move { exporter.send_event(&event).await }).await {
            Ok(()) => self.export.update_state(&self.name, |state| state.events += 1),
            Err(reason) => {
                self.export.update_state(&self.name, |state| state.events_dropped += 1);
                self.note_failure("could not send an event to an exporter; the event is dropped", &reason);
            }
        }
    }

    /// Returns the wait when there is nothing to send now. An entry that was rejected becomes ready
    /// again by time alone.
    async fn idle(&self) -> Duration {
        let status = self.store.queue_status().await.ok();
        let pending = status.and_then(|status| Some(status.exporters.get(&self.name)?.pending)).unwrap_or(0);
        self.set_activity(if pending > 0 { ExporterActivity::Pausing } else { ExporterActivity::Idle });
        if pending > 0 { self.export.intervals().export_pause } else { IDLE_MAX }
    }

    /// Calls the exporter, which may panic, hang or block.
    async fn call<T: Send + 'static>(
        &mut self,
        what: &'static str,
        limit: Option<Duration>,
        call: impl Future<Output = Result<T, ExportError>> + Send + 'static,
    ) -> Result<T, String> {
        self.wait_for_stuck_call().await;
        let limit = limit.unwrap_or(self.export.intervals().exporter_call);
        let calls = self.tasks.child();
        let (reply, answer) = oneshot::channel();
        calls.start("exporter-call", OnExit::Ignore, async move {
            // The caller may have timed out.
            let _gone = reply.send(AssertUnwindSafe(call).catch_unwind().await);
        });
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(result))) => result.map_err(|error| error_chain(&error)),
            Ok(Ok(Err(_panic))) => Err(format!("{what} panicked; the log has the details")),
            Ok(Err(_ended)) => Err(format!("{what} was dropped")),
            Err(_too_long) => {
                if !calls.stop(END_GRACE).await {
                    self.stuck = Some(calls);
                }
                Err(format!("{what} took longer than {limit:?} and timed out"))
            }
        }
    }

    /// Waits for the end of a timed-out call that blocks its thread.
    async fn wait_for_stuck_call(&mut self) {
        let Some(calls) = &self.stuck else { return };
        self.set_activity(ExporterActivity::Stuck);
        warn!(exporter = self.name, "exporter call timed out and is still running; suspending this exporter");
        while !calls.stop(IDLE_MAX).await {}
        info!(exporter = self.name, "exporter call returned; resuming this exporter");
        self.stuck = None;
    }

    fn set_activity(&self, activity: ExporterActivity) {
        let now = self.export.clock().now();
        self.export.update_state(&self.name, |state| {
            if state.activity != activity {
                (state.activity, state.since) = (activity, now);
            }
        });
    }

    fn note_failure(&self, what: &str, reason: &str) {
        let mut is_changed = false;
        self.export.update_state(&self.name, |state| {
            state.failures += 1;
            is_changed = state.last_failure.as_deref() != Some(reason);
            state.last_failure = Some(reason.to_owned());
        });
        match is_changed {
            true => warn!(exporter = self.name, reason, "{what}"),
            false => debug!(exporter = self.name, reason, "{what}"),
        }
    }
}
