//! The `topology.*` settings: which are known, and what values they take.

use std::fmt;

use serde_json::Value;

/// One setting of a topology or of a component.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key, Storm's where Storm has one.
    pub key: &'static str,
    /// What it takes. `null` stands for unset in all of them.
    pub kind: Kind,
    /// Its value when nobody sets it, as JSON.
    pub default: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number in a range, both ends included.
    Whole(u64, u64),
    /// A number of seconds above 0, whole or not, of at most a week.
    Seconds,
    /// Texts, numbers or truth values by name.
    Variables,
    /// True or false.
    Truth,
    /// A number from 0 to 1.
    Share,
    /// Texts: a list of them, or one with commas.
    Words,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Seconds => f.write_str("a number of seconds above 0, at most a week"),
            Self::Variables => f.write_str("a map from names to texts or numbers"),
            Self::Truth => f.write_str("true or false"),
            Self::Share => f.write_str("a number from 0 to 1"),
            Self::Words => f.write_str("a list of texts, or one text with commas"),
        }
    }
}

impl Kind {
    /// Whether `value` is one that the setting takes.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Whole(min, max) => value.as_u64().is_some_and(|n| (min..=max).contains(&n)),
            Self::Seconds => value.as_f64().is_some_and(|n| n > 0.0 && n <= MAX_SECS as f64),
            Self::Variables => value
                .as_object()
                .is_some_and(|map| map.values().all(|v| v.is_string() || v.is_number() || v.is_boolean())),
            Self::Truth => value.is_boolean(),
            Self::Share => value.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)),
            Self::Words => {
                value.is_string()
                    || value.as_array().is_some_and(|words| words.iter().all(serde_json::Value::is_string))
            }
        }
    }
}

/// A week: longer waits are mistakes, mostly milliseconds in a field of seconds.
const MAX_SECS: u64 = 7 * 24 * 3600;

/// More workers than any cluster has slots.
const MAX_WORKERS: u64 = 100_000;

