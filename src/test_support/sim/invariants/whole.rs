//! A topology that is not killed has all of its tasks placed, running and beating, once.

use crate::{
    cluster::{
        layout,
        record::{self, Tasks},
    },
    model::{TopologyId, status::TopologyStatus},
    test_support::sim::facts::Facts,
    tree::memory::listen::Snapshot,
};

/// Whether the topology is whole; what is missing, if not.
pub(in crate::test_support::sim) fn is_whole(
    id: &TopologyId,
    facts: &Facts,
    tree: Snapshot<'_>,
) -> Result<(), String> {
    let storm = facts.storms.get(id).ok_or_else(|| format!("{id} has no record"))?;
    match storm.status {
        TopologyStatus::Active | TopologyStatus::Inactive => {}
        status @ (TopologyStatus::Rebalancing | TopologyStatus::Killed) => {
            return Err(format!("{id} is {status}"));
        }
    }
    let path = layout::tasks(id);
    let node = tree.get(&path).ok_or_else(|| format!("{path} is not there"))?;
    let tasks: Tasks = record::decode(&path, &node.data).map_err(|error| error.to_string())?;
    let assignment = facts.assignments.get(id).ok_or_else(|| format!("{id} has no assignment"))?;
    if assignment.tasks() != tasks.components.tasks() {
        return Err(format!(
            "{id} has the tasks {} and places {}",
            tasks.components.tasks(),
            assignment.tasks()
        ));
    }
    for (slot, worker) in &assignment.workers {
        let process = facts.processes.values().find(|process| {
            process.topology == *id
                && process.slot == *slot
                && process.start == worker.start
                && process.is_well
        });
        let process = process.ok_or_else(|| format!("{slot} runs no worker of {id}"))?;
        if process.tasks.as_ref() != Some(&worker.tasks) {
            return Err(format!("{} does not run {} of {id} yet", process.worker, worker.tasks));
        }
        for task in worker.tasks.iter() {
            let beat = facts.beat(id, task);
            if beat.map(|beat| beat.connection) != Some(process.connection) {
                return Err(format!("task {task} of {id} does not beat"));
            }
        }
    }
    Ok(())
}
