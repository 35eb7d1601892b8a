//! Metrics of topologies, hosts and daemons as families: name, unit, labels and values.
//!
//! | metric | family |
//! | --- | --- |
//! | counter, meter | counter: the number of events |
//! | gauge | gauge: the sum or the mean of the readings of the last minute |
//! | histogram, timer | histogram of the sampled values; counters of the number and the sum of all values |
//!
//! A histogram has the sampled values only, as they are: scaled to all values, a bucket could
//! shrink, which a reader takes for a restart. So its count, too, is that of the sampled values.

mod distribution;
mod level;
mod table;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use crate::{Description, Family, FamilyKind, Labels, Sample, SampleValue, Unit, spelling};
use stormkeeper_metrics::{
    MetricName, MetricType, Point, Subject,
    builtin::{Builtin, Shown},
    name::{SUPERVISOR, UDF},
    point::{Gauge, Histogram},
};
use stormkeeper_model::TopologyId;

use distribution::{distribution, scaled};

pub use level::Level;
pub use table::left_out;

/// Begin of all names.
const PREFIX: &str = "stormkeeper";

/// Bounds of classic buckets, in seconds.
const TIME_BOUNDS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

/// Bounds of classic buckets, in bytes.
const SIZE_BOUNDS: &[f64] = &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0];

/// Bounds of classic buckets of users' values.
const VALUE_BOUNDS: &[f64] = &[1.0, 10.0, 100.0, 1000.0, 10000.0, 100_000.0];

/// Note of every histogram.
const SAMPLED: &str = "Distribution of the sampled values.";
const NUMBER: &str = "Number of values, sampled or not.";
const SUM: &str = "Sum of the values, sampled or not.";

/// Families of one metric, with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredSeries {
    level: Level,
    labels: Labels,
    /// Family of the value.
    value: Arc<Description>,
    /// Counter of all values of a histogram.
    number: Option<Arc<Description>>,
    /// Counter of the sum of all values of a histogram; absent for users' histograms, whose values may
    /// be negative.
    sum: Option<Arc<Description>>,
    /// Factor from the unit of the metric to that of the family.
    scale: f64,
    /// Bounds of the classic buckets.
    bounds: &'static [f64],
    is_mean: bool,
}

impl MeasuredSeries {
    /// Returns the families of a metric of the topology called `topology`. `None` for metrics that are
    /// left out, such as those of a newer build.
    pub fn of(name: &MetricName, topology: &str) -> Option<Self> {
        let level = Level::of(name);
        let labels = labels(name, topology);
        if name.group() == UDF {
            return Some(Self::of_user(level, labels, name));
        }
        let (builtin, base) = table::find(level, name)?;
        let (scale, unit, bounds) = scale(builtin);
        let describe = |base: String, kind, unit, note| Description {
            name: Cow::Owned(format!("{PREFIX}_{}_{base}", level.word())),
            kind,
            unit,
            help: Cow::Borrowed(table::meaning(builtin)),
            note,
        };
        let is_histogram = matches!(builtin.kind, MetricType::Histogram | MetricType::Timer);
        let (number, sum) = match is_histogram {
            false => (None, None),
            true => {
                let (suffix, stem) = stem(base, unit);
                let sum = format!("{stem}_accumulated{suffix}");
                (
                    Some(describe(format!("{stem}_values"), FamilyKind::Counter, Unit::Things, NUMBER)),
                    Some(describe(sum, FamilyKind::Counter, unit, SUM)),
                )
            }
        };
        let note = if is_histogram { SAMPLED } else { "" };
        Some(Self {
            level,
            labels,
            value: Arc::new(describe(base.to_owned(), kind(builtin.kind), unit, note)),
            number: number.map(Arc::new),
            sum: sum.map(Arc::new),
            scale,
            bounds,
            is_mean: builtin.shown == Shown::Mean,
        })
    }

