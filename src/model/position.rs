//! Places in the metrics archive's log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in the archive's log. Later terms come after earlier ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The term of the leader that wrote the entry.
    pub term: i32,
    /// Its number, without gaps from 1 on over all terms.
    pub seq: u64,
}

/// As `term.number`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.seq)
    }
}
