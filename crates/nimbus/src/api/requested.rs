//! Memory and CPU that the tasks of each supervisor request.

use std::collections::BTreeMap;

use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{SupervisorId, resources::TaskRequest};

/// Returns the sum of the requests of the tasks that are assigned to each supervisor; none of them is
/// 0 in both.
pub(super) fn by_supervisor(view: &ClusterView) -> BTreeMap<&SupervisorId, TaskRequest> {
    let mut sums: BTreeMap<&SupervisorId, TaskRequest> = BTreeMap::new();
    for (topology, assignment) in &view.assignments {
        let Some(tasks) = view.tasks.get(topology).filter(|tasks| !tasks.value.requests.is_empty()) else {
            continue;
        };
        let requests_of = tasks.value.requests.iter().flat_map(|(component, request)| {
            let tasks = tasks.value.components.0.get(component);
            tasks.into_iter().flat_map(|tasks| tasks.iter()).map(move |task| (task, request))
        });
        let by_task: BTreeMap<_, _> = requests_of.collect();
        for (slot, worker) in &assignment.value.workers {
            for request in worker.tasks.iter().filter_map(|task| by_task.get(&task)) {
                let sum = sums.entry(&slot.supervisor).or_default();
                sum.memory_mb = sum.memory_mb.saturating_add(request.memory_mb);
                sum.cpu_percent = sum.cpu_percent.saturating_add(request.cpu_percent);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use stormkeeper_coordination::{
        cluster::record::{Stored, TasksRecord},
        tree::Version,
    };
    use stormkeeper_model::{
        Port, Slot, TaskId, Timestamp,
        assignment::{AssignedWorker, Assignment},
    };

    use super::*;

    #[test]
    fn requests_of_a_supervisor_are_those_of_the_tasks_in_its_slots() {
        let mut view = ClusterView::default();
        let tasks: TasksRecord = serde_json::from_value(serde_json::json!({
            "components": { "spout": "1-2", "bolt": "3-6" },
            "requests": { "bolt": { "memory_mb": 100, "cpu_percent": 5 }, "gone": { "memory_mb": 1 } },
        }))
        .expect("a record");
        let worker = |tasks: &[u32]| AssignedWorker {
            host: "h".to_owned(),
            tasks: tasks.iter().copied().map(TaskId).collect(),
            start: Timestamp::EPOCH,
        };
        let slot = |supervisor: &str, port| Slot {
            supervisor: supervisor.parse().expect("valid"),
            port: Port(port),
        };
        let workers =
            [(slot("a", 1), worker(&[1, 3])), (slot("a", 2), worker(&[4])), (slot("b", 1), worker(&[2]))];
        let assignment = Assignment { workers: workers.into_iter().collect(), ..Assignment::default() };
        let id: stormkeeper_model::TopologyId = "wc-1-1".parse().expect("valid");
        let version = Version(0);
        view.tasks.insert(id.clone(), Stored { value: tasks, version });
        view.assignments.insert(id, Stored { value: assignment, version });

        let sums = by_supervisor(&view);
        let a = "a".parse().expect("valid");
        let expected = TaskRequest { memory_mb: 200, cpu_percent: 10 };
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), [(&a, expected)]);
    }
}