    /// Returns the families of a user metric. The last words of their names depend on the kind, and no
    /// such end can be that of another kind, so that neither kinds nor derived names (`_total`,
    /// `_bucket`) clash.
    fn of_user(level: Level, labels: Labels, name: &MetricName) -> Self {
        let spelled = spelling::spell(name.name());
        let help = format!("User metric {}.", name.name());
        let describe = |end: &str, kind, unit, note| {
            Arc::new(Description {
                name: Cow::Owned(format!("{PREFIX}_{}_user_{spelled}_{end}", level.word())),
                kind,
                unit,
                help: Cow::Owned(help.clone()),
                note,
            })
        };
        let (end, number, unit, scale, bounds) = match name.kind() {
            MetricType::Counter => ("events", None, Unit::Things, 1.0, VALUE_BOUNDS),
            MetricType::Meter => ("marks", None, Unit::Things, 1.0, VALUE_BOUNDS),
            MetricType::Gauge => ("value", None, Unit::Things, 1.0, VALUE_BOUNDS),
            MetricType::Histogram => {
                ("distribution", Some("distribution_values"), Unit::Things, 1.0, VALUE_BOUNDS)
            }
            MetricType::Timer => {
                ("duration_seconds", Some("duration_values"), Unit::Seconds, 1e-6, TIME_BOUNDS)
            }
        };
        let note = if number.is_some() { SAMPLED } else { "" };
        Self {
            level,
            labels,
            value: describe(end, kind(name.kind()), unit, note),
            number: number.map(|end| describe(end, FamilyKind::Counter, Unit::Things, NUMBER)),
            sum: None,
            scale,
            bounds,
            is_mean: false,
        }
    }

    /// Returns the level of the metric.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the number of series of the metric in the text format, at most.
    pub fn n_series(&self) -> usize {
        self.value.n_series(self.bounds)
            + usize::from(self.number.is_some())
            + usize::from(self.sum.is_some())
    }

    /// Returns the descriptions of the families.
    pub fn descriptions(&self) -> impl Iterator<Item = &Arc<Description>> {
        [Some(&self.value), self.number.as_ref(), self.sum.as_ref()].into_iter().flatten()
    }
}

/// Families of measured metrics, which grow by one metric at a time.
#[derive(Debug, Clone, Default)]
pub struct MeasuredFamilies {
    by_name: BTreeMap<Cow<'static, str>, Family>,
}

impl MeasuredFamilies {
    /// Adds a metric: the total of a counter, meter, histogram or timer, or the reading of a gauge.
    pub fn add(&mut self, target: &MeasuredSeries, point: &Point) {
        match point {
            Point::Counter(counter) => self.push(target, &target.value, SampleValue::Count(counter.count)),
            Point::Meter(meter) => self.push(target, &target.value, SampleValue::Count(meter.count)),
            Point::Gauge(gauge) => {
                if let Some(value) = reading(gauge, target.is_mean) {
                    self.push(target, &target.value, SampleValue::Real(scaled(value, target.scale)));
                }
            }
            Point::Histogram(histogram) => self.add_histogram(target, histogram),
            Point::Timer(timer) => self.add_histogram(target, &timer.histogram),
        }
    }

    fn add_histogram(&mut self, target: &MeasuredSeries, histogram: &Histogram) {
        let distribution = distribution(histogram, target.scale, target.bounds);
        self.push(target, &target.value, SampleValue::Distribution(Box::new(distribution)));
        if let Some(about) = &target.number {
            self.push(target, about, SampleValue::Count(histogram.count));
        }
        if let Some(about) = &target.sum {
            // A sum of µs is near the whole number that it is; dividing by a whole number keeps it.
            self.push(target, about, SampleValue::Real(scaled(histogram.sum.max(0.0), target.scale)));
        }
    }

    fn push(&mut self, target: &MeasuredSeries, about: &Arc<Description>, value: SampleValue) {
        let family = match self.by_name.get_mut(&about.name) {
            Some(family) => family,
            None => {
                let new = Family::new(Arc::clone(about));
                self.by_name.entry(about.name.clone()).or_insert(new)
            }
        };
        // A metric of another kind than its name says has no place on the page.
        let fits =
            matches!(value, SampleValue::Distribution(_)) == (family.about.kind == FamilyKind::Histogram);
        if fits {
            family.samples.push(Sample { labels: Arc::clone(&target.labels), value });
        }
    }

    /// Returns the families, by name.
    pub fn into_families(self) -> Vec<Family> {
        self.by_name.into_values().collect()
    }
}

