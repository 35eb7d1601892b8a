//! Detection of frames that arrive a second time.
//!
//! A sender numbers the frames of each connection, beside a random number that it draws for the
//! connection. On a connection the numbers are consecutive, whatever other connections bring: so a
//! forged frame affects the connection only on which it comes. The first frame of a connection is
//! compared with all that was received under its sender's number.
//!
//! Senders of earlier releases draw one number for their life, and go on with their next frame after a
//! reconnect. Their old connection may be read after the next one, so the received numbers are kept as
//! runs, one for each connection.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use crate::limits::{RUNS_REMEMBERED, SENDERS_REMEMBERED};

/// Number of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Random number of the sender.
    pub(super) sender: u64,
    /// Number of the frame, from 1.
    pub(super) number: u64,
}

/// Reason for which a frame is refused because of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongNumber {
    #[error("frame {0} of the peer was received before")]
    Replayed(u64),
    #[error("frame {number} of the peer does not follow its frame {before}")]
    Skipped { before: u64, number: u64 },
    #[error("a frame of the peer has the number of another sender than the frames before it")]
    OtherSender,
    #[error("a frame has no number, and frames before it had one")]
    Missing,
}

/// The frames that were received, of the senders that sent last.
#[derive(Debug, Default)]
pub(super) struct ReplayGuard {
    // Held for a few instructions.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    n_frames: u64,
    senders: BTreeMap<u64, Received>,
}

/// The frames of one sender.
#[derive(Debug, Default)]
struct Received {
    // First and last number of each run, the latest run last.
    runs: VecDeque<(u64, u64)>,
    // Value of `n_frames` when the sender sent last.
    used: u64,
}

/// The numbers on one connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionNumbers {
    last: Option<Sequence>,
}

impl ConnectionNumbers {
    /// Records a frame of the connection.
    ///
    /// # Errors
    /// [`WrongNumber`] if the frame must be refused, and the connection with it.
    pub(super) fn accept(
        &mut self,
        sequence: Option<Sequence>,
        guard: &ReplayGuard,
    ) -> Result<(), WrongNumber> {
        let (before, sequence) = match (self.last, sequence) {
            // The sender is of a release that did not number frames.
            (None, None) => return Ok(()),
            (Some(_), None) => return Err(WrongNumber::Missing),
            (before, Some(sequence)) => (before, sequence),
        };
        let Sequence { number, .. } = sequence;
        match before {
            None if !guard.begin(sequence) => return Err(WrongNumber::Replayed(number)),
            None => {}
            Some(before) if before.sender != sequence.sender => return Err(WrongNumber::OtherSender),
            Some(before) if number <= before.number => return Err(WrongNumber::Replayed(number)),
            Some(before) if number - 1 != before.number => {
                return Err(WrongNumber::Skipped { before: before.number, number });
            }
            Some(_) => guard.go_on(sequence),
        }
        self.last = Some(sequence);
        Ok(())
    }
}

impl ReplayGuard {
    /// Records the first frame of a connection; returns false if it was received before.
    fn begin(&self, sequence: Sequence) -> bool {
        let Sequence { sender, number } = sequence;
        let mut state = self.lock();
        let is_new = number > 0 && !state.senders.get(&sender).is_some_and(|known| known.contains(number));
        if is_new {
            state.used_now(sender).add(number);
        }
        is_new
    }

    /// Records the next frame of a connection.
    fn go_on(&self, Sequence { sender, number }: Sequence) {
        self.lock().used_now(sender).add(number);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the received numbers")
    }
}

impl State {
    fn used_now(&mut self, sender: u64) -> &mut Received {
        self.n_frames += 1;
        if !self.senders.contains_key(&sender) && self.senders.len() >= SENDERS_REMEMBERED {
            let oldest = self.senders.iter().min_by_key(|(_, received)| received.used).map(|(id, _)| *id);
            oldest.map(|id| self.senders.remove(&id));
        }
        let received = self.senders.entry(sender).or_default();
        received.used = self.n_frames;
        received
    }
}

