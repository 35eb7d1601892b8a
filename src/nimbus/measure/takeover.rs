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

/// What a new leader does when it has taken what it could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takeover {
    /// It has all that is safe: it begins.
    Begins,
    /// What it lacks is with nobody who may still come: it begins, and that is written down.
    GivesUp,
    /// One of these may have it, and has not been heard.
    Waits(Vec<NimbusId>),
    /// One that can be reached has it, and it could not be fetched: that is not given up.
    Insists,
    /// Its own archive was written with another tree.
    IsForeign,
}

/// What another nimbus has for a new leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offer {
    /// No more than this one has, or nothing that belongs here.
    Nothing,
    /// Entries, should its log lead on from this one's. Else there is nothing safe in it that this
    /// one lacks, or too little.
    Entries,
    /// What this one lacks: in place of its own archive, should the log not lead on.
    Archive,
}

/// A new leader, with what it knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Successor<'a> {
    pub(super) me: &'a NimbusId,
    pub(super) term: Term,
    /// The last entry of its log.
    pub(super) own: Position,
    /// Who said how far its log goes, and has nothing more for this one.
    pub(super) heard: &'a BTreeSet<NimbusId>,
    /// Whether one that said so has what this one lacks.
    pub(super) is_in_reach: bool,
    pub(super) waited: Duration,
    pub(super) grace: Duration,
}

/// What a nimbus whose log goes up to `said` has for the leader of `term`, whose log goes up to
/// `own`.
pub(super) fn offer(record: &ArchiveRecord, term: Term, own: Position, said: Position) -> Offer {
    // Nobody has entries of a term that only begins: they are of another tree, or there is a
    // later leader by now.
    if said <= own || said.term >= term.0 {
        return Offer::Nothing;
    }
    match !record.has_all(own) && (record.has_all(said) || record.is_unknown()) {
        true => Offer::Archive,
        false => Offer::Entries,
    }
}

impl Successor<'_> {
    pub(super) fn decide(self, record: &ArchiveRecord) -> Takeover {
        if self.own.term >= self.term.0 {
            return Takeover::IsForeign;
        }
        if record.has_all(self.own) {
            return Takeover::Begins;
        }
        if self.is_in_reach {
            return Takeover::Insists;
        }
        let is_out = |id: &&NimbusId| *id != self.me && !self.heard.contains(*id);
        let holders: Vec<NimbusId> = record.holders.iter().filter(is_out).cloned().collect();
        match holders.is_empty() || self.waited >= self.grace {
            true => Takeover::GivesUp,
            false => Takeover::Waits(holders),
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

    fn record(holders: &str) -> ArchiveRecord {
        ArchiveRecord { safe: at(3, 20), holders: ids(holders), ..ArchiveRecord::default() }
    }

    fn decided(own: Position, holders: &str, heard: &str, is_in_reach: bool, waited: u64) -> Takeover {
        let successor = Successor {
            me: &"me".parse().expect("valid"),
            term: Term(5),
            own,
            heard: &ids(heard),
            is_in_reach,
            waited: Duration::from_secs(waited),
            grace: GRACE,
        };
        successor.decide(&record(holders))
    }

    fn check(own: Position, holders: &str, heard: &str, waited: u64, expected: &Takeover) {
        assert_eq!(
            decided(own, holders, heard, false, waited),
            *expected,
            "{own} {holders} {heard} {waited}"
        );
    }

    fn waits(holders: &str) -> Takeover {
        Takeover::Waits(ids(holders).into_iter().collect())
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
            check(own, "a b", "", 0, &waits("a b"));
            check(own, "a b", "b c", 599, &waits("a"));
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
    fn what_can_be_reached_is_never_given_up() {
        assert_eq!(decided(at(3, 19), "", "", true, 9999), Takeover::Insists);
        assert_eq!(decided(at(3, 20), "", "", true, 9999), Takeover::Begins, "others may have more");
    }

    #[test]
    fn an_archive_of_another_tree_is_never_written_on() {
        check(at(5, 1), "a", "a", 9999, &Takeover::IsForeign);
        check(at(6, 1), "a", "a", 9999, &Takeover::IsForeign);
    }

    #[test]
    fn only_one_that_has_all_that_is_safe_takes_the_place_of_what_this_one_has() {
        let check = |own, said, expected| {
            assert_eq!(offer(&record("a"), Term(5), own, said), expected, "{own} {said}");
        };
        check(at(1, 4), at(1, 4), Offer::Nothing);
        check(at(1, 4), at(1, 3), Offer::Nothing);
        check(at(1, 4), at(2, 1), Offer::Entries);
        check(at(1, 4), at(3, 19), Offer::Entries);
        check(at(1, 4), at(3, 20), Offer::Archive);
        check(at(1, 4), at(4, 1), Offer::Archive);
        // It needs nothing.
        check(at(3, 20), at(3, 25), Offer::Entries);
        check(at(3, 20), at(4, 2), Offer::Entries);
        // Of another tree, or of a later leader.
        check(at(1, 4), at(5, 1), Offer::Nothing);
        check(at(1, 4), at(6, 1), Offer::Nothing);
        // What is safe is not known: more is better.
        let unknown = ArchiveRecord::unknown();
        assert_eq!(offer(&unknown, Term(5), at(1, 4), at(2, 1)), Offer::Archive);
        assert_eq!(offer(&unknown, Term(5), at(2, 1), at(1, 4)), Offer::Nothing);
    }
}
