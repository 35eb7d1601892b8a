//! Whether a new leader may take metrics in. Pure.
//!
//! Entries of the log that were called safe are nowhere else but in archives: workers have
//! forgotten them. A leader that lacks some of them would go on with another log, and those who
//! have them could not follow it. So it waits for them, for a while.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    cluster::archive::ArchiveRecord,
    model::{NimbusId, Position, Term},
};

/// What a new leader does when it has taken what it could reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takeover {
    /// It has all that is safe: it begins.
    Begins,
    /// What it lacks is with nobody who may still come: it begins, and that is written down.
    GivesUp,
    /// One of these may have it, and has not been heard.
    Waits { holders: Vec<NimbusId>, left: Duration },
    /// Its archive is of another tree, whose terms were higher.
    IsForeign,
}

/// A new leader, with what it knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Successor<'a> {
    pub(super) me: &'a NimbusId,
    pub(super) term: Term,
    /// The last entry of its log.
    pub(super) own: Position,
    /// Who said how far its log goes, and has no more than this one by now.
    pub(super) heard: &'a BTreeSet<NimbusId>,
    pub(super) waited: Duration,
    pub(super) grace: Duration,
}

impl Successor<'_> {
    pub(super) fn decide(self, record: &ArchiveRecord) -> Takeover {
        if self.own.term > self.term.0 {
            return Takeover::IsForeign;
        }
        if self.own >= record.safe {
            return Takeover::Begins;
        }
        let is_out = |id: &&NimbusId| *id != self.me && !self.heard.contains(*id);
        let holders: Vec<NimbusId> = record.holders.iter().filter(is_out).cloned().collect();
        match self.grace.checked_sub(self.waited) {
            Some(left) if !holders.is_empty() && !left.is_zero() => Takeover::Waits { holders, left },
            _ => Takeover::GivesUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn ids(text: &str) -> BTreeSet<NimbusId> {
        text.split_whitespace().map(|id| id.parse().expect("valid")).collect()
    }

    fn at(term: i32, seq: u64) -> Position {
        Position { term, seq }
    }

    fn check(own: Position, holders: &str, heard: &str, waited: u64, expected: &Takeover) {
        let record = ArchiveRecord { safe: at(3, 20), holders: ids(holders), ..ArchiveRecord::default() };
        let successor = Successor {
            me: &"me".parse().expect("valid"),
            term: Term(4),
            own,
            heard: &ids(heard),
            waited: Duration::from_secs(waited),
            grace: GRACE,
        };
        assert_eq!(successor.decide(&record), *expected, "{own} {holders} {heard} {waited}");
    }

    fn waits(holders: &str, left: u64) -> Takeover {
        Takeover::Waits { holders: ids(holders).into_iter().collect(), left: Duration::from_secs(left) }
    }

    #[test]
    fn whoever_has_all_that_is_safe_waits_for_nobody() {
        check(at(3, 20), "a b", "", 0, &Takeover::Begins);
        check(at(3, 25), "a b", "", 0, &Takeover::Begins);
        check(at(4, 21), "a b", "", 0, &Takeover::Begins);
    }

    #[test]
    fn one_that_lacks_some_waits_for_those_that_had_it() {
        for own in [at(0, 0), at(3, 19), at(2, 30)] {
            check(own, "a b", "", 0, &waits("a b", 600));
            check(own, "a b", "b c", 599, &waits("a", 1));
            check(own, "a b", "b c", 600, &Takeover::GivesUp);
            check(own, "a b", "b c", 601, &Takeover::GivesUp);
        }
    }

    #[test]
    fn it_does_not_wait_when_nobody_may_come_who_has_it() {
        check(at(3, 19), "a b", "a b", 0, &Takeover::GivesUp);
        check(at(3, 19), "me", "", 0, &Takeover::GivesUp);
        check(at(3, 19), "a me", "a", 0, &Takeover::GivesUp);
        check(at(3, 19), "", "", 0, &Takeover::GivesUp);
    }

    #[test]
    fn an_archive_of_another_tree_is_never_written_on() {
        check(at(5, 1), "a", "a", 9999, &Takeover::IsForeign);
    }
}