impl Received {
    fn contains(&self, number: u64) -> bool {
        self.runs.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Adds a number: to the run that ends before it, or as a new run.
    fn add(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let before = number.saturating_sub(1);
        if let Some((_, last)) = self.runs.iter_mut().rev().find(|(_, last)| *last == before) {
            *last = number;
            return;
        }
        if self.runs.len() >= RUNS_REMEMBERED {
            self.runs.pop_front();
        }
        self.runs.push_back((number, number));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(number: u64) -> Option<Sequence> {
        Some(Sequence { sender: 7, number })
    }

    proptest! {
        #[test]
        fn connections_of_one_sender_deliver_each_number_once(
            // Connections, read in turns: each goes on where the one before ended, or after a gap.
            connections in prop::collection::vec((0..3u64, 1..20u64), 1..RUNS_REMEMBERED),
            turns in prop::collection::vec(any::<prop::sample::Index>(), 0..300),
        ) {
            let guard = ReplayGuard::default();
            let mut next = 1;
            let mut open = Vec::new();
            for (gap, length) in connections {
                next += gap;
                open.push((ConnectionNumbers::default(), next..next + length));
                next += length;
            }
            for turn in turns {
                let (numbers, rest) = turn.get_mut(&mut open);
                if let Some(number) = rest.next() {
                    prop_assert_eq!(numbers.accept(sequence(number), &guard), Ok(()));
                    let again = ConnectionNumbers::default().accept(sequence(number), &guard);
                    prop_assert_eq!(again, Err(WrongNumber::Replayed(number)));
                }
            }
        }
    }

    #[test]
    fn numbers_of_a_connection_are_consecutive() {
        let guard = ReplayGuard::default();
        let mut numbers = ConnectionNumbers::default();
        assert_eq!(numbers.accept(None, &guard), Ok(()));
        assert_eq!(numbers.accept(sequence(5), &guard), Ok(()));
        assert_eq!(numbers.accept(sequence(5), &guard), Err(WrongNumber::Replayed(5)));
        let skipped = WrongNumber::Skipped { before: 5, number: 7 };
        assert_eq!(numbers.accept(sequence(7), &guard), Err(skipped));
        assert_eq!(numbers.accept(None, &guard), Err(WrongNumber::Missing));
        let other = Some(Sequence { sender: 8, number: 6 });
        assert_eq!(numbers.accept(other, &guard), Err(WrongNumber::OtherSender));
        assert_eq!(numbers.accept(sequence(6), &guard), Ok(()));
        assert_eq!(ConnectionNumbers::default().accept(sequence(0), &guard), Err(WrongNumber::Replayed(0)));
    }

    #[test]
    fn forged_numbers_on_other_connections_do_not_stop_a_connection() {
        let guard = ReplayGuard::default();
        let (mut honest, mut forged) = (ConnectionNumbers::default(), ConnectionNumbers::default());
        assert_eq!(honest.accept(sequence(1), &guard), Ok(()));
        assert_eq!(ConnectionNumbers::default().accept(sequence(u64::MAX), &guard), Ok(()));
        for number in 2..=50 {
            assert_eq!(forged.accept(sequence(number), &guard), Ok(()));
        }
        for number in 2..=60 {
            assert_eq!(honest.accept(sequence(number), &guard), Ok(()));
        }
        // A sender of an earlier release goes on under its number after a reconnect.
        assert_eq!(ConnectionNumbers::default().accept(sequence(61), &guard), Ok(()));
    }

    #[test]
    fn senders_are_told_apart_and_bounded_numbers_of_them_and_of_their_runs_are_remembered() {
        let guard = ReplayGuard::default();
        for sender in 0..SENDERS_REMEMBERED as u64 + 10 {
            assert!(guard.begin(Sequence { sender, number: 1 }));
        }
        assert_eq!(guard.lock().senders.len(), SENDERS_REMEMBERED);
        let sender = SENDERS_REMEMBERED as u64 + 9;
        let n_runs = RUNS_REMEMBERED as u64;
        for number in (0..=n_runs).map(|n| 1 + 2 * n) {
            assert_eq!(guard.begin(Sequence { sender, number }), number > 1);
        }
        assert_eq!(guard.lock().senders[&sender].runs.len(), RUNS_REMEMBERED);
        assert!(!guard.begin(Sequence { sender, number: 1 + 2 * n_runs }));
    }
}
