//! In-flight tuples of a bolt: sent to its child, and not yet acked or failed.

use std::collections::VecDeque;

use crate::{metrics::StreamIndex, tracking::Delivery};
use stormkeeper_model::clock::Monotonic;

/// Number of newest tuples that are tracked, at some 56 bytes each. A bolt may delay its acks for
/// any time, and a bolt that never acks must still work: older tuples are forgotten, and their
/// acks are no longer checked.
const MAX_TRACKED: usize = 1_000_000;

/// Numbers tuples in ascending order and records the open ones.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    // Number of the first entry of `entries`.
    first: u64,
    entries: VecDeque<Entry>,
    // Tuples with lower numbers may have been forgotten while open.
    forgotten_below: u64,
    n_open_inputs: u64,
}

/// Origin of a tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TupleKind {
    /// Emitted by a task: counted.
    Input(InFlightTuple),
    /// Tick of the clock: acked like other tuples, and not counted.
    Tick,
}

/// Input tuple that was sent to the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InFlightTuple {
    /// Input stream whose metrics count the tuple.
    pub(super) source: StreamIndex,
    /// Time at which the tuple was taken from the inbox.
    pub(super) at: Monotonic,
    /// Trees that it belongs to.
    pub(super) delivery: Delivery,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Open(TupleKind),
    Closed,
}

/// State of a tuple that a child names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TupleState<T> {
    /// The child has the tuple.
    Open(T),
    /// The tuple is older than the tracked ones.
    Forgotten,
    /// The tuple was never sent to the child, or was already acked or failed.
    Unknown,
}

impl InFlight {
    /// Returns the number of the next tuple, and records the tuple as open.
    #[inline]
    pub(super) fn open(&mut self, kind: TupleKind) -> u64 {
        if matches!(kind, TupleKind::Input(_)) {
            self.n_open_inputs += 1;
        }
        self.push(Entry::Open(kind))
    }

    /// Returns the number of a message that needs no ack.
    pub(super) fn add_closed(&mut self) -> u64 {
        self.push(Entry::Closed)
    }

    fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        if self.entries.len() > MAX_TRACKED {
            self.drop_first();
            self.forgotten_below = self.first;
        }
        self.drop_closed();
        self.first + self.entries.len() as u64 - 1
    }

    /// Returns the number of open inputs.
    pub(super) fn n_open_inputs(&self) -> u64 {
        self.n_open_inputs
    }

    /// Returns the state of tuple `number`.
    #[inline]
    pub(super) fn state(&mut self, number: u64) -> TupleState<&mut TupleKind> {
        let Some(index) = number.checked_sub(self.first) else {
            return match number < self.forgotten_below {
                true => TupleState::Forgotten,
                false => TupleState::Unknown,
            };
        };
        match usize::try_from(index).ok().and_then(|index| self.entries.get_mut(index)) {
            Some(Entry::Open(kind)) => TupleState::Open(kind),
            Some(Entry::Closed) | None => TupleState::Unknown,
        }
    }

    /// Returns the oldest open input.
    pub(super) fn oldest(&self) -> Option<&InFlightTuple> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Open(TupleKind::Input(given)) => Some(given),
            Entry::Open(TupleKind::Tick) | Entry::Closed => None,
        })
    }

    /// Closes tuple `number`. Returns the tuple's previous state.
    #[inline]
    pub(super) fn close(&mut self, number: u64) -> TupleState<TupleKind> {
        let kind = match self.state(number) {
            TupleState::Open(kind) => std::mem::replace(kind, TupleKind::Tick),
            TupleState::Forgotten => return TupleState::Forgotten,
            TupleState::Unknown => return TupleState::Unknown,
        };
        let index = usize::try_from(number - self.first).expect("an open tuple has an entry");
        self.entries[index] = Entry::Closed;
        if matches!(kind, TupleKind::Input(_)) {
            self.n_open_inputs -= 1;
        }
        self.drop_closed();
        TupleState::Open(kind)
    }

    /// Closes all tuples and calls `lost` for each open input. Numbers are not used again.
    pub(super) fn close_all(&mut self, mut lost: impl FnMut(InFlightTuple)) {
        self.first += self.entries.len() as u64;
        for entry in self.entries.drain(..) {
            if let Entry::Open(TupleKind::Input(given)) = entry {
                lost(given);
            }
        }
        // A new child never received any of these tuples.
        self.forgotten_below = 0;
        self.n_open_inputs = 0;
    }

    fn drop_closed(&mut self) {
        while self.entries.front() == Some(&Entry::Closed) && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if matches!(self.entries.pop_front(), Some(Entry::Open(TupleKind::Input(_)))) {
            self.n_open_inputs -= 1;
        }
        self.first += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const INPUT: TupleKind = TupleKind::Input(InFlightTuple {
        source: StreamIndex::UNKNOWN,
        at: Monotonic::START,
        delivery: Delivery::Untracked,
    });

    fn close_all(in_flight: &mut InFlight) -> u64 {
        let mut n = 0;
        in_flight.close_all(|_| n += 1);
        n
    }

    #[test]
    fn tuple_can_be_closed_only_once() {
        let mut in_flight = InFlight::default();
        let a = in_flight.open(INPUT);
        let b = in_flight.open(TupleKind::Tick);
        let heartbeat = in_flight.add_closed();
        assert_eq!(in_flight.close(b), TupleState::Open(TupleKind::Tick));
        assert_eq!(in_flight.close(b), TupleState::Unknown);
        assert_eq!(in_flight.close(heartbeat), TupleState::Unknown);
        assert_eq!(in_flight.close(heartbeat + 1), TupleState::Unknown);
        assert_eq!(in_flight.close(a), TupleState::Open(INPUT));
        assert_eq!(in_flight.close(a), TupleState::Unknown);
    }

    #[test]
    fn memory_is_bounded_for_a_bolt_that_never_acks() {
        let mut in_flight = InFlight::default();
        let first = in_flight.open(INPUT);
        let last = (0..MAX_TRACKED).map(|_| in_flight.open(INPUT)).last().expect("some");
        assert_eq!(in_flight.entries.len(), MAX_TRACKED);
        assert_eq!(in_flight.close(first), TupleState::Forgotten);
        assert_eq!(in_flight.close(last), TupleState::Open(INPUT));
        assert_eq!(in_flight.close(last + 1), TupleState::Unknown);
        assert_eq!(close_all(&mut in_flight), MAX_TRACKED as u64 - 1);
        assert_eq!(in_flight.close(first), TupleState::Unknown);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Open,
        Heartbeat,
        Close(prop::sample::Index),
        NewChild,
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec(
            prop_oneof![
                4 => Just(Step::Open),
                1 => Just(Step::Heartbeat),
                4 => any::<prop::sample::Index>().prop_map(Step::Close),
                1 => Just(Step::NewChild),
            ], 0..200))
        {
            let (mut in_flight, mut open, mut given) = (InFlight::default(), BTreeSet::new(), 0);
            for step in steps {
                match step {
                    Step::Open => {
                        let number = in_flight.open(INPUT);
                        prop_assert!(number >= given, "numbers ascend");
                        given = number + 1;
                        open.insert(number);
                    }
                    Step::Heartbeat => given = in_flight.add_closed() + 1,
                    Step::Close(which) => {
                        let number = which.index(usize::try_from(given).expect("small") + 2) as u64;
                        let expected = match open.remove(&number) {
                            true => TupleState::Open(INPUT),
                            false => TupleState::Unknown,
                        };
                        prop_assert_eq!(in_flight.close(number), expected);
                    }
                    Step::NewChild => {
                        prop_assert_eq!(close_all(&mut in_flight), open.len() as u64);
                        open.clear();
                    }
                }
            }
        }
    }
}
