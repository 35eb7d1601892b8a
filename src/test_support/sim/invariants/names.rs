//! A name is one topology.

use std::collections::BTreeMap;

use super::Invariant;
use crate::test_support::sim::facts::Facts;

#[derive(Debug)]
pub(super) struct Names;

impl Invariant for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn state(&mut self, facts: &Facts) -> Result<(), String> {
        let mut ids = BTreeMap::new();
        for (id, storm) in &facts.storms {
            if let Some(other) = ids.insert(&storm.name, id) {
                return Err(format!("{other} and {id} are both called {}", storm.name));
            }
        }
        Ok(())
    }
}
