//! Places of submits in parts, each of which keeps a whole package in memory while it is received.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use stormkeeper_api_types::message::Code;

use crate::api::error::ApiError;

/// Maximum number of submits in parts at the same time.
const PLACES: usize = 4;

/// Submits that are running. An owner has one of them, so that slow submits of one keep no other from its
/// place. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Submits(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    n: usize,
    owners: BTreeSet<String>,
}

/// Place of a submit, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    submits: Submits,
    owner: Option<String>,
}

impl Submits {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().expect("nobody panics while holding the submits")
    }

    /// Takes a place for an owner, who is known if the sender has proved who it is.
    ///
    /// # Errors
    /// [`Code::NotReady`] if the owner has a place already, or none is free.
    pub(super) fn enter(&self, owner: Option<&str>) -> Result<Place, ApiError> {
        let mut running = self.lock();
        if let Some(owner) = owner.filter(|owner| running.owners.contains(*owner)) {
            return Err(full(format!("another submit in parts of {owner} runs at this nimbus")));
        }
        if running.n >= PLACES {
            return Err(full(format!("{PLACES} submits in parts run at this nimbus, and no more may")));
        }
        running.n += 1;
        running.owners.extend(owner.map(str::to_owned));
        Ok(Place { submits: self.clone(), owner: owner.map(str::to_owned) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.submits.lock();
        running.n -= 1;
        if let Some(owner) = &self.owner {
            running.owners.remove(owner);
        }
    }
}

fn full(message: String) -> ApiError {
    ApiError::new(Code::NotReady, message, Some("try again when it has ended, or at another nimbus"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_has_one_place_and_leaves_those_of_others() {
        let submits = Submits::default();
        let ann = submits.enter(Some("ann")).expect("free");
        submits.enter(Some("ann")).expect_err("hers is taken");
        let others: Vec<Place> =
            ["bob", "carol"].map(|owner| submits.enter(Some(owner)).expect("free")).into();
        let _unknown = submits.enter(None).expect("free");
        for owner in [Some("dave"), None] {
            submits.enter(owner).expect_err("all places are taken");
        }
        drop(ann);
        submits.enter(Some("ann")).expect("free again");
        drop(others);
    }
}
