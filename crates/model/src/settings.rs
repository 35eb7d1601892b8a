//! Known `topology.*` settings and their accepted values.

use std::fmt;

use serde_json::Value;

use crate::{
    resources,
    topology::{Ackers, Topology},
};

/// A setting of a topology or of a component.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Key of the setting; Storm's key if Storm has the setting.
    pub key: &'static str,
    /// Accepted values. `null` means unset for every kind.
    pub kind: SettingKind,
    /// Value of the setting if it is unset, as JSON.
    pub default: &'static str,
    /// Description of one line, for the reference.
    pub doc: &'static str,
}

/// Accepted values of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// An integer in a range, both ends included.
    Whole(u64, u64),
    /// A number of seconds above 0 and at most a week, with or without a fraction.
    Seconds,
    /// A map from names to strings, numbers or booleans.
    Variables,
    /// True or false.
    Truth,
    /// A number from 0 to 1.
    Share,
    /// An amount of a resource: a number from 0, with or without a fraction.
    Amount,
    /// One of some texts.
    OneOf(&'static [&'static str]),
    /// Strings: a list, or one string separated by commas.
    Words,
}

impl Setting {
    /// Returns the value of the setting if it is unset.
    ///
    /// # Panics
    /// Never: a test parses all defaults.
    pub fn default_value(&self) -> Value {
        serde_json::from_str(self.default).expect("defaults are JSON")
    }
}

impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Seconds => f.write_str("a number of seconds above 0, at most a week"),
            Self::Variables => f.write_str("a map from names to texts or numbers"),
            Self::Truth => f.write_str("true or false"),
            Self::Amount => write!(f, "a number from 0 to {AMOUNT_MAX}"),
            Self::Share => f.write_str("a number from 0 to 1"),
            Self::OneOf(texts) => f.write_str(&texts.join(", ")),
            Self::Words => f.write_str("a list of texts, or one text with commas"),
        }
    }
}

impl SettingKind {
    /// True if the setting accepts `value`.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Whole(min, max) => value.as_u64().is_some_and(|n| (min..=max).contains(&n)),
            Self::Seconds => value.as_f64().is_some_and(|n| n > 0.0 && n <= MAX_SECS as f64),
            Self::Variables => value
                .as_object()
                .is_some_and(|map| map.values().all(|v| v.is_string() || v.is_number() || v.is_boolean())),
            Self::Truth => value.is_boolean(),
            Self::Amount => value.as_f64().is_some_and(|n| (0.0..=AMOUNT_MAX as f64).contains(&n)),
            Self::Share => value.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)),
            Self::OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Self::Words => {
                value.is_string()
                    || value.as_array().is_some_and(|words| words.iter().all(serde_json::Value::is_string))
            }
        }
    }
}

/// More MiB, and more hundredths of a core, than any host has.
const AMOUNT_MAX: u64 = 1 << 30;

/// One week. Longer waits are mistakes, mostly milliseconds in a field of seconds.
const MAX_SECS: u64 = 7 * 24 * 3600;

/// More workers than any cluster has slots.
pub const MAX_WORKERS: u64 = 100_000;

/// Names of serializers.
const SERIALIZERS: &[&str] = &[
    "json",
    "msgpack",
    "org.apache.storm.multilang.JsonSerializer",
    "backtype.storm.multilang.JsonSerializer",
    "com.yelp.pyleus.serializer.MessagePackSerializer",
];

