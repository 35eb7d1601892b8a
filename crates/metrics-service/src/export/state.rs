//! State of the export on one nimbus: the exporters, and what each of them is doing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    ExporterState, Intervals, MetricOptions,
    export::{close_minutes, exporters::MetricExporter, runner::ExporterTask},
    service::restart_on_panic,
};
use stormkeeper_metric_store::{HistoryEvent, MetricStore};
use stormkeeper_metrics::instrument::Counter;
use stormkeeper_model::{Term, clock::Clock};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Maximum number of events that wait for an exporter; later events are dropped and counted.
const EVENTS_MAX: usize = 10_000;

/// Export of complete minutes, and of the history, to external stores.
#[derive(Debug)]
pub(crate) struct Export {
    clock: Clock,
    close_delay: Duration,
    intervals: Intervals,
    exporters: Vec<Arc<dyn MetricExporter>>,
    /// Points that external stores rejected for good.
    rejected: Counter,
    // Guards the state of each exporter; held for a few instructions.
    states: Mutex<BTreeMap<String, ExporterState>>,
}

impl Export {
    pub(crate) fn new(
        clock: Clock,
        options: &MetricOptions,
        exporters: Vec<Arc<dyn MetricExporter>>,
        rejected: Counter,
    ) -> Self {
        let (close_delay, intervals) = (options.close_delay, options.intervals);
        Self { clock, close_delay, intervals, exporters, rejected, states: Mutex::default() }
    }

    /// Returns the names of the exporters.
    pub(crate) fn names(&self) -> Vec<String> {
        self.exporters.iter().map(|exporter| exporter.name().to_owned()).collect()
    }

    /// Returns the state of each exporter that runs or has run.
    pub(crate) fn states(&self) -> BTreeMap<String, ExporterState> {
        self.lock().clone()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn intervals(&self) -> &Intervals {
        &self.intervals
    }

    /// Counts points that an external store rejected for good.
    pub(super) fn count_rejected(&self, n: u64) {
        self.rejected.add(n);
    }

    /// Changes the state of an exporter.
    pub(super) fn update_state(&self, exporter: &str, change: impl FnOnce(&mut ExporterState)) {
        let new = || ExporterState::new(self.clock.now());
        change(self.lock().entry(exporter.to_owned()).or_insert_with(new));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ExporterState>> {
        self.states.lock().expect("no one panics while holding states")
    }

    /// Starts the closing of minutes and the exporters, for one leadership. Returns the sender of
    /// events to the exporters.
    pub(crate) fn start(self: &Arc<Self>, store: &MetricStore, term: Term, tasks: &Tasks) -> EventFanout {
        let (its, clock) = (store.clone(), self.clock.clone());
        let (delay, check) = (self.close_delay, self.intervals.clock_check);
        let closing = move || close_minutes::close_minutes((its.clone(), term), clock.clone(), delay, check);
        tasks.start("metric-minutes", OnExit::Ignore, restart_on_panic("closing of minutes", closing));
        let mut channels = Vec::new();
        for exporter in &self.exporters {
            let (sender, events) = mpsc::channel(EVENTS_MAX);
            channels.push((exporter.name().to_owned(), sender));
            let run = ExporterTask::new(Arc::clone(self), store.clone(), term, exporter.clone(), tasks);
            tasks.start_graceful("metric-exporter", OnExit::Ignore, run.run(events, tasks.cancelled()));
        }
        EventFanout { export: Arc::clone(self), channels }
    }
}

/// Sends events of the history to every exporter.
#[derive(Debug, Clone)]
pub(crate) struct EventFanout {
    export: Arc<Export>,
    channels: Vec<(String, mpsc::Sender<HistoryEvent>)>,
}

impl EventFanout {
    pub(crate) fn send(&self, events: &[HistoryEvent]) {
        for (name, sender) in &self.channels {
            for event in events {
                if sender.try_send(event.clone()).is_err() {
                    self.export.update_state(name, |state| state.events_dropped += 1);
                }
            }
        }
    }
}