/// The settings that have an effect, in alphabetical order.
pub const KNOWN: &[Setting] = &[
    Setting {
        key: "topology.debug.metric.names",
        kind: Kind::Words,
        default: "[]",
        doc: "Metrics that each worker writes to its log at every report, by the last part of their names.",
    },
    Setting {
        key: "topology.disabled.metric.names",
        kind: Kind::Words,
        default: "[]",
        doc: "Metrics that are not measured, by the last part of their names; can be changed while the topology runs.",
    },
    Setting {
        key: "topology.enable.metric.debug",
        kind: Kind::Truth,
        default: "false",
        doc: "Whether workers write the metrics of `topology.debug.metric.names` to their logs.",
    },
    Setting {
        key: "topology.enable.metrics",
        kind: Kind::Truth,
        default: "true",
        doc: "Whether anything is measured but what `stormkeeper show` prints.",
    },
    Setting {
        key: "topology.enabled.metric.names",
        kind: Kind::Words,
        default: "[]",
        doc: "Metrics that are measured although they are disabled, here or by default.",
    },
    Setting {
        key: "topology.environment",
        kind: Kind::Variables,
        default: "{}",
        doc: "Environment variables that components are started with.",
    },
    Setting {
        key: "topology.error.throttle.interval.secs",
        kind: Kind::Seconds,
        default: "10",
        doc: "The interval in which a task reports no more errors than the next key says.",
    },
    Setting {
        key: "topology.max.error.report.per.interval",
        kind: Kind::Whole(1, 1000),
        default: "5",
        doc: "How many errors a task reports per interval; the rest is only logged.",
    },
    Setting {
        key: "topology.max.pending.metric.num",
        kind: Kind::Whole(10, 10_000_000),
        default: "50000",
        doc: "How many entries of one topology, each a minute of it or a part of one, wait for external stores; the oldest is dropped beyond it, and counted. Set it for nimbus.",
    },
    Setting {
        key: "topology.max.replication.wait.time.sec",
        kind: Kind::Whole(0, 45),
        default: "20",
        doc: "How long a submit waits for copies of the topology on other nimbuses; a client waits a minute for its answer.",
    },
    Setting {
        key: "topology.max.spout.pending",
        kind: Kind::Whole(1, 1_000_000_000),
        default: "null",
        doc: "How many tuples of one spout task may be under way; has no effect without ackers.",
    },
    Setting {
        key: "topology.max.worker.num.for.netty.metrics",
        kind: Kind::Whole(0, MAX_WORKERS),
        default: "200",
        doc: "With more workers than this, single connections are not measured, but for metrics that are enabled by name.",
    },
    Setting {
        key: "topology.message.timeout.secs",
        kind: Kind::Whole(1, MAX_SECS),
        default: "30",
        doc: "How long a tuple may be under way; also the wait of a kill or rebalance that names none.",
    },
    Setting {
        key: "topology.metric.sample.rate",
        kind: Kind::Share,
        default: "0.1",
        doc: "How many of its values a histogram sorts into buckets, 0 to 1; counts, sums and bounds are of all.",
    },
    Setting {
        key: "topology.min.replication.count",
        kind: Kind::Whole(1, 100),
        default: "null",
        doc: "On how many nimbuses the topology must be, or a submit is refused; unset, a submit waits for two when there are several, and goes on without.",
    },
    Setting {
        key: "topology.shellbolt.max.pending",
        kind: Kind::Whole(1, 1_000_000),
        default: "100",
        doc: "How many tuples may wait in front of a shell bolt before its senders are slowed.",
    },
    Setting {
        key: "topology.sleep.spout.wait.strategy.time.ms",
        kind: Kind::Whole(1, 60_000),
        default: "1",
        doc: "How long a spout that emitted nothing is left alone.",
    },
    Setting {
        key: "topology.subprocess.timeout.secs",
        kind: Kind::Seconds,
        default: "null",
        doc: "How long a component may be silent before it is started again; unset, `supervisor.worker.timeout.secs`.",
    },
    Setting {
        key: "topology.tick.tuple.freq.secs",
        kind: Kind::Seconds,
        default: "null",
        doc: "How often a bolt gets a tick tuple; unset, never.",
    },
    Setting {
        key: "topology.workers",
        kind: Kind::Whole(1, MAX_WORKERS),
        default: "1",
        doc: "How many workers the topology asks for.",
    },
];

/// The setting called `key`, when it is known.
pub fn known(key: &str) -> Option<&'static Setting> {
    KNOWN.iter().find(|setting| setting.key == key)
}

/// What is to be said about a `topology.*` key that is not known: `has no effect …`.
/// Authors may put keys of their own beside the known ones, so it is not wrong.
pub fn oddity(key: &str) -> Option<String> {
    if !key.starts_with("topology.") || known(key).is_some() {
        return None;
    }
    Some(match crate::model::nearest::nearest(key, KNOWN.iter().map(|setting| setting.key)) {
        Some(near) => format!("has no effect; did you mean `{near}`?"),
        None => "has no effect here; components get it all the same".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_values_that_their_settings_take() {
        for setting in KNOWN {
            let default: Value = serde_json::from_str(setting.default).expect("JSON");
            assert!(setting.kind.accepts(&default), "{}", setting.key);
        }
        assert!(KNOWN.is_sorted_by_key(|setting| setting.key));
    }

    #[test]
    fn seconds_may_be_parts_and_variables_are_flat() {
        let check = |kind: Kind, value: &str, accepted| {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(kind.accepts(&value), accepted, "{value}");
        };
        for (value, accepted) in [("0.5", true), ("60", true), ("0", false), ("-1", false), ("604801", false)]
        {
            check(Kind::Seconds, value, accepted);
        }
        check(Kind::Variables, r#"{"A": "b", "N": 1}"#, true);
        check(Kind::Variables, r#"{"A": []}"#, false);
        check(Kind::Variables, r#"["A=b"]"#, false);
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let kind = Kind::Whole(1, 10);
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
