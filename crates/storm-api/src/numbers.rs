//! Measured values: which ones a page needs, and what was read.

use std::collections::BTreeMap;

use crate::{text, window::Window};
use stormkeeper_metrics::{
    MetricName, MetricType, Point, Subject,
    builtin::{self, Builtin},
};
use stormkeeper_model::{ComponentId, StreamId, TaskId, TopologyId};

/// Maximum number of executors of a component whose numbers are read for one page; the numbers of the
/// others are `null`.
pub const EXECUTORS_MAX: usize = 2000;

/// Values that a page needs.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Vec<WantedValue>);

/// One metric, in one or more windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedValue {
    subject: Subject,
    kind: MetricType,
    group: &'static str,
    name: String,
    windows: Vec<Window>,
}

impl WantedValue {
    /// Returns the full name of the metric; `None` if its parts make no name.
    pub fn metric(&self, topology: &TopologyId) -> Option<MetricName> {
        let Self { subject, kind, group, name, .. } = self;
        MetricName::new(topology.clone(), *kind, subject.clone(), group, name).ok()
    }

    /// Returns the windows, in the order in which their values are expected.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }
}

impl Wanted {
    /// Returns the values, in the order in which they are expected.
    pub fn values(&self) -> &[WantedValue] {
        &self.0
    }

    pub(crate) fn add(&mut self, subject: &Subject, metrics: &[&Builtin], windows: &[Window]) {
        for metric in metrics {
            self.0.push(WantedValue {
                subject: subject.clone(),
                kind: metric.kind,
                group: metric.group,
                name: metric.name.to_owned(),
                windows: windows.to_vec(),
            });
        }
    }

    /// Adds the tuples that a task received on a stream from one component.
    pub(crate) fn add_received(&mut self, from: &ComponentId, at: &TaskStream<'_>, window: Window) {
        self.0.push(WantedValue {
            subject: at.subject(),
            kind: builtin::RECV_TPS.kind,
            group: builtin::RECV_TPS.group,
            name: received_name(from),
            windows: vec![window],
        });
    }
}

/// Stream of a task that receives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskStream<'a> {
    pub(crate) component: &'a ComponentId,
    pub(crate) task: TaskId,
    pub(crate) stream: &'a StreamId,
}

impl TaskStream<'_> {
    fn subject(&self) -> Subject {
        let Self { component, task, stream } = *self;
        Subject::Stream { component: component.clone(), task, stream: stream.clone() }
    }
}

fn received_name(from: &ComponentId) -> String {
    format!("{from}.{}", builtin::RECV_TPS.name)
}

/// Values that were read from a metric store.
#[derive(Debug, Clone, Default)]
pub struct Values {
    points: BTreeMap<Subject, Vec<(String, Window, Point)>>,
    /// Reason why no value is known; absent if the store was read.
    unknown: Option<String>,
    /// Times of the asked window that were not measured.
    hole: Option<String>,
}

impl Values {
    /// Values as read: for each wanted value, the points of its windows.
    pub fn new(wanted: Wanted, read: Vec<Vec<Option<Point>>>) -> Self {
        let mut points: BTreeMap<Subject, Vec<(String, Window, Point)>> = BTreeMap::new();
        for (WantedValue { subject, name, windows, .. }, read) in wanted.0.into_iter().zip(read) {
            let known = windows.into_iter().zip(read).filter_map(|(window, point)| Some((window, point?)));
            let known = known.map(|(window, point)| (name.clone(), window, point));
            points.entry(subject).or_default().extend(known);
        }
        Self { points, unknown: None, hole: None }
    }

    /// No values, and the reason.
    pub fn unknown(reason: String) -> Self {
        Self { unknown: Some(reason), ..Self::default() }
    }

    /// Says which times of the asked window were not measured.
    pub fn with_hole(self, hole: Option<String>) -> Self {
        Self { hole, ..self }
    }

    /// Returns whether nothing at all was measured.
    pub fn is_empty(&self) -> bool {
        self.points.values().all(Vec::is_empty)
    }

    /// Returns the text for people beside the numbers of a window: its length, and what is missing.
    pub(crate) fn hint(&self, window: Window) -> String {
        match (&self.unknown, &self.hole) {
            (Some(reason), _) => format!("{}: no numbers, {reason}", window.pretty()),
            (None, Some(hole)) => format!("{}: {hole}", window.pretty()),
            (None, None) => window.pretty(),
        }
    }

    fn point(&self, subject: &Subject, name: &str, window: Window) -> Option<&Point> {
        let points = self.points.get(subject)?;
        points.iter().find(|(of, within, _)| of == name && *within == window).map(|(_, _, point)| point)
    }

    /// Returns the count of a metric: 0 if nothing was counted, `None` if that is not known.
    pub(crate) fn count(&self, subject: &Subject, metric: &Builtin, window: Window) -> Option<u64> {
        self.count_named(subject, metric.name, window)
    }

    /// Returns the tuples that a task received on a stream from one component.
    pub(crate) fn received(&self, from: &ComponentId, at: &TaskStream<'_>, window: Window) -> u64 {
        self.count_named(&at.subject(), &received_name(from), window).unwrap_or_default()
    }

    fn count_named(&self, subject: &Subject, name: &str, window: Window) -> Option<u64> {
        if self.unknown.is_some() {
            return None;
        }
        Some(match self.point(subject, name, window) {
            None | Some(Point::Gauge(_)) => 0,
            Some(Point::Counter(counter)) => counter.count,
            Some(Point::Meter(meter)) => meter.count,
            Some(Point::Histogram(histogram)) => histogram.count,
            Some(Point::Timer(timer)) => timer.histogram.count,
        })
    }

    /// Returns the mean of a histogram of µs, in milliseconds; 0 without values.
    pub(crate) fn mean_ms(&self, subject: &Subject, metric: &Builtin, window: Window) -> f64 {
        match self.point(subject, metric.name, window) {
            Some(Point::Histogram(histogram)) if histogram.count > 0 => {
                histogram.sum / histogram.count as f64 / 1000.0
            }
            _ => 0.0,
        }
    }

    /// Returns the same as [`mean_ms`](Self::mean_ms), as text.
    pub(crate) fn latency(&self, subject: &Subject, metric: &Builtin, window: Window) -> String {
        text::decimal(self.mean_ms(subject, metric, window))
    }

    /// Returns the capacity beside numbers of `window`: the largest busy share of a task in a minute.
    pub(crate) fn capacity(&self, subject: &Subject, window: Window) -> f64 {
        match self.point(subject, builtin::CAPACITY.name, window.of_capacity()) {
            Some(Point::Gauge(gauge)) => gauge.max,
            _ => 0.0,
        }
    }
}
