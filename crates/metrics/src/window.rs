//! Windows: the intervals of time in which metrics are stored and queried.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Minute;

/// A window, which is also the width of the time buckets of its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Window {
    /// One minute.
    M1,
    /// Ten minutes.
    M10,
    /// Two hours.
    H2,
    /// One day.
    D1,
}

impl Window {
    /// All windows, the shortest first.
    pub const ALL: [Self; 4] = [Self::M1, Self::M10, Self::H2, Self::D1];

    /// Length of the window in minutes.
    pub const fn minutes(self) -> u32 {
        match self {
            Self::M1 => 1,
            Self::M10 => 10,
            Self::H2 => 120,
            Self::D1 => 1440,
        }
    }

    /// Length of the window in seconds, as JStorm numbers its windows: 60, 600, 7200, 86400.
    pub const fn secs(self) -> u32 {
        self.minutes() * 60
    }

    /// The window of `secs` seconds, if there is one.
    pub fn of_secs(secs: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.secs() == secs)
    }

    /// The first minute of the bucket that contains `minute`. Buckets are aligned to UTC.
    pub fn bucket(self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0 % self.minutes())
    }
}

impl fmt::Display for Window {
    /// JStorm's notation: `0d0h1m0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::M1 => "0d0h1m0s",
            Self::M10 => "0d0h10m0s",
            Self::H2 => "0d2h0m0s",
            Self::D1 => "1d0h0m0s",
        })
    }
}
