//! What the metrics archives of all nimbuses have in common.
//!
//! The leader writes up to where the archive's log is safe before it tells that to anyone. So
//! whoever leads next knows whether its own archive has all that was called safe, and waits for
//! those that have it if not. Safe entries that never came are written down as given up, and a
//! nimbus that comes back with them keeps them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    cluster::record::Rest,
    model::{NimbusId, Position, Term, Timestamp},
};

/// `/archive`: what the metrics archives of all nimbuses have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Entries of the log up to this one have been called safe.
    pub safe: Position,
    /// Who had them when that was written.
    pub holders: BTreeSet<NimbusId>,
    /// The last time that a leader went on without safe entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Safe entries that a leader went on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Its term.
    pub term: Term,
    /// The last entry that it had.
    pub after: Position,
    /// The last one that was safe.
    pub through: Position,
    /// When, by its clock.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
}

impl ArchiveRecord {
    /// What is assumed when it is not known what was called safe, nor who has it.
    pub fn unknown() -> Self {
        Self { safe: Position { term: i32::MAX, seq: u64::MAX }, ..Self::default() }
    }

    /// Whether it is not known what was called safe.
    pub fn is_unknown(&self) -> bool {
        self.safe == Self::unknown().safe
    }

    /// Whether a log whose last entry is `last` has all that is safe.
    ///
    /// Entries are called safe together with one of the term of the leader that does so. So of
    /// two logs the one whose last entry is of a later term has what was safe when that term
    /// began, and of one term the longer one has all of the other.
    pub fn has_all(&self, last: Position) -> bool {
        let is_where_it_went_on = |it: GivenUp| self.safe == it.start() && last == it.after;
        last >= self.safe || self.given_up.is_some_and(is_where_it_went_on)
    }

    /// Whether a log whose last entry is `last`, and which does not lead on to the leader's, may
    /// have entries that were given up. One that is told so wrongly is kept for nothing; never
    /// the other way.
    ///
    /// Every log of that term or a later one goes back to what was gone on with. Of those before,
    /// the ones that are a beginning of it have nothing else: that is known where the term of
    /// the last entry is the same, as all entries of one term are of one leader.
    pub fn lacks(&self, last: Position) -> bool {
        let Some(GivenUp { term, after, .. }) = self.given_up else { return false };
        let is_beginning = last == Position::default() || last.term == after.term && last.seq <= after.seq;
        last.term < term.0 && !is_beginning
    }

    /// The leader of `term`, whose log goes up to `own`, goes on without what is safe beyond. From
    /// then on only logs of that term or a later one have all that is safe.
    #[must_use]
    pub fn give_up(&self, leader: &NimbusId, term: Term, own: Position, at: Timestamp) -> Self {
        let given_up = GivenUp { term, after: own, through: self.safe, at };
        Self {
            safe: given_up.start(),
            holders: BTreeSet::from([leader.clone()]),
            given_up: Some(given_up),
            rest: self.rest.clone(),
        }
    }
}

impl GivenUp {
    /// Before the first entry of that leader, and after all of those before it.
    fn start(&self) -> Position {
        Position { term: self.term.0, seq: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: i32, seq: u64) -> Position {
        Position { term, seq }
    }

    fn given_up() -> ArchiveRecord {
        let holders = BTreeSet::from(["a".parse().expect("valid")]);
        let before = ArchiveRecord { safe: at(3, 22), holders, ..ArchiveRecord::default() };
        assert!(!before.lacks(at(3, 22)));
        before.give_up(&"b".parse().expect("valid"), Term(5), at(2, 9), Timestamp::from_millis(7))
    }

    #[test]
    fn a_log_of_a_term_before_may_have_what_was_given_up() {
        let check = |last, lacks| assert_eq!(given_up().lacks(last), lacks, "{last}");
        check(at(3, 22), true);
        check(at(3, 30), true);
        check(at(4, 3), true);
        // Its last entry may be of those that were called safe later, by another leader.
        check(at(1, 8), true);
        check(at(2, 10), true);
        // A beginning of what the leader had.
        check(at(2, 9), false);
        check(at(2, 1), false);
        check(at(0, 0), false);
        // Of that leader, or of one after it.
        check(at(5, 1), false);
        check(at(6, 40), false);
    }

    #[test]
    fn after_that_only_what_goes_back_to_it_has_all() {
        let check = |last, has| assert_eq!(given_up().has_all(last), has, "{last}");
        check(at(3, 22), false);
        check(at(4, 90), false);
        check(at(2, 8), false);
        // Nothing was called safe since: what it went on with is all there is.
        check(at(2, 9), true);
        check(at(5, 1), true);
        check(at(7, 1), true);
        let later = ArchiveRecord { safe: at(5, 10), ..given_up() };
        assert!(!later.has_all(at(2, 9)) && !later.has_all(at(5, 9)) && later.has_all(at(5, 10)));
    }

    #[test]
    fn of_what_is_not_known_nobody_has_all() {
        assert!(ArchiveRecord::default().has_all(at(0, 0)));
        let unknown = ArchiveRecord::unknown();
        assert!(unknown.is_unknown() && !unknown.has_all(at(9, 9)) && !given_up().is_unknown());
    }

    #[test]
    fn it_is_stored_as_a_person_reads_it() {
        let bytes = crate::cluster::record::encode(&given_up());
        assert_eq!(
            std::str::from_utf8(&bytes).expect("text"),
            r#"{"v":1,"safe":{"term":5,"seq":0},"holders":["b"],"given_up":{"term":5,"after":{"term":2,"seq":9},"through":{"term":3,"seq":22},"at_ms":7}}"#
        );
    }
}
