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

/// A pending tuple in less space: there may be a million.
#[derive(Debug)]
struct Entry {
    id: Id,
    emitted: Monotonic,
    stream: StreamIndex,
    // Number of deadlines before the one that counts, which `reset_timeout` has made void.
    n_void: u32,
}

/// A message id. Most are numbers.
#[derive(Debug)]
enum Id {
    Int(i64),
    Other(Box<Value>),
}

impl From<PendingTuple> for Entry {
    fn from(PendingTuple { id, emitted, stream }: PendingTuple) -> Self {
        let id = match id {
            Value::Int(id) => Id::Int(id),
            id => Id::Other(Box::new(id)),
        };
        Self { id, emitted, stream, n_void: 0 }
    }
}

impl From<Entry> for PendingTuple {
    fn from(Entry { id, emitted, stream, .. }: Entry) -> Self {
        let id = match id {
            Id::Int(id) => Value::Int(id),
            Id::Other(id) => *id,
        };
        Self { id, emitted, stream }
    }
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
        self.schedule(root, tuple.emitted);
        self.entries.insert(root, tuple.into());
    }

    /// Removes a tuple whose tree has ended. `None` if its outcome was told before, so that a tuple has one
    /// outcome.
    pub(crate) fn settle(&mut self, root: u64) -> Option<PendingTuple> {
        let entry = self.entries.remove(&root)?;
        if self.deadlines.len() >= STALE_MAX && self.deadlines.len() / 2 > self.entries.len() {
            self.deadlines.retain(|(_, root)| self.entries.contains_key(root));
        }
        Some(entry.into())
    }

    /// Starts the timeout of a tuple again.
    pub(crate) fn reset_timeout(&mut self, root: u64, now: Monotonic) {
        if let Some(entry) = self.entries.get_mut(&root).filter(|_| self.timeout.is_some()) {
            entry.n_void += 1;
            self.schedule(root, now);
        }
    }

    /// Removes one tuple whose deadline has passed, if there is one.
    pub(crate) fn expire(&mut self, now: Monotonic) -> Option<(u64, PendingTuple)> {
        while self.deadlines.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let (_, root) = self.deadlines.pop_front()?;
            match self.entries.get_mut(&root) {
                Some(entry) if entry.n_void > 0 => entry.n_void -= 1,
                Some(_) => return self.entries.remove(&root).map(|entry| (root, entry.into())),
                // It is settled.
                None => {}
            }
        }
        None
    }

    /// Removes all tuples and returns their roots: the process that knows their ids is gone.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = (u64, PendingTuple)> + '_ {
        self.deadlines.clear();
        self.entries.drain().map(|(root, entry)| (root, entry.into()))
    }

    fn schedule(&mut self, root: u64, now: Monotonic) {
        if let Some(timeout) = self.timeout {
            self.deadlines.push_back((now.plus(timeout), root));
        }
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
    fn ids_of_all_kinds_come_back_and_an_entry_is_small() {
        assert_eq!(size_of::<(u64, Entry)>(), 40);
        let mut pending = pending();
        for (root, id) in
            [Value::Int(-1), Value::UInt(u64::MAX), Value::from("x"), Value::Null].into_iter().enumerate()
        {
            let tuple = PendingTuple { id, ..tuple(0, at(0)) };
            pending.add(root as u64, tuple.clone());
            assert_eq!(pending.settle(root as u64), Some(tuple));
        }
    }

    #[test]
    fn tuples_without_a_timeout_stay() {
        let mut pending = PendingTuples::new(None);
        pending.add(7, tuple(1, at(0)));
        pending.reset_timeout(7, at(1));
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
