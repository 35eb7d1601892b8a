//! Families from the metric store: topologies and components, and the self metrics of this nimbus.
//!
//! Counters are totals since the submit, as sums of day points: each point is in the point of its day
//! at once. Days before yesterday are summed once. Values of such a day that arrive later, which is
//! possible only if `nimbus.metric.retention.minute.secs` is longer than a day, are counted when the
//! nimbus starts the next time.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use tracing::debug;

use super::LEVELS;
use crate::Handle;
use stormkeeper_coordination::cluster::observer::Observation;
use stormkeeper_exposition::{Family, MeasuredFamilies, MeasuredSeries, measured::Level};
use stormkeeper_metric_store::{Error, Fingerprint, MetricStore, TOTALS_MAX};
use stormkeeper_metrics::{
    MetricId, MetricName, MetricType, Minute, Point, Subject, Window, name::NIMBUS, protocol::MetaQuery,
};
use stormkeeper_model::{Timestamp, TopologyId};

/// Age of a gauge's last reading from which on it is not shown as present. A reading of a minute
/// arrives a few seconds after the minute.
const READING_AGE_MAX: u32 = 3;

/// Number of metas that are read at once.
const METAS_MAX: usize = 20_000;

/// Metrics to read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Names of the topologies.
    topologies: BTreeMap<TopologyId, String>,
    /// Host and port of this nimbus in its self metrics.
    me: (String, u16),
    /// Maximum number of series of a page.
    max: usize,
}

/// Metrics of the topologies that run, with what is known of them from earlier snapshots.
#[derive(Debug, Default)]
pub(super) struct StoredMetrics {
    topologies: BTreeMap<TopologyId, Topology>,
}

#[derive(Debug)]
struct Topology {
    /// Fingerprint of the metas.
    fingerprint: Fingerprint,
    levels: BTreeMap<Level, OfLevel>,
}

/// Metrics of a topology on one level.
#[derive(Debug, Default)]
struct OfLevel {
    n_series: usize,
    /// Metrics; `None` if the page leaves the level out.
    metrics: Option<Vec<Metric>>,
}

#[derive(Debug)]
struct Metric {
    id: MetricId,
    kind: MetricType,
    target: MeasuredSeries,
    closed: Closed,
}

/// Sum of the days before `until`.
#[derive(Debug)]
struct Closed {
    until: Minute,
    sum: Option<Point>,
}

impl Default for Closed {
    fn default() -> Self {
        Self { until: Minute(0), sum: None }
    }
}

impl Wanted {
    pub(super) fn new(nimbus: &Handle, observation: Option<&Observation>, max: usize) -> Self {
        let topologies = observation.map(|observation| &observation.view.topologies);
        let topologies = topologies.into_iter().flatten();
        let port = nimbus.api().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self {
            topologies: topologies.map(|(id, record)| (id.clone(), record.value.name.to_string())).collect(),
            me: (nimbus.options().host.clone(), port.unwrap_or_default()),
            max,
        }
    }

    /// Returns whether a metric is on the page, if its level is.
    fn holds(&self, name: &MetricName) -> bool {
        match name.subject() {
            Subject::Nimbus { host, port } => (host, *port) == (&self.me.0, self.me.1),
            Subject::Topology | Subject::Component { .. } | Subject::ComponentStream { .. } => true,
            Subject::Stream { .. } | Subject::Task { .. } => false,
            Subject::Worker { .. } | Subject::Connection { .. } => false,
        }
    }
}

impl StoredMetrics {
    /// Reads the names of the metrics, where they have changed. Topologies whose names cannot be read
    /// are as before, or left out.
    pub(super) async fn update(&mut self, store: &MetricStore, wanted: &Wanted) {
        let own: TopologyId = NIMBUS.parse().expect("a constant id is valid");
        self.topologies.retain(|id, _| wanted.topologies.contains_key(id) || *id == own);
        let own = (own, String::new());
        for (id, name) in wanted.topologies.clone().into_iter().chain([own]) {
            if let Err(error) = self.update_topology(store, wanted, (&id, &name)).await {
                debug!(topology = %id, %error, "cannot read the names of metrics for /metrics");
            }
        }
    }

    async fn update_topology(
        &mut self,
        store: &MetricStore,
        wanted: &Wanted,
        (id, name): (&TopologyId, &str),
    ) -> Result<(), Error> {
        let fingerprint = store.fingerprint(id).await?;
        let before = self.topologies.get_mut(id);
        if before.as_ref().is_some_and(|before| before.fingerprint == fingerprint) {
            return Ok(());
        }
        let mut closed: HashMap<MetricId, Closed> = HashMap::new();
        for level in before.into_iter().flat_map(|before| before.levels.values_mut()) {
            let metrics = level.metrics.iter_mut().flatten();
            closed.extend(metrics.map(|metric| (metric.id, std::mem::take(&mut metric.closed))));
        }
        let levels = read_names(store, wanted, (id, name), closed).await?;
        self.topologies.insert(id.clone(), Topology { fingerprint, levels });
        Ok(())
    }

