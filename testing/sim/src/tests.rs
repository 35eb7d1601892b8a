use std::ops::Range;

use super::*;
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

#[test]
fn same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.digest, one.n_commits), (two.digest, two.n_commits), "seed {seed}");
        assert_eq!(one.tail, two.tail);
        assert_ne!(one.digest, run(seed + 100).digest, "two seeds give the same run");
    }
}

/// Runs `seeds` with an injected bug until one of `invariants` is violated, and the same seeds
/// without the bug. If a bug shows rarely, the seeds begin a little before a seed that is known
/// to show it (`scripts/simulate --bug BUG` finds others).
fn finds(bug: InjectedBug, links: Links, seeds: Range<u64>, invariants: &[&str]) {
    let caught = seeds.clone().find_map(|seed| {
        let report = injected_bugs::with(bug, || run_on(links, seed));
        Some((seed, report.violation?))
    });
    let (found, violation) = caught.unwrap_or_else(|| panic!("{bug:?} was not found in {seeds:?}"));
    assert!(invariants.contains(&violation.invariant), "seed {found}: {violation}");
    for seed in seeds.start..=found {
        assert_eq!(run_on(links, seed).violation, None, "seed {seed} fails without {bug:?}");
    }
}

/// Two processes that undo each other's work at one moment: no timer of the run fires any more.
#[test]
fn livelock_ends_a_run_and_is_a_violation() {
    let work = async {
        let cluster = Cluster::new(1, &mut fastrand::Rng::with_seed(1));
        let violated = cluster.env.journal().violated();
        let livelock = async {
            loop {
                cluster.env.journal().log("again");
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = violated.notified() => {}
            () = livelock => {}
        }
        cluster.env.journal().violation().cloned()
    };
    let violation = in_simulated_time(1, work).expect("found");
    assert_eq!(violation.invariant, "livelock");
    assert!(violation.reason.contains("in second 0"), "{violation}");
}

#[test]
fn no_owner_exceeds_a_quota_whatever_fails() {
    let quota = Quota { topologies: Some(2), tasks: Some(8), blob_bytes: None };
    let mut n_limited = 0;
    for seed in 0..4 {
        let report = run_with_quota(quota, seed);
        assert_eq!(report.violation, None, "seed {seed}: {:#?}", report.tail);
        n_limited += usize::from(report.digest != run(seed).digest);
    }
    assert!(n_limited > 0, "no run had more topologies than the quota");
}

#[test]
fn updates_end_with_every_process_on_the_package_of_its_topology_whatever_fails() {
    let mut n_updated = 0;
    for seed in 0..6 {
        let report = run_with_updates(seed);
        assert_eq!(report.violation, None, "seed {seed}: {:#?}", report.tail);
        n_updated += usize::from(report.digest != run(seed).digest);
    }
    assert!(n_updated > 0, "no run had an update");
}

#[test]
fn unfenced_write_is_found() {
    finds(InjectedBug::UnfencedWrite, Links::ByChance, 0..10, &["fencing"]);
}

#[test]
fn term_that_begins_anew_is_found() {
    finds(InjectedBug::TermBeginsAnew, Links::ByChance, 0..60, &["terms", "fencing"]);
}

#[test]
fn belief_in_watches_is_found() {
    // A stale view shows wherever it is used, also in the metric stores.
    let invariants = ["moves", "signals", "convergence", "stores", "counters"];
    finds(InjectedBug::TrustsWatches, Links::Bad, 16..50, &invariants);
}

#[test]
fn liveness_from_before_the_term_is_found() {
    finds(InjectedBug::LivenessFromBeforeTerm, Links::ByChance, 0..30, &["moves", "lost hosts"]);
}

#[test]
fn record_that_is_removed_first_is_found() {
    finds(InjectedBug::RecordRemovedFirst, Links::ByChance, 0..50, &["removal"]);
}

#[test]
fn retry_under_a_new_id_is_found() {
    // Of two topologies with one name, the reports of one are lost.
    finds(InjectedBug::RetriesUnderNewId, Links::Bad, 0..100, &["names", "counters"]);
}

#[test]
fn report_of_unpublished_commits_is_found() {
    finds(InjectedBug::CommitsUnpublished, Links::ByChance, 0..30, &["committed", "quarantine"]);
}

#[test]
fn removal_of_a_diverged_database_is_found() {
    finds(InjectedBug::RemovesDiverged, Links::ByChance, 115..180, &["quarantine"]);
}

#[test]
fn forgotten_reports_are_found() {
    finds(InjectedBug::ForgetsStoredReports, Links::ByChance, 0..30, &["counters"]);
}

#[test]
fn loss_despite_an_announced_stop_is_found() {
    finds(InjectedBug::IgnoresStops, Links::ByChance, 0..100, &["lost hosts", "moves"]);
}

#[test]
fn workers_count_and_the_external_store_receives_it() {
    let tail = (0..3).flat_map(|seed| run(seed).tail).collect::<Vec<_>>();
    for event in [" counted ", " exported ", " ingested entry "] {
        assert!(tail.iter().any(|line| line.contains(event)), "no event like {event:?}");
    }
}
