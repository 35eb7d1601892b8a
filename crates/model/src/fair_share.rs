//! Choice of what is removed when owners share a bound. Pure.
//!
//! The owner with the most gives way first, and of that owner the topology with the most. So what happens
//! again and again to one topology removes its own traces, and those of others only for as long as they
//! have more.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

/// Something that is kept for an owner and a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared<O, T, I> {
    /// Owner.
    pub owner: O,
    /// Topology.
    pub topology: T,
    /// The thing itself.
    pub item: I,
}

/// Returns what to remove so that at most `n_kept` are left, and at most `n_removed_max` are removed. The
/// items of one topology are removed in the order in which they are given. Of several owners or topologies
/// with equally many, the one with the smallest `age_rank` gives way: nobody should be able to choose it.
pub fn to_remove<O: Ord, T: Ord, I>(
    items: impl IntoIterator<Item = Shared<O, T, I>>,
    (n_kept, n_removed_max): (usize, usize),
    age_rank: impl Fn(&I) -> u64,
) -> Vec<I> {
    let mut owners: BTreeMap<O, BTreeMap<T, VecDeque<I>>> = BTreeMap::new();
    let mut n = 0_usize;
    for Shared { owner, topology, item } in items {
        owners.entry(owner).or_default().entry(topology).or_default().push_back(item);
        n += 1;
    }
    let oldest = |items: &VecDeque<I>| items.iter().map(&age_rank).min().unwrap_or(u64::MAX);
    let next = |owners: &mut BTreeMap<O, BTreeMap<T, VecDeque<I>>>| {
        let of_owner = owners.values_mut().max_by_key(|topologies| {
            let n: usize = topologies.values().map(VecDeque::len).sum();
            (n, Reverse(topologies.values().map(oldest).min()))
        })?;
        let of_topology = of_owner.values_mut().max_by_key(|items| (items.len(), Reverse(oldest(items))))?;
        of_topology.pop_front()
    };
    (0..n.saturating_sub(n_kept).min(n_removed_max)).map_while(|_| next(&mut owners)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn items(of: &[(u8, u8)]) -> Vec<Shared<u8, u8, u64>> {
        let shared =
            |(item, (owner, topology)): (u64, &(u8, u8))| Shared { owner: *owner, topology: *topology, item };
        (0..).zip(of).map(shared).collect()
    }

    #[test]
    fn owner_and_topology_with_the_most_give_way_with_their_first() {
        let of = [(2, 1), (1, 9), (1, 1), (1, 1), (1, 1), (2, 1)];
        let removed = |n_kept, n_max| to_remove(items(&of), (n_kept, n_max), |item| *item);
        assert_eq!(removed(6, 9), Vec::<u64>::new());
        assert_eq!(removed(5, 9), [2], "owner 1 has four, three of them of one topology");
        assert_eq!(removed(4, 9), [2, 3]);
        assert_eq!(removed(3, 9), [2, 3, 0], "two owners have two: the oldest of all goes");
        assert_eq!(removed(0, 9).len(), 6);
        assert_eq!(removed(0, 1), [2], "the limit of one call");
    }

    proptest! {
        /// No owner loses anything while another one keeps more than one more, and no topology while
        /// another one of its owner does.
        #[test]
        fn nobody_loses_to_one_who_keeps_more(
            of in prop::collection::vec((0u8..4, 0u8..3), 0..60),
            n_kept in 0usize..40,
        ) {
            let gone: BTreeSet<u64> =
                to_remove(items(&of), (n_kept, usize::MAX), |item| *item).into_iter().collect();
            prop_assert_eq!(gone.len(), of.len().saturating_sub(n_kept));
            let (mut owners, mut topologies) = (BTreeMap::new(), BTreeMap::new());
            for Shared { owner, topology, item } in items(&of) {
                for (kept, lost) in [
                    owners.entry(owner).or_insert((0, 0)),
                    topologies.entry((owner, topology)).or_insert((0, 0)),
                ] {
                    if gone.contains(&item) { *lost += 1 } else { *kept += 1 }
                }
            }
            let most = owners.values().map(|(kept, _)| *kept).max().unwrap_or(0);
            for (owner, (kept, lost)) in &owners {
                prop_assert!(*lost == 0 || kept + 1 >= most, "{kept} of {owner}, {most} of another");
            }
            for ((owner, topology), (kept, lost)) in &topologies {
                let of_owner = topologies.iter().filter(|((other, _), _)| other == owner);
                let most = of_owner.map(|(_, (kept, _))| *kept).max().unwrap_or(0);
                prop_assert!(*lost == 0 || kept + 1 >= most, "{kept} of {topology}, {most} of another");
            }
        }
    }
}
