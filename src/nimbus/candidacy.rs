//! Whether a nimbus should stand for leader now: pure.
//!
//! One that has the blobs of all live topologies stands at once. One that lacks some leaves
//! it to those that lack fewer for a while, as it could not give supervisors what they need;
//! but a cluster must not stay without a leader for the sake of a blob, so in the end the
//! one that lacks least leads, serves what it has, and goes on fetching.

use std::{collections::BTreeMap, time::Duration};

use crate::{cluster::record::Nimbus, model::NimbusId};

/// How much longer each nimbus waits than the one that lacks fewer blobs: longer than an
/// election takes.
const STEP: Duration = Duration::from_secs(2);

/// Whether to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidacy {
    /// Stand now.
    Stands,
    /// Leave it to others for so long.
    Waits(Duration),
}

/// Whether `me`, which lacks `n_missing` blobs (`None`: it does not know yet), should stand
/// when nobody has led for `leaderless`.
pub(super) fn candidacy(
    me: &NimbusId,
    n_missing: Option<usize>,
    nimbuses: &BTreeMap<NimbusId, Nimbus>,
    leaderless: Duration,
    grace: Duration,
) -> Candidacy {
    if n_missing == Some(0) {
        return Candidacy::Stands;
    }
    let mine = (n_missing.unwrap_or(usize::MAX), me);
    let others = nimbuses.iter().filter(|(id, _)| *id != me);
    let n_before = others.filter(|(id, nimbus)| (nimbus.blobs_missing, *id) < mine).count();
    let steps = STEP.saturating_mul(u32::try_from(n_before).unwrap_or(u32::MAX));
    match grace.saturating_add(steps).checked_sub(leaderless) {
        None | Some(Duration::ZERO) => Candidacy::Stands,
        Some(left) => Candidacy::Waits(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::record::Role, model::Timestamp};

    const GRACE: Duration = Duration::from_secs(30);

    fn check(me: &str, n_missing: Option<usize>, others: &[(&str, usize)], leaderless: u64, stands: bool) {
        let record = |blobs_missing| Nimbus {
            host: "h".to_owned(),
            api: "h:1".to_owned(),
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            blobs_missing,
            role: Role::Follower,
            metrics_closed: None,
        };
        let nimbuses = others.iter().map(|(id, n)| (id.parse().expect("valid"), record(*n))).collect();
        let leaderless = Duration::from_secs(leaderless);
        let found = candidacy(&me.parse().expect("valid"), n_missing, &nimbuses, leaderless, GRACE);
        assert_eq!(found == Candidacy::Stands, stands, "{me} {n_missing:?} {others:?}: {found:?}");
    }

    #[test]
    fn who_has_all_blobs_stands_at_once() {
        check("b", Some(0), &[("a", 0), ("b", 0), ("c", 9)], 0, true);
        check("b", Some(0), &[], 0, true);
    }

    #[test]
    fn who_lacks_some_waits_and_the_one_that_lacks_least_is_first() {
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
    fn who_does_not_know_what_it_lacks_is_last() {
        check("a", None, &[("b", 1000)], 30, false);
        check("a", None, &[("b", 1000)], 32, true);
        check("a", None, &[], 30, true);
    }
}
