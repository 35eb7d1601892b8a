//! No owner gets more than its quota.

use super::Invariant;
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, TasksRecord, TopologyRecord},
    },
    tree::{
        Op,
        memory::listener::{Commit, TreeSnapshot, What},
    },
};
use stormkeeper_model::TopologyId;

#[derive(Debug)]
pub(super) struct Quotas;

impl Invariant for Quotas {
    fn name(&self) -> &'static str {
        "quotas"
    }

    fn commit(&mut self, model: &ClusterModel, commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        let (Some(quota), What::Transaction { ops, .. }) = (model.quota, &commit.what) else { return Ok(()) };
        for op in ops.iter().filter(|op| matches!(op, Op::Create { .. })) {
            let path = op.path();
            if path.parent() != Some(layout::storms()) {
                continue;
            }
            let Ok(submitted) = path.name().parse::<TopologyId>() else { continue };
            let Some(node) = commit.after.get(path) else { continue };
            let Ok(record) = record::decode::<TopologyRecord>(path, &node.data) else { continue };
            let others = model.topologies.iter().filter(|(_, other)| other.owner == record.owner);
            let ids: Vec<&TopologyId> = others.map(|(id, _)| id).chain([&submitted]).collect();
            let n_tasks = ids.iter().map(|id| n_tasks(id, commit.after)).sum::<usize>();
            for (n, limit, what) in
                [(ids.len(), quota.topologies, "topologies"), (n_tasks, quota.tasks, "tasks")]
            {
                if limit.is_some_and(|limit| n as u64 > limit) {
                    return Err(format!("{} has {n} {what} with {submitted}, of {limit:?}", record.owner));
                }
            }
        }
        Ok(())
    }
}

fn n_tasks(id: &TopologyId, tree: TreeSnapshot<'_>) -> usize {
    let path = layout::tasks(id);
    let record = tree.get(&path).and_then(|node| record::decode::<TasksRecord>(&path, &node.data).ok());
    record.map_or(0, |record| record.components.tasks().len())
}
