//! Replication state of the metric log, shared by all nimbuses.
//!
//! The leader records the high watermark of the log here before it reports any entry as committed.
//! So the next leader can check whether its own log contains every committed entry, and if not,
//! waits for the in-sync replicas that have the missing entries. If the missing entries do not
//! arrive, the leader records an unclean takeover, and a nimbus that comes back with a log that may
//! contain discarded entries quarantines its database instead of deleting it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cluster::record::Rest;
use stormkeeper_model::{NimbusId, Position, Term, Timestamp};

/// `/metric-log`: replication state of the metric log, shared by all nimbuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// High watermark: entries up to this position have been reported as committed.
    pub safe: Position,
    /// In-sync replicas: the nimbuses that had these entries when the high watermark was written.
    pub holders: BTreeSet<NimbusId>,
    /// The last unclean takeover: a leader continued without committed entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Unclean takeover: the committed entries that a leader continued without, and so discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Term of that leader.
    pub term: Term,
    /// Last entry of that leader's log at the takeover.
    pub after: Position,
    /// Last committed entry at the takeover.
    pub through: Position,
    /// Time of the takeover, by that leader's clock.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
}

impl ArchiveRecord {
    /// State that is assumed if neither the high watermark nor the in-sync replicas are known.
    pub fn unknown() -> Self {
        Self { safe: Position { term: i32::MAX, seq: u64::MAX }, ..Self::default() }
    }

    /// True if the high watermark is not known.
    pub fn is_unknown(&self) -> bool {
        self.safe == Self::unknown().safe
    }

    /// Returns whether a log whose last entry is `last` contains every committed entry.
    ///
    /// A leader reports entries as committed only together with an entry of its own term. So of two
    /// logs, the log whose last entry has the later term contains all entries that were committed
    /// when that term began; and of two logs whose last entries have the same term, the longer log
    /// contains the shorter log.
    ///
    /// After an unclean takeover, until its leader commits an entry, a log that ends where the
    /// takeover continued qualifies too.
    pub fn has_all(&self, last: Position) -> bool {
        let is_where_it_went_on = |it: GivenUp| self.safe == it.start() && last == it.after;
        last >= self.safe || self.given_up.is_some_and(is_where_it_went_on)
    }

    /// Returns whether a diverged log (one that is not a prefix of the leader's log) whose last
    /// entry is `last` may contain committed entries that an unclean takeover discarded. A false
    /// positive costs disk space, because the log is kept; there are no false negatives.
    ///
    /// Every log whose last term is the takeover's term or later is based on the log that the
    /// takeover continued with, so it contains no discarded entry. Of the logs of earlier terms, a
    /// prefix of the log that the takeover continued with contains nothing else. A log is known to
    /// be such a prefix if its last entry has the same term as the last entry of that log, because
    /// all entries of one term are from one leader.
    pub fn lacks(&self, last: Position) -> bool {
        let Some(GivenUp { term, after, .. }) = self.given_up else { return false };
        let is_beginning = last == Position::default() || last.term == after.term && last.seq <= after.seq;
        last.term < term.0 && !is_beginning
    }

    /// Records an unclean takeover: the leader of `term`, whose log ends at `own`, continues
    /// without the committed entries after `own`. From then on only logs of that term or a later
    /// term contain every committed entry.
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
    /// Returns the position before the first entry of that leader and after all earlier entries.
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
    fn diverged_log_of_an_earlier_term_may_contain_discarded_entries() {
        let check = |last, lacks| assert_eq!(given_up().lacks(last), lacks, "{last}");
        check(at(3, 22), true);
        check(at(3, 30), true);
        check(at(4, 3), true);
        // The last entry may be one that another leader reported as committed later.
        check(at(1, 8), true);
        check(at(2, 10), true);
        // A prefix of the log that the takeover continued with.
        check(at(2, 9), false);
        check(at(2, 1), false);
        check(at(0, 0), false);
        // A log of the takeover's term, or of a later term.
        check(at(5, 1), false);
        check(at(6, 40), false);
    }

    #[test]
    fn after_an_unclean_takeover_only_logs_based_on_it_cover_all_committed_entries() {
        let check = |last, has| assert_eq!(given_up().has_all(last), has, "{last}");
        check(at(3, 22), false);
        check(at(4, 90), false);
        check(at(2, 8), false);
        // Nothing was committed since: the log that the takeover continued with is complete.
        check(at(2, 9), true);
        check(at(5, 1), true);
        check(at(7, 1), true);
        let later = ArchiveRecord { safe: at(5, 10), ..given_up() };
        assert!(!later.has_all(at(2, 9)) && !later.has_all(at(5, 9)) && later.has_all(at(5, 10)));
    }

    #[test]
    fn no_log_covers_an_unknown_high_watermark() {
        assert!(ArchiveRecord::default().has_all(at(0, 0)));
        let unknown = ArchiveRecord::unknown();
        assert!(unknown.is_unknown() && !unknown.has_all(at(9, 9)) && !given_up().is_unknown());
    }

    #[test]
    fn record_is_stored_as_readable_json() {
        let bytes = crate::cluster::record::encode(&given_up());
        assert_eq!(
            std::str::from_utf8(&bytes).expect("text"),
            r#"{"v":1,"safe":{"term":5,"seq":0},"holders":["b"],"given_up":{"term":5,"after":{"term":2,"seq":9},"through":{"term":3,"seq":22},"at_ms":7}}"#
        );
    }
}
