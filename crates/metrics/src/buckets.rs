//! Value counts of a histogram by bucket, in ascending order of the bucket index: most operations
//! on buckets are one walk over two sorted lists.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

/// Counts by bucket index, in ascending order, each index once. The wire format is a map.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Buckets(Vec<(i16, u64)>);

/// Largest capacity reserved because a message registrations that many buckets; the vector grows beyond
/// it only as buckets arrive.
const ROOM_MAX: usize = 1024;

impl Buckets {
    /// No buckets, with capacity for `n`, at most [`ROOM_MAX`].
    pub(super) fn with_room(n: usize) -> Self {
        Self(Vec::with_capacity(n.min(ROOM_MAX)))
    }

    /// Buckets from counts that are already in ascending order.
    pub(super) fn ascending(all: &[(i16, u64)]) -> Self {
        debug_assert!(all.is_sorted_by(|(a, _), (b, _)| a < b));
        Self(all.to_vec())
    }

    /// Number of non-empty buckets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no buckets.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lowest and highest bucket index.
    pub fn bounds(&self) -> Option<(i16, i16)> {
        Some((self.0.first()?.0, self.0.last()?.0))
    }

    /// Index and count of each bucket, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (i16, u64)> + Clone {
        self.0.iter().copied()
    }

    /// Adds `n` to the count of bucket `index`.
    pub fn add(&mut self, index: i16, n: u64) {
        match self.0.last_mut() {
            Some((last, mine)) if *last == index => *mine = mine.saturating_add(n),
            Some((last, _)) if *last > index => match self.0.binary_search_by_key(&index, |(i, _)| *i) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(n),
                Err(at) => self.0.insert(at, (index, n)),
            },
            Some(_) | None => self.0.push((index, n)),
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            return self.0.clone_from(&other.0);
        }
        // The order of the two inputs is unpredictable, so the loop is branch-free: twice as fast.
        let (mine, other) = (&self.0[..], &other.0[..]);
        let mut all = vec![(0, 0); mine.len() + other.len()];
        let (mut i, mut j, mut n_all) = (0, 0, 0);
        while i < mine.len() && j < other.len() {
            let ((index, n), (other_index, other_n)) = (mine[i], other[j]);
            let (is_mine, is_other) = (index <= other_index, other_index <= index);
            let sum = (n & mask(is_mine)).saturating_add(other_n & mask(is_other));
            all[n_all] = (index.min(other_index), sum);
            n_all += 1;
            i += usize::from(is_mine);
            j += usize::from(is_other);
        }
        for rest in [&mine[i..], &other[j..]] {
            all[n_all..n_all + rest.len()].copy_from_slice(rest);
            n_all += rest.len();
        }
        all.truncate(n_all);
        self.0 = all;
    }
}

/// All bits set if `is`, else none.
fn mask(is: bool) -> u64 {
    u64::from(is).wrapping_neg()
}

impl fmt::Debug for Buckets {
    /// A map, for the logs of workers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<(i16, u64)> for Buckets {
    fn from_iter<I: IntoIterator<Item = (i16, u64)>>(all: I) -> Self {
        let mut buckets = Self::default();
        all.into_iter().for_each(|(index, n)| buckets.add(index, n));
        buckets
    }
}

impl<const N: usize> From<[(i16, u64); N]> for Buckets {
    fn from(all: [(i16, u64); N]) -> Self {
        all.into_iter().collect()
    }
}

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Counts;
        impl<'de> Visitor<'de> for Counts {
            type Value = Buckets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("counts by bucket index")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Buckets, A::Error> {
                let mut buckets = Buckets::with_room(map.size_hint().unwrap_or_default());
                while let Some((index, n)) = map.next_entry()? {
                    buckets.add(index, n);
                }
                Ok(buckets)
            }
        }
        from.deserialize_map(Counts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn counted(all: &[(i16, u64)]) -> BTreeMap<i16, u64> {
        let mut counts = BTreeMap::new();
        all.iter().for_each(|(index, n)| *counts.entry(*index).or_default() += n);
        counts
    }

    fn some() -> impl Strategy<Value = Vec<(i16, u64)>> {
        let index = prop_oneof![4 => -8i16..8, 1 => any::<i16>()];
        prop::collection::vec((index, 1u64..9), 0..20)
    }

    proptest! {
        #[test]
        fn buckets_count_like_a_map(one in some(), other in some()) {
            let mut buckets: Buckets = one.iter().copied().collect();
            prop_assert!(buckets.iter().eq(counted(&one)));
            buckets.merge(&other.iter().copied().collect());
            let all = counted(&[one, other].concat());
            prop_assert!(buckets.iter().eq(all.clone()));
            prop_assert_eq!(buckets.bounds(), all.keys().next().copied().zip(all.keys().next_back().copied()));
            // The wire format is a map.
            let json = serde_json::to_string(&buckets).expect("it is written");
            prop_assert_eq!(&json, &serde_json::to_string(&all).expect("it is written"));
            prop_assert_eq!(serde_json::from_str::<Buckets>(&json).expect("it is read"), buckets);
        }
    }

    #[test]
    fn a_map_in_any_order_is_decoded() {
        let read: Buckets = serde_json::from_str(r#"{"3":1,"-2":5,"3":2}"#).expect("it is read");
        assert_eq!(read, Buckets::from([(-2, 5), (3, 3)]));
        assert_eq!(format!("{read:?}"), "{-2: 5, 3: 3}");
        let most = u64::MAX;
        let mut full = Buckets::from([(1, most), (2, 1)]);
        full.merge(&Buckets::from([(0, 1), (1, 1)]));
        assert_eq!(full, Buckets::from([(0, 1), (1, most), (2, 1)]));
    }
}
