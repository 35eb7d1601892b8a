//! All instruments of a process, and the collection of their values into reports.
//!
//! Registering is rare and takes a lock; counting takes none. A report contains the increments
//! since the report before, each count exactly once.

mod entry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use entry::{Entry, Instrument};

use super::{
    Control, Leaf, MetricId, MetricName, MetricType, Minute, Subject,
    instrument::{Counter, Gauge, Histogram, Meter, Shared, Timer},
    live::Total,
};
use stormkeeper_model::{TaskId, clock::Monotonic};

/// Limit on metrics of one process: a worker of 200 tasks with 80 each. With the levels above
/// them, at most five for each, they still fit into one metric batch.
pub const METRICS_MAX: usize = 16_000;

/// All instruments of a process. Clones share the instruments.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    // Guards the registered metrics; held during registration and collection, never while counting.
    table: Mutex<Table>,
    generation: AtomicU64,
    n_rejected: AtomicU64,
}

#[derive(Debug)]
struct Table {
    control: Control,
    /// Start time of new meters: the latest time that a caller passed in.
    now: Monotonic,
    by_name: HashMap<MetricName, Arc<Entry>>,
    by_id: HashMap<MetricId, MetricName>,
    /// Counters of each task, in the order of their registration.
    rows: BTreeMap<TaskId, Vec<(MetricName, Counter)>>,
}

/// Error of a registration: the process is at its limit of metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not measured: this process already has {METRICS_MAX} metrics, which is the limit")]
pub struct Full {
    /// The rejected metric. Boxed, because a name is large and the error rare.
    pub name: Box<MetricName>,
}

/// Total of a metric since its registration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// Events of a counter.
    Count(u64),
    /// Values of a histogram.
    Total(Total),
}

/// Options of one collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectRequest {
    /// The minute of the report.
    pub minute: Minute,
    /// The current time.
    pub now: Monotonic,
    /// True if gauges and rates are included: in the first report of a minute.
    pub with_gauges: bool,
}

/// The counters of one task, in a stable order: new counters are appended.
#[derive(Debug, Clone)]
pub struct CounterRow {
    /// Ids of the counters.
    pub ids: Arc<[MetricId]>,
    /// The counters, in the same order.
    pub counters: Arc<[Counter]>,
}

impl Registry {
    /// An empty registry that measures from `now` on.
    pub fn new(control: Control, now: Monotonic) -> Self {
        let shared = Shared::new(control.sample_rate);
        let table =
            Table { control, now, by_name: HashMap::new(), by_id: HashMap::new(), rows: BTreeMap::new() };
        Self(Arc::new(Inner {
            shared,
            table: Mutex::new(table),
            generation: AtomicU64::new(0),
            n_rejected: AtomicU64::new(0),
        }))
    }

    /// State that its instruments share: the sample rate.
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Returns the counter of this name; registers it if necessary. The type in the name is
    /// replaced by the type of the instrument, here and below. If the process has [`METRICS_MAX`]
    /// metrics, returns a disabled counter, which is [counted](Self::n_rejected).
    pub fn counter(&self, name: MetricName) -> Counter {
        self.try_counter(name).unwrap_or_else(|_| Counter::switched(false))
    }

    /// As [`counter`](Self::counter).
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn try_counter(&self, name: MetricName) -> Result<Counter, Full> {
        let entry = self.entry(name.of_kind(MetricType::Counter), |on, _, _| {
            Instrument::Counter(Counter::switched(on))
        })?;
        Ok(entry.counter().expect("the kind is part of the name"))
    }

    /// The settable gauge of this name; see [`counter`](Self::counter).
    pub fn gauge(&self, name: MetricName) -> Gauge {
        self.try_gauge(name).unwrap_or_else(|_| Gauge::new(&self.0.shared))
    }

    /// As [`gauge`](Self::gauge).
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn try_gauge(&self, name: MetricName) -> Result<Gauge, Full> {
        let entry = self
            .entry(name.of_kind(MetricType::Gauge), |_, shared, _| Instrument::Gauge(Gauge::new(shared)))?;
        Ok(entry.gauge().expect("the kind is part of the name"))
    }

