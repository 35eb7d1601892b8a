//! Takeover decision: whether a new leader may ingest metrics. Pure.
//!
//! Committed entries exist in the metric stores of nimbuses only: workers have deleted their
//! reports. A leader that is missing committed entries would write a log that the replicas with
//! those entries cannot follow. The new leader therefore waits for such a replica, for a limited
//! time.

use std::{collections::BTreeSet, time::Duration};

use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_model::{LogPosition, NimbusId, Term};

/// Next step of a new leader that has fetched every entry that it could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TakeoverDecision {
    /// The leader's log has every committed entry: the leader starts to ingest.
    Ready,
    /// No in-sync replica is left to be polled, or the grace has passed: the leader starts without
    /// the missing committed entries, and records an unclean takeover.
    ProceedUnclean,
    /// One of these in-sync replicas may have the missing entries, and was not polled yet. If the
    /// in-sync replicas are not known, the live nimbuses count as in-sync replicas.
    AwaitReplicas(Vec<NimbusId>),
    /// A reachable replica has the missing entries, and fetching them failed: the leader retries,
    /// and never discards the entries.
    RetryFetch,
    /// The local metric log was written with another ZooKeeper tree.
    WrongCluster,
}

/// Entries that another replica can provide to a new leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CatchUpSource {
    /// The replica's log has no later entry, or belongs to another ZooKeeper tree or a later leader.
    None,
    /// Log entries, usable only if they continue the leader's log. If the logs have diverged, the
    /// leader is missing no committed entry, or the replica does not have all of them.
    Log,
    /// Every committed entry that the leader is missing: as log entries if they continue the
    /// leader's log, otherwise as a checkpoint that replaces the leader's database.
    Checkpoint,
}

/// Input of the takeover decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakeoverInput<'a> {
    pub(crate) me: &'a NimbusId,
    pub(crate) term: Term,
    /// Log end of the new leader.
    pub(crate) own: LogPosition,
    /// Replicas that have reported their log end, and have no more entries for the new leader.
    pub(crate) polled: &'a BTreeSet<NimbusId>,
    /// True if a polled replica has the committed entries that the new leader is missing.
    pub(crate) has_reachable_source: bool,
    /// The nimbuses that are alive.
    pub(crate) live: &'a BTreeSet<NimbusId>,
    pub(crate) waited: Duration,
    pub(crate) grace: Duration,
}

/// Returns the entries that a replica with the log end `log_end` can provide to the leader of `term`
/// with the log end `own`.
pub(crate) fn catch_up_source(
    record: &MetricLogState,
    term: Term,
    own: LogPosition,
    log_end: LogPosition,
) -> CatchUpSource {
    // No replica has entries of a term that has just begun: such entries belong to another
    // ZooKeeper tree, or a later leader exists by now.
    if log_end <= own || log_end.term >= term.0 {
        return CatchUpSource::None;
    }
    match !record.covers_committed(own) && (record.covers_committed(log_end) || record.is_unknown()) {
        true => CatchUpSource::Checkpoint,
        false => CatchUpSource::Log,
    }
}

