//! Owners who have uploaded a package, which shows that they have it.
//!
//! The key of a package is public: it is in the records of topologies. Whoever could submit a package by
//! its key alone could run, and so read, what belongs to somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use crate::refusal::Refusal;
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::BlobKey;

/// Owners who have uploaded packages to this nimbus. A restart forgets them, and they upload again.
#[derive(Debug, Default)]
pub(super) struct Uploaders(
    // Held for one lookup or one entry.
    Mutex<BTreeMap<BlobKey, BTreeSet<String>>>,
);

impl Uploaders {
    /// Remembers an upload. `is_stored` says whether a package is still on this nimbus: the list is no longer
    /// than that of its packages, each with as many owners as there are tokens.
    pub(super) fn add(&self, owner: &str, key: &BlobKey, is_stored: impl Fn(&BlobKey) -> bool) {
        let mut uploaders = self.0.lock().expect("nobody panics while holding the uploaders");
        uploaders.retain(|key, _| is_stored(key));
        uploaders.entry(key.clone()).or_default().insert(owner.to_owned());
    }

    /// Checks that a sender who is limited to the topologies of `owner` may submit a package: one of
    /// these topologies has it, or the owner has uploaded it, or nobody else has a topology with it.
    ///
    /// # Errors
    /// [`Refusal::PackageOfOthers`].
    pub(super) fn check(&self, view: &ClusterView, owner: &str, key: &BlobKey) -> Result<(), Refusal> {
        let mut with_it = view.topologies.values().filter(|stored| stored.value.uses(key)).peekable();
        if with_it.peek().is_none() || with_it.any(|stored| stored.value.owner == owner) {
            return Ok(());
        }
        let uploaders = self.0.lock().expect("nobody panics while holding the uploaders");
        match uploaders.get(key).is_some_and(|owners| owners.contains(owner)) {
            true => Ok(()),
            false => Err(Refusal::PackageOfOthers { key: key.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::{
        cluster::record::{Stored, TopologyRecord},
        tree::Version,
    };

    #[test]
    fn package_of_somebody_else_is_submitted_only_by_who_has_uploaded_it() {
        let (key, other) = (BlobKey::of(b"main"), BlobKey::of(b"other"));
        let mut view = ClusterView::default();
        let record =
            TopologyRecord { owner: "ann".to_owned(), blob: key.clone(), ..TopologyRecord::sample("main") };
        let id = "main-1-1".parse().expect("valid");
        view.topologies.insert(id, Stored { value: record, version: Version(0) });
        let uploaders = Uploaders::default();
        uploaders.check(&view, "ann", &key).expect("her own");
        uploaders.check(&view, "bob", &other).expect("of nobody");
        uploaders.add("carl", &key, |_| true);
        let refused = uploaders.check(&view, "bob", &key).expect_err("of ann");
        assert!(matches!(refused, Refusal::PackageOfOthers { key: named } if named == key));
        uploaders.add("bob", &key, |_| true);
        uploaders.check(&view, "bob", &key).expect("uploaded");
        uploaders.add("bob", &other, |stored| *stored == other);
        uploaders.check(&view, "bob", &key).expect_err("the package was deleted and came back");
    }
}
