//! Commit rule of the metric log: the position up to which the log survives the loss of the
//! leader with its disk. Pure.
//!
//! An entry is committed when the leader and at least one in-sync follower have the entry; a
//! leader without any in-sync follower commits alone. The leader publishes the committed position
//! as the high watermark before the leader reports the position to a sender.
//!
//! The replication of the metric log uses the terms of Kafka and Raft:
//!
//! | here | Kafka | Raft |
//! | --- | --- | --- |
//! | committed; high watermark | high watermark (`FetchResponse.HighWatermark`) | commit index |
//! | in-sync replicas | in-sync replicas (ISR) | quorum that acknowledged |
//! | `REPLICA_LAG_MAX` (600 s) | `replica.lag.time.max.ms` | – |
//! | only an entry of the leader's own term advances the high watermark | leader epoch check | §5.4.2 |
//! | unclean takeover (event `unclean-metric-takeover`) | unclean leader election | – |
//! | takeover grace | delay before an unclean election | – |
//! | `LogPage::Diverged` | `FetchResponse.DivergingEpoch` | log mismatch |
//! | checkpoint (copy of the whole database) | `FetchResponse.SnapshotId`, `FetchSnapshot` | `InstallSnapshot` |
//! | quarantined database | – (Kafka truncates the log) | – |
//! | log position (term, index) | leader epoch and offset | log id (term, index) |
//! | `ReplicaProgress` | fetch offsets of followers | `matchIndex` |
//!
//! An unclean takeover costs what Kafka says of its own: "In the event of an unclean leader
//! election, the log will be truncated, previously committed data will be lost"
//! (`LogTruncationException`). Unlike Kafka, a replica that returns with discarded entries keeps
//! them in a quarantined database.

use std::{collections::BTreeMap, time::Duration};

use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_model::{LogPosition, NimbusId, Term, clock::Monotonic};

/// Log ends that followers have reported with their fetches in this term.
#[derive(Debug, Default)]
pub(crate) struct ReplicaProgress {
    fetches: BTreeMap<NimbusId, Fetch>,
    /// Time since which each live follower has been in the view.
    live_since: BTreeMap<NimbusId, Monotonic>,
}

/// Latest fetch of a follower.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    /// End of the follower's log.
    log_end: LogPosition,
    /// End of the leader's log at that time.
    leader_end: LogPosition,
    at: Monotonic,
    /// Latest time at which the follower had all entries of the leader; `None` if never.
    caught_up_at: Option<Monotonic>,
}

/// Maximum number of followers that are tracked: many more than any cluster has nimbuses. Beyond
/// the maximum, the follower with the lowest log end is removed.
const FOLLOWERS_MAX: usize = 64;

/// Longest time after which a follower that has not caught up leaves the in-sync set. Otherwise a
/// single nimbus whose metric store cannot be opened, or cannot apply the entries that the nimbus
/// fetches, would block every commit, and workers could not delete their reports.
pub(crate) const REPLICA_LAG_MAX: Duration = Duration::from_secs(600);

impl ReplicaProgress {
    /// Records that the follower has the log up to `log_end`, while the leader's ends at
    /// `leader_end`. The latest fetch counts: a follower that lost its disk has less than before.
    ///
    /// A follower has caught up when it has all entries of the leader, or all that the leader had
    /// at the fetch before; the latter counts from that fetch. Otherwise a follower would never
    /// catch up with a leader that appends between any two fetches (Kafka, `lastCaughtUpTimeMs`).
    pub(crate) fn record_fetch(
        &mut self,
        follower: NimbusId,
        (log_end, leader_end): (LogPosition, LogPosition),
        at: Monotonic,
    ) {
        let before = self.fetches.get(&follower);
        let caught_up_at = if log_end >= leader_end {
            Some(at)
        } else {
            before.and_then(|before| match log_end >= before.leader_end {
                true => Some(before.at),
                false => before.caught_up_at,
            })
        };
        self.fetches.insert(follower, Fetch { log_end, leader_end, at, caught_up_at });
        if self.fetches.len() > FOLLOWERS_MAX
            && let Some(least) = self.fetches.iter().min_by_key(|(_, fetch)| fetch.log_end)
        {
            let least = least.0.clone();
            self.fetches.remove(&least);
        }
    }

    /// Records that the follower's log diverged: the follower counts as having no entry.
    pub(crate) fn reset(&mut self, follower: &NimbusId) {
        if let Some(fetch) = self.fetches.get_mut(follower) {
            fetch.log_end = LogPosition::default();
        }
    }

