//! Readings of Flink's tables from points of the metric store.

use stormkeeper_flink_api::{Distribution, MetricNumber, Reading};
use stormkeeper_metrics::{
    MetricName, Point,
    builtin::{self, Shown},
    point::{Gauge, Histogram, Meter},
};

/// Flink's names of built-in metrics, which tools for Flink know.
const ALIASES: [(&str, &str); 4] = [
    ("sys.Executed", "numRecordsIn"),
    ("sys.Emitted", "numRecordsOut"),
    ("sys.RecvTps", "numRecordsInPerSecond"),
    ("sys.SendTps", "numRecordsOutPerSecond"),
];

/// Returns the name of a metric: group and last part. A comma separates names in queries.
pub(super) fn name(name: &MetricName) -> String {
    format!("{}.{}", name.group(), name.name()).replace(',', "_")
}

/// Returns Flink's own name of a metric, if it has one.
pub(super) fn alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(own, _)| *own == name).map(|(_, alias)| *alias)
}

/// Returns the reading of a metric in its last minute, and the rate of a timer. A counter has
/// counted `count` since the submit. A metric that has reported nothing for a while has no rate any
/// more.
pub(super) fn of(
    name: &MetricName,
    point: &Point,
    count: u64,
    is_silent: bool,
) -> (Reading, Option<Reading>) {
    let rate = |meter: &Meter| real(if is_silent { 0.0 } else { meter.m1 });
    match point {
        Point::Counter(_) => (Reading::Single(MetricNumber::Whole(count)), None),
        Point::Gauge(gauge) => (real(value(gauge, builtin::shown(name))), None),
        Point::Meter(meter) => (rate(meter), None),
        Point::Histogram(histogram) => (distribution(histogram), None),
        Point::Timer(timer) => (distribution(&timer.histogram), Some(rate(&timer.meter))),
    }
}

fn real(number: f64) -> Reading {
    Reading::Single(MetricNumber::Real(number))
}

fn value(gauge: &Gauge, shown: Shown) -> f64 {
    match shown {
        Shown::Mean if gauge.n > 0 => gauge.sum / gauge.n as f64,
        Shown::Mean | Shown::Sum => gauge.sum,
    }
}

fn distribution(histogram: &Histogram) -> Reading {
    let mean = histogram.mean();
    // Without a sampled value the mean is the best that is known.
    let percentiles =
        histogram.percentiles().map_or([mean; 7], |p| [p.p50, p.p75, p.p90, p.p95, p.p98, p.p99, p.p999]);
    let [median, p75, p90, p95, p98, p99, p999] = percentiles;
    let stddev = histogram.stddev().unwrap_or_default();
    let (min, max) = (histogram.min, histogram.max);
    Reading::Distribution(Box::new(Distribution([
        min, max, mean, median, stddev, p75, p90, p95, p98, p99, p999,
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_metrics::{Minute, point::Counter};

    fn parsed(name: &str) -> MetricName {
        name.parse().expect("valid")
    }

    #[test]
    fn counter_has_its_total_and_not_the_count_of_its_last_minute() {
        let emitted = parsed("2@1@wc-1-1@split@0@@sys@Emitted");
        let point = Point::Counter(Counter { count: 3 });
        assert_eq!(of(&emitted, &point, 500, false).0, Reading::Single(MetricNumber::Whole(500)));
        assert_eq!((name(&emitted).as_str(), alias("sys.Emitted")), ("sys.Emitted", Some("numRecordsOut")));
        assert_eq!(name(&parsed("2@1@wc-1-1@split@0@@udf@a,b.c")), "udf.a_b.c");
    }

    #[test]
    fn gauge_of_a_mean_is_divided_by_its_readings() {
        let gauge = Point::Gauge(Gauge { at: Minute(1), sum: 3.0, n: 4, min: 0.1, max: 0.9 });
        let of = |name: &str| of(&parsed(name), &gauge, 0, false).0;
        assert_eq!(of("2@2@wc-1-1@split@0@@sys@Capacity"), real(0.75));
        assert_eq!(of("2@2@wc-1-1@split@0@@udf@load"), real(3.0));
    }

    #[test]
    fn silent_meter_has_no_rate() {
        let meter = Meter { count: 600, from: Minute(3), at: Minute(4), m1: 5.0, m5: 4.0, m15: 3.0 };
        let name = parsed("1@3@wc-1-1@split@2@@sys@SendTps");
        assert_eq!(of(&name, &Point::Meter(meter), 0, false).0, real(5.0));
        assert_eq!(of(&name, &Point::Meter(meter), 0, true).0, real(0.0));
    }

    #[test]
    fn histogram_without_samples_has_its_mean_as_percentiles() {
        let histogram = Histogram { count: 2, sum: 6.0, min: 1.0, max: 5.0, ..Histogram::default() };
        let Reading::Distribution(values) = distribution(&histogram) else { panic!("no distribution") };
        assert_eq!(values.0, [1.0, 5.0, 3.0, 3.0, 0.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]);
    }
}
