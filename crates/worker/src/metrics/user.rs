//! Metrics of a component's own: what a child says by `metrics`.
//!
//! `params` is a number, which adds to a counter as Storm's `CountShellMetric` does, or an
//! object with one entry: `{"counter": 3}`, `{"gauge": 0.5}`, `{"meter": 3}`,
//! `{"histogram": [1, 2.5]}`, `{"timer": 120}` (µs).

use std::{collections::HashMap, time::Duration};

use stormkeeper_metrics::{
    UserMetrics,
    instrument::{Counter, Gauge, Histogram, Meter, Timer},
    user::RegisterError,
};
use stormkeeper_stream::Value;

/// How many values of a histogram one message may bring: the adapter sends at most as many.
pub(super) const VALUES_MAX: usize = 10_000;

/// The longest time that one value of a timer may be: a year.
const TIME_MAX: f64 = 365.0 * 24.0 * 3600.0 * 1e6;

/// An instrument that a child uses.
#[derive(Debug)]
pub(super) enum User {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
    Timer(Timer),
}

/// Takes in one `metrics` message. Each new counter is told to `keep`.
///
/// # Errors
/// What is wrong with it; then nothing was measured.
pub(super) fn take(
    users: &mut HashMap<(&'static str, String), User>,
    client: &UserMetrics,
    name: &str,
    params: &Value,
    keep: impl FnOnce(&str),
) -> Result<(), String> {
    let (kind, value) = read(params).map_err(|wrong| format!("metric {name:?}: {wrong}"))?;
    let key = (kind, name.to_owned());
    if !users.contains_key(&key) {
        let user = make(client, kind, name, keep).map_err(|error| error.to_string())?;
        users.insert(key.clone(), user);
    }
    match users.get(&key).map(|user| user.update(value)) {
        Some(Err(wrong)) => Err(format!("metric {name:?}: {wrong}")),
        Some(Ok(())) | None => Ok(()),
    }
}

fn make(
    client: &UserMetrics,
    kind: &'static str,
    name: &str,
    keep: impl FnOnce(&str),
) -> Result<User, RegisterError> {
    Ok(match kind {
        "gauge" => User::Gauge(client.register_gauge(name)?),
        "meter" => User::Meter(client.register_meter(name)?),
        "histogram" => User::Histogram(client.register_histogram(name)?),
        "timer" => User::Timer(client.register_timer(name)?),
        _counter => {
            let counter = client.register_counter(name)?;
            keep(name);
            User::Counter(counter)
        }
    })
}

const KINDS: [&str; 5] = ["counter", "gauge", "meter", "histogram", "timer"];

fn read(params: &Value) -> Result<(&'static str, &Value), String> {
    match params {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => Ok(("counter", params)),
        Value::Map(entries) => {
            let mut entries = entries.iter();
            let (Some((kind, value)), None) = (entries.next(), entries.next()) else {
                return Err("its params must have one entry".to_owned());
            };
            let known = KINDS.iter().find(|known| **known == &**kind);
            known.map(|kind| (*kind, value)).ok_or_else(|| {
                format!("{kind:?} is no kind of metric: there are counter, gauge, meter, histogram and timer")
            })
        }
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) => {
            Err("its params are neither a number nor an object such as {\"gauge\": 1}".to_owned())
        }
    }
}

impl User {
    fn update(&self, value: &Value) -> Result<(), String> {
        match self {
            Self::Counter(counter) => counter.add(whole(value)?),
            Self::Meter(meter) => meter.mark_many(whole(value)?),
            Self::Gauge(gauge) => gauge.set(number(value)?),
            Self::Histogram(histogram) => {
                values(value)?.into_iter().for_each(|value| histogram.update(value));
            }
            Self::Timer(timer) => {
                let times = values(value)?;
                if times.iter().any(|micros| !(0.0..=TIME_MAX).contains(micros)) {
                    return Err("a timer takes times in µs, from 0 to a year".to_owned());
                }
                times.into_iter().for_each(|micros| timer.update(Duration::from_secs_f64(micros / 1e6)));
            }
        }
        Ok(())
    }
}

