//! Problems that nimbuses and supervisors report, as responses show them.

use stormkeeper_coordination::cluster::{reported_problem::ReportedProblem, view::ClusterView};
use stormkeeper_model::{TaskId, TopologyId, task_set::TaskSet};

/// Maximum number of reported problems of one topology in a response; the others are counted.
const SHOWN_MAX: usize = 5;

/// The reported problems of a topology.
pub(super) fn of_topology(view: &ClusterView, id: &TopologyId) -> Vec<String> {
    let reported = all(view).filter(|problem| problem.topology.as_ref() == Some(id));
    let mut texts: Vec<String> = reported.map(|problem| problem.text.clone()).collect();
    let n_more = texts.len().saturating_sub(SHOWN_MAX);
    if n_more > 0 {
        texts.truncate(SHOWN_MAX);
        texts.push(format!("and {n_more} more problems of its workers: see `stormkeeper cluster`"));
    }
    texts
}

/// The reported problems that concern no present topology.
pub(super) fn of_no_topology(view: &ClusterView) -> Vec<String> {
    let concerns_none = |problem: &&ReportedProblem| {
        problem.topology.as_ref().is_none_or(|id| !view.topologies.contains_key(id))
    };
    all(view).filter(concerns_none).map(|problem| problem.text.clone()).collect()
}

/// The problems that nimbuses report about their disks and the files of their locks.
pub(super) fn of_nimbuses(view: &ClusterView) -> impl Iterator<Item = String> {
    view.nimbuses.iter().flat_map(|(id, record)| {
        let reported = [&record.disk_problem, &record.access_problem].into_iter().flatten();
        reported.map(move |problem| format!("nimbus {id}: {problem}"))
    })
}

/// The tasks of a topology that have a heartbeat, according to `is_alive`, and do not run: their
/// worker lives and reports that.
pub(super) fn idle_tasks(view: &ClusterView, id: &TopologyId, is_alive: impl Fn(TaskId) -> bool) -> TaskSet {
    let Some(assignment) = view.assignments.get(id) else { return TaskSet::default() };
    let mut idle = TaskSet::default();
    for (slot, worker) in &assignment.value.workers {
        let Some(supervisor) = view.supervisors.get(&slot.supervisor) else { continue };
        let of_slot = |problem: &&ReportedProblem| {
            problem.port == Some(slot.port) && problem.topology.as_ref() == Some(id)
        };
        let reported = supervisor.problems.iter().filter(of_slot).flat_map(|problem| problem.idle.iter());
        for task in reported.filter(|task| worker.tasks.contains(*task) && is_alive(*task)) {
            idle.insert(task);
        }
    }
    idle
}

fn all(view: &ClusterView) -> impl Iterator<Item = &ReportedProblem> {
    view.supervisors.values().flat_map(|supervisor| &supervisor.problems)
}
