//! Detection of frames that arrive a second time.
//!
//! Each sender numbers its frames, beside a random number of its own. The numbers of a sender need not
//! arrive in order, since frames of an old connection may be read after those of the next one, so
//! the last ones are remembered, as in the anti-replay window of IPsec (RFC 4303).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use crate::limits::SENDERS_REMEMBERED;

/// Number of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Random number of the sender.
    pub(super) sender: u64,
    /// Number of the frame, from 1.
    pub(super) number: u64,
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
    senders: BTreeMap<u64, Window>,
}

/// Number of frames of a sender that are remembered: as many of the shortest as the kernel's buffers of a
/// connection hold.
const WINDOW: u64 = 4096;

/// Number of frames whose bits share a word.
const WORD: u64 = 64;

#[derive(Debug)]
struct Window {
    // The highest number that was received.
    highest: u64,
    // A bit for each of the last `WINDOW` numbers, at the number modulo `WINDOW`.
    seen: Box<[u64]>,
    // Value of `n_frames` when the sender sent last.
    used: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, seen: vec![0; (WINDOW / WORD) as usize].into(), used: 0 }
    }
}

impl ReplayGuard {
    /// Records a frame; returns false if it was received before, or is too old to tell.
    pub(super) fn accept(&self, Sequence { sender, number }: Sequence) -> bool {
        let mut state = self.lock();
        state.n_frames += 1;
        let used = state.n_frames;
        if !state.senders.contains_key(&sender) && state.senders.len() >= SENDERS_REMEMBERED {
            let oldest = state.senders.iter().min_by_key(|(_, window)| window.used).map(|(id, _)| *id);
            oldest.map(|id| state.senders.remove(&id));
        }
        let window = state.senders.entry(sender).or_default();
        window.used = used;
        window.accept(number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the windows")
    }
}

impl Window {
    fn accept(&mut self, number: u64) -> bool {
        if number > self.highest {
            let first = self.highest.max(number.saturating_sub(WINDOW)) + 1;
            (first..=number).for_each(|skipped| *self.word(skipped) &= !bit(skipped));
            self.highest = number;
        } else if number == 0 || self.highest - number >= WINDOW {
            return false;
        }
        let is_new = *self.word(number) & bit(number) == 0;
        *self.word(number) |= bit(number);
        is_new
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.seen[(number % WINDOW / WORD) as usize]
    }
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_frame_is_accepted_twice_and_none_is_refused_that_is_little_late(
            late in prop::collection::vec(0..WINDOW - 300, 1..300),
            start in prop::sample::select(vec![0u64, 1, 10_000, u64::MAX - 9_000]),
        ) {
            let (guard, mut received) = (ReplayGuard::default(), std::collections::BTreeSet::new());
            for (n, late) in late.into_iter().enumerate() {
                let number = (start + n as u64 + 1).saturating_sub(late).max(1);
                let is_new = received.insert(number);
                prop_assert_eq!(guard.accept(Sequence { sender: 7, number }), is_new, "{}", number);
            }
        }
    }

    #[test]
    fn senders_are_told_apart_and_a_bounded_number_is_remembered() {
        let guard = ReplayGuard::default();
        for sender in 0..SENDERS_REMEMBERED as u64 + 10 {
            assert!(guard.accept(Sequence { sender, number: 1 }));
        }
        assert_eq!(guard.lock().senders.len(), SENDERS_REMEMBERED);
        let last = SENDERS_REMEMBERED as u64 + 9;
        assert!(!guard.accept(Sequence { sender: last, number: 1 }));
        assert!(guard.accept(Sequence { sender: last, number: 10_000 }));
        assert!(!guard.accept(Sequence { sender: last, number: 10_000 - WINDOW }), "too old to tell");
        assert!(guard.accept(Sequence { sender: last, number: 10_001 - WINDOW }));
    }
}
