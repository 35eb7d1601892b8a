//! Topology settings that a worker applies, read once, with their defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;
use tracing::warn;

use crate::{Options, multilang::codec::Codec, tracking::PENDING_MAX};
use stormkeeper_metrics::{Control, control::SAMPLE_RATE};
use stormkeeper_model::{
    ComponentId, resources,
    topology::{Settings, Topology},
};
use stormkeeper_stream as stream;

/// Default limit of tuples that a shell bolt has accepted and its child has not read.
const MAX_PENDING: usize = 100;

/// Default of the same limit for a child that takes batches: it holds as many again, of which it has not
/// finished all.
const MAX_PENDING_IN_BATCHES: usize = 1024;

/// Default first pause of a spout that emitted nothing.
const SPOUT_WAIT: Duration = Duration::from_millis(1);

/// Default limit of reported errors per task and interval.
const ERRORS_PER_INTERVAL: usize = 5;

/// Default limit of workers above which single connections have no metrics.
const MAX_WORKERS_FOR_CONNECTIONS: usize = 200;

/// Default interval of the error limit.
const ERROR_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of one component's tasks, set by the topology's author or by the host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskSettings {
    /// `topology.shellbolt.max.pending`
    pub max_pending: usize,
    /// `topology.shellbolt.max.pending` for a child that takes batches.
    pub max_pending_in_batches: usize,
    /// `topology.tick.tuple.freq.secs`
    pub tick: Option<Tick>,
    /// `topology.subprocess.timeout.secs`
    pub timeout: Duration,
    /// `topology.sleep.spout.wait.strategy.time.ms`
    pub spout_wait: Duration,
    /// `topology.component.resources.onheap.memory.mb` and `…offheap.memory.mb`, added; 0 if neither is
    /// set.
    pub memory_mb: u64,
    /// `topology.multilang.serializer`
    pub codec: Codec,
    /// `topology.max.spout.pending`
    pub max_spout_pending: usize,
    /// `topology.cycle.timeout.secs`: time for which a task waits for room in a queue of a cycle that it is
    /// in.
    pub cycle_timeout: Duration,
    /// Whether shuffles pass over tasks whose queues are full: not `topology.disable.loadaware.messaging`.
    pub shuffles_by_load: bool,
    /// `topology.environment`
    pub environment: BTreeMap<String, String>,
}

/// Tick tuples of a bolt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// Time between two ticks.
    pub period: Duration,
    /// Value of the tick tuple: the number of seconds as it was configured.
    pub value: stream::Value,
}

/// Rate limit of the errors that one task reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorThrottle {
    /// `topology.max.error.report.per.interval`
    pub per_interval: usize,
    /// `topology.error.throttle.interval.secs`
    pub interval: Duration,
}

/// Settings by precedence: component, then topology, then host.
struct Layers<'a> {
    topology: &'a Topology,
    component: Option<&'a ComponentId>,
    defaults: &'a Settings,
}

impl Layers<'_> {
    /// Returns the value at `key`, parsed by `read`. A value that `read` rejects is logged and
    /// treated as not set.
    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let own = self.component.and_then(|id| self.topology.setting(id, key));
        let value = own.or_else(|| self.topology.settings.get(key)).or_else(|| self.defaults.get(key))?;
        let understood = read(value);
        if understood.is_none() && !value.is_null() {
            warn!(key, %value, "invalid setting value; using the default");
        }
        understood
    }
}

/// Setting for the time after which a full cycle is broken.
const CYCLE_TIMEOUT: &str = "topology.cycle.timeout.secs";

/// Longer than a healthy bolt needs for a full queue of fast tuples, shorter than the message timeout.
const CYCLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

