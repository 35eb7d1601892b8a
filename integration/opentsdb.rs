//! The exporter `opentsdb` with a real VictoriaMetrics: every value is read back.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use async_trait::async_trait;
use stormkeeper_metric_store::{ExportKey, ExportKind, PayloadPage};
use stormkeeper_metrics::{
    MetaType, MetricId, MetricName, Minute, Point,
    point::{Counter, Gauge, Histogram},
    protocol::MetricMeta,
};
use stormkeeper_metrics_service::exporters::{
    self, ExportError, MetricExporter, PayloadSource, options, series,
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::test_support::wait_until;

use crate::victoria_metrics::VictoriaMetrics;

const READY: Duration = Duration::from_secs(30);

struct Payload(Vec<(MetricMeta, Point)>);

#[async_trait]
impl PayloadSource for Payload {
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
        let points: Vec<_> =
            self.0.iter().filter(|(meta, _)| Some(meta.id) > after).take(100).cloned().collect();
        let next = points.last().map(|(meta, _)| meta.id);
        Ok(PayloadPage { points, next })
    }
}

/// Metrics with names of all forms, enough for several batches.
fn metrics(minute: Minute, scale: u64) -> Payload {
    let mut metrics = Vec::new();
    let mut add = |name: String, point: Point| {
        let name: MetricName = name.parse().expect("a name");
        metrics.push((MetricMeta { id: MetricId::of(&name.to_string(), 0), name }, point));
    };
    for task in 1..=60_u64 {
        let count = task * scale;
        add(format!("3@1@wc-1-1@split@{task}@default@sys@Emitted"), Point::Counter(Counter { count }));
        let value = count as f64 / 7.0;
        add(
            format!("4@2@wc-1-1@host{task}@6700@udf@depth"),
            Point::Gauge(Gauge { at: minute, sum: value, n: 1, min: value, max: value }),
        );
        let buckets = [(31, count), (63, task)].into();
        let histogram = Histogram { count: count + task, sum: 1e9, min: 2.0, max: 4.0, zeros: 0, buckets };
        add(format!("1@4@wc-1-1@split@{task}@@udf@size"), Point::Histogram(histogram));
    }
    metrics.sort_by_key(|(meta, _)| meta.id);
    Payload(metrics)
}

/// Expected contents of the external store, computed without the exporter's code.
fn expected(payload: &Payload, minute: Minute) -> BTreeMap<String, (u64, f64)> {
    let mut expected = BTreeMap::new();
    for (MetricMeta { name, .. }, point) in &payload.0 {
        for number in series::of(name, point) {
            let plain =
                number.name == "count" && matches!(point, Point::Counter(_)) || number.name == "value";
            let suffix = if plain { String::new() } else { format!(".{}", number.name) };
            let mut labels: BTreeMap<String, String> =
                series::labels(name).into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
            labels.insert("__name__".to_owned(), format!("storm.{}.{}{suffix}", name.group(), name.name()));
            labels.insert("cluster".to_owned(), "it".to_owned());
            let value = match number.value {
                series::Number::Count(n) => n as f64,
                series::Number::Real(value) => value,
            };
            expected.insert(format!("{labels:?}"), (minute.start().as_millis() / 1000, value));
        }
    }
    expected
}

fn exporter(url: String) -> Result<std::sync::Arc<dyn MetricExporter>> {
    let (levels, timeout) = (MetaType::ALL.to_vec(), Duration::from_secs(5));
    let options = options::OpenTsdbOptions {
        cluster: "one".to_owned(),
        levels,
        url,
        prefix: "storm".to_owned(),
        batch: 50,
        max_tags: 8,
        tags: BTreeMap::from([("cluster".to_owned(), "it".to_owned())]),
        annotates: false,
        timeout,
    };
    Ok(std::sync::Arc::new(exporters::backends::opentsdb::OpenTsdb::new(options)?))
}

/// True if the external store has `n` values for this time and the sent value is one of them. The
/// external store keeps twelve decimal digits of a value.
fn is_among((shown_at, shown): &(u64, Vec<f64>), n: usize, (sent_at, sent): (u64, f64)) -> bool {
    let is_same = |shown: &f64| (shown - sent).abs() <= sent.abs() * 1e-11;
    *shown_at == sent_at && shown.len() == n && shown.iter().any(is_same)
}

#[tokio::test]
async fn victoria_metrics_stores_every_exported_value() -> Result<()> {
    let server = VictoriaMetrics::start().await?;
    let exporter = exporter(server.url())?;
    let minute = Minute::of(Clock::new().now()).minus(5);
    let key = ExportKey {
        number: 1,
        topology: "wc-1-1".parse()?,
        minute,
        kind: ExportKind::All,
        part: 0,
        parts: 1,
    };
    // The first export, a repetition, and exports with values corrected by late batches.
    for (n_before, scale) in [3, 3, 5, 4].into_iter().enumerate() {
        let payload = metrics(minute, scale);
        let expected = expected(&payload, minute);
        let sent = exporter.export(&key, &payload).await?;
        assert_eq!((sent.points, sent.refused), (expected.len() as u64, 0));
        wait_until("the external store has the same values", READY, || async {
            let found = server.export().await.map_err(|error| format!("{error:#}"))?;
            let is_there = |series: &String, value: &(u64, f64)| {
                found.get(series).is_some_and(|shown| is_among(shown, n_before + 1, *value))
            };
            let differs = expected.iter().find(|(series, value)| !is_there(series, value));
            match differs {
                None if found.len() == expected.len() => Ok(()),
                None => Err(format!("{} series instead of {}", found.len(), expected.len())),
                Some((series, value)) => {
                    Err(format!("{series}: {:?} instead of {value:?}", found.get(series)))
                }
            }
        })
        .await;
    }
    // The query that docs/exporters.md recommends for counts with corrections.
    let of_a_minute = "max_over_time({__name__=\"storm.sys.Emitted\"}[1m])";
    let found = server.query(&format!("sum(sum_over_time({of_a_minute}[1h:1m]))")).await?;
    let sum = (1..=60).map(|task| task * 5).sum::<u64>() as f64;
    assert_eq!(found.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [sum], "{found:?}");
    Ok(())
}
