//! Snapshot of the metric store: the last value of every metric.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tracing::debug;

use super::reading;
use crate::Handle;
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_flink_api::{MetricTable, Reading, WorkerAddress};
use stormkeeper_metric_store::{self as metric_store, LatestQuery, LatestRow, MetricStore, TOTALS_MAX};
use stormkeeper_metrics::{MetaType, MetricId, Minute, Point, Subject, name::NIMBUS};
use stormkeeper_model::{ComponentId, TaskId, Timestamp, TopologyId, clock::Clock};
use stormkeeper_runtime::{blocking, error_chain, refreshed::Refreshed};

/// Shortest time between two snapshots.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// Time that an answer waits for a snapshot; then it is made from the one before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum number of killed topologies, the latest ones.
pub(super) const KILLED_MAX: usize = 100;

/// Maximum number of metrics: some 100 MiB. The topology that exceeds it and those after it, in the
/// order of their ids and killed ones last, are without the metrics of their tasks.
const METRICS_MAX: usize = 1_000_000;

/// Number of metrics that are read at once.
const PAGE: usize = 10_000;

/// Time after the end of a topology in which its last reports arrive, and after which its metrics
/// are read again: a supervisor that was down may send more.
const FINAL_MS: u64 = 10 * 60_000;

/// Age of the last minute of a metric that has reported nothing for a while, in minutes.
const SILENT: u32 = 2;

/// Snapshots of this nimbus. Clones share them.
#[derive(Debug, Clone)]
pub(in crate::api) struct Snapshots(Refreshed<Snapshot>);

impl Snapshots {
    pub(in crate::api) fn new(clock: Clock) -> Self {
        Self(Refreshed::new(PERIOD, clock))
    }

    /// Returns the snapshot; an empty one if this nimbus keeps no metrics, or has none yet.
    pub(super) async fn get(&self, nimbus: &Handle) -> Arc<Snapshot> {
        let Ok(tasks) = nimbus.metrics_tasks() else { return Arc::default() };
        let make = |before: Option<Arc<Snapshot>>| make(nimbus.clone(), before);
        self.0.get(tasks, PATIENCE, make).await.unwrap_or_default()
    }
}

/// Last values of all metrics, and the topologies that have them.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// Nimbuses by host and port of the API.
    pub(super) nimbuses: BTreeMap<WorkerAddress, MetricTable>,
    /// Metrics of live topologies, and of the latest killed ones.
    pub(super) topologies: BTreeMap<TopologyId, Arc<TopologyMetrics>>,
    /// The same topologies, also those without metrics.
    pub(super) heads: BTreeMap<TopologyId, Head>,
}

/// Name and life of a topology, for a job that is not in the view any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) start_ms: u64,
    /// Absent while the topology exists, and until the history has recorded its end.
    pub(super) end_ms: Option<u64>,
}

/// Metrics of one topology.
#[derive(Debug, Default)]
pub(super) struct TopologyMetrics {
    pub(super) own: MetricTable,
    pub(super) workers: BTreeMap<WorkerAddress, MetricTable>,
    pub(super) components: BTreeMap<ComponentId, ComponentMetrics>,
    n: usize,
    /// Time of this reading.
    read_ms: u64,
}

/// Metrics of one component.
#[derive(Debug, Default)]
pub(super) struct ComponentMetrics {
    /// Of all tasks together.
    pub(super) own: MetricTable,
    pub(super) tasks: BTreeMap<TaskId, MetricTable>,
}

/// Makes a snapshot. If the metric store cannot be read, the snapshot before stays.
async fn make(nimbus: Handle, before: Option<Arc<Snapshot>>) -> Snapshot {
    match collect(&nimbus, before.as_deref()).await {
        Ok(snapshot) => snapshot,
        Err(reason) => {
            debug!(reason, "no new snapshot for Flink's API");
            before.as_deref().cloned().unwrap_or_default()
        }
    }
}

async fn collect(nimbus: &Handle, before: Option<&Snapshot>) -> Result<Snapshot, String> {
    let store = nimbus.metrics().map_err(|refusal| error_chain(&refusal))?;
    let view = nimbus.observation().map_err(|refusal| error_chain(&refusal))?.view;
    let heads = heads(&store, &view).await?;
    let mut collector = Collector::new(store, nimbus.clock().now(), METRICS_MAX);
    let nimbuses =
        collector.read(&NIMBUS.parse::<TopologyId>().expect("a fixed id is valid")).await?.nimbuses();
    let topologies = collector.topologies(&heads, before).await?;
    Ok(Snapshot { nimbuses, topologies, heads })
}