impl TaskSettings {
    /// Returns the settings for tasks of `component`.
    pub(crate) fn of(topology: &Topology, component: &ComponentId, options: &Options) -> Self {
        let layers = Layers { topology, component: Some(component), defaults: &options.spec.defaults };
        let max_pending = layers.get("topology.shellbolt.max.pending", count);
        Self {
            max_pending: max_pending.unwrap_or(MAX_PENDING),
            max_pending_in_batches: max_pending.unwrap_or(MAX_PENDING_IN_BATCHES),
            tick: layers.get("topology.tick.tuple.freq.secs", |value| {
                let value: stream::Value = serde_json::from_value(value.clone()).ok()?;
                Some(Tick { period: seconds(&serde_json::to_value(&value).ok()?)?, value })
            }),
            timeout: layers
                .get("topology.subprocess.timeout.secs", seconds)
                // As in Storm, the timeout of workers is that of their components.
                .or_else(|| layers.get("supervisor.worker.timeout.secs", seconds))
                .unwrap_or(options.spec.subprocess_timeout),
            spout_wait: layers
                .get("topology.sleep.spout.wait.strategy.time.ms", |value| value.as_u64())
                .map_or(SPOUT_WAIT, |ms| Duration::from_millis(ms).max(SPOUT_WAIT)),
            memory_mb: resources::request(topology, component).memory_mb,
            codec: layers
                .get("topology.multilang.serializer", |value| Codec::named(value.as_str()?))
                .unwrap_or_default(),
            cycle_timeout: layers.get(CYCLE_TIMEOUT, seconds).unwrap_or(CYCLE_TIMEOUT_DEFAULT),
            shuffles_by_load: !layers
                .get("topology.disable.loadaware.messaging", Value::as_bool)
                .unwrap_or_default(),
            max_spout_pending: layers
                .get("topology.max.spout.pending", count)
                .map_or(PENDING_MAX, |n| n.min(PENDING_MAX)),
            environment: layers.get("topology.environment", variables).unwrap_or_default(),
        }
    }
}

/// Fewest tuples in a queue above which a shuffle chooses another one.
const ROOM_MIN: usize = 16;

impl TaskSettings {
    /// Number of tuples in a queue above which a shuffle chooses another one, if one has fewer. A spout
    /// with a limit of pending tuples must not have all of them in the queue of a slow task, which has as
    /// many again in its hands: a quarter leaves half of them to the others.
    pub(crate) fn room_of_choice(&self) -> usize {
        (self.max_spout_pending / 4).max(ROOM_MIN)
    }
}

/// Returns whether tuple trees of `topology` fail after the message timeout.
pub(crate) fn has_message_timeouts(topology: &Topology, options: &Options) -> bool {
    let layers = Layers { topology, component: None, defaults: &options.spec.defaults };
    layers.get("topology.enable.message.timeouts", Value::as_bool).unwrap_or(true)
}

/// Returns whether frames of tuples to other workers are compressed.
pub(crate) fn is_compressing(topology: &Topology, options: &Options) -> bool {
    let layers = Layers { topology, component: None, defaults: &options.spec.defaults };
    layers.get("topology.transport.compression", |value| Some(value.as_str()? == "lz4")).unwrap_or(false)
}

/// Metric settings of a topology.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetricSettings {
    /// Enabled and disabled metrics, sample rate.
    pub control: Control,
    /// `topology.max.worker.num.for.netty.metrics`: above this number of workers, single
    /// connections have no metrics.
    pub max_workers_for_connections: usize,
}

impl MetricSettings {
    /// Returns the metric settings of `topology`.
    pub(crate) fn of(topology: &Topology, options: &Options) -> Self {
        let layers = Layers { topology, component: None, defaults: &options.spec.defaults };
        let words = |key| layers.get(key, words).unwrap_or_default();
        let truth = |key| layers.get(key, Value::as_bool);
        let debug = match truth("topology.enable.metric.debug") {
            Some(true) => words("topology.debug.metric.names"),
            Some(false) | None => BTreeSet::new(),
        };
        let share = |value: &Value| value.as_f64().filter(|share| (0.0..=1.0).contains(share));
        let control = Control {
            on: truth("topology.enable.metrics").unwrap_or(true),
            enabled: words("topology.enabled.metric.names"),
            disabled: words("topology.disabled.metric.names"),
            sample_rate: layers.get("topology.metric.sample.rate", share).unwrap_or(SAMPLE_RATE),
            debug,
        };
        let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let key = "topology.max.worker.num.for.netty.metrics";
        let max_workers_for_connections = layers.get(key, number).unwrap_or(MAX_WORKERS_FOR_CONNECTIONS);
        Self { control, max_workers_for_connections }
    }
}

