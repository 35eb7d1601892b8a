//! Anchors: the trees of spout tuples to which a tuple belongs.
//!
//! A tree begins with a tuple that a spout emits with an id. Each delivery of a tuple to a task is an
//! *edge* of its trees, a random number. The acker of a tree xors every edge once when it begins and once
//! when it is acked, so the result is zero when every delivery was acked, and otherwise only by a chance
//! of one in 2⁶⁴.

use std::sync::Arc;

use stormkeeper_model::TaskId;

/// Membership of an emission in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// A task in the worker whose acker tracks the tree.
    pub acker: TaskId,
    /// Number of the tree, drawn at random.
    pub root: u64,
    /// Number from which the edge to each receiving task follows.
    pub edge: u64,
}

impl Anchor {
    /// Returns the edge to a receiving task. The copies of an emission share their anchor, so that all of
    /// them are sent to a worker as one.
    pub fn edge_to(&self, task: TaskId) -> u64 {
        mix(self.edge ^ mix(u64::from(task.0)))
    }

    /// Returns the xor of the edges to all of `receivers`, which are distinct.
    pub fn edges_to(&self, receivers: &[TaskId]) -> u64 {
        receivers.iter().fold(0, |edges, task| edges ^ self.edge_to(*task))
    }
}

/// Spreads the bits of a number over all bits; a bijection (SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The anchors of a tuple, one for each of its trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anchors {
    /// The tuple is not tracked.
    #[default]
    None,
    /// The tuple belongs to one tree.
    One(Anchor),
    /// The tuple belongs to several trees.
    Many(Arc<[Anchor]>),
}

impl Anchors {
    /// Returns the anchors as a slice.
    pub fn as_slice(&self) -> &[Anchor] {
        match self {
            Self::None => &[],
            Self::One(anchor) => std::slice::from_ref(anchor),
            Self::Many(anchors) => anchors,
        }
    }

    /// Returns whether the tuple is not tracked.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl FromIterator<Anchor> for Anchors {
    fn from_iter<I: IntoIterator<Item = Anchor>>(anchors: I) -> Self {
        let mut anchors = anchors.into_iter();
        match (anchors.next(), anchors.next()) {
            (None, _) => Self::None,
            (Some(only), None) => Self::One(only),
            (Some(first), Some(second)) => Self::Many([first, second].into_iter().chain(anchors).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn anchor(edge: u64) -> Anchor {
        Anchor { acker: TaskId(1), root: 7, edge }
    }

    proptest! {
        #[test]
        fn edges_of_one_emission_differ_and_do_not_cancel_out(edge: u64, n in 1u32..50) {
            let tasks: Vec<TaskId> = (1..=n).map(TaskId).collect();
            let edges: BTreeSet<u64> = tasks.iter().map(|task| anchor(edge).edge_to(*task)).collect();
            prop_assert_eq!(edges.len(), tasks.len());
            prop_assert_ne!(anchor(edge).edges_to(&tasks), 0);
        }
    }

    #[test]
    fn anchors_keep_their_number() {
        let collected = |n: u64| (0..n).map(anchor).collect::<Anchors>();
        assert_eq!(collected(0), Anchors::None);
        assert_eq!(collected(1), Anchors::One(anchor(0)));
        assert_eq!(collected(3).as_slice(), [anchor(0), anchor(1), anchor(2)]);
        assert!(collected(0).is_empty() && !collected(3).is_empty());
    }
}
