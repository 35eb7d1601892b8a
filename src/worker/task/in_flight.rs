//! The tuples that a bolt's child has and has not acked or failed.

use std::collections::VecDeque;

/// How many tuples behind the newest are kept account of. A bolt may hold back its acks for
/// as long as it likes, and one that never acks must work all the same: older tuples are
/// forgotten, and acks of them no longer checked. One byte each.
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
    Input,
    /// The clock's: acked like any other, and not counted.
    Tick,
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
        if kind == Kind::Input {
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
            if kind == Kind::Input {
                self.n_open_inputs -= 1;
            }
            self.drop_closed();
        }
        standing
    }

    /// Closes all. Answers how many inputs were open. Numbers are not used again.
    pub(super) fn close_all(&mut self) -> u64 {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        // A new child never had any of them.
        self.forgotten_below = 0;
        std::mem::take(&mut self.n_open_inputs)
    }

    fn drop_closed(&mut self) {
        while self.entries.front() == Some(&Entry::Closed) && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if self.entries.pop_front() == Some(Entry::Open(Kind::Input)) {
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

    #[test]
    fn a_tuple_is_closed_once() {
        let mut in_flight = InFlight::default();
        let a = in_flight.open(Kind::Input);
        let b = in_flight.open(Kind::Tick);
        let heartbeat = in_flight.closed();
        assert_eq!(in_flight.close(b), Standing::Open(Kind::Tick));
        assert_eq!(in_flight.close(b), Standing::Unknown);
        assert_eq!(in_flight.close(heartbeat), Standing::Unknown);
        assert_eq!(in_flight.close(heartbeat + 1), Standing::Unknown);
        assert_eq!(in_flight.close(a), Standing::Open(Kind::Input));
        assert_eq!(in_flight.close(a), Standing::Unknown);
    }

    #[test]
    fn a_bolt_that_never_acks_costs_a_bounded_account() {
        let mut in_flight = InFlight::default();
        let first = in_flight.open(Kind::Input);
        let last = (0..MAX_TRACKED).map(|_| in_flight.open(Kind::Input)).last().expect("some");
        assert_eq!(in_flight.entries.len(), MAX_TRACKED);
        assert_eq!(in_flight.close(first), Standing::Forgotten);
        assert_eq!(in_flight.close(last), Standing::Open(Kind::Input));
        assert_eq!(in_flight.close(last + 1), Standing::Unknown);
        assert_eq!(in_flight.close_all(), MAX_TRACKED as u64 - 1);
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
                        let number = in_flight.open(Kind::Input);
                        prop_assert!(number >= given, "numbers ascend");
                        given = number + 1;
                        open.insert(number);
                    }
                    Step::Heartbeat => given = in_flight.closed() + 1,
                    Step::Close(which) => {
                        let number = which.index(usize::try_from(given).expect("small") + 2) as u64;
                        let expected = match open.remove(&number) {
                            true => Standing::Open(Kind::Input),
                            false => Standing::Unknown,
                        };
                        prop_assert_eq!(in_flight.close(number), expected);
                    }
                    Step::NewChild => {
                        prop_assert_eq!(in_flight.close_all(), open.len() as u64);
                        open.clear();
                    }
                }
            }
        }
    }
}
