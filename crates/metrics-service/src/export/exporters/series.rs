//! Numbers of a point, and their names. All stores that need plain numbers use these.
//!
//! | kind | numbers |
//! | --- | --- |
//! | counter | `count` |
//! | gauge | `value`, `min`, `max` |
//! | meter | `m1`, `m5`, `m15`, `mean` |
//! | histogram | `count`, `sum`, and with any value `min`, `max`, `mean`, `p50`, `p75`, `p90`, `p95`, `p98`, `p99`, `p999` |
//! | timer | those of its histogram, `m1`, `m5`, `m15` |
//!
//! Numbers that are not finite are omitted: no store accepts them.

use stormkeeper_metrics::{
    MetricName, MetricType, Minute, Point, Subject,
    builtin::{self, Shown},
    point::{Gauge, Histogram, Meter},
};

/// One number of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesValue {
    /// Name of the number.
    pub name: &'static str,
    /// Value of the number.
    pub value: Number,
}

/// Number in its exact type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count.
    Count(u64),
    /// Any other number; finite.
    Real(f64),
}

impl Number {
    /// Converts to JSON. Counts that stores with signed integers cannot represent become floats.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Count(n) => match i64::try_from(n) {
                Ok(n) => n.into(),
                Err(_) => (n as f64).into(),
            },
            Self::Real(value) => value.into(),
        }
    }
}

/// Exported percentiles, the same as in Storm and JStorm.
const PERCENTILES: &[(&str, f64)] = &[
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p98", 0.98),
    ("p99", 0.99),
    ("p999", 0.999),
];

/// Names of all numbers.
pub const NUMBERS: &[&str] = &[
    "count", "value", "min", "max", "sum", "mean", "m1", "m5", "m15", "p50", "p75", "p90", "p95", "p98",
    "p99", "p999",
];

/// Label of the cluster that the metrics come from.
pub const CLUSTER: &str = "cluster";

/// Returns the number that represents a metric of this kind if only one can: its name needs no
/// suffix.
pub fn principal(kind: MetricType) -> Option<&'static str> {
    match kind {
        MetricType::Counter => Some("count"),
        MetricType::Gauge => Some("value"),
        MetricType::Meter | MetricType::Histogram | MetricType::Timer => None,
    }
}

/// Returns the start of a minute in seconds.
pub fn timestamp(minute: Minute) -> u64 {
    minute.start().as_millis() / 1000
}

/// Returns the numbers of a point of the metric `name`.
pub fn of(name: &MetricName, point: &Point) -> Vec<SeriesValue> {
    let mut series = Vec::new();
    match point {
        Point::Counter(counter) => count(&mut series, "count", counter.count),
        Point::Gauge(gauge) => {
            real(&mut series, "value", gauge_value(name, gauge));
            real(&mut series, "min", gauge.min);
            real(&mut series, "max", gauge.max);
        }
        Point::Meter(meter) => {
            rates(&mut series, meter);
            real(&mut series, "mean", meter.mean());
        }
        Point::Histogram(histogram) => distribution(&mut series, histogram),
        Point::Timer(timer) => {
            distribution(&mut series, &timer.histogram);
            rates(&mut series, &timer.meter);
        }
    }
    series
}

/// Returns the last reading, over all gauges that were read in that minute.
fn gauge_value(name: &MetricName, gauge: &Gauge) -> f64 {
    match builtin::shown(name) {
        Shown::Sum => gauge.sum,
        Shown::Mean => gauge.sum / gauge.n.max(1) as f64,
    }
}

fn count(series: &mut Vec<SeriesValue>, name: &'static str, n: u64) {
    series.push(SeriesValue { name, value: Number::Count(n) });
}

fn real(series: &mut Vec<SeriesValue>, name: &'static str, value: f64) {
    if value.is_finite() {
        series.push(SeriesValue { name, value: Number::Real(value) });
    }
}

fn rates(series: &mut Vec<SeriesValue>, meter: &Meter) {
    real(series, "m1", meter.m1);
    real(series, "m5", meter.m5);
    real(series, "m15", meter.m15);
}

fn distribution(series: &mut Vec<SeriesValue>, histogram: &Histogram) {
    count(series, "count", histogram.count);
    real(series, "sum", histogram.sum);
    if histogram.count == 0 {
        return;
    }
    real(series, "min", histogram.min);
    real(series, "max", histogram.max);
    real(series, "mean", histogram.sum / histogram.count as f64);
    for (name, q) in PERCENTILES {
        if let Some(value) = histogram.quantile(*q) {
            real(series, name, value);
        }
    }
}