    /// Returns the number of series of a level.
    pub(super) fn n_series(&self, level: Level) -> usize {
        let of_level = self.topologies.values().filter_map(|topology| topology.levels.get(&level));
        of_level.fold(0, |n, of_level| n.saturating_add(of_level.n_series))
    }

    /// Returns the families with the values of now. The metrics of levels that `is_shown` leaves out
    /// are forgotten, and read again once the level is shown.
    pub(super) async fn families(
        &mut self,
        store: &MetricStore,
        now: Timestamp,
        is_shown: impl Fn(Level) -> bool,
    ) -> Vec<Family> {
        let mut families = MeasuredFamilies::default();
        let today = Window::D1.bucket(Minute::of(now));
        let moment = Moment {
            open_from: today.minus(Window::D1.minutes()),
            since: Minute::of(now).minus(READING_AGE_MAX),
        };
        for (id, topology) in &mut self.topologies {
            for (level, of_level) in &mut topology.levels {
                if LEVELS.contains(level) && !is_shown(*level) {
                    of_level.metrics = None;
                    continue;
                }
                let Some(metrics) = &mut of_level.metrics else {
                    // The names are read for the next page.
                    topology.fingerprint = Fingerprint::default();
                    continue;
                };
                for some in metrics.chunks_mut(TOTALS_MAX) {
                    if let Err(error) = add(&mut families, store, id, some, &moment).await {
                        debug!(topology = %id, %error, "cannot read metrics for /metrics");
                    }
                }
            }
        }
        families.into_families()
    }
}

/// Times of one snapshot.
#[derive(Debug)]
struct Moment {
    /// First day that is summed for each page.
    open_from: Minute,
    /// First minute of readings that are shown.
    since: Minute,
}

/// Reads the names of a topology's metrics. A level that is too large alone has only its number of
/// series.
async fn read_names(
    store: &MetricStore,
    wanted: &Wanted,
    (id, name): (&TopologyId, &str),
    mut closed: HashMap<MetricId, Closed>,
) -> Result<BTreeMap<Level, OfLevel>, Error> {
    let mut levels: BTreeMap<Level, OfLevel> = BTreeMap::new();
    let mut query = MetaQuery { topology: id.clone(), meta: None, after: None, limit: METAS_MAX };
    loop {
        let page = store.metas(query.clone()).await?;
        for meta in page.metas.iter().filter(|meta| wanted.holds(&meta.name)) {
            let Some(target) = MeasuredSeries::of(&meta.name, name) else { continue };
            let level = levels.entry(target.level()).or_default();
            level.n_series = level.n_series.saturating_add(target.n_series());
            if level.n_series > wanted.max && LEVELS.contains(&target.level()) {
                level.metrics = None;
                continue;
            }
            let closed = closed.remove(&meta.id).unwrap_or_default();
            let metric = Metric { id: meta.id, kind: meta.name.kind(), target, closed };
            level.metrics.get_or_insert_default().push(metric);
        }
        match page.next {
            Some(_) => query.after = page.next,
            None => return Ok(levels),
        }
    }
}

/// Reads the values of metrics of one topology, and adds them.
async fn add(
    families: &mut MeasuredFamilies,
    store: &MetricStore,
    topology: &TopologyId,
    metrics: &mut [Metric],
    moment: &Moment,
) -> Result<(), Error> {
    let ids = metrics.iter().filter(|metric| metric.kind == MetricType::Gauge).map(|metric| metric.id);
    let readings = store.readings(topology.clone(), ids.collect(), moment.since).await?;
    let gauges = metrics.iter().filter(|metric| metric.kind == MetricType::Gauge);
    for (metric, reading) in gauges.zip(readings) {
        if let Some(point) = reading {
            families.add(&metric.target, &point);
        }
    }
    let mut totals: Vec<&mut Metric> =
        metrics.iter_mut().filter(|metric| metric.kind != MetricType::Gauge).collect();
    for metric in &mut totals {
        if metric.closed.until > moment.open_from {
            // The clock was set back: the sum may contain days that are open again.
            metric.closed = Closed::default();
        }
    }
    let wanted = totals.iter().map(|metric| (metric.id, metric.closed.until)).collect();
    let read = store.totals(wanted, moment.open_from).await?;
    for (metric, total) in totals.into_iter().zip(read) {
        let closed = &mut metric.closed;
        closed.until = moment.open_from;
        closed.sum = merged(closed.sum.take(), total.closed);
        if let Some(point) = merged(closed.sum.clone(), total.open) {
            families.add(&metric.target, &point);
        }
    }
    Ok(())
}

fn merged(sum: Option<Point>, more: Option<Point>) -> Option<Point> {
    match (sum, more) {
        (Some(mut sum), Some(more)) => {
            // All points of a metric are of its kind.
            let _fits = sum.merge(&more);
            Some(sum)
        }
        (sum, more) => sum.or(more),
    }
}