/// Returns the live topologies, and the latest that were killed.
async fn heads(store: &MetricStore, view: &ClusterView) -> Result<BTreeMap<TopologyId, Head>, String> {
    let limit = KILLED_MAX + view.topologies.len();
    let history = store.history(None, limit).await.map_err(|error| error_chain(&error))?;
    let ended = history.into_iter().filter(|entry| !view.topologies.contains_key(&entry.topology));
    let mut heads: BTreeMap<TopologyId, Head> = ended
        .take(KILLED_MAX)
        .map(|entry| {
            let end_ms = entry.killed.map(|at| at.as_millis());
            (
                entry.topology,
                Head { name: entry.name.to_string(), start_ms: entry.started.as_millis(), end_ms },
            )
        })
        .collect();
    heads.extend(view.topologies.iter().map(|(id, record)| {
        let (name, start_ms) = (record.value.name.to_string(), record.value.launched.as_millis());
        (id.clone(), Head { name, start_ms, end_ms: None })
    }));
    Ok(heads)
}

type Readings = Vec<(Arc<str>, Reading)>;

/// Readings of one topology by subject.
#[derive(Default)]
struct Sorted {
    own: Readings,
    places: BTreeMap<WorkerAddress, Readings>,
    components: BTreeMap<ComponentId, (Readings, BTreeMap<TaskId, Readings>)>,
    n: usize,
}

impl Sorted {
    fn of(&mut self, subject: &Subject) -> Option<&mut Readings> {
        match subject {
            Subject::Topology => Some(&mut self.own),
            Subject::Worker { host, port } | Subject::Nimbus { host, port } => {
                Some(self.places.entry(WorkerAddress { host: host.clone(), port: *port }).or_default())
            }
            Subject::Component { component } => {
                Some(&mut self.components.entry(component.clone()).or_default().0)
            }
            Subject::Task { component, task } => {
                Some(self.components.entry(component.clone()).or_default().1.entry(*task).or_default())
            }
            Subject::Stream { .. } | Subject::ComponentStream { .. } | Subject::Connection { .. } => None,
        }
    }

    fn nimbuses(self) -> BTreeMap<WorkerAddress, MetricTable> {
        tables(self.places)
    }

    fn of_topology(self, read_ms: u64) -> TopologyMetrics {
        let component = |(id, (own, tasks)): (ComponentId, (Readings, _))| {
            (id, ComponentMetrics { own: own.into_iter().collect(), tasks: tables(tasks) })
        };
        TopologyMetrics {
            own: self.own.into_iter().collect(),
            workers: tables(self.places),
            components: self.components.into_iter().map(component).collect(),
            n: self.n,
            read_ms,
        }
    }
}

fn tables<K: Ord>(readings: BTreeMap<K, Readings>) -> BTreeMap<K, MetricTable> {
    readings.into_iter().map(|(key, readings)| (key, readings.into_iter().collect())).collect()
}

/// Returns whether metrics of this level are in a snapshot. Those of streams and connections are
/// not: their names would be most of all names.
fn is_wanted(level: MetaType, with_tasks: bool) -> bool {
    match level {
        MetaType::Task => with_tasks,
        MetaType::Component | MetaType::Worker | MetaType::Topology | MetaType::Nimbus => true,
        MetaType::Stream | MetaType::ComponentStream | MetaType::Netty => false,
    }
}

/// Reader of the metric store for one snapshot.
struct Collector {
    store: MetricStore,
    now: Timestamp,
    /// Maximum number of metrics.
    max: usize,
    /// Names, each once: the tasks of a cluster have the same.
    names: HashSet<Arc<str>>,
    /// Number of metrics of the topologies before.
    n: usize,
    with_tasks: bool,
}

impl Collector {
    fn new(store: MetricStore, now: Timestamp, max: usize) -> Self {
        Self { store, now, max, names: HashSet::new(), n: 0, with_tasks: true }
    }

