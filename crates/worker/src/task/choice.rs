//! Choice of the tasks to which a task shuffles its tuples.
//!
//! Shuffles send to each task in turn, and look at no queue, as long as all queues have room. Once one of
//! them is more than half full, they look before each tuple whether the queue of the next task has room,
//! and pass over those that have none. They stop when they have found room everywhere for a while.

/// Number of tuples before which a task goes on looking after it has last found a queue filling or full. A
/// queue that a slow task has emptied is full again before that, so that nobody waits for it.
const LOOKS: u32 = 1 << 16;

/// Returns the most bytes that a tuple takes in a queue, with one receiving task.
pub(super) fn row_bytes(values: usize, n_trees: usize) -> usize {
    // The head of a row, its task, and an anchor for each tree.
    values + 32 + 20 * n_trees
}

/// Decision of one emitter whether to look at queues.
#[derive(Debug, Default)]
pub(super) struct Choice {
    // There is something to choose.
    is_on: bool,
    // Number of tuples before which it looks.
    n_looks: u32,
}

impl Choice {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, n_looks: 0 }
    }

    /// Begins to look at queues, or goes on: one of them is filling.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.is_on {
            self.n_looks = LOOKS;
        }
    }

    /// Returns whether to look before the next tuple. Called once for each.
    #[inline]
    pub(super) fn looks(&mut self) -> bool {
        let looks = self.n_looks > 0;
        self.n_looks -= u32::from(looks);
        looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_looked_at_from_the_first_that_fills_until_none_was_full_for_a_while() {
        let mut choice = Choice::new(true);
        assert!(!choice.looks(), "nothing has filled");
        choice.begin();
        for _ in 1..LOOKS {
            assert!(choice.looks());
        }
        // One was full, or filling, again.
        choice.begin();
        for _ in 0..LOOKS {
            assert!(choice.looks());
        }
        assert!(!choice.looks());
        let mut off = Choice::new(false);
        off.begin();
        assert!(!off.looks(), "there is nothing to choose");
    }
}
