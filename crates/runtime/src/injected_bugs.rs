//! Bugs injected into the daemons, to prove that the simulation finds them.
//!
//! Each bug is switched on for one thread and replaces one branch of the daemon. The branches are
//! compiled together with this module only: a plain build has neither.

use std::cell::Cell;

/// A bug that a cluster manager of this kind has been seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedBug {
    /// A leader's write is not checked against the term.
    UnfencedWrite,
    /// The observer reads only the paths that watches named, as if no event were ever lost.
    TrustsWatches,
    /// A new leader treats everything that it does not see as absent since before its term.
    LivenessFromBeforeTerm,
    /// The record of a killed topology is removed before the topology's other znodes.
    RecordRemovedFirst,
    /// A submit whose response was lost is retried under a new id.
    RetriesUnderNewId,
    /// The leader reports metrics as committed that are only in its own log.
    CommitsUnpublished,
    /// A follower deletes a database that may hold discarded metrics, instead of quarantining it.
    RemovesDiverged,
    /// A new leader does not remember which metric reports its predecessor stored.
    ForgetsStoredReports,
    /// The leader treats a host as lost although its supervisor has announced its stop.
    IgnoresStops,
    /// Terms begin at 1 again after `/term` was deleted.
    TermBeginsAnew,
}

impl InjectedBug {
    /// All bugs.
    pub const ALL: [Self; 10] = [
        Self::UnfencedWrite,
        Self::TrustsWatches,
        Self::LivenessFromBeforeTerm,
        Self::RecordRemovedFirst,
        Self::RetriesUnderNewId,
        Self::CommitsUnpublished,
        Self::RemovesDiverged,
        Self::ForgetsStoredReports,
        Self::IgnoresStops,
        Self::TermBeginsAnew,
    ];
}

thread_local! {
    static INJECTED: Cell<Option<InjectedBug>> = const { Cell::new(None) };
}

/// Runs `work` with an injected bug, in this thread.
pub fn with<T>(bug: InjectedBug, work: impl FnOnce() -> T) -> T {
    /// Removes the bug on drop, also if `work` panics.
    struct Removal;
    impl Drop for Removal {
        fn drop(&mut self) {
            INJECTED.set(None);
        }
    }
    INJECTED.set(Some(bug));
    let _removal = Removal;
    work()
}

/// True if the bug is injected in this thread.
pub fn is_injected(bug: InjectedBug) -> bool {
    INJECTED.get() == Some(bug)
}
