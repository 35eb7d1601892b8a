//! Resources that supervisors have left, and the tasks that request some.

use crate::{
    problem::{Problem, TopologyDemand, UnplacedReason},
    slots::SlotTable,
};
use stormkeeper_model::resources::{Capacity, Resource, TaskRequest};

/// Resources that are left on each supervisor, by its ordinal.
pub(super) struct Room<'a> {
    supervisors: Vec<(&'a str, Capacity)>,
    used: Vec<TaskRequest>,
}

impl<'a> Room<'a> {
    /// All resources of the supervisors; `None` if no task requests any, or no supervisor is limited.
    pub(super) fn new(problem: &'a Problem) -> Option<Self> {
        let is_limited = problem.supervisors.values().any(|supervisor| !supervisor.capacity.is_unlimited());
        let is_requested = problem.topologies.iter().any(|topology| !topology.requests.is_empty());
        (is_limited && is_requested).then(|| Self {
            supervisors: problem.supervisors.values().map(|s| (s.host.as_str(), s.capacity)).collect(),
            used: vec![TaskRequest::default(); problem.supervisors.len()],
        })
    }

    /// Amount that a supervisor has left; `None` if it is unlimited.
    fn left(&self, supervisor: usize, resource: Resource) -> Option<u64> {
        let (capacity, used) = (self.supervisors[supervisor].1, self.used[supervisor]);
        match resource {
            Resource::Memory => Some(capacity.memory_mb?.saturating_sub(used.memory_mb)),
            Resource::Cpu => Some(capacity.cpu_percent?.saturating_sub(used.cpu_percent)),
        }
    }

    /// Returns whether a supervisor has the resources of another task. A task without a request
    /// always has room.
    pub(super) fn fits(&self, supervisor: usize, request: TaskRequest) -> bool {
        self.short(supervisor, request).is_none()
    }

    fn short(&self, supervisor: usize, request: TaskRequest) -> Option<Resource> {
        [Resource::Memory, Resource::Cpu].into_iter().find(|resource| {
            let wanted = wanted(request, *resource);
            wanted > 0 && self.left(supervisor, *resource).is_some_and(|left| left < wanted)
        })
    }

    /// Counts a task on a supervisor, also beyond its capacity: a task that runs stays.
    pub(super) fn take(&mut self, supervisor: usize, request: TaskRequest) {
        let used = &mut self.used[supervisor];
        used.memory_mb = used.memory_mb.saturating_add(request.memory_mb);
        used.cpu_percent = used.cpu_percent.saturating_add(request.cpu_percent);
    }

    /// Reason why a task with `request` has no place, where it has none for lack of resources.
    pub(super) fn shortage(
        &self,
        slots: &SlotTable<'_>,
        topology: &TopologyDemand,
        component: usize,
        request: TaskRequest,
    ) -> Option<UnplacedReason> {
        let short = |n: usize| Some((n, self.short(n, request)?));
        let all: Vec<Option<(usize, Resource)>> = slots.with_free_slots().map(short).collect();
        // If everything fits somewhere, the reason is another one.
        let all: Vec<(usize, Resource)> = all.into_iter().collect::<Option<_>>()?;
        // A supervisor that lacks only CPU is a better place than one that lacks memory.
        let best = all.into_iter().max_by_key(|&(n, resource)| {
            (resource == Resource::Cpu, self.left(n, resource), std::cmp::Reverse(n))
        });
        let (n, resource) = best?;
        let (host, capacity) = self.supervisors[n];
        let capacity = match resource {
            Resource::Memory => capacity.memory_mb,
            Resource::Cpu => capacity.cpu_percent,
        };
        Some(UnplacedReason::NoCapacity {
            component: topology.tasks.0.keys().nth(component)?.clone(),
            resource,
            wanted: wanted(request, resource),
            free: self.left(n, resource)?,
            capacity: capacity?,
            host: host.to_owned(),
        })
    }
}

/// Requests of the components of a topology, by their ordinals.
pub(super) fn requests(topology: &TopologyDemand) -> Vec<TaskRequest> {
    let of = |component| topology.requests.get(component).copied().unwrap_or_default();
    topology.tasks.0.keys().map(of).collect()
}

fn wanted(request: TaskRequest, resource: Resource) -> u64 {
    match resource {
        Resource::Memory => request.memory_mb,
        Resource::Cpu => request.cpu_percent,
    }
}