    /// Reads the metrics of all topologies, and takes those that do not change from the snapshot
    /// before.
    async fn topologies(
        &mut self,
        heads: &BTreeMap<TopologyId, Head>,
        before: Option<&Snapshot>,
    ) -> Result<BTreeMap<TopologyId, Arc<TopologyMetrics>>, String> {
        let (mut topologies, now_ms) = (BTreeMap::new(), self.now.as_millis());
        // Live ones first: of killed topologies, less may be left out.
        let (killed, live): (Vec<_>, Vec<_>) = heads.iter().partition(|(_, head)| head.end_ms.is_some());
        for (id, head) in live.into_iter().chain(killed) {
            let is_final = |known: &&Arc<TopologyMetrics>| {
                head.end_ms.is_some_and(|end| end.saturating_add(FINAL_MS) < known.read_ms)
                    && now_ms.saturating_sub(known.read_ms) < FINAL_MS
            };
            let known = before.and_then(|before| before.topologies.get(id)).filter(is_final);
            let metrics = match known {
                Some(known) => {
                    self.n += known.n;
                    Arc::clone(known)
                }
                None => Arc::new(self.read(id).await?.of_topology(now_ms)),
            };
            topologies.insert(id.clone(), metrics);
        }
        Ok(topologies)
    }

    /// Reads the metrics of one topology.
    async fn read(&mut self, topology: &TopologyId) -> Result<Sorted, String> {
        let (mut sorted, mut after) = (Sorted::default(), None);
        loop {
            let query = LatestQuery { after, limit: PAGE, ..LatestQuery::all(topology.clone()) };
            let page = self.store.latest(query).await.map_err(|error| error_chain(&error))?;
            let with_tasks = self.with_tasks;
            let rows: Vec<LatestRow> =
                page.rows.into_iter().filter(|row| is_wanted(row.meta.name.meta(), with_tasks)).collect();
            let is_counter = |row: &&LatestRow| matches!(row.point, Point::Counter(_));
            let counters: Vec<MetricId> = rows.iter().filter(is_counter).map(|row| row.meta.id).collect();
            let counts = self.counts(counters).await.map_err(|error| error_chain(&error))?;
            let (now, names) = (Minute::of(self.now), std::mem::take(&mut self.names));
            (sorted, self.names) = blocking::run(move || add(sorted, names, rows, counts, now)).await;
            if self.with_tasks && self.n + sorted.n > self.max {
                debug!(%topology, max = self.max, "metrics of tasks are left out of Flink's API from here on");
                self.with_tasks = false;
            }
            if !self.with_tasks {
                sorted.components.values_mut().for_each(|(_, tasks)| tasks.clear());
            }
            after = page.next;
            if after.is_none() {
                self.n += sorted.n;
                return Ok(sorted);
            }
        }
    }
}

impl Collector {
    /// Reads how much each counter has counted since the submit of its topology.
    async fn counts(&self, counters: Vec<MetricId>) -> Result<Vec<u64>, metric_store::Error> {
        let mut counts = Vec::with_capacity(counters.len());
        for counters in counters.chunks(TOTALS_MAX) {
            let all_days = counters.iter().map(|id| (*id, Minute(0))).collect();
            let totals = self.store.totals(all_days, Minute(0)).await?;
            counts.extend(totals.into_iter().map(|total| match total.open {
                Some(Point::Counter(counter)) => counter.count,
                _ => 0,
            }));
        }
        Ok(counts)
    }
}

/// Adds rows to the readings of their subjects.
fn add(
    mut sorted: Sorted,
    mut names: HashSet<Arc<str>>,
    rows: Vec<LatestRow>,
    counts: Vec<u64>,
    now: Minute,
) -> (Sorted, HashSet<Arc<str>>) {
    let mut shared = |name: String| match names.get(name.as_str()) {
        Some(known) => Arc::clone(known),
        None => {
            let name: Arc<str> = name.into();
            names.insert(Arc::clone(&name));
            name
        }
    };
    let mut counts = counts.into_iter();
    for LatestRow { meta, minute, point } in rows {
        let count = if matches!(point, Point::Counter(_)) { counts.next().unwrap_or_default() } else { 0 };
        let (value, rate) = reading::of(&meta.name, &point, count, minute.plus(SILENT) < now);
        let name = reading::name(&meta.name);
        let Some(readings) = sorted.of(meta.name.subject()) else { continue };
        let before = readings.len();
        readings.extend(reading::alias(&name).map(|alias| (shared(alias.to_owned()), value.clone())));
        readings.extend(rate.map(|rate| (shared(format!("{name}_rate")), rate)));
        readings.push((shared(name), value));
        sorted.n += readings.len() - before;
    }
    (sorted, names)
}