/// Returns the families of metrics with their points, for a page of single workers and their host: the
/// totals of counters, meters, histograms and timers since the start of what sends the page, and the
/// readings of gauges of the last minutes. `name_of` returns the name of a topology.
pub fn families<'a>(
    points: impl IntoIterator<Item = (&'a MetricName, &'a Point)>,
    name_of: impl Fn(&TopologyId) -> String,
) -> Vec<Family> {
    let mut families = MeasuredFamilies::default();
    for (name, point) in points {
        if let Some(series) = MeasuredSeries::of(name, &name_of(name.topology())) {
            families.add(&series, point);
        }
    }
    families.into_families()
}

/// Returns the descriptions of all families of built-in metrics that are measured on a level.
pub fn catalog(level: Level) -> Vec<Arc<Description>> {
    let names = table::names(level);
    let targets = names.iter().filter_map(|name| MeasuredSeries::of(name, ""));
    targets.flat_map(|target| target.descriptions().cloned().collect::<Vec<_>>()).collect()
}

const fn kind(kind: MetricType) -> FamilyKind {
    match kind {
        MetricType::Counter | MetricType::Meter => FamilyKind::Counter,
        MetricType::Gauge => FamilyKind::Gauge,
        MetricType::Histogram | MetricType::Timer => FamilyKind::Histogram,
    }
}

/// Returns the factor from the unit of a built-in metric to a base unit, the base unit, and the bounds
/// of classic buckets.
fn scale(builtin: &Builtin) -> (f64, Unit, &'static [f64]) {
    match (builtin.unit, builtin.kind) {
        ("µs", _) => (1e-6, Unit::Seconds, TIME_BOUNDS),
        ("ms", _) => (1e-3, Unit::Seconds, TIME_BOUNDS),
        ("% full" | "% of the host", _) => (1e-2, Unit::Ratio, VALUE_BOUNDS),
        ("% of a core", _) => (1e-2, Unit::Things, VALUE_BOUNDS),
        ("0 to 1", _) => (1.0, Unit::Ratio, VALUE_BOUNDS),
        // A meter counts bytes; a gauge of bytes per second has no base unit.
        ("bytes", _) | ("bytes/s", MetricType::Meter) => (1.0, Unit::Bytes, SIZE_BOUNDS),
        _ => (1.0, Unit::Things, VALUE_BOUNDS),
    }
}

/// Splits a name into its unit with the `_` before it, and the rest.
fn stem(base: &'static str, unit: Unit) -> (String, &'static str) {
    match unit.suffix() {
        None => (String::new(), base),
        Some(unit) => {
            let stem = base.strip_suffix(unit).and_then(|stem| stem.strip_suffix('_')).unwrap_or(base);
            (format!("_{unit}"), stem)
        }
    }
}

fn labels(name: &MetricName, topology: &str) -> Labels {
    let topology = [("topology", topology.to_owned()), ("topology_id", name.topology().to_string())];
    let mut labels = topology.to_vec();
    match name.subject() {
        Subject::Topology => {}
        Subject::Component { component } => labels.push(("component", component.to_string())),
        Subject::ComponentStream { component, stream } => {
            labels.extend([("component", component.to_string()), ("stream", stream.to_string())]);
        }
        Subject::Task { component, task } => {
            labels.extend([("component", component.to_string()), ("task", task.to_string())]);
        }
        Subject::Stream { component, task, stream } => {
            labels.extend([("component", component.to_string()), ("task", task.to_string())]);
            labels.push(("stream", stream.to_string()));
            // The stream of a received tuple has its sender in the name.
            if let Some((sender, _)) = name.name().rsplit_once('.').filter(|_| name.group() != UDF) {
                labels.push(("sender", sender.to_owned()));
            }
        }
        Subject::Worker { host, .. } if name.topology().as_str() == SUPERVISOR => {
            labels = vec![("host", host.clone())];
        }
        Subject::Worker { host, port } => {
            labels.extend([("host", host.clone()), ("port", port.to_string())]);
        }
        Subject::Connection { host, port } => {
            labels.extend([("host", host.clone()), ("port", port.to_string())]);
            if let Some((peer, _)) = name.name().rsplit_once('.') {
                labels.push(("peer", peer.to_owned()));
            }
        }
        // A nimbus is the one that is asked.
        Subject::Nimbus { .. } => labels.clear(),
    }
    labels.into()
}

/// Returns the value of a gauge; `None` without a reading.
fn reading(gauge: &Gauge, is_mean: bool) -> Option<f64> {
    let divisor = if is_mean { gauge.n as f64 } else { 1.0 };
    (gauge.n > 0).then(|| gauge.sum / divisor)
}
