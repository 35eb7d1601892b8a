//! Catalog of all registered metrics, in memory: the topology of each id, and a fingerprint of each
//! topology. It takes a few dozen bytes per metric; names stay on disk.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use super::{DropCause, Drops, Fingerprint};
use stormkeeper_metrics::{MetaType, MetricId, MetricType, Minute, protocol::MetricMeta};
use stormkeeper_model::TopologyId;

/// Maximum number of metrics of all topologies, killed ones included: about 200 MiB of memory.
pub(super) const METAS_MAX: usize = 4_000_000;

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetricEntry {
    /// Index of its topology in the catalog.
    pub(super) topology: u32,
    pub(super) meta: MetaType,
    pub(super) kind: MetricType,
}

/// A topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopologyEntry {
    pub(super) id: TopologyId,
    pub(super) fingerprint: Fingerprint,
    /// Last minute in which any of its metrics has a point.
    pub(super) last: Option<Minute>,
    pub(super) drops: Drops,
}

#[derive(Debug, Default)]
pub(super) struct Catalog {
    known: HashMap<MetricId, MetricEntry>,
    // An index is never used for a second topology; a removed topology leaves its index empty.
    topologies: Vec<TopologyEntry>,
    places: BTreeMap<TopologyId, u32>,
}

impl Catalog {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, id: MetricId) -> Option<MetricEntry> {
        self.known.get(&id).copied()
    }

    /// Returns the topology at an index that a [`MetricEntry`] holds.
    pub(super) fn at(&self, place: u32) -> &TopologyEntry {
        &self.topologies[place as usize]
    }

    pub(super) fn topology(&self, id: &TopologyId) -> Option<&TopologyEntry> {
        self.places.get(id).map(|place| self.at(*place))
    }

    /// All topologies in the catalog, by id.
    pub(super) fn topologies(&self) -> impl Iterator<Item = &TopologyEntry> {
        self.places.values().map(|place| self.at(*place))
    }

    pub(super) fn fingerprint(&self, topology: &TopologyId) -> Fingerprint {
        self.topology(topology).map(|of| of.fingerprint).unwrap_or_default()
    }

    fn entry(&mut self, id: &TopologyId) -> (u32, &mut TopologyEntry) {
        let next = u32::try_from(self.topologies.len()).unwrap_or(u32::MAX);
        let place = *self.places.entry(id.clone()).or_insert(next);
        if place == next {
            let (fingerprint, last, drops) = (Fingerprint::default(), None, Drops::default());
            self.topologies.push(TopologyEntry { id: id.clone(), fingerprint, last, drops });
        }
        (place, &mut self.topologies[place as usize])
    }

    pub(super) fn insert(&mut self, meta: &MetricMeta) {
        let (place, of) = self.entry(meta.name.topology());
        of.fingerprint.count += 1;
        of.fingerprint.digest = of.fingerprint.digest.wrapping_add(digest(meta));
        self.known
            .insert(meta.id, MetricEntry { topology: place, meta: meta.name.meta(), kind: meta.name.kind() });
    }

    pub(super) fn remove(&mut self, meta: &MetricMeta) {
        if self.known.remove(&meta.id).is_some() {
            let (_, of) = self.entry(meta.name.topology());
            of.fingerprint.count -= 1;
            of.fingerprint.digest = of.fingerprint.digest.wrapping_sub(digest(meta));
        }
    }

    /// Removes a topology with all its metrics.
    pub(super) fn forget(&mut self, topology: &TopologyId) {
        if let Some(place) = self.places.remove(topology) {
            self.known.retain(|_, known| known.topology != place);
            let of = &mut self.topologies[place as usize];
            (of.fingerprint, of.last, of.drops) = (Fingerprint::default(), None, Drops::default());
        }
    }

    pub(super) fn set_last(&mut self, topology: &TopologyId, last: Minute) {
        self.entry(topology).1.last = Some(last);
    }

    pub(super) fn set_drops(&mut self, topology: &TopologyId, drops: Drops) {
        self.entry(topology).1.drops = drops;
    }

    /// Returns the topology's drop counts plus `more`.
    pub(super) fn drops_with(&self, topology: &TopologyId, more: &Drops) -> Drops {
        let mut drops = self.topology(topology).map(|of| of.drops.clone()).unwrap_or_default();
        add(&mut drops, more);
        drops
    }
}

/// Adds `more` to `drops`.
pub(super) fn add(drops: &mut Drops, more: &Drops) {
    for (cause, n) in more {
        count(drops, *cause, *n);
    }
}

/// Adds `n` to the count of `cause`.
pub(super) fn count(drops: &mut Drops, cause: DropCause, n: u64) {
    if n > 0 {
        let mine = drops.entry(cause).or_default();
        *mine = mine.saturating_add(n);
    }
}

/// Digest of one meta. The digest of a fingerprint is the sum of these, so that order does not
/// matter and a meta can be subtracted again.
fn digest(meta: &MetricMeta) -> u64 {
    let hash = Sha256::new().chain_update(meta.id.0.to_be_bytes()).chain_update(meta.name.to_string());
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, id: u64) -> MetricMeta {
        MetricMeta { id: MetricId(id), name: format!("5@1@t-1-1@@0@sys@{name}").parse().expect("a name") }
    }

    #[test]
    fn fingerprint_depends_on_the_metas_and_not_on_their_order() {
        let (a, b, c) = (meta("a", 1), meta("b", 2), meta("c", 3));
        let topology = a.name.topology().clone();
        let (mut one, mut other) = (Catalog::default(), Catalog::default());
        [&a, &b].iter().for_each(|meta| one.insert(meta));
        [&c, &b, &a].iter().for_each(|meta| other.insert(meta));
        assert_ne!(one.fingerprint(&topology), other.fingerprint(&topology));
        other.remove(&c);
        other.remove(&c);
        assert_eq!(one.fingerprint(&topology), other.fingerprint(&topology));
        // The same names under swapped ids are not the same.
        let mut swapped = Catalog::default();
        [meta("a", 2), meta("b", 1)].iter().for_each(|meta| swapped.insert(meta));
        assert_ne!(one.fingerprint(&topology), swapped.fingerprint(&topology));
        one.forget(&topology);
        assert_eq!((one.len(), one.fingerprint(&topology)), (0, Fingerprint::default()));
    }
}
