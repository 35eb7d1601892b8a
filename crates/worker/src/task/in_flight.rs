//! The tuples that a bolt's child has and has not acked or failed.

use std::collections::VecDeque;

use crate::metrics::Source;
use stormkeeper_model::clock::Monotonic;

/// How many tuples behind the newest are kept account of. A bolt may hold back its acks for
/// as long as it likes, and one that never acks must work all the same: older tuples are
/// forgotten, and acks of them no longer checked. Some 24 bytes each.
const MAX_TRACKED: usize = 1_000_000;

/// Numbers tuples in ascending order and remembers which of them are open.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    // The number of the first entry of `entries`.
    first: u64,
    entries: VecDeque<Entry>,
    // Numbers below it may have been forgotten while open.
    forgotten_below: u64,
    n_open_inputs: u64,
}

/// Whose tuple it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another task's: counted.
    Input(Given),
    /// The clock's: acked like any other, and not counted.
    Tick,
}

/// A tuple that the child was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// Whose metrics it counts for.
    pub(super) source: Source,
    /// When it was taken out of the inbox.
    pub(super) at: Monotonic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Open(Kind),
    Closed,
}

/// What is known of a tuple that a child names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The child has it.
    Open(Kind),
    /// It is older than what is kept account of.
    Forgotten,
    /// It was never given, or was acked or failed before.
    Unknown,
}

impl InFlight {
    /// A number for the next tuple, which the child then has.
    pub(super) fn open(&mut self, kind: Kind) -> u64 {
        if matches!(kind, Kind::Input(_)) {
            self.n_open_inputs += 1;
        }
        self.push(Entry::Open(kind))
    }

    /// A number for a message that is not to be acked.
    pub(super) fn closed(&mut self) -> u64 {
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

    /// What is known of tuple `number`.
    pub(super) fn standing(&self, number: u64) -> Standing {
        let Some(index) = number.checked_sub(self.first) else {
            return match number < self.forgotten_below {
                true => Standing::Forgotten,
                false => Standing::Unknown,
            };
        };
        match usize::try_from(index).ok().and_then(|index| self.entries.get(index)) {
            Some(Entry::Open(kind)) => Standing::Open(*kind),
            Some(Entry::Closed) | None => Standing::Unknown,
        }
    }

    /// The child is done with tuple `number`. Answers how it stood before.
    pub(super) fn close(&mut self, number: u64) -> Standing {
        let standing = self.standing(number);
        if let Standing::Open(kind) = standing {
            let index = usize::try_from(number - self.first).expect("an open tuple has an entry");
            self.entries[index] = Entry::Closed;
            if matches!(kind, Kind::Input(_)) {
                self.n_open_inputs -= 1;
            }
            self.drop_closed();
        }
        standing
    }

    /// Closes all, and tells `lost` of every input that was open. Numbers are not used again.
    pub(super) fn close_all(&mut self, mut lost: impl FnMut(Given)) {
        self.first += self.entries.len() as u64;
        for entry in self.entries.drain(..) {
            if let Entry::Open(Kind::Input(given)) = entry {
                lost(given);
            }
        }
        // A new child never had any of them.
        self.forgotten_below = 0;
        self.n_open_inputs = 0;
    }

    fn drop_closed(&mut self) {
        while self.entries.front() == Some(&Entry::Closed) && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if matches!(self.entries.pop_front(), Some(Entry::Open(Kind::Input(_)))) {
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

    const INPUT: Kind = Kind::Input(Given { source: Source::UNKNOWN, at: Monotonic::START });

    fn close_all(in_flight: &mut InFlight) -> u64 {
        let mut n = 0;
        in_flight.close_all(|_| n += 1);
        n
    }

    #[test]
    fn a_tuple_is_closed_once() {
        let mut in_flight = InFlight::default();
        let a = in_flight.open(INPUT);
        let b = in_flight.open(Kind::Tick);
        let heartbeat = in_flight.closed();
        assert_eq!(in_flight.close(b), Standing::Open(Kind::Tick));
        assert_eq!(in_flight.close(b), Standing::Unknown);
        assert_eq!(in_flight.close(heartbeat), Standing::Unknown);
        assert_eq!(in_flight.close(heartbeat + 1), Standing::Unknown);
        assert_eq!(in_flight.close(a), Standing::Open(INPUT));
        assert_eq!(in_flight.close(a), Standing::Unknown);
    }

    #[test]
    fn a_bolt_that_never_acks_costs_a_bounded_account() {
        let mut in_flight = InFlight::default();
        let first = in_flight.open(INPUT);
        let last = (0..MAX_TRACKED).map(|_| in_flight.open(INPUT)).last().expect("some");
        assert_eq!(in_flight.entries.len(), MAX_TRACKED);
        assert_eq!(in_flight.close(first), Standing::Forgotten);
        assert_eq!(in_flight.close(last), Standing::Open(INPUT));
        assert_eq!(in_flight.close(last + 1), Standing::Unknown);
        assert_eq!(close_all(&mut in_flight), MAX_TRACKED as u64 - 1);
        assert_eq!(in_flight.close(first), Standing::Unknown);
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
                    Step::Heartbeat => given = in_flight.closed() + 1,
                    Step::Close(which) => {
                        let number = which.index(usize::try_from(given).expect("small") + 2) as u64;
                        let expected = match open.remove(&number) {
                            true => Standing::Open(INPUT),
                            false => Standing::Unknown,
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
