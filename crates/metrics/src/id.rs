//! Metric ids: 64 bits computed from the metric name.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::MetricName;

/// Short form of a full metric name in reports and in the metric store. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MetricId(pub u64);

impl MetricId {
    /// The id of the metric with the full name `name`, if no other metric has it. If an id is
    /// taken by another name, try the next `probe`: processes that see the same names in the same
    /// order compute the same ids, and a process that registers a name again sends the id that the
    /// name had.
    pub fn of(name: &str, probe: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        if probe > 0 {
            // No part of a name contains `@` or NUL.
            hash.update([0]);
            hash.update(probe.to_be_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first).max(1))
    }

    /// The first id of `name` that is not taken by another name.
    pub(crate) fn free(name: &MetricName, is_taken: impl Fn(&Self) -> bool) -> Self {
        let text = name.to_string();
        let mut probe = 0;
        loop {
            let id = Self::of(&text, probe);
            if !is_taken(&id) {
                return id;
            }
            probe += 1;
        }
    }
}

impl fmt::Display for MetricId {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MetricId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MetricId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}
