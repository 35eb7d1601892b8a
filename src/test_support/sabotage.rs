//! Bugs put into the daemons on purpose, to see that the simulation finds them.
//!
//! Each is switched on for one thread and is one branch where the daemon does the right
//! thing, compiled with this module only: a plain build has neither.

use std::cell::Cell;

/// A mistake that a cluster manager of this kind has been seen to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A leader's write is not checked against the term.
    UnfencedWrite,
    /// The observer reads what watches named and nothing else, as if no event were lost.
    BelievesWatches,
    /// What a new leader does not see counts as gone since before its term.
    LivenessFromBefore,
    /// The record of a killed topology goes before what else there is of it.
    RecordRemovedFirst,
    /// A submit whose answer was lost is tried again under a new id.
    RetriesUnderNewId,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::UnfencedWrite,
        Self::BelievesWatches,
        Self::LivenessFromBefore,
        Self::RecordRemovedFirst,
        Self::RetriesUnderNewId,
    ];
}

thread_local! {
    static PUT_IN: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// Runs `work` with a bug put in, in this thread.
pub fn with<T>(sabotage: Sabotage, work: impl FnOnce() -> T) -> T {
    /// Taken out again also when `work` panics.
    struct TakenOut;
    impl Drop for TakenOut {
        fn drop(&mut self) {
            PUT_IN.set(None);
        }
    }
    PUT_IN.set(Some(sabotage));
    let _taken_out = TakenOut;
    work()
}

/// Whether the bug is put in.
pub(crate) fn is_put_in(sabotage: Sabotage) -> bool {
    PUT_IN.get() == Some(sabotage)
}