/// The settings that have an effect, in alphabetical order.
pub const KNOWN: &[Setting] = &[
    Setting {
        key: Ackers::SETTING,
        kind: SettingKind::Whole(0, MAX_WORKERS),
        default: "null",
        doc: "Number of workers that have an acker, which tracks tuple trees. Unset: every worker. 0 turns tracking off: a tuple with an id is acked when it was emitted.",
    },
    Setting {
        key: resources::CPU,
        kind: SettingKind::Amount,
        default: "null",
        doc: "CPU that each task of a component requests, in hundredths of a core; for one component or all. Tasks are placed where it is free.",
    },
    Setting {
        key: resources::OFF_HEAP,
        kind: SettingKind::Amount,
        default: "null",
        doc: "Memory in MiB that each task of a component requests in addition to its memory on the heap.",
    },
    Setting {
        key: resources::ON_HEAP,
        kind: SettingKind::Amount,
        default: "null",
        doc: "Memory in MiB that each task of a component requests; for one component or all. Tasks are placed where it is free, and limited to it where the host allows that.",
    },
    Setting {
        key: "topology.cycle.timeout.secs",
        kind: SettingKind::Seconds,
        default: "10",
        doc: "Time for which a task waits for room in the queue of a receiver that is in a cycle with it. Then the tuple is not delivered there: its trees fail, or it is lost and counted if it belongs to none.",
    },
    Setting {
        key: "topology.debug.metric.names",
        kind: SettingKind::Words,
        default: "[]",
        doc: "Metrics that each worker writes to its log at every report, by the last part of their names.",
    },
    Setting {
        key: "topology.disable.loadaware.messaging",
        kind: SettingKind::Truth,
        default: "false",
        doc: "Whether shuffles send to each task in turn even if its queue is full, and so wait for it. By default they pass over such a task; for one component or all.",
    },
    Setting {
        key: "topology.disabled.metric.names",
        kind: SettingKind::Words,
        default: "[]",
        doc: "Metrics that are not collected, by the last part of their names; can be changed while the topology runs.",
    },
    Setting {
        key: "topology.enable.message.timeouts",
        kind: SettingKind::Truth,
        default: "true",
        doc: "Whether a tuple with an id fails after `topology.message.timeout.secs`. With `false` it stays pending until its tree is complete, for ever if a worker dies.",
    },
    Setting {
        key: "topology.enable.metric.debug",
        kind: SettingKind::Truth,
        default: "false",
        doc: "Whether workers write the metrics of `topology.debug.metric.names` to their logs.",
    },
    Setting {
        key: "topology.enable.metrics",
        kind: SettingKind::Truth,
        default: "true",
        doc: "Whether metrics are collected. With `false`, workers count only what `stormkeeper show` prints, and send no metrics.",
    },
    Setting {
        key: "topology.enabled.metric.names",
        kind: SettingKind::Words,
        default: "[]",
        doc: "Metrics that are collected although they are disabled, here or by default.",
    },
    Setting {
        key: "topology.environment",
        kind: SettingKind::Variables,
        default: "{}",
        doc: "Environment variables that components are started with; each replaces that of the worker, `PATH` as well.",
    },
    Setting {
        key: "topology.error.throttle.interval.secs",
        kind: SettingKind::Seconds,
        default: "10",
        doc: "Interval to which `topology.max.error.report.per.interval` applies.",
    },
    Setting {
        key: "topology.grow.back",
        kind: SettingKind::Truth,
        default: "false",
        doc: "Whether a topology that was placed with fewer workers than it requests gets more by itself when slots are free, as in a rebalance: its spouts stop first, and tasks move.",
    },
    Setting {
        key: "topology.grow.back.delay.secs",
        kind: SettingKind::Whole(1, MAX_SECS),
        default: "60",
        doc: "Time for which slots must have been free, and the topology short of workers, before it grows back with `topology.grow.back`.",
    },
    Setting {
        key: "topology.max.error.report.per.interval",
        kind: SettingKind::Whole(1, 1000),
        default: "5",
        doc: "Maximum number of errors that a task reports per interval; further errors are only logged.",
    },
    Setting {
        key: "topology.max.pending.metric.num",
        kind: SettingKind::Whole(10, 10_000_000),
        default: "50000",
        doc: "Maximum number of entries of one topology, each a minute of metrics or a part of one, that wait for external stores; beyond it the oldest entry is dropped and counted. Set it for nimbus.",
    },
    Setting {
        key: "topology.max.replication.wait.time.sec",
        kind: SettingKind::Whole(0, 45),
        default: "20",
        doc: "Time that a submit waits for copies of the topology on other nimbuses; a client waits one minute for the response.",
    },
    Setting {
        key: "topology.max.spout.pending",
        kind: SettingKind::Whole(1, 1_000_000_000),
        default: "null",
        doc: "Maximum number of tuples with ids of one spout task that are neither acked nor failed; with as many, the spout is not asked for more. Unset: 1,000,000. Has no effect without ackers.",
    },
    Setting {
        key: "topology.max.worker.num.for.netty.metrics",
        kind: SettingKind::Whole(0, MAX_WORKERS),
        default: "200",
        doc: "With more workers than this, metrics of single connections are collected only if they are enabled by name.",
    },
    Setting {
        key: "topology.message.timeout.secs",
        kind: SettingKind::Whole(1, MAX_SECS),
        default: "30",
        doc: "Time after which a tuple with an id fails if its tree is not complete; also the default wait of a kill or rebalance.",
    },
    Setting {
        key: "topology.metric.sample.rate",
        kind: SettingKind::Share,
        default: "0.1",
        doc: "Share of values that a histogram sorts into buckets, 0 to 1; counts, sums and bounds cover all values.",
    },
    Setting {
        key: "topology.min.replication.count",
        kind: SettingKind::Whole(1, 100),
        default: "null",
        doc: "Number of nimbuses that must have the topology, otherwise a submit is rejected; if unset, a submit waits for two copies when there are several nimbuses, and then proceeds without.",
    },
    Setting {
        key: "topology.multilang.serializer",
        kind: SettingKind::OneOf(SERIALIZERS),
        default: "\"json\"",
        doc: "Serializer of the messages between a worker and a component: JSON, or MessagePack for components that speak it. The names of classes are those of Storm and Pyleus, and mean the same as the short ones.",
    },
    Setting {
        key: "topology.shellbolt.max.pending",
        kind: SettingKind::Whole(1, 1_000_000),
        default: "100",
        doc: "Maximum number of tuples that wait in front of a shell bolt, or that it was given and has not read, before its senders are slowed; unset, it is 1024 for a component that takes batches.",
    },
    Setting {
        key: "topology.sleep.spout.wait.strategy.time.ms",
        kind: SettingKind::Whole(1, 60_000),
        default: "1",
        doc: "Pause of a spout that emitted nothing before it is asked again.",
    },
    Setting {
        key: "topology.subprocess.timeout.secs",
        kind: SettingKind::Seconds,
        default: "null",
        doc: "Time after which a silent component is restarted; if unset, `supervisor.worker.timeout.secs`.",
    },
    Setting {
        key: "topology.tick.tuple.freq.secs",
        kind: SettingKind::Seconds,
        default: "null",
        doc: "Interval of tick tuples to a bolt; if unset, none are sent.",
    },
    Setting {
        key: "topology.transport.compression",
        kind: SettingKind::OneOf(&["none", "lz4"]),
        default: "\"none\"",
        doc: "Compression of tuples between workers: none, or LZ4, which needs less of a slow network and more of the processor.",
    },
    Setting {
        key: "topology.workers",
        kind: SettingKind::Whole(1, MAX_WORKERS),
        default: "1",
        doc: "Number of workers that the topology requests.",
    },
];

