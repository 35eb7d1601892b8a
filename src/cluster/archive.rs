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
    /// Safe entries that leaders went on without, oldest first; at most [`GIVEN_UP_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUp>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The most of [`ArchiveRecord::given_up`]. Beyond it the two oldest become one, which says
/// more than it should.
pub const GIVEN_UP_MAX: usize = 8;

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
    /// Whether a log whose last entry is `last` may have entries that were given up. One that is
    /// told so wrongly is kept for nothing; never the other way.
    pub fn lacks(&self, last: Position) -> bool {
        self.given_up.iter().any(|given_up| last.term < given_up.term.0 && last > given_up.after)
    }

    /// The leader of `term`, whose log goes up to `own`, goes on without what is safe beyond.
    #[must_use]
    pub fn given_up(&self, term: Term, own: Position, at: Timestamp) -> Self {
        let mut record = self.clone();
        record.given_up.push(GivenUp { term, after: own, through: self.safe, at });
        if record.given_up.len() > GIVEN_UP_MAX {
            let older = record.given_up.remove(0);
            if let Some(newer) = record.given_up.first_mut() {
                newer.after = newer.after.min(older.after);
                newer.through = newer.through.max(older.through);
            }
        }
        record.safe = own;
        record.holders = BTreeSet::new();
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: i32, seq: u64) -> Position {
        Position { term, seq }
    }

    fn safe(safe: Position) -> ArchiveRecord {
        ArchiveRecord { safe, holders: BTreeSet::from(["a".parse().expect("valid")]), ..Default::default() }
    }

    #[test]
    fn what_was_given_up_is_known_by_its_term_and_place() {
        let record = safe(at(1, 22)).given_up(Term(2), at(1, 5), Timestamp::EPOCH);
        assert_eq!((record.safe, record.holders.len()), (at(1, 5), 0));
        let check = |last, lacks| assert_eq!(record.lacks(last), lacks, "{last}");
        // Those before the leader's end are in its log.
        check(at(0, 0), false);
        check(at(1, 5), false);
        check(at(1, 6), true);
        check(at(1, 22), true);
        // Not called safe, or not known to be: kept all the same.
        check(at(1, 30), true);
        // Of the leader that went on, or of one after it.
        check(at(2, 6), false);
        check(at(3, 40), false);
        assert!(!safe(at(1, 22)).lacks(at(1, 22)));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut bounded, mut all) = (safe(at(1, 10)), Vec::new());
            for term in 2..2 + 3 * GIVEN_UP_MAX as i32 {
                let own = at(random.i32(0..term), random.u64(0..50));
                bounded = bounded.given_up(Term(term), own, Timestamp::EPOCH);
                all.push((term, own));
                assert!(bounded.given_up.len() <= GIVEN_UP_MAX);
            }
            for _ in 0..50 {
                let last = at(random.i32(0..30), random.u64(0..60));
                let lacks = all.iter().any(|(term, own)| last.term < *term && last > *own);
                assert!(bounded.lacks(last) || !lacks, "{last} {bounded:?}");
            }
        }
    }

    #[test]
    fn it_is_stored_as_a_person_reads_it() {
        let record = safe(at(3, 7)).given_up(Term(4), at(2, 1), Timestamp::from_millis(9));
        let bytes = crate::cluster::record::encode(&record);
        assert_eq!(
            std::str::from_utf8(&bytes).expect("text"),
            r#"{"v":1,"safe":{"term":2,"seq":1},"holders":[],"given_up":[{"term":4,"after":{"term":2,"seq":1},"through":{"term":3,"seq":7},"at_ms":9}]}"#
        );
    }
}
