//! Rules of the tables that every backend applies: how values merge, and which points have expired.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    Retention,
    key::{self, Table},
    point_merge,
};
use stormkeeper_metrics::{Minute, Window};

/// Returns the name of a table's merge operator, as RocksDB knows it; `None` if the table has none.
pub(super) const fn merge_operator(table: Table) -> Option<&'static str> {
    match table {
        Table::Points => Some("points"),
        Table::Latest => Some("last minute"),
        Table::State | Table::Log => None,
    }
}

/// Merges the values of one key, in the order in which they were written.
///
/// # Panics
/// If the table has no merge operator.
pub(super) fn merge<'a>(table: Table, values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    match table {
        Table::Points => point_merge::merge(values),
        Table::Latest => point_merge::merge_latest(values),
        Table::State | Table::Log => unreachable!("{table:?} has no merge operator"),
    }
}

/// Expiry of points. Clones share the retention clock.
#[derive(Debug, Clone)]
pub(super) struct Expiry {
    retention: Retention,
    /// Retention clock in minutes.
    now: Arc<AtomicU32>,
}

impl Expiry {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, now: Arc::new(AtomicU32::new(0)) }
    }

    pub(super) fn set_now(&self, now: Minute) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// Returns whether `key` is the key of an expired point. An unknown key belongs to another
    /// version, which may need it.
    pub(super) fn is_expired(&self, key: &[u8]) -> bool {
        key::parse_point(key).is_some_and(|(_, window, bucket)| self.is_over(window, bucket))
    }

    fn is_over(&self, window: Window, bucket: Minute) -> bool {
        let end = bucket.0.saturating_add(window.minutes()).saturating_add(self.retention.minutes(window));
        end < self.now.load(Ordering::Relaxed)
    }
}
