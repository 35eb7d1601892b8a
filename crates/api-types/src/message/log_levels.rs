//! Log levels of the components of a running topology.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{
    ComponentId, Timestamp,
    log_control::{LogControl, LogLevel, TimedLevel},
};

/// `POST /api/stormkeeper/v1/topology/{id or name}/log-levels`: sets the log level of a component, or of all
/// components without one of their own, for a time. It replaces the log filter of the workers for what these
/// components log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogLevelRequest {
    /// The component; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// The level; if absent, the one that was set before ends, and without a component all levels end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Time after which the level ends: 600 s if absent, at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_secs: Option<u64>,
}

/// Log levels that are in effect; empty if the filter of the workers holds for all components.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLevels {
    /// Level of the components without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<LogLevelView>,
    /// Levels of single components.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<ComponentId, LogLevelView>,
}

/// A log level and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLevelView {
    /// The level.
    pub level: LogLevel,
    /// Its end.
    pub until_ms: Timestamp,
}

impl LogLevels {
    /// Returns whether no level is set.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.components.is_empty()
    }
}

impl From<TimedLevel> for LogLevelView {
    fn from(TimedLevel { level, until }: TimedLevel) -> Self {
        Self { level, until_ms: until }
    }
}

impl From<LogControl> for LogLevels {
    fn from(LogControl { all, components }: LogControl) -> Self {
        let components = components.into_iter().map(|(component, timed)| (component, timed.into()));
        Self { all: all.map(LogLevelView::from), components: components.collect() }
    }
}
