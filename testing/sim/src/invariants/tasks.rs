//! No live task runs in two assigned slots, and an assigned worker runs the tasks of its slot.

use std::collections::BTreeMap;

use super::Invariant;
use crate::model::ClusterModel;

#[derive(Debug)]
pub(super) struct Tasks;

impl Invariant for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn state(&mut self, model: &ClusterModel) -> Result<(), String> {
        let mut runs = BTreeMap::new();
        for process in model.processes.values() {
            let Some(tasks) = process.tasks.as_ref().filter(|_| model.is_assigned(process)) else { continue };
            let assigned = &model.assignments[&process.topology].workers[&process.slot].tasks;
            if tasks != assigned {
                return Err(format!(
                    "{} runs tasks {tasks} of {}, but its slot has {assigned} with the same start",
                    process.worker, process.topology
                ));
            }
            for task in tasks.iter() {
                if let Some(other) = runs.insert((&process.topology, task), &process.worker) {
                    return Err(format!(
                        "task {task} of {} runs in {other} and in {}",
                        process.topology, process.worker
                    ));
                }
            }
        }
        Ok(())
    }
}