    /// Registers a gauge that calls `read` in each collection with gauges; `read` must not block
    /// and must not use the registry. Replaces a gauge of the same name.
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn gauge_fn(
        &self,
        name: MetricName,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Result<(), Full> {
        let gauge = Gauge::asking(read, &self.0.shared);
        let entry = self
            .entry(name.of_kind(MetricType::Gauge), |_, shared, _| Instrument::Gauge(Gauge::new(shared)))?;
        entry.replace_gauge(gauge);
        Ok(())
    }

    /// The meter of this name; see [`counter`](Self::counter).
    pub fn meter(&self, name: MetricName) -> Meter {
        let now = self.table().now;
        self.try_meter(name).unwrap_or_else(|_| Meter::switched(false, now))
    }

    /// As [`meter`](Self::meter).
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn try_meter(&self, name: MetricName) -> Result<Meter, Full> {
        let entry = self.entry(name.of_kind(MetricType::Meter), |on, _, now| {
            Instrument::Meter(Meter::switched(on, now))
        })?;
        Ok(entry.meter().expect("the kind is part of the name"))
    }

    /// The histogram of this name; see [`counter`](Self::counter).
    pub fn histogram(&self, name: MetricName) -> Histogram {
        self.try_histogram(name).unwrap_or_else(|_| Histogram::switched(false, &self.0.shared))
    }

    /// As [`histogram`](Self::histogram).
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn try_histogram(&self, name: MetricName) -> Result<Histogram, Full> {
        let entry = self.entry(name.of_kind(MetricType::Histogram), |on, shared, _| {
            Instrument::Histogram(Histogram::switched(on, shared))
        })?;
        Ok(entry.histogram().expect("the kind is part of the name"))
    }

    /// The timer of this name; see [`counter`](Self::counter).
    pub fn timer(&self, name: MetricName) -> Timer {
        let now = self.table().now;
        self.try_timer(name).unwrap_or_else(|_| Timer::switched(false, &self.0.shared, now))
    }

    /// As [`timer`](Self::timer).
    ///
    /// # Errors
    /// [`Full`] if the process has [`METRICS_MAX`] metrics.
    pub fn try_timer(&self, name: MetricName) -> Result<Timer, Full> {
        let entry = self.entry(name.of_kind(MetricType::Timer), |on, shared, now| {
            Instrument::Timer(Timer::switched(on, shared, now))
        })?;
        Ok(entry.timer().expect("the kind is part of the name"))
    }

    /// Collects the increments since the last collection, in the order of ids. Unchanged
    /// instruments are left out: counters, histograms and timers without new events, meters with
    /// rates of 0, gauges that were never set.
    pub fn collect(&self, request: CollectRequest) -> Vec<Leaf> {
        let mut table = self.table();
        table.now = table.now.max(request.now);
        let entries: Vec<Arc<Entry>> = table.by_name.values().cloned().collect();
        drop(table);
        // Closures of gauges are called without the lock.
        let mut leaves: Vec<Leaf> = entries.iter().filter_map(|entry| entry.collect(request)).collect();
        leaves.sort_unstable_by_key(|leaf| leaf.id);
        self.drop_released(&entries);
        leaves
    }

    /// Calls `each` with the total of every counter and histogram of a task, since its registration.
    /// Takes nothing from the next collection.
    pub fn read_tasks(&self, mut each: impl FnMut(TaskId, &MetricName, Reading)) {
        let of_tasks = |entry: &&Arc<Entry>| task_of(&entry.name).is_some();
        let entries: Vec<Arc<Entry>> = self.table().by_name.values().filter(of_tasks).cloned().collect();
        for entry in entries {
            if let (Some(task), Some(reading)) = (task_of(&entry.name), entry.read()) {
                each(task, &entry.name, reading);
            }
        }
    }

    /// Totals of all counters as of the last collection, including unchanged counters. Counts
    /// beyond these totals in a counter file are in no report yet.
    pub fn collected_totals(&self) -> Vec<(MetricId, u64)> {
        let table = self.table();
        let mut totals: Vec<_> =
            table.by_name.values().filter_map(|entry| Some((entry.id(), entry.reported_total()?))).collect();
        totals.sort_unstable();
        totals
    }

    /// The counters of a task: those of its streams, its own and its users'. Get them again when
    /// the [generation](Self::generation) has changed.
    pub fn counters_of(&self, task: TaskId) -> CounterRow {
        let table = self.table();
        let row = table.rows.get(&task).map(Vec::as_slice).unwrap_or_default();
        let id = |name: &MetricName| table.by_name.get(name).map(|entry| entry.id());
        CounterRow {
            ids: row.iter().map(|(name, _)| id(name).unwrap_or(MetricId::of(&name.to_string(), 0))).collect(),
            counters: row.iter().map(|(_, counter)| counter.clone()).collect(),
        }
    }

    /// Number that changes when a metric is added, is removed or gets another id.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The metrics registered after `generation`, in the order of their registration, and the
    /// generation for the next call. From 0 on, all metrics.
    pub fn names_since(&self, generation: u64) -> (u64, Vec<(MetricId, MetricName)>) {
        let table = self.table();
        let now = self.generation();
        if now == generation {
            return (now, Vec::new());
        }
        let mut new: Vec<&Arc<Entry>> =
            table.by_name.values().filter(|entry| entry.generation > generation).collect();
        new.sort_unstable_by_key(|entry| entry.generation);
        (now, new.into_iter().map(|entry| (entry.id(), entry.name.clone())).collect())
    }

    /// Reports the metric with the id `old` under the id `new` from now on, as the leader
    /// requested. Returns false if no metric has the id `old`, or another metric has `new`.
    pub fn rename(&self, old: MetricId, new: MetricId) -> bool {
        let mut table = self.table();
        if table.by_id.contains_key(&new) {
            return old == new;
        }
        let Some(name) = table.by_id.remove(&old) else { return false };
        if let Some(entry) = table.by_name.get(&name) {
            entry.set_id(new);
        }
        table.by_id.insert(new, name);
        self.0.generation.fetch_add(1, Ordering::Release);
        true
    }

    /// Applies other switches, from now on.
    pub fn control(&self, control: &Control) {
        let mut table = self.table();
        table.control = control.clone();
        self.0.shared.set_sample_rate(control.sample_rate);
        for entry in table.by_name.values() {
            entry.switch(control.measures(&entry.name));
        }
    }

    /// The leaves whose metrics must be written to the log, with their names.
    pub fn debugged<'a>(&self, leaves: &'a [Leaf]) -> Vec<(MetricName, &'a Leaf)> {
        let table = self.table();
        if table.control.debug.is_empty() {
            return Vec::new();
        }
        let named = |leaf: &'a Leaf| Some((table.by_id.get(&leaf.id)?.clone(), leaf));
        leaves.iter().filter_map(named).filter(|(name, _)| table.control.debugs(name)).collect()
    }

