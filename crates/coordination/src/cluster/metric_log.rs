//! Replication state of the metric log, shared by all nimbuses.
//!
//! The leader records the high watermark of the log here before it reports any entry as committed.
//! So the next leader can check whether its own log contains every committed entry, and if not,
//! waits for the in-sync replicas that have the missing entries. If the missing entries do not
//! arrive, the leader records an unclean takeover, and a nimbus that comes back with a log that may
//! contain discarded entries quarantines its database instead of deleting it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cluster::record::UnknownFields;
use stormkeeper_model::{LogPosition, NimbusId, Term, Timestamp};

/// `/metric-log`: replication state of the metric log, shared by all nimbuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricLogState {
    /// High watermark: entries up to this position have been reported as committed.
    pub high_watermark: LogPosition,
    /// In-sync replicas: the nimbuses that had these entries when the high watermark was written.
    pub in_sync_replicas: BTreeSet<NimbusId>,
    /// The last unclean takeover: a leader continued without committed entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_takeover: Option<UncleanTakeover>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// Unclean takeover: the committed entries that a leader continued without, and so discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncleanTakeover {
    /// Term of that leader.
    pub term: Term,
    /// Last entry of that leader's log at the takeover.
    pub log_end: LogPosition,
    /// Last committed entry at the takeover.
    pub discarded_through: LogPosition,
    /// Time of the takeover, by that leader's clock.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
}

impl MetricLogState {
    /// State that is assumed if neither the high watermark nor the in-sync replicas are known.
    pub fn unknown() -> Self {
        Self { high_watermark: LogPosition { term: i32::MAX, index: u64::MAX }, ..Self::default() }
    }

    /// True if the high watermark is not known.
    pub fn is_unknown(&self) -> bool {
        self.high_watermark == Self::unknown().high_watermark
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
    pub fn covers_committed(&self, last: LogPosition) -> bool {
        let continues_takeover =
            |takeover: UncleanTakeover| self.high_watermark == takeover.start() && last == takeover.log_end;
        last >= self.high_watermark || self.unclean_takeover.is_some_and(continues_takeover)
    }

    /// Returns whether a diverged log (one that is not a prefix of the leader's log) whose last
    /// entry is `last` may contain committed entries that an unclean takeover discarded. A false
    /// positive costs disk space, because the log is kept; there are no false negatives.
    ///
    /// Every log whose last term is the takeover's term or later is based on the log that the
    /// takeover continued with, so it contains no discarded entry. A log of an earlier term contains
    /// no discarded entry either if it is a prefix of the log that the takeover continued with. A
    /// log is known to be such a prefix if its last entry has the same term as the last entry of
    /// that log and no larger index, because all entries of one term are from one leader.
    pub fn may_hold_discarded(&self, last: LogPosition) -> bool {
        let Some(UncleanTakeover { term, log_end, .. }) = self.unclean_takeover else { return false };
        let is_prefix =
            last == LogPosition::default() || last.term == log_end.term && last.index <= log_end.index;
        last.term < term.0 && !is_prefix
    }

    /// Records an unclean takeover: the leader of `term`, whose log ends at `own`, continues
    /// without the committed entries after `own`. From then on a log contains every committed entry
    /// if it has an entry of that term or of a later one, or, until the leader commits an entry, if
    /// it ends exactly at `own`.
    #[must_use]
    pub fn record_unclean_takeover(
        &self,
        leader: &NimbusId,
        term: Term,
        own: LogPosition,
        at: Timestamp,
    ) -> Self {
        let unclean_takeover =
            UncleanTakeover { term, log_end: own, discarded_through: self.high_watermark, at };
        Self {
            high_watermark: unclean_takeover.start(),
            in_sync_replicas: BTreeSet::from([leader.clone()]),
            unclean_takeover: Some(unclean_takeover),
            unknown_fields: self.unknown_fields.clone(),
        }
    }
}

impl UncleanTakeover {
    /// Returns the position before the first entry of that leader and after all earlier entries.
    fn start(&self) -> LogPosition {
        LogPosition { term: self.term.0, index: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: i32, index: u64) -> LogPosition {
        LogPosition { term, index }
    }

    fn unclean_takeover() -> MetricLogState {
        let in_sync_replicas = BTreeSet::from(["a".parse().expect("valid")]);
        let before =
            MetricLogState { high_watermark: at(3, 22), in_sync_replicas, ..MetricLogState::default() };
        assert!(!before.may_hold_discarded(at(3, 22)));
        before.record_unclean_takeover(
            &"b".parse().expect("valid"),
            Term(5),
            at(2, 9),
            Timestamp::from_millis(7),
        )
    }

    #[test]
    fn diverged_log_of_an_earlier_term_may_contain_discarded_entries() {
        let check =
            |last, expected| assert_eq!(unclean_takeover().may_hold_discarded(last), expected, "{last}");
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
        let check = |last, has| assert_eq!(unclean_takeover().covers_committed(last), has, "{last}");
        check(at(3, 22), false);
        check(at(4, 90), false);
        check(at(2, 8), false);
        // Nothing was committed since: the log that the takeover continued with is complete.
        check(at(2, 9), true);
        check(at(5, 1), true);
        check(at(7, 1), true);
        let later = MetricLogState { high_watermark: at(5, 10), ..unclean_takeover() };
        assert!(
            !later.covers_committed(at(2, 9))
                && !later.covers_committed(at(5, 9))
                && later.covers_committed(at(5, 10))
        );
    }

    #[test]
    fn no_log_covers_an_unknown_high_watermark() {
        assert!(MetricLogState::default().covers_committed(at(0, 0)));
        let unknown = MetricLogState::unknown();
        assert!(
            unknown.is_unknown() && !unknown.covers_committed(at(9, 9)) && !unclean_takeover().is_unknown()
        );
    }

    #[test]
    fn record_is_stored_as_readable_json() {
        let bytes = crate::cluster::record::encode(&unclean_takeover());
        assert_eq!(
            std::str::from_utf8(&bytes).expect("text"),
            r#"{"v":1,"high_watermark":{"term":5,"index":0},"in_sync_replicas":["b"],"unclean_takeover":{"term":5,"log_end":{"term":2,"index":9},"discarded_through":{"term":3,"index":22},"at_ms":7}}"#
        );
    }
}
