//! User metrics: updates that a child sends in `metrics` messages.
//!
//! `params` is a number, which adds to a counter as Storm's `CountShellMetric` does, `null`, which
//! adds one, or an
//! object with one entry: `{"counter": 3}`, `{"gauge": 0.5}`, `{"meter": 3}`,
//! `{"histogram": [1, 2.5]}`, `{"timer": 120}` (µs).

use std::{collections::HashMap, time::Duration};

use stormkeeper_metrics::{
    UserMetrics,
    instrument::{Counter, Gauge, Histogram, Meter, Timer},
    user::RegisterError,
};
use stormkeeper_stream::Value;

/// Limit of histogram values in one message; the Python adapter sends at most as many.
pub(super) const VALUES_MAX: usize = 10_000;

/// Longest time of one timer value: a year, in µs.
const TIME_MAX: f64 = 365.0 * 24.0 * 3600.0 * 1e6;

/// Instrument of a user metric.
#[derive(Debug)]
pub(super) enum UserInstrument {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
    Timer(Timer),
}

/// Applies one `metrics` message. Calls `on_new_counter` with the name of a new counter.
///
/// # Errors
/// Description of the error in the message; nothing was recorded in this case.
pub(super) fn apply(
    instruments: &mut HashMap<(&'static str, String), UserInstrument>,
    client: &UserMetrics,
    name: &str,
    params: &Value,
    on_new_counter: impl FnOnce(&str),
) -> Result<(), String> {
    let (kind, value) = read(params).map_err(|wrong| format!("metric {name:?}: {wrong}"))?;
    let key = (kind, name.to_owned());
    if !instruments.contains_key(&key) {
        let user = make(client, kind, name, on_new_counter).map_err(|error| error.to_string())?;
        instruments.insert(key.clone(), user);
    }
    match instruments.get(&key).map(|user| user.update(value)) {
        Some(Err(wrong)) => Err(format!("metric {name:?}: {wrong}")),
        Some(Ok(())) | None => Ok(()),
    }
}

fn make(
    client: &UserMetrics,
    kind: &'static str,
    name: &str,
    on_new_counter: impl FnOnce(&str),
) -> Result<UserInstrument, RegisterError> {
    Ok(match kind {
        "gauge" => UserInstrument::Gauge(client.register_gauge(name)?),
        "meter" => UserInstrument::Meter(client.register_meter(name)?),
        "histogram" => UserInstrument::Histogram(client.register_histogram(name)?),
        "timer" => UserInstrument::Timer(client.register_timer(name)?),
        _counter => {
            let counter = client.register_counter(name)?;
            on_new_counter(name);
            UserInstrument::Counter(counter)
        }
    })
}

const KINDS: [&str; 5] = ["counter", "gauge", "meter", "histogram", "timer"];

fn read(params: &Value) -> Result<(&'static str, &Value), String> {
    match params {
        Value::Int(_) | Value::UInt(_) | Value::BigInt(_) | Value::Float(_) => Ok(("counter", params)),
        Value::Null => Ok(("counter", &Value::Int(1))),
        Value::Map(entries) => {
            let mut entries = entries.iter();
            let (Some((kind, value)), None) = (entries.next(), entries.next()) else {
                return Err("params must have exactly one entry".to_owned());
            };
            let known = KINDS.iter().find(|known| **known == &**kind);
            known.map(|kind| (*kind, value)).ok_or_else(|| {
                format!("unknown metric kind {kind:?}; expected counter, gauge, meter, histogram or timer")
            })
        }
        Value::Bool(_) | Value::Text(_) | Value::List(_) => {
            Err("params must be a number or an object such as {\"gauge\": 1}".to_owned())
        }
    }
}

impl UserInstrument {
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
                    return Err("a timer value must be a time in µs, from 0 to one year".to_owned());
                }
                times.into_iter().for_each(|micros| timer.update(Duration::from_secs_f64(micros / 1e6)));
            }
        }
        Ok(())
    }
}

/// Parses a count: an integer that is not negative.
fn whole(value: &Value) -> Result<u64, String> {
    const BOUND: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::UInt(n) => Some(*n),
        Value::Float(n) if n.fract() == 0.0 && (0.0..=BOUND).contains(n) => Some(*n as u64),
        Value::BigInt(_)
        | Value::Float(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
    .ok_or_else(|| "a count must be an integer from 0 to 2^64-1".to_owned())
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::UInt(n) => Some(*n as f64),
        Value::Float(n) if n.is_finite() => Some(*n),
        Value::BigInt(_)
        | Value::Float(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
    .ok_or_else(|| "the value must be a finite number".to_owned())
}

fn values(value: &Value) -> Result<Vec<f64>, String> {
    match value {
        Value::List(list) if list.len() > VALUES_MAX => {
            Err(format!("more than {VALUES_MAX} values in one message"))
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

    fn apply_all(messages: &[(&str, &str)]) -> (Vec<Result<(), String>>, Vec<Point>) {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let (topology, component) = ("t-1-1".parse().expect("valid"), "c".parse().expect("valid"));
        let client = UserMetrics::new(&registry, topology, component, TaskId(1));
        let mut instruments = HashMap::new();
        let results = messages.iter().map(|(name, params)| {
            let params = serde_json::from_str(params).expect("JSON");
            apply(&mut instruments, &client, name, &params, |_| {})
        });
        let results = results.collect();
        let request = CollectRequest { minute: Minute(1), now: Monotonic::START, with_gauges: true };
        (results, registry.collect(request).into_iter().map(|leaf| leaf.point).collect())
    }

    #[test]
    fn all_kinds_are_recorded() {
        let (results, points) = apply_all(&[
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
    fn messages_in_the_docs_are_valid() {
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
        let (results, points) = apply_all(&messages);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!((results.len(), points.len()), (6, 5), "the counter twice, and each other kind");
    }

    #[test]
    fn invalid_message_is_an_error_and_records_nothing() {
        let (results, points) = apply_all(&[
            ("n", "-3"),
            ("n", "1.5"),
            ("n", "true"),
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