impl ErrorThrottle {
    /// Returns the error limit of `topology`.
    pub(crate) fn of(topology: &Topology, options: &Options) -> Self {
        let layers = Layers { topology, component: None, defaults: &options.spec.defaults };
        Self {
            per_interval: layers
                .get("topology.max.error.report.per.interval", count)
                .unwrap_or(ERRORS_PER_INTERVAL),
            interval: layers.get("topology.error.throttle.interval.secs", seconds).unwrap_or(ERROR_INTERVAL),
        }
    }
}

/// Parses a list of strings, or one string with commas.
fn words(value: &Value) -> Option<BTreeSet<String>> {
    let text = |value: &Value| value.as_str().map(|word| word.trim().to_owned());
    let words: BTreeSet<String> = match value {
        Value::String(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
        Value::Array(words) => words.iter().map(text).collect::<Option<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    Some(words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// Parses a count of at least one.
fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

/// Parses a positive number of seconds, whole or not.
fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok()).filter(|time| !time.is_zero())
}

/// Parses an object of strings; numbers and booleans count as their text.
fn variables(value: &Value) -> Option<BTreeMap<String, String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    value.as_object()?.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::options;

    #[test]
    fn component_settings_override_topology_settings_which_override_host_settings() {
        let topology: Topology = serde_json::from_value(json!({
            "name": "t",
            "settings": { "topology.tick.tuple.freq.secs": 60, "topology.shellbolt.max.pending": 7,
                          "topology.sleep.spout.wait.strategy.time.ms": "soon" },
            "components": {
                "a": { "kind": "bolt", "parallelism": 1, "run": { "command": ["a"] },
                       "settings": { "topology.tick.tuple.freq.secs": 0.5,
                                     "topology.multilang.serializer": "msgpack",
                                     "topology.component.resources.onheap.memory.mb": 64.5,
                                     "topology.environment": { "A": "b", "N": 1 } } },
                "b": { "kind": "bolt", "parallelism": 1, "run": { "command": ["a"] } },
            },
        }))
        .expect("a topology");
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut options = options(dir.path());
        options.spec.defaults = Settings::from([
            ("topology.shellbolt.max.pending".to_owned(), 9.into()),
            ("topology.subprocess.timeout.secs".to_owned(), 4.into()),
        ]);
        let a = TaskSettings::of(&topology, &"a".parse().expect("valid"), &options);
        assert_eq!(
            a,
            TaskSettings {
                max_pending: 7,
                max_pending_in_batches: 7,
                tick: Some(Tick { period: Duration::from_millis(500), value: stream::Value::Float(0.5) }),
                timeout: Duration::from_secs(4),
                spout_wait: SPOUT_WAIT,
                memory_mb: 65,
                codec: Codec::MessagePack,
                max_spout_pending: PENDING_MAX,
                cycle_timeout: CYCLE_TIMEOUT_DEFAULT,
                shuffles_by_load: true,
                environment: BTreeMap::from([
                    ("A".to_owned(), "b".to_owned()),
                    ("N".to_owned(), "1".to_owned())
                ]),
            }
        );
        let b = TaskSettings::of(&topology, &"b".parse().expect("valid"), &options);
        assert_eq!(b.tick, Some(Tick { period: Duration::from_secs(60), value: stream::Value::Int(60) }));
        assert_eq!(b.environment, BTreeMap::new());
    }
}