    /// Removes all followers, at the start of a term.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the log end of every follower that has fetched in this term.
    pub(crate) fn log_ends(&self) -> impl Iterator<Item = (&NimbusId, LogPosition)> {
        self.fetches.iter().map(|(id, fetch)| (id, fetch.log_end))
    }

    /// Returns the log end of each nimbus in `live`; the zero position if it has not fetched.
    pub(crate) fn log_ends_of<'a>(
        &self,
        live: impl Iterator<Item = &'a NimbusId>,
    ) -> BTreeMap<NimbusId, LogPosition> {
        let log_end = |id| self.fetches.get(id).map(|fetch| fetch.log_end).unwrap_or_default();
        live.map(|id| (id.clone(), log_end(id))).collect()
    }

    /// Returns the log end of each nimbus in `live` that is in sync: the nimbus caught up, or
    /// appeared in the view, less than `REPLICA_LAG_MAX` ago.
    pub(crate) fn in_sync<'a>(
        &mut self,
        live: impl Iterator<Item = &'a NimbusId>,
        now: Monotonic,
    ) -> BTreeMap<NimbusId, LogPosition> {
        let mut all = self.log_ends_of(live);
        self.live_since.retain(|id, _| all.contains_key(id));
        all.retain(|id, _| {
            let since = *self.live_since.entry(id.clone()).or_insert(now);
            let caught_up_at = self.fetches.get(id).and_then(|fetch| fetch.caught_up_at);
            now.since(caught_up_at.map_or(since, |at| since.max(at))) < REPLICA_LAG_MAX
        });
        all
    }
}

/// Returns the highest log end of `followers`, or `own` if there is no follower.
pub(crate) fn committed_position(
    followers: &BTreeMap<NimbusId, LogPosition>,
    own: LogPosition,
) -> LogPosition {
    // A follower cannot have fetched entries beyond the leader's log end from this leader.
    followers.values().copied().max().map_or(own, |most| most.min(own))
}

