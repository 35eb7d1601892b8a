use super::*;
use crate::test_support::sabotage::{self, Sabotage};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.digest, one.n_commits), (two.digest, two.n_commits), "seed {seed}");
        assert_eq!(one.tail, two.tail);
        assert_ne!(one.digest, run(seed + 100).digest, "two seeds give one run");
    }
}

/// Plays seeds with a bug put in until `invariants` say so, and the same seeds without it.
fn finds(sabotage: Sabotage, n_seeds: u64, invariants: &[&str]) {
    let caught = (0..n_seeds).find_map(|seed| {
        let report = sabotage::with(sabotage, || run(seed));
        Some((seed, report.violation?))
    });
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{sabotage:?} was not found in {n_seeds} seeds"));
    assert!(invariants.contains(&violation.invariant), "seed {seed}: {violation}");
    for seed in 0..=seed {
        assert_eq!(run(seed).violation, None, "seed {seed} fails without {sabotage:?}");
    }
}

#[test]
fn an_unfenced_write_is_found() {
    finds(Sabotage::UnfencedWrite, 10, &["fencing"]);
}

#[test]
fn liveness_from_before_the_term_is_found() {
    finds(Sabotage::LivenessFromBefore, 200, &["moves"]);
}

#[test]
fn a_record_that_is_removed_first_is_found() {
    finds(Sabotage::RecordRemovedFirst, 50, &["removal"]);
}