impl TakeoverInput<'_> {
    pub(crate) fn decide(self, record: &MetricLogState) -> TakeoverDecision {
        if self.own.term >= self.term.0 {
            return TakeoverDecision::WrongCluster;
        }
        if record.covers_committed(self.own) {
            return TakeoverDecision::Ready;
        }
        if self.has_reachable_source {
            return TakeoverDecision::RetryFetch;
        }
        let is_unpolled = |id: &&NimbusId| *id != self.me && !self.polled.contains(*id);
        let in_sync_replicas = if record.is_unknown() { self.live } else { &record.in_sync_replicas };
        let in_sync_replicas: Vec<NimbusId> = in_sync_replicas.iter().filter(is_unpolled).cloned().collect();
        match in_sync_replicas.is_empty() || self.waited >= self.grace {
            true => TakeoverDecision::ProceedUnclean,
            false => TakeoverDecision::AwaitReplicas(in_sync_replicas),
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

    fn at(term: i32, index: u64) -> LogPosition {
        LogPosition { term, index }
    }

    fn record(in_sync_replicas: &str) -> MetricLogState {
        MetricLogState {
            high_watermark: at(3, 20),
            in_sync_replicas: ids(in_sync_replicas),
            ..MetricLogState::default()
        }
    }

    #[test]
    fn leader_that_cannot_know_what_was_committed_waits_for_the_live_nimbuses() {
        let decide = |live, polled, waited| {
            let input = TakeoverInput {
                me: &"me".parse().expect("valid"),
                term: Term(5),
                own: at(3, 20),
                polled: &ids(polled),
                live: &ids(live),
                has_reachable_source: false,
                waited: Duration::from_secs(waited),
                grace: GRACE,
            };
            input.decide(&MetricLogState::unknown())
        };
        assert_eq!(decide("a b me", "b", 0), waits("a"));
        assert_eq!(decide("a b me", "b", 599), waits("a"));
        assert_eq!(decide("a b me", "b", 600), TakeoverDecision::ProceedUnclean);
        assert_eq!(decide("a b me", "a b", 0), TakeoverDecision::ProceedUnclean);
        assert_eq!(decide("me", "", 0), TakeoverDecision::ProceedUnclean);
    }

    fn decided(
        own: LogPosition,
        in_sync_replicas: &str,
        polled: &str,
        has_reachable_source: bool,
        waited: u64,
    ) -> TakeoverDecision {
        let input = TakeoverInput {
            me: &"me".parse().expect("valid"),
            term: Term(5),
            own,
            polled: &ids(polled),
            has_reachable_source,
            live: &BTreeSet::new(),
            waited: Duration::from_secs(waited),
            grace: GRACE,
        };
        input.decide(&record(in_sync_replicas))
    }

    fn check(
        own: LogPosition,
        in_sync_replicas: &str,
        polled: &str,
        waited: u64,
        expected: &TakeoverDecision,
    ) {
        assert_eq!(
            decided(own, in_sync_replicas, polled, false, waited),
            *expected,
            "{own} {in_sync_replicas} {polled} {waited}"
        );
    }

    fn waits(in_sync_replicas: &str) -> TakeoverDecision {
        TakeoverDecision::AwaitReplicas(ids(in_sync_replicas).into_iter().collect())
    }

    #[test]
    fn leader_with_every_committed_entry_does_not_wait() {
        check(at(3, 20), "a b", "", 0, &TakeoverDecision::Ready);
        check(at(3, 25), "a b", "", 0, &TakeoverDecision::Ready);
        check(at(4, 21), "a b", "", 0, &TakeoverDecision::Ready);
    }

    #[test]
    fn leader_missing_committed_entries_waits_for_in_sync_replicas_until_the_grace_ends() {
        for own in [at(0, 0), at(3, 19), at(2, 30)] {
            check(own, "a b", "", 0, &waits("a b"));
            check(own, "a b", "b c", 599, &waits("a"));
            check(own, "a b", "b c", 600, &TakeoverDecision::ProceedUnclean);
            check(own, "a b", "b c", 601, &TakeoverDecision::ProceedUnclean);
        }
    }

    #[test]
    fn leader_proceeds_unclean_when_every_in_sync_replica_was_polled() {
        check(at(3, 19), "a b", "a b", 0, &TakeoverDecision::ProceedUnclean);
        check(at(3, 19), "me", "", 0, &TakeoverDecision::ProceedUnclean);
        check(at(3, 19), "a me", "a", 0, &TakeoverDecision::ProceedUnclean);
        check(at(3, 19), "", "", 0, &TakeoverDecision::ProceedUnclean);
    }

    #[test]
    fn entries_of_a_reachable_replica_are_never_discarded() {
        assert_eq!(decided(at(3, 19), "", "", true, 9999), TakeoverDecision::RetryFetch);
        assert_eq!(decided(at(3, 20), "", "", true, 9999), TakeoverDecision::Ready, "others may have more");
    }

    #[test]
    fn log_of_another_zookeeper_tree_is_never_extended() {
        check(at(5, 1), "a", "a", 9999, &TakeoverDecision::WrongCluster);
        check(at(6, 1), "a", "a", 9999, &TakeoverDecision::WrongCluster);
    }

    #[test]
    fn only_a_replica_with_every_committed_entry_provides_a_checkpoint() {
        let check = |own, replica, expected| {
            assert_eq!(catch_up_source(&record("a"), Term(5), own, replica), expected, "{own} {replica}");
        };
        check(at(1, 4), at(1, 4), CatchUpSource::None);
        check(at(1, 4), at(1, 3), CatchUpSource::None);
        check(at(1, 4), at(2, 1), CatchUpSource::Log);
        check(at(1, 4), at(3, 19), CatchUpSource::Log);
        check(at(1, 4), at(3, 20), CatchUpSource::Checkpoint);
        check(at(1, 4), at(4, 1), CatchUpSource::Checkpoint);
        // The leader is missing no committed entry.
        check(at(3, 20), at(3, 25), CatchUpSource::Log);
        check(at(3, 20), at(4, 2), CatchUpSource::Log);
        // The replica's entries belong to another ZooKeeper tree, or to a later leader.
        check(at(1, 4), at(5, 1), CatchUpSource::None);
        check(at(1, 4), at(6, 1), CatchUpSource::None);
        // The high watermark is unknown: the replica with the later log end is preferred.
        let unknown = MetricLogState::unknown();
        assert_eq!(catch_up_source(&unknown, Term(5), at(1, 4), at(2, 1)), CatchUpSource::Checkpoint);
        assert_eq!(catch_up_source(&unknown, Term(5), at(2, 1), at(1, 4)), CatchUpSource::None);
    }
}
