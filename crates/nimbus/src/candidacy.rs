//! Decision when a nimbus campaigns: pure.
//!
//! A nimbus that has the blobs of all live topologies campaigns at once. A nimbus with missing
//! blobs waits for a grace period, as it could not serve supervisors; others with fewer missing
//! blobs go first. But a cluster must not stay without a leader because of a blob: after the
//! grace period the nimbus with the fewest missing blobs leads, serves the blobs that it has, and
//! keeps fetching the others.

use std::{collections::BTreeMap, time::Duration};

use stormkeeper_coordination::cluster::record::NimbusRecord;
use stormkeeper_model::NimbusId;

/// Additional wait of each nimbus behind the one with the next fewer missing blobs: longer than
/// an election takes.
const STEP: Duration = Duration::from_secs(2);

/// Time at which a nimbus campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidacy {
    /// Campaign now.
    Now,
    /// Wait this long for other nimbuses.
    After(Duration),
}

/// Decides when `me`, which is missing `n_missing` blobs (`None`: not known yet), campaigns if
/// there has been no leader for `leaderless`.
pub(super) fn candidacy(
    me: &NimbusId,
    n_missing: Option<usize>,
    nimbuses: &BTreeMap<NimbusId, NimbusRecord>,
    leaderless: Duration,
    grace: Duration,
) -> Candidacy {
    if n_missing == Some(0) {
        return Candidacy::Now;
    }
    let mine = (n_missing.unwrap_or(usize::MAX), me);
    let others = nimbuses.iter().filter(|(id, _)| *id != me);
    let n_before = others.filter(|(id, nimbus)| (nimbus.blobs_missing, *id) < mine).count();
    let steps = STEP.saturating_mul(u32::try_from(n_before).unwrap_or(u32::MAX));
    match grace.saturating_add(steps).checked_sub(leaderless) {
        None | Some(Duration::ZERO) => Candidacy::Now,
        Some(left) => Candidacy::After(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::record::Role;
    use stormkeeper_model::Timestamp;

    const GRACE: Duration = Duration::from_secs(30);

    fn check(me: &str, n_missing: Option<usize>, others: &[(&str, usize)], leaderless: u64, stands: bool) {
        let record = |blobs_missing| NimbusRecord {
            host: "h".to_owned(),
            api: "h:1".to_owned(),
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            blobs_missing,
            role: Role::Follower,
            metric_store_error: None,
            disk_problem: None,
            access_problem: None,
            clock_ahead_ms: None,
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        let nimbuses = others.iter().map(|(id, n)| (id.parse().expect("valid"), record(*n))).collect();
        let leaderless = Duration::from_secs(leaderless);
        let found = candidacy(&me.parse().expect("valid"), n_missing, &nimbuses, leaderless, GRACE);
        assert_eq!(found == Candidacy::Now, stands, "{me} {n_missing:?} {others:?}: {found:?}");
    }

    #[test]
    fn a_nimbus_with_all_blobs_campaigns_at_once() {
        check("b", Some(0), &[("a", 0), ("b", 0), ("c", 9)], 0, true);
        check("b", Some(0), &[], 0, true);
    }

    #[test]
    fn nimbuses_with_missing_blobs_wait_and_the_one_with_the_fewest_goes_first() {
        let all = [("a", 5), ("b", 2), ("c", 2)];
        for id in ["a", "b", "c"] {
            let n = all.iter().find(|(other, _)| *other == id).map(|(_, n)| *n);
            check(id, n, &all, 29, false);
        }
        check("b", Some(2), &all, 30, true);
        check("c", Some(2), &all, 30, false);
        check("c", Some(2), &all, 32, true);
        check("a", Some(5), &all, 33, false);
        check("a", Some(5), &all, 34, true);
    }

    #[test]
    fn a_nimbus_that_does_not_know_its_missing_blobs_goes_last() {
        check("a", None, &[("b", 1000)], 30, false);
        check("a", None, &[("b", 1000)], 32, true);
        check("a", None, &[], 30, true);
    }
}
