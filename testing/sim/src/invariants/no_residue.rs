//! A killed topology leaves no znodes and no processes.

use crate::model::ClusterModel;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, SupervisorAssignments},
    },
    tree::memory::listener::TreeSnapshot,
};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_model::TopologyId;

/// Checks that nothing belongs to a topology without a record; returns the first residue otherwise.
pub(crate) fn check_no_residue(model: &ClusterModel, tree: TreeSnapshot<'_>) -> Result<(), String> {
    let roots = [
        layout::assignments(),
        layout::tasks_parent(),
        layout::taskbeats_parent(),
        layout::taskerrors_parent(),
        layout::metrics_parent(),
    ];
    let is_known = |name: &str| {
        name.parse::<TopologyId>()
            .is_ok_and(|id| is_system_topology(&id) || model.topologies.contains_key(&id))
    };
    for root in roots {
        let left = tree.children(&root).unwrap_or_default().into_iter().find(|name| !is_known(name));
        if let Some(name) = left {
            return Err(format!("{root}/{name} was not removed"));
        }
    }
    for name in tree.children(&layout::supervisor_assignments_parent()).unwrap_or_default() {
        let path = layout::supervisor_assignments_parent().child(&name).map_err(|error| error.to_string())?;
        let Some(node) = tree.get(&path) else { continue };
        let assignments: SupervisorAssignments =
            record::decode(&path, &node.data).map_err(|error| error.to_string())?;
        for (id, version) in &assignments.topologies {
            let assignment = tree.get(&layout::assignment(id));
            if assignment.as_ref().map(|node| node.stat.version) != Some(*version) {
                return Err(format!("{path} names version {version} of {id}, not the assignment's version"));
            }
        }
    }
    match model.processes.values().find(|process| !model.is_assigned(process)) {
        Some(process) => Err(format!("{} of {} still runs", process.worker, process.topology)),
        None => Ok(()),
    }
}