/// Settings that a component cannot have of its own: one value holds for its topology.
const OF_WHOLE_TOPOLOGY: &[&str] = &[
    Ackers::SETTING,
    "topology.enable.message.timeouts",
    "topology.grow.back",
    "topology.grow.back.delay.secs",
    "topology.message.timeout.secs",
    "topology.transport.compression",
    "topology.workers",
];

/// Returns a warning about a setting of a component that has no effect there: `has no effect …`.
pub fn component_warning(key: &str) -> Option<String> {
    let is_of_topology = OF_WHOLE_TOPOLOGY.contains(&key);
    is_of_topology.then(|| "has no effect for one component: set it for the topology".to_owned())
}

/// Returns the setting called `key`, if it is known.
pub fn known(key: &str) -> Option<&'static Setting> {
    KNOWN.iter().find(|setting| setting.key == key)
}

/// Returns a warning about an unknown `topology.*` key: `has no effect …`. An unknown key is not
/// an error, because authors may add keys of their own.
pub fn key_warning(key: &str) -> Option<String> {
    if !key.starts_with("topology.") || known(key).is_some() {
        return None;
    }
    Some(match crate::suggest::nearest(key, KNOWN.iter().map(|setting| setting.key)) {
        Some(near) => format!("has no effect; did you mean `{near}`?"),
        None => "has no effect here; it is only passed on to components".to_owned(),
    })
}

/// Returns the rate that the workers of `topology` sample timings at, where the topology sets it.
pub fn sample_rate_of(topology: &Topology) -> Option<f64> {
    topology.settings.get("topology.metric.sample.rate").and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted_by_their_settings() {
        for setting in KNOWN {
            let default: Value = serde_json::from_str(setting.default).expect("JSON");
            assert!(setting.kind.accepts(&default), "{}", setting.key);
        }
        assert!(KNOWN.is_sorted_by_key(|setting| setting.key));
    }

    #[test]
    fn seconds_may_have_a_fraction_and_variables_are_flat() {
        let check = |kind: SettingKind, value: &str, accepted| {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(kind.accepts(&value), accepted, "{value}");
        };
        for (value, accepted) in [("0.5", true), ("60", true), ("0", false), ("-1", false), ("604801", false)]
        {
            check(SettingKind::Seconds, value, accepted);
        }
        check(SettingKind::Variables, r#"{"A": "b", "N": 1}"#, true);
        check(SettingKind::Variables, r#"{"A": []}"#, false);
        check(SettingKind::Variables, r#"["A=b"]"#, false);
    }

    #[test]
    fn integers_are_accepted_within_their_range_only() {
        let kind = SettingKind::Whole(1, 10);
        for (value, accepted) in [
            ("1", true),
            ("10", true),
            ("0", false),
            ("11", false),
            ("1.5", false),
            ("\"3\"", false),
            ("null", true),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(kind.accepts(&value), accepted, "{value}");
        }
    }
}
