//! A topology that is not killed has all of its tasks placed and running once, with heartbeats.

use crate::model::ClusterModel;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, TasksRecord},
    },
    tree::memory::listener::TreeSnapshot,
};
use stormkeeper_model::{TopologyId, status::TopologyStatus};

/// Checks that all tasks of a topology run; returns the first difference otherwise.
pub(crate) fn check_converged(
    id: &TopologyId,
    model: &ClusterModel,
    tree: TreeSnapshot<'_>,
) -> Result<(), String> {
    let topology_record = model.topologies.get(id).ok_or_else(|| format!("{id} has no record"))?;
    match topology_record.status {
        TopologyStatus::Active | TopologyStatus::Inactive => {}
        status @ (TopologyStatus::Rebalancing | TopologyStatus::Killed) => {
            return Err(format!("{id} is {status}"));
        }
    }
    if let Some(update) = &topology_record.update {
        return Err(format!("{id} is being updated: {update:?}"));
    }
    let path = layout::tasks(id);
    let node = tree.get(&path).ok_or_else(|| format!("{path} does not exist"))?;
    let tasks: TasksRecord = record::decode(&path, &node.data).map_err(|error| error.to_string())?;
    let assignment = model.assignments.get(id).ok_or_else(|| format!("{id} has no assignment"))?;
    if assignment.tasks() != tasks.components.tasks() {
        return Err(format!(
            "{id} has the tasks {}, but places {}",
            tasks.components.tasks(),
            assignment.tasks()
        ));
    }
    for (slot, worker) in &assignment.workers {
        let process = model.processes.values().find(|process| {
            process.topology == *id
                && process.slot == *slot
                && process.start == worker.start
                && process.is_responsive
        });
        let process = process.ok_or_else(|| format!("{slot} runs no worker of {id}"))?;
        if process.blob != topology_record.blob.as_str() {
            return Err(format!("{} runs the package {} of {id}", process.worker, process.blob));
        }
        if process.tasks.as_ref() != Some(&worker.tasks) {
            return Err(format!("{} does not run {} of {id} yet", process.worker, worker.tasks));
        }
        for task in worker.tasks.iter() {
            let heartbeat = model.heartbeat(id, task);
            if heartbeat.map(|heartbeat| heartbeat.connection) != Some(process.connection) {
                return Err(format!("task {task} of {id} has no heartbeat"));
            }
        }
    }
    Ok(())
}
