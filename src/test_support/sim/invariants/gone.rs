//! A killed topology leaves nothing, and nothing belongs to no topology.

use crate::{
    cluster::{
        layout,
        record::{self, Orders},
    },
    model::TopologyId,
    test_support::sim::facts::Facts,
    tree::memory::listen::Snapshot,
};

/// Whether nothing is left of topologies that are no more; what there is, if not.
pub(in crate::test_support::sim) fn is_gone(facts: &Facts, tree: Snapshot<'_>) -> Result<(), String> {
    let roots = [
        layout::assignments(),
        layout::tasks_root(),
        layout::taskbeats_root(),
        layout::taskerrors_root(),
        layout::metrics_root(),
    ];
    let is_known = |name: &str| name.parse::<TopologyId>().is_ok_and(|id| facts.storms.contains_key(&id));
    for root in roots {
        let left = tree.children(&root).unwrap_or_default().into_iter().find(|name| !is_known(name));
        if let Some(name) = left {
            return Err(format!("{root}/{name} is left"));
        }
    }
    for name in tree.children(&layout::orders_root()).unwrap_or_default() {
        let path = layout::orders_root().child(&name).map_err(|error| error.to_string())?;
        let Some(node) = tree.get(&path) else { continue };
        let orders: Orders = record::decode(&path, &node.data).map_err(|error| error.to_string())?;
        for (id, version) in &orders.topologies {
            let assignment = tree.get(&layout::assignment(id));
            if assignment.as_ref().map(|node| node.stat.version) != Some(*version) {
                return Err(format!("{path} names version {version} of {id}, which is not the assignment's"));
            }
        }
    }
    match facts.processes.values().find(|process| !facts.is_assigned(process)) {
        Some(process) => Err(format!("{} of {} still runs", process.worker, process.topology)),
        None => Ok(()),
    }
}
