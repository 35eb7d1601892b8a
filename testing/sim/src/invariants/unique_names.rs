//! A name belongs to one topology.

use std::collections::BTreeMap;

use super::Invariant;
use crate::model::ClusterModel;

#[derive(Debug)]
pub(super) struct Names;

impl Invariant for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn state(&mut self, model: &ClusterModel) -> Result<(), String> {
        let mut ids = BTreeMap::new();
        for (id, topology_record) in &model.topologies {
            if let Some(other) = ids.insert(&topology_record.name, id) {
                return Err(format!("{other} and {id} both have the name {}", topology_record.name));
            }
        }
        Ok(())
    }
}
