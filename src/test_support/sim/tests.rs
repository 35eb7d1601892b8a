use super::*;

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.digest, one.n_commits), (two.digest, two.n_commits), "seed {seed}");
        assert_eq!(one.tail, two.tail);
    }
}
