//! Positions in the metric log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Position of an entry in the metric log. Positions of later terms are larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Term of the leader that wrote the entry.
    pub term: i32,
    /// Index of the entry: consecutive from 1, across all terms.
    pub index: u64,
}

/// Formatted as `term.index`.
impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
