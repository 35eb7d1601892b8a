//! Log levels of components that operators set while their topology runs.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ComponentId, Timestamp};

/// Level of a log line; a component's level lets through its own lines and those of the levels before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something may become a failure.
    Warn,
    /// Something that happened.
    Info,
    /// Details for an author.
    Debug,
    /// Every detail.
    Trace,
}

impl LogLevel {
    /// Every level, from the fewest lines to the most.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Error of a text that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a level: error, warn, info, debug or trace")]
pub struct UnknownLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let is_named = |level: &Self| level.to_string().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(is_named).ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// A level that holds until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedLevel {
    /// The level.
    pub level: LogLevel,
    /// End, by the clock of the leader that accepted it.
    #[serde(rename = "until_ms")]
    pub until: Timestamp,
}

/// Levels that replace the log filter of the workers for what components log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogControl {
    /// Level of the components without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<TimedLevel>,
    /// Levels of single components.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<ComponentId, TimedLevel>,
}

impl LogControl {
    /// Returns whether no level is set.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.components.is_empty()
    }

    /// Returns the level of a component; `None` if the filter of the workers holds.
    pub fn level_of(&self, component: &ComponentId) -> Option<LogLevel> {
        self.components.get(component).or(self.all.as_ref()).map(|timed| timed.level)
    }

    /// Sets or removes the level of a component; without one, that of all others. Removing the latter
    /// removes all.
    pub fn set(&mut self, component: Option<ComponentId>, level: Option<TimedLevel>) {
        match (component, level) {
            (Some(component), Some(level)) => drop(self.components.insert(component, level)),
            (Some(component), None) => drop(self.components.remove(&component)),
            (None, Some(level)) => self.all = Some(level),
            (None, None) => *self = Self::default(),
        }
    }

    /// Returns the levels that still hold at `now`.
    pub fn at(&self, now: Timestamp) -> Self {
        let holds = |timed: &TimedLevel| timed.until > now;
        let components = self.components.iter().filter(|(_, timed)| holds(timed));
        Self {
            all: self.all.filter(holds),
            components: components.map(|(component, timed)| (component.clone(), *timed)).collect(),
        }
    }

    /// Returns the time at which the first level ends.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.all.iter().chain(self.components.values()).map(|timed| timed.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ComponentId {
        text.parse().expect("valid")
    }

    fn until(level: LogLevel, millis: u64) -> TimedLevel {
        TimedLevel { level, until: Timestamp::from_millis(millis) }
    }

    #[test]
    fn level_of_a_component_wins_and_each_ends_at_its_time() {
        let mut control = LogControl::default();
        control.set(None, Some(until(LogLevel::Warn, 20)));
        control.set(Some(id("split")), Some(until(LogLevel::Trace, 10)));
        assert_eq!(control.level_of(&id("split")), Some(LogLevel::Trace));
        assert_eq!(control.level_of(&id("count")), Some(LogLevel::Warn));
        assert_eq!(control.next_end(), Some(Timestamp::from_millis(10)));
        let later = control.at(Timestamp::from_millis(10));
        assert_eq!(later.level_of(&id("split")), Some(LogLevel::Warn));
        assert!(later.at(Timestamp::from_millis(20)).is_empty());
        control.set(Some(id("split")), None);
        assert_eq!(control.level_of(&id("split")), Some(LogLevel::Warn));
        control.set(None, None);
        assert_eq!(control, LogControl::default());
    }

    #[test]
    fn levels_are_read_in_any_case_and_others_are_refused_by_name() {
        assert_eq!("DEBUG".parse(), Ok(LogLevel::Debug));
        let refused = "loud".parse::<LogLevel>().expect_err("no level").to_string();
        assert_eq!(refused, "\"loud\" is not a level: error, warn, info, debug or trace");
    }
}
