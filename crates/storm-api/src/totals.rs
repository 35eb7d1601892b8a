//! Sums over a whole cluster view that many pages need. They change only with the view, so that a
//! nimbus computes them once for each view.

use std::collections::BTreeMap;

use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{
    SupervisorId, TaskId, TopologyId,
    assignment::Assignment,
    resources::{TaskRequest, TaskRequests},
    topology::TaskTable,
};

/// Sums over a cluster view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    pub(crate) supervisors: BTreeMap<SupervisorId, SupervisorTotals>,
    pub(crate) topologies: BTreeMap<TopologyId, TopologyTotals>,
    pub(crate) tasks: usize,
    pub(crate) slots: usize,
    pub(crate) slots_used: usize,
}

/// Sums of a live supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SupervisorTotals {
    pub(crate) slots: usize,
    pub(crate) slots_used: usize,
    pub(crate) total: Amount,
    pub(crate) used: Amount,
}

/// Sums of a topology.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TopologyTotals {
    pub(crate) tasks: usize,
    pub(crate) workers: usize,
    pub(crate) requested: Amount,
    pub(crate) assigned: Amount,
}

/// Memory in MiB and CPU in hundredths of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Amount {
    pub(crate) memory: f64,
    pub(crate) cpu: f64,
}

impl Amount {
    pub(crate) fn add(&mut self, other: Self) {
        self.memory += other.memory;
        self.cpu += other.cpu;
    }

    /// Returns what is left of this amount; 0 if more is used.
    pub(crate) fn left(self, used: Self) -> Self {
        Self { memory: (self.memory - used.memory).max(0.0), cpu: (self.cpu - used.cpu).max(0.0) }
    }
}

impl From<TaskRequest> for Amount {
    fn from(request: TaskRequest) -> Self {
        Self { memory: request.memory_mb as f64, cpu: request.cpu_percent as f64 }
    }
}

/// Returns what each task of a topology requests.
pub(crate) fn by_task(table: &TaskTable, requests: &TaskRequests) -> BTreeMap<TaskId, Amount> {
    let tasks_of = |(component, request): (_, &TaskRequest)| {
        let amount = Amount::from(*request);
        table.0.get(component).into_iter().flat_map(|tasks| tasks.iter()).map(move |task| (task, amount))
    };
    requests.iter().flat_map(tasks_of).collect()
}

/// Returns what the tasks of one worker request.
pub(crate) fn of_tasks(tasks: impl Iterator<Item = TaskId>, by_task: &BTreeMap<TaskId, Amount>) -> Amount {
    let mut sum = Amount::default();
    tasks.filter_map(|task| by_task.get(&task)).for_each(|amount| sum.add(*amount));
    sum
}

impl Totals {
    /// Number of slots of live supervisors, and how many of them are assigned.
    pub fn slots(&self) -> (usize, usize) {
        (self.slots, self.slots_used)
    }

    /// Computes the sums of a view. The time grows with the number of tasks.
    pub fn of(view: &ClusterView) -> Self {
        let mut totals = Self::default();
        for (id, record) in &view.supervisors {
            let total = Amount {
                memory: record.capacity.memory_mb.map_or(f64::from(record.resources.memory_mb), |n| n as f64),
                cpu: record
                    .capacity
                    .cpu_percent
                    .map_or(f64::from(record.resources.cpu_percent), |n| n as f64),
            };
            let of_supervisor = SupervisorTotals { slots: record.ports.len(), total, ..Default::default() };
            totals.slots += of_supervisor.slots;
            totals.supervisors.insert(id.clone(), of_supervisor);
        }
        let nothing = (TaskTable::default(), TaskRequests::default(), Assignment::default());
        for id in view
            .topologies
            .keys()
            .chain(view.assignments.keys().filter(|id| !view.topologies.contains_key(*id)))
        {
            let (table, requests) = view
                .tasks
                .get(id)
                .map_or((&nothing.0, &nothing.1), |tasks| (&tasks.value.components, &tasks.value.requests));
            let assignment = view.assignments.get(id).map_or(&nothing.2, |assignment| &assignment.value);
            let of_topology = totals.add_workers(table, requests, assignment);
            totals.tasks += of_topology.tasks;
            totals.topologies.insert(id.clone(), of_topology);
        }
        totals.slots_used = totals.supervisors.values().map(|of| of.slots_used).sum();
        totals
    }

    /// Adds the workers of a topology to their supervisors, and returns the sums of the topology.
    fn add_workers(
        &mut self,
        table: &TaskTable,
        requests: &TaskRequests,
        assignment: &Assignment,
    ) -> TopologyTotals {
        let by_task = by_task(table, requests);
        let mut of_topology = TopologyTotals {
            tasks: table.n_tasks(),
            workers: assignment.workers.len(),
            requested: of_tasks(by_task.keys().copied(), &by_task),
            ..TopologyTotals::default()
        };
        for (slot, worker) in &assignment.workers {
            let used = match by_task.is_empty() {
                true => Amount::default(),
                false => of_tasks(worker.tasks.iter(), &by_task),
            };
            of_topology.assigned.add(used);
            if let Some(of_supervisor) = self.supervisors.get_mut(&slot.supervisor) {
                of_supervisor.slots_used += 1;
                of_supervisor.used.add(used);
            }
        }
        of_topology
    }
}
