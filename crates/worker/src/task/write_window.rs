//! Window of a bolt's child: tuples that were written for it and that it has not read yet.
//!
//! The window bounds the work that a child holds beyond the tuples that it is known to have read. It
//! starts at one tuple, doubles each time a full window is read soon, and is halved when reading
//! one takes long, so that a slow child shows progress well within its timeout even if it never acks
//! and reads many tuples at once into a buffer of its own.

use std::{collections::VecDeque, time::Duration};

use stormkeeper_model::clock::Monotonic;

/// Part of the timeout within which a full window should be read.
const PARTS_OF_TIMEOUT: u32 = 8;

/// Tuples that were written and are not known to be read.
#[derive(Debug)]
pub(super) struct WriteWindow {
    // Limit of unread tuples; at most `max`.
    size: usize,
    max: usize,
    // Longest time for reading a window that may grow.
    soon: Duration,
    // Position in the byte stream at which each unread tuple ends, oldest first.
    ends: VecDeque<u64>,
    // Bytes known to be read.
    n_read: u64,
    // The measured round: the end of its last tuple, and the time at which it began.
    round: Option<(u64, Monotonic)>,
    // True if the window was full in this round.
    was_full: bool,
}

impl WriteWindow {
    /// Creates the window of a new child, for at most `max` tuples, and for a child that is restarted
    /// after a silence of `timeout`.
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self {
            size: 1,
            max: max.max(1),
            soon: timeout / PARTS_OF_TIMEOUT,
            ends: VecDeque::new(),
            n_read: 0,
            round: None,
            was_full: false,
        }
    }

    /// Returns the number of unread tuples.
    pub(super) fn n_unread(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether no more tuples may be written until some are read.
    pub(super) fn is_full(&self) -> bool {
        self.ends.len() >= self.size
    }

    /// Records a tuple that ends at the position `end` of the byte stream.
    pub(super) fn wrote(&mut self, end: u64, now: Monotonic) {
        self.ends.push_back(end);
        self.round.get_or_insert((end, now));
        self.was_full |= self.is_full();
    }

    /// Records that the child has read `n_read` bytes in all. Returns whether it has read any since
    /// the last call.
    pub(super) fn read(&mut self, n_read: u64, now: Monotonic) -> bool {
        if n_read <= self.n_read {
            return false;
        }
        self.n_read = n_read;
        while self.ends.front().is_some_and(|end| *end <= n_read) {
            self.ends.pop_front();
        }
        if let Some((end, began)) = self.round
            && end <= n_read
        {
            if now.since(began) > self.soon {
                self.size = (self.size / 2).max(1);
            } else if self.was_full {
                self.size = (self.size * 2).min(self.max);
            }
            self.round = self.ends.back().map(|end| (*end, now));
            self.was_full = self.is_full();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_millis(millis))
    }

    /// Writes until the window is full, each tuple 10 bytes long, and returns the end of the last.
    fn fill(window: &mut WriteWindow, mut end: u64, now: Monotonic) -> u64 {
        while !window.is_full() {
            end += 10;
            window.wrote(end, now);
        }
        end
    }

    #[test]
    fn window_grows_to_its_limit_for_a_child_that_reads_soon() {
        let mut window = WriteWindow::new(100, Duration::from_secs(8));
        let (mut end, mut sizes) = (0, Vec::new());
        for _ in 0..9 {
            end = fill(&mut window, end, at(0));
            sizes.push(window.n_unread());
            assert!(window.read(end, at(1000)));
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        // A window that was not full says nothing about a larger one.
        window.wrote(end + 10, at(2000));
        assert!(!window.is_full());
        assert!(window.read(end + 10, at(2000)));
        fill(&mut window, end + 10, at(2000));
        assert_eq!(window.n_unread(), 100);
    }

    #[test]
    fn window_shrinks_for_a_child_that_reads_late_and_never_below_one_tuple() {
        let mut window = WriteWindow::new(4, Duration::from_secs(8));
        let mut end = 0;
        let mut sizes = Vec::new();
        for took in [0, 0, 1001, 5000, 5000, 5000] {
            end = fill(&mut window, end, at(0));
            sizes.push(window.n_unread());
            window.read(end, at(took));
        }
        assert_eq!(sizes, [1, 2, 4, 2, 1, 1]);
    }

    #[test]
    fn window_of_a_child_that_is_never_without_tuples_is_measured_in_rounds() {
        let mut window = WriteWindow::new(4, Duration::from_secs(8));
        let mut end = 0;
        for round in 0..100_u64 {
            end = fill(&mut window, end, at(round * 900));
            // From the second round on, one tuple is always left unread.
            window.read(if round == 0 { end } else { end - 10 }, at(round * 900 + 450));
        }
        fill(&mut window, end, at(90_000));
        assert_eq!(window.n_unread(), 4);
    }

    #[test]
    fn tuple_is_read_when_its_last_byte_is() {
        let mut window = WriteWindow::new(2, Duration::from_secs(8));
        window.wrote(10, at(0));
        window.read(10, at(0));
        fill(&mut window, 10, at(0));
        assert!(window.read(19, at(0)), "progress within a tuple");
        assert_eq!(window.n_unread(), 2);
        assert!(!window.read(19, at(0)));
        window.read(25, at(0));
        assert_eq!((window.n_unread(), window.is_full()), (1, false));
    }
}