/// Returns the record with an advanced high watermark, if the leader of `term` may advance it.
pub(crate) fn advance_high_watermark(
    before: &MetricLogState,
    (me, term, own): (&NimbusId, Term, LogPosition),
    followers: &BTreeMap<NimbusId, LogPosition>,
) -> Option<MetricLogState> {
    let committed = committed_position(followers, own);
    // An entry of an earlier term is committed only together with an entry of the leader's own
    // term. Before that, the log of a leader in between may lack the entry of the earlier term and
    // still count as the later log (Raft, §5.4.2).
    if committed <= before.high_watermark || committed.term != term.0 {
        return None;
    }
    let in_sync_replicas = followers.iter().filter(|(_, log_end)| **log_end >= committed).map(|(id, _)| id);
    Some(MetricLogState {
        high_watermark: committed,
        in_sync_replicas: in_sync_replicas.chain([me]).cloned().collect(),
        ..before.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NimbusId {
        format!("n{n}").parse().expect("valid")
    }

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 1, index }
    }

    /// A reading of the clock, in seconds after the start.
    fn second(n: u64) -> Monotonic {
        let clock = stormkeeper_model::clock::Clock::manual(stormkeeper_model::Timestamp::EPOCH);
        clock.advance(Duration::from_secs(n));
        clock.monotonic()
    }

    #[test]
    fn committed_position_is_the_highest_log_end_of_the_live_followers() {
        let mut progress = ReplicaProgress::default();
        let check = |progress: &ReplicaProgress, live: &[usize], expected| {
            let live: Vec<NimbusId> = live.iter().map(|n| id(*n)).collect();
            assert_eq!(committed_position(&progress.log_ends_of(live.iter()), at(10)), expected);
        };
        check(&progress, &[], at(10));
        check(&progress, &[1, 2], LogPosition::default());
        progress.record_fetch(id(1), (at(4), at(10)), second(0));
        progress.record_fetch(id(2), (at(7), at(10)), second(0));
        check(&progress, &[1, 2], at(7));
        check(&progress, &[1], at(4));
        check(&progress, &[], at(10));
        progress.record_fetch(id(2), (at(3), at(10)), second(0));
        check(&progress, &[1, 2], at(4));
        progress.reset(&id(1));
        check(&progress, &[1, 2], at(3));
        progress.record_fetch(id(1), (at(11), at(10)), second(0));
        check(&progress, &[1, 2], at(10));
        progress.clear();
        check(&progress, &[1, 2], LogPosition::default());
    }

    #[test]
    fn only_entries_of_the_leaders_own_term_advance_the_high_watermark() {
        let before = MetricLogState { high_watermark: at(3), ..MetricLogState::default() };
        let check = |term, own, followers: &[(usize, u64)], expected: Option<(u64, &str)>| {
            let followers = followers.iter().map(|(n, index)| (id(*n), at(*index))).collect();
            let advanced = advance_high_watermark(&before, (&id(0), Term(term), at(own)), &followers);
            let found = advanced.map(|it| {
                (
                    it.high_watermark,
                    it.in_sync_replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                )
            });
            assert_eq!(
                found,
                expected.map(|(index, in_sync_replicas)| (at(index), in_sync_replicas.to_owned()))
            );
        };
        check(1, 9, &[], Some((9, "n0")));
        check(1, 9, &[(1, 5), (2, 7), (3, 7)], Some((7, "n0 n2 n3")));
        check(1, 9, &[(1, 3)], None);
        check(1, 9, &[(1, 2)], None);
        check(2, 9, &[], None);
        check(2, 9, &[(1, 9)], None);
    }

    #[test]
    fn follower_without_fetches_leaves_the_in_sync_set_after_the_maximum_lag() {
        let mut progress = ReplicaProgress::default();
        let in_sync = |progress: &mut ReplicaProgress, live: &[usize], secs| {
            let live: Vec<NimbusId> = live.iter().map(|n| id(*n)).collect();
            let in_sync = progress.in_sync(live.iter(), second(secs));
            (committed_position(&in_sync, at(10)), in_sync.len())
        };
        let nothing = LogPosition::default();
        assert_eq!(in_sync(&mut progress, &[1, 2], 100), (nothing, 2));
        progress.record_fetch(id(2), (at(7), at(7)), second(200));
        assert_eq!(in_sync(&mut progress, &[1, 2], 699), (at(7), 2));
        assert_eq!(in_sync(&mut progress, &[1, 2], 700), (at(7), 1));
        // A diverged follower stays in sync for the maximum lag after it last caught up.
        progress.reset(&id(2));
        assert_eq!(in_sync(&mut progress, &[1, 2], 799), (nothing, 1));
        assert_eq!(in_sync(&mut progress, &[1, 2], 800), (at(10), 0));
        // A follower that catches up again, or returns to the view, is in sync again.
        progress.record_fetch(id(2), (at(3), at(3)), second(900));
        assert_eq!(in_sync(&mut progress, &[1, 2], 900), (at(3), 1));
        assert_eq!(in_sync(&mut progress, &[2], 1000), (at(3), 1));
        assert_eq!(in_sync(&mut progress, &[1, 2], 1100), (at(3), 2));
    }

    #[test]
    fn follower_that_fetches_and_never_catches_up_leaves_the_in_sync_set() {
        let is_in_sync = |progress: &mut ReplicaProgress, secs| {
            progress.in_sync([id(1), id(2)].iter(), second(secs)).into_keys().collect::<Vec<_>>()
        };
        let mut progress = ReplicaProgress::default();
        assert_eq!(is_in_sync(&mut progress, 0), [id(1), id(2)]);
        // The leader appends an entry between any two fetches. One follower has all entries of the
        // fetch before; the other cannot apply what it fetches.
        for n in 1..=100 {
            progress.record_fetch(id(1), (at(n - 1), at(n)), second(10 * n));
            progress.record_fetch(id(2), (at(3), at(n)), second(10 * n));
            let has_caught_up_lately = 10 * n < 30 + 600;
            let expected = if has_caught_up_lately { vec![id(1), id(2)] } else { vec![id(1)] };
            assert_eq!(is_in_sync(&mut progress, 10 * n), expected, "fetch {n}");
        }
        // Idle: the leader appends nothing, and the follower has everything.
        progress.record_fetch(id(2), (at(100), at(100)), second(1001));
        assert_eq!(is_in_sync(&mut progress, 1001), [id(1), id(2)]);
    }

    #[test]
    fn number_of_tracked_followers_is_bounded() {
        let mut progress = ReplicaProgress::default();
        for n in 0..200 {
            progress.record_fetch(id(n), (at(200 - n as u64), at(200)), second(0));
        }
        assert_eq!(progress.fetches.len(), FOLLOWERS_MAX);
    }
}