    /// Releases one registration of this metric. After the last release, the next collection still
    /// reports the remaining increments and then removes the metric.
    pub fn release(&self, name: &MetricName) {
        if let Some(entry) = self.table().by_name.get(name) {
            entry.release();
        }
    }

    /// Number of metrics.
    pub fn len(&self) -> usize {
        self.table().by_name.len()
    }

    /// True if there are no metrics.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of registrations that were rejected because of [`METRICS_MAX`].
    pub fn n_rejected(&self) -> u64 {
        self.0.n_rejected.load(Ordering::Relaxed)
    }

    /// Number of values that were rejected because they are infinite or NaN.
    pub fn n_rejected_values(&self) -> u64 {
        self.0.shared.n_rejected()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(
        &self,
        name: MetricName,
        make: impl FnOnce(bool, &Shared, Monotonic) -> Instrument,
    ) -> Result<Arc<Entry>, Full> {
        let mut table = self.table();
        if let Some(entry) = table.by_name.get(&name) {
            entry.hold();
            return Ok(entry.clone());
        }
        if table.by_name.len() >= METRICS_MAX {
            self.0.n_rejected.fetch_add(1, Ordering::Relaxed);
            return Err(Full { name: Box::new(name) });
        }
        let id = MetricId::free(&name, |id| table.by_id.contains_key(id));
        let on = table.control.measures(&name);
        let instrument = make(on, &self.0.shared, table.now);
        let generation = self.0.generation.fetch_add(1, Ordering::Release) + 1;
        let entry = Arc::new(Entry::new(name.clone(), id, generation, instrument));
        entry.switch(on);
        if let (Some(task), Some(counter)) = (task_of(&name), entry.counter()) {
            table.rows.entry(task).or_default().push((name.clone(), counter));
        }
        table.by_id.insert(id, name.clone());
        table.by_name.insert(name, entry.clone());
        Ok(entry)
    }

    /// Removes the released metrics whose last increments are reported.
    fn drop_released(&self, collected: &[Arc<Entry>]) {
        if collected.iter().all(|entry| !entry.is_released()) {
            return;
        }
        let mut table = self.table();
        for entry in collected {
            // The metric may have been registered again, or increased, since the collection.
            if entry.is_released() && !entry.has_more() {
                table.by_name.remove(&entry.name);
                table.by_id.remove(&entry.id());
                if let Some(row) = task_of(&entry.name).and_then(|task| table.rows.get_mut(&task)) {
                    row.retain(|(name, _)| *name != entry.name);
                }
                self.0.generation.fetch_add(1, Ordering::Release);
            }
        }
    }
}

fn task_of(name: &MetricName) -> Option<TaskId> {
    match name.subject() {
        Subject::Stream { task, .. } | Subject::Task { task, .. } => Some(*task),
        Subject::ComponentStream { .. }
        | Subject::Component { .. }
        | Subject::Worker { .. }
        | Subject::Connection { .. }
        | Subject::Topology
        | Subject::Nimbus { .. } => None,
    }
}
