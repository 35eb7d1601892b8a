//! Tuples of one spout task whose trees are not complete. Pure.

use std::{collections::VecDeque, time::Duration};

use super::roots::RootMap;
use crate::metrics::StreamIndex;
use stormkeeper_model::clock::Monotonic;
use stormkeeper_stream::Value;

/// Deadlines of settled tuples are dropped once there are this many, and more than pending tuples.
const STALE_MAX: usize = 1024;

/// A pending tuple.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PendingTuple {
    /// Message id that the spout gave it.
    pub(crate) id: Value,
    /// Time of the emit.
    pub(crate) emitted: Monotonic,
    /// Stream whose metrics count the tuple.
    pub(crate) stream: StreamIndex,
}

#[derive(Debug)]
struct Entry {
    tuple: PendingTuple,
    // The deadline that counts, if `reset_timeout` has added later ones.
    deadline: Monotonic,
}

/// Pending tuples by the root of their tree, each with a deadline.
#[derive(Debug)]
pub(crate) struct PendingTuples {
    entries: RootMap<Entry>,
    // In ascending order, as all timeouts are equal; also of tuples that are settled.
    deadlines: VecDeque<(Monotonic, u64)>,
    // `None` if tuples do not time out.
    timeout: Option<Duration>,
}

impl PendingTuples {
    /// Creates an empty set of tuples that time out after `timeout`, if it is set.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { entries: RootMap::default(), deadlines: VecDeque::new(), timeout }
    }

    /// Returns the number of pending tuples.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a tuple.
    pub(crate) fn add(&mut self, root: u64, tuple: PendingTuple) {
        let deadline = self.schedule(root, tuple.emitted);
        self.entries.insert(root, Entry { tuple, deadline });
    }

    /// Removes a tuple whose tree has ended. `None` if its outcome was told before, so that a tuple has one
    /// outcome.
    pub(crate) fn settle(&mut self, root: u64) -> Option<PendingTuple> {
        let entry = self.entries.remove(&root)?;
        if self.deadlines.len() >= STALE_MAX && self.deadlines.len() / 2 > self.entries.len() {
            self.deadlines.retain(|(_, root)| self.entries.contains_key(root));
        }
        Some(entry.tuple)
    }

    /// Starts the timeout of a tuple again.
    pub(crate) fn reset_timeout(&mut self, root: u64, now: Monotonic) {
        if self.entries.contains_key(&root) {
            let deadline = self.schedule(root, now);
            if let Some(entry) = self.entries.get_mut(&root) {
                entry.deadline = deadline;
            }
        }
    }

    /// Removes one tuple whose deadline has passed, if there is one.
    pub(crate) fn expire(&mut self, now: Monotonic) -> Option<(u64, PendingTuple)> {
        while self.deadlines.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let (deadline, root) = self.deadlines.pop_front()?;
            if self.entries.get(&root).is_some_and(|entry| entry.deadline == deadline) {
                return self.entries.remove(&root).map(|entry| (root, entry.tuple));
            }
        }
        None
    }

    /// Removes all tuples and returns their roots: the process that knows their ids is gone.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = (u64, PendingTuple)> + '_ {
        self.deadlines.clear();
        self.entries.drain().map(|(root, entry)| (root, entry.tuple))
    }

    fn schedule(&mut self, root: u64, now: Monotonic) -> Monotonic {
        let Some(timeout) = self.timeout else { return now };
        let deadline = now.plus(timeout);
        self.deadlines.push_back((deadline, root));
        deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_secs(secs))
    }

    fn tuple(id: i64, emitted: Monotonic) -> PendingTuple {
        PendingTuple { id: Value::Int(id), emitted, stream: StreamIndex::UNKNOWN }
    }

    fn pending() -> PendingTuples {
        PendingTuples::new(Some(Duration::from_secs(30)))
    }

    #[test]
    fn tuple_has_one_outcome() {
        let mut pending = pending();
        pending.add(7, tuple(1, at(0)));
        pending.add(8, tuple(2, at(1)));
        assert_eq!(pending.settle(7), Some(tuple(1, at(0))));
        assert_eq!(pending.settle(7), None);
        assert_eq!(pending.expire(at(30)), None, "of a settled tuple");
        assert_eq!(pending.expire(at(31)), Some((8, tuple(2, at(1)))));
        assert_eq!((pending.expire(at(99)), pending.settle(8), pending.len()), (None, None, 0));
    }

    #[test]
    fn reset_timeout_counts_from_now_and_never_from_earlier() {
        let mut pending = pending();
        pending.reset_timeout(7, at(0));
        pending.add(7, tuple(1, at(0)));
        pending.reset_timeout(7, at(20));
        pending.reset_timeout(7, at(25));
        assert_eq!(pending.expire(at(54)), None);
        assert_eq!(pending.expire(at(55)), Some((7, tuple(1, at(0)))));
    }

    #[test]
    fn tuples_without_a_timeout_stay() {
        let mut pending = PendingTuples::new(None);
        pending.add(7, tuple(1, at(0)));
        assert_eq!((pending.expire(at(1 << 30)), pending.len(), pending.deadlines.len()), (None, 1, 0));
    }

    #[test]
    fn memory_follows_the_pending_tuples_and_not_the_emitted_ones() {
        let mut pending = pending();
        for root in 0..1_000_000 {
            pending.add(root, tuple(0, at(0)));
            if root >= 10 {
                assert!(pending.settle(root - 10).is_some());
            }
        }
        assert_eq!(pending.len(), 10);
        assert!(pending.deadlines.len() <= STALE_MAX + 1, "{}", pending.deadlines.len());
        assert_eq!(pending.clear().count(), 10);
        assert_eq!((pending.len(), pending.expire(at(99))), (0, None));
    }
}
