//! Conversion from the types of the metric store to the JSON of responses.

use super::filter;
use stormkeeper_api_types::message::{
    CounterValue, GaugeValue, HistogramValue, MeterValue, MetricMetaView, MetricValue, PastTopology,
    TaskPlace, TimerValue,
};
use stormkeeper_metric_store::{HistoryEntry, TrackEntry};
use stormkeeper_metrics::{
    MetricName, Minute, Point, Subject,
    builtin::{self, Shown},
    percentile::Percentiles,
    point::{Gauge, Histogram, Meter},
    protocol::MetricMeta,
};

pub(super) fn meta(MetricMeta { id, name }: &MetricMeta) -> MetricMetaView {
    let (component, task, stream) = filter::parts(name.subject());
    let (host, port) = match name.subject() {
        Subject::Worker { host, port }
        | Subject::Connection { host, port }
        | Subject::Nimbus { host, port } => (Some(host.clone()), Some(*port)),
        Subject::Stream { .. }
        | Subject::Task { .. }
        | Subject::ComponentStream { .. }
        | Subject::Component { .. }
        | Subject::Topology => (None, None),
    };
    MetricMetaView {
        id: id.to_string(),
        name: name.to_string(),
        level: name.meta().word().to_owned(),
        kind: name.kind().word().to_owned(),
        group: name.group().to_owned(),
        metric: name.name().to_owned(),
        unit: builtin::of(name).map(|builtin| builtin.unit.to_owned()),
        component: component.cloned(),
        task,
        stream: stream.cloned(),
        host,
        port,
    }
}

/// Extends the rates of a point to the end of its window: the mean of a meter that reports nothing
/// any more decreases, and its rates are 0. The reports of one minute may arrive one after the other.
pub(super) fn until(point: &mut Point, end: Minute) {
    let extend = |meter: &mut Meter| {
        if meter.at.plus(1) < end {
            (meter.m1, meter.m5, meter.m15) = (0.0, 0.0, 0.0);
        }
        meter.at = meter.at.max(end);
    };
    match point {
        Point::Meter(meter) => extend(meter),
        Point::Timer(timer) => extend(&mut timer.meter),
        Point::Counter(_) | Point::Gauge(_) | Point::Histogram(_) => {}
    }
}

/// Converts a point of the metric `name`.
pub(super) fn value(name: &MetricName, point: &Point) -> MetricValue {
    match point {
        Point::Counter(counter) => MetricValue::Counter(CounterValue { count: counter.count }),
        Point::Gauge(gauge) => MetricValue::Gauge(self::gauge(gauge, builtin::shown(name))),
        Point::Meter(meter) => MetricValue::Meter(self::meter(meter)),
        Point::Histogram(histogram) => MetricValue::Histogram(self::histogram(histogram)),
        Point::Timer(timer) => MetricValue::Timer(TimerValue {
            histogram: histogram(&timer.histogram),
            meter: meter(&timer.meter),
        }),
    }
}

fn gauge(gauge: &Gauge, shown: Shown) -> GaugeValue {
    let value = match shown {
        Shown::Mean if gauge.n > 0 => gauge.sum / gauge.n as f64,
        Shown::Mean | Shown::Sum => gauge.sum,
    };
    GaugeValue { value, n: gauge.n, min: gauge.min, max: gauge.max, at_ms: Some(gauge.at.end()) }
}

fn meter(meter: &Meter) -> MeterValue {
    let Meter { count, m1, m5, m15, .. } = *meter;
    MeterValue { count, m1, m5, m15, mean: meter.mean() }
}

fn histogram(histogram: &Histogram) -> HistogramValue {
    if histogram.count == 0 {
        return HistogramValue::default();
    }
    let percentiles = histogram.percentiles();
    let of = |part: fn(&Percentiles) -> f64| percentiles.as_ref().map(part);
    HistogramValue {
        count: histogram.count,
        sum: histogram.sum,
        min: Some(histogram.min),
        max: Some(histogram.max),
        mean: Some(histogram.mean()),
        stddev: histogram.stddev(),
        p50: of(|p| p.p50),
        p75: of(|p| p.p75),
        p90: of(|p| p.p90),
        p95: of(|p| p.p95),
        p98: of(|p| p.p98),
        p99: of(|p| p.p99),
        p999: of(|p| p.p999),
    }
}

pub(super) fn task_place(entry: TrackEntry) -> TaskPlace {
    let TrackEntry { task, component, host, port, from, to, reason, ended } = entry;
    let ended = Some(ended).filter(|ended| !ended.is_empty());
    TaskPlace { task, component, host, port, from_ms: from, to_ms: to, reason, ended }
}

pub(super) fn past_topology(entry: HistoryEntry) -> PastTopology {
    let HistoryEntry { topology, name, started, started_by, killed, killed_by, reason, sample_rate } = entry;
    let kill_reason = Some(reason).filter(|reason| !reason.is_empty());
    PastTopology {
        id: topology,
        name,
        started_ms: started,
        started_by,
        killed_ms: killed,
        killed_by,
        kill_reason,
        sample_rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_that_reports_nothing_any_more_has_no_rate_and_a_falling_mean() {
        let meter = Meter { count: 600, from: Minute(3), at: Minute(4), m1: 5.0, m5: 4.0, m15: 3.0 };
        let shown = |end: u32| {
            let mut point = Point::Meter(meter);
            until(&mut point, Minute(end));
            let Point::Meter(meter) = point else { panic!("{point:?}") };
            (meter.m1, meter.m15, meter.mean())
        };
        assert_eq!(shown(4), (5.0, 3.0, 5.0));
        assert_eq!(shown(5), (5.0, 3.0, 600.0 / 180.0), "its report of this minute may still arrive");
        assert_eq!(shown(12), (0.0, 0.0, 1.0));
    }
}