/// Returns the labels of a metric's subject, from the largest scope to the smallest, and its level.
/// At least two and at most [`LABELS_MAX`].
pub fn labels(name: &MetricName) -> Vec<(&'static str, String)> {
    let mut labels = vec![("topology", name.topology().to_string())];
    match name.subject() {
        Subject::Stream { component, task, stream } => {
            labels.push(("component", component.to_string()));
            labels.push(("task", task.to_string()));
            labels.push(("stream", stream.to_string()));
        }
        Subject::Task { component, task } => {
            labels.push(("component", component.to_string()));
            labels.push(("task", task.to_string()));
        }
        Subject::ComponentStream { component, stream } => {
            labels.push(("component", component.to_string()));
            labels.push(("stream", stream.to_string()));
        }
        Subject::Component { component } => labels.push(("component", component.to_string())),
        Subject::Worker { host, port }
        | Subject::Connection { host, port }
        | Subject::Nimbus { host, port } => {
            labels.push(("host", host.clone()));
            labels.push(("port", port.to_string()));
        }
        Subject::Topology => {}
    }
    labels.push(("level", name.meta().word().to_owned()));
    labels
}

/// Number of labels of a stream of a task, the maximum.
pub const LABELS_MAX: usize = 5;

/// Names of all labels.
pub const LABELS: [&str; 7] = ["topology", "component", "task", "stream", "host", "port", "level"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::exporters::backends::tests::fixture::{gauge, histogram, meta, meter, metrics};
    use stormkeeper_metrics::Buckets;

    fn shown(name: &str, point: &Point) -> String {
        assert!(of(&meta(name).name, point).iter().all(|number| NUMBERS.contains(&number.name)));
        let number = |number: SeriesValue| match number.value {
            Number::Count(n) => format!("{}={n}", number.name),
            // The last bits of powers of two depend on the math library of the machine.
            Number::Real(value) => format!("{}={:?}", number.name, (value * 1e6).round() / 1e6),
        };
        of(&meta(name).name, point).into_iter().map(number).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_kind_has_its_numbers() {
        let all: Vec<String> =
            metrics().iter().map(|(meta, point)| shown(&meta.name.to_string(), point)).collect();
        // A value counts as the harmonic mean of its bucket, within the exact bounds.
        let spread = "count=3 sum=8.0 min=2.0 max=4.0 mean=2.666667 p50=2.0 p75=3.95668 \
                      p90=3.95668 p95=3.95668 p98=3.95668 p99=3.95668 \
                      p999=3.95668";
        let timer = format!("{spread} m1=2.5 m5=2.0 m15=1.5");
        let expected = [
            "count=7",
            "count=5",
            "m1=2.5 m5=2.0 m15=1.5 mean=1.5",
            spread,
            &timer,
            "value=0.25 min=0.25 max=0.25",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn histogram_without_sampled_values_has_no_percentiles() {
        let empty = Point::Histogram(Histogram::default());
        assert_eq!(shown("1@4@t-1-1@c@4@@udf@size", &empty), "count=0 sum=0.0");
        // No value was sampled into the buckets.
        let unsampled = Point::Histogram(Histogram { buckets: Buckets::default(), ..histogram() });
        let known = "count=3 sum=8.0 min=2.0 max=4.0 mean=2.666667";
        assert_eq!(shown("1@4@t-1-1@c@4@@udf@size", &unsampled), known);
    }

    #[test]
    fn numbers_that_are_not_finite_are_omitted() {
        assert_eq!(shown("5@2@t-1-1@@0@udf@x", &gauge(f64::NAN)), "");
        assert_eq!(shown("5@2@t-1-1@@0@udf@x", &gauge(f64::INFINITY)), "");
        let odd = Point::Meter(Meter { m5: f64::NAN, ..meter(60) });
        assert_eq!(shown("5@3@t-1-1@@0@udf@x", &odd), "m1=2.5 m15=1.5 mean=1.0");
    }

    #[test]
    fn merged_gauges_show_their_sum_or_their_mean() {
        let at = stormkeeper_metrics::Minute(1);
        let two = Point::Gauge(Gauge { at, sum: 1.5, n: 2, min: 0.5, max: 1.0 });
        assert_eq!(shown("5@2@t-1-1@@0@udf@depth", &two), "value=1.5 min=0.5 max=1.0");
        let mean = builtin::ALL.iter().find(|builtin| builtin.shown == Shown::Mean).expect("there are some");
        let name = format!("5@2@t-1-1@@0@{}@{}", mean.group, mean.name);
        assert_eq!(shown(&name, &two), "value=0.75 min=0.5 max=1.0");
    }

    #[test]
    fn labels_identify_the_subject() {
        let shown = |name: &str| {
            let labels = labels(&meta(name).name);
            assert!((1..=LABELS_MAX).contains(&labels.len()));
            assert!(labels.iter().all(|(label, _)| LABELS.contains(label)));
            labels.iter().map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("3@1@t-1-1@c@4@s@sys@x"), "topology=t-1-1 component=c task=4 stream=s level=stream");
        assert_eq!(
            shown("8@1@t-1-1@c@0@s@sys@x"),
            "topology=t-1-1 component=c stream=s level=component-stream"
        );
        assert_eq!(shown("2@1@t-1-1@c@0@@sys@x"), "topology=t-1-1 component=c level=component");
        assert_eq!(shown("4@2@t-1-1@h@6700@sys@x"), "topology=t-1-1 host=h port=6700 level=worker");
        assert_eq!(shown("5@1@__CLUSTER__@@0@sys@x"), "topology=__CLUSTER__ level=topology");
    }
}
