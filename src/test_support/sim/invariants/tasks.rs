//! No live task runs in two assigned slots, and an assigned worker runs what its slot has.

use std::collections::BTreeMap;

use super::Invariant;
use crate::test_support::sim::facts::Facts;

#[derive(Debug)]
pub(super) struct Tasks;

impl Invariant for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn state(&mut self, facts: &Facts) -> Result<(), String> {
        let mut runs = BTreeMap::new();
        for process in facts.processes.values() {
            let Some(tasks) = process.tasks.as_ref().filter(|_| facts.is_assigned(process)) else { continue };
            let assigned = &facts.assignments[&process.topology].workers[&process.slot].tasks;
            if tasks != assigned {
                return Err(format!(
                    "{} runs tasks {tasks} of {}, and its slot has {assigned} with the same start",
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