/// What a counter counts: a whole number that is not negative.
fn whole(value: &Value) -> Result<u64, String> {
    const BOUND: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::UInt(n) => Some(*n),
        Value::Float(n) if n.fract() == 0.0 && (0.0..=BOUND).contains(n) => Some(*n as u64),
        Value::Float(_) | Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    }
    .ok_or_else(|| "what is counted is a whole number of 0 or more".to_owned())
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::UInt(n) => Some(*n as f64),
        Value::Float(n) if n.is_finite() => Some(*n),
        Value::Float(_) | Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    }
    .ok_or_else(|| "its value is no finite number".to_owned())
}

fn values(value: &Value) -> Result<Vec<f64>, String> {
    match value {
        Value::List(list) if list.len() > VALUES_MAX => {
            Err(format!("it brings more than {VALUES_MAX} values at once"))
        }
        Value::List(list) => list.iter().map(number).collect(),
        one => Ok(vec![number(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_metrics::{Control, Minute, Point, Registry, registry::CollectRequest};
    use stormkeeper_model::{TaskId, clock::Monotonic};

    fn said(messages: &[(&str, &str)]) -> (Vec<Result<(), String>>, Vec<Point>) {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let (topology, component) = ("t-1-1".parse().expect("valid"), "c".parse().expect("valid"));
        let client = UserMetrics::new(&registry, topology, component, TaskId(1));
        let mut users = HashMap::new();
        let results = messages.iter().map(|(name, params)| {
            let params = serde_json::from_str(params).expect("JSON");
            take(&mut users, &client, name, &params, |_| {})
        });
        let results = results.collect();
        let request = CollectRequest { minute: Minute(1), now: Monotonic::START, with_gauges: true };
        (results, registry.collect(request).into_iter().map(|leaf| leaf.point).collect())
    }

    #[test]
    fn every_kind_is_measured() {
        let (results, points) = said(&[
            ("n", "3"),
            ("n", r#"{"counter": 4.0}"#),
            ("g", r#"{"gauge": -0.5}"#),
            ("m", r#"{"meter": 2}"#),
            ("h", r#"{"histogram": [1, 2.5]}"#),
            ("h", r#"{"histogram": 4}"#),
            ("t", r#"{"timer": 1500}"#),
        ]);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(points.len(), 5);
        for point in points {
            match point {
                Point::Counter(counter) => assert_eq!(counter.count, 7),
                Point::Gauge(gauge) => assert!((gauge.sum + 0.5).abs() < f64::EPSILON),
                Point::Meter(meter) => assert_eq!(meter.count, 2),
                Point::Histogram(histogram) => assert_eq!((histogram.count, histogram.max as u64), (3, 4)),
                Point::Timer(timer) => assert_eq!(timer.histogram.max as u64, 1500),
            }
        }
    }

    #[test]
    fn the_messages_in_the_docs_are_understood() {
        let docs = include_str!("../../../../docs/metrics.md").lines();
        let messages = docs.filter(|line| line.starts_with("{\"command\": \"metrics\""));
        let messages: Vec<(String, String)> = messages
            .map(|line| {
                let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
                (message["name"].as_str().expect("a name").to_owned(), message["params"].to_string())
            })
            .collect();
        let messages: Vec<(&str, &str)> =
            messages.iter().map(|(name, params)| (name.as_str(), params.as_str())).collect();
        let (results, points) = said(&messages);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!((results.len(), points.len()), (6, 5), "the counter twice, and each other kind");
    }

    #[test]
    fn what_makes_no_sense_says_so_and_measures_nothing() {
        let (results, points) = said(&[
            ("n", "-3"),
            ("n", "1.5"),
            ("n", "null"),
            ("n", r#"{"counter": 1, "gauge": 2}"#),
            ("n", r#"{"sum": 1}"#),
            ("g", r#"{"gauge": "high"}"#),
            ("h", r#"{"histogram": [1, null]}"#),
            ("t", r#"{"timer": -1}"#),
            ("a@b", "1"),
            ("", "1"),
        ]);
        for (n, result) in results.iter().enumerate() {
            assert!(result.is_err(), "{n}");
        }
        assert_eq!(points, []);
    }
}
