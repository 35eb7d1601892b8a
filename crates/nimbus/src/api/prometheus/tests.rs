//! Choice of the levels that a page leaves out.

use super::*;

fn check(max: usize, counts: [usize; 3], expected: &[(Level, usize)]) {
    let n_of = |level| LEVELS.iter().position(|of| *of == level).map_or(0, |at| counts[at]);
    assert_eq!(omitted(max, n_of), expected, "{max} {counts:?}");
}

#[test]
fn levels_are_left_out_as_a_whole_the_lowest_first() {
    use Level::{Component, ComponentStream, Topology};
    check(60, [30, 20, 10], &[]);
    check(59, [30, 20, 10], &[(ComponentStream, 30)]);
    check(30, [30, 20, 10], &[(ComponentStream, 30)]);
    check(29, [30, 20, 10], &[(ComponentStream, 30), (Component, 20)]);
    check(9, [30, 20, 10], &[(ComponentStream, 30), (Component, 20), (Topology, 10)]);
    check(0, [0, 0, 10], &[(Topology, 10)]);
    check(0, [0, 0, 0], &[]);
    check(10, [usize::MAX, usize::MAX, 10], &[(ComponentStream, usize::MAX), (Component, usize::MAX)]);
}
