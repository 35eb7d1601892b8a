//! Minutes of wall-clock time: the resolution of all stored metrics.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::Timestamp;

const MILLIS: u64 = 60_000;

/// A whole minute of UTC, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Minute(pub u32);

impl Minute {
    /// The minute that `time` falls in.
    pub fn of(time: Timestamp) -> Self {
        Self(u32::try_from(time.as_millis() / MILLIS).unwrap_or(u32::MAX))
    }

    /// Beginning of the minute.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(u64::from(self.0) * MILLIS)
    }

    /// Beginning of the next minute.
    pub fn end(self) -> Timestamp {
        Timestamp::from_millis((u64::from(self.0) + 1) * MILLIS)
    }

    /// The minute `n` later.
    pub fn plus(self, n: u32) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// The minute `n` earlier.
    pub fn minus(self, n: u32) -> Self {
        Self(self.0.saturating_sub(n))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start().fmt(f)
    }
}
