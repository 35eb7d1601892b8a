//! Lint of solutions: all rules that a solution can break.

use std::collections::BTreeMap;

use crate::problem::{Keep, Placement, Problem, Solution, Standing, TopologyDemand};
use stormkeeper_model::{
    Slot, SupervisorId, TaskId, TopologyId,
    resources::{Capacity, Resource, TaskRequest},
};

/// A broken rule in a solution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two workers in one slot.
    #[error("slot {slot} is given to {first} and to {second}")]
    SlotTwice {
        /// The slot.
        slot: Slot,
        /// The first topology in the slot.
        first: TopologyId,
        /// The second topology in the slot.
        second: TopologyId,
    },
    /// A worker in a slot that does not exist.
    #[error("{topology} is given slot {slot}, which does not exist")]
    UnknownSlot {
        /// The topology of the worker.
        topology: TopologyId,
        /// The slot.
        slot: Slot,
    },
    /// A worker in a slot in use outside of the problem.
    #[error("{topology} is given slot {slot}, which is occupied")]
    OccupiedSlot {
        /// The topology of the worker.
        topology: TopologyId,
        /// The slot.
        slot: Slot,
    },
    /// A task added to a supervisor that is away, on a drained host, or has an expired certificate.
    #[error("{topology} gets task {task} in slot {slot}, whose supervisor is {}", match .standing {
        Standing::Live => "live",
        Standing::Away => "away",
        Standing::Drained => "drained",
        Standing::Expired => "there with an expired certificate",
    })]
    AddedTo {
        /// The topology of the task.
        topology: TopologyId,
        /// The task.
        task: TaskId,
        /// The slot.
        slot: Slot,
        /// The state of the supervisor.
        standing: Standing,
    },
    /// Tasks added to a supervisor beyond its capacity.
    #[error("supervisor {supervisor} gets tasks beyond its capacity of {resource}")]
    OverCapacity {
        /// The supervisor.
        supervisor: SupervisorId,
        /// The resource.
        resource: Resource,
    },
    /// A worker without a task.
    #[error("{topology} has a worker without a task in slot {slot}")]
    EmptyWorker {
        /// The topology of the worker.
        topology: TopologyId,
        /// The slot.
        slot: Slot,
    },
    /// A task that is placed twice, or placed and listed as unplaced.
    #[error("task {task} of {topology} is placed twice")]
    TaskTwice {
        /// The topology of the task.
        topology: TopologyId,
        /// The task.
        task: TaskId,
    },
    /// A task that the topology does not have.
    #[error("{topology} has no task {task}")]
    UnknownTask {
        /// The topology.
        topology: TopologyId,
        /// The unknown task.
        task: TaskId,
    },
    /// A task that is neither placed nor listed as unplaced.
    #[error("task {task} of {topology} is missing from the placement")]
    TaskMissing {
        /// The topology of the task.
        topology: TopologyId,
        /// The missing task.
        task: TaskId,
    },
    /// A healthy task that was moved.
    #[error("task {task} of {topology} is healthy in slot {from} and was moved")]
    HealthyTaskMoved {
        /// The topology of the task.
        topology: TopologyId,
        /// The moved task.
        task: TaskId,
        /// The slot in which it runs.
        from: Slot,
    },
    /// A topology without a placement.
    #[error("{topology} has no placement")]
    TopologyMissing {
        /// The topology.
        topology: TopologyId,
    },
    /// A placement of a topology that is not in the problem.
    #[error("{topology} is placed but was not requested")]
    UnknownTopology {
        /// The topology.
        topology: TopologyId,
    },
}

/// Returns all violations in `solution`, given `problem` and the `previous` solution.
pub fn violations(problem: &Problem, previous: &Solution, solution: &Solution) -> Vec<Violation> {
    let mut found = Vec::new();
    let owners = lint_slots(problem, solution, &mut found);
    let nothing = Placement::default();
    for topology in &problem.topologies {
        let Some(placement) = solution.placements.get(&topology.id) else {
            found.push(Violation::TopologyMissing { topology: topology.id.clone() });
            continue;
        };
        let before = previous.placements.get(&topology.id).unwrap_or(&nothing);
        lint_tasks(topology, placement, &mut found);
        lint_added(problem, topology, before, placement, &mut found);
        lint_kept(problem, topology, (before, placement), &owners, &mut found);
    }
    lint_capacity(problem, previous, solution, &mut found);
    found
}

/// Checks that no supervisor gets a task with a request that exceeds its capacity together with the
/// other tasks there.
fn lint_capacity(problem: &Problem, previous: &Solution, solution: &Solution, found: &mut Vec<Violation>) {
    let mut used: BTreeMap<&SupervisorId, (TaskRequest, TaskRequest)> = BTreeMap::new();
    for topology in problem.topologies.iter().filter(|topology| !topology.requests.is_empty()) {
        let before = previous.placements.get(&topology.id);
        for (slot, tasks) in solution.placements.get(&topology.id).into_iter().flat_map(|p| &p.workers) {
            let stays = before.and_then(|before| before.workers.get(slot));
            let (all, added) = used.entry(&slot.supervisor).or_default();
            for (component, request) in &topology.requests {
                let of_component = topology.tasks.0.get(component);
                let here = tasks.iter().filter(|task| of_component.is_some_and(|of| of.contains(*task)));
                for task in here {
                    let is_added = !stays.is_some_and(|stays| stays.contains(task));
                    for total in std::iter::once(&mut *all).chain(is_added.then_some(&mut *added)) {
                        total.memory_mb = total.memory_mb.saturating_add(request.memory_mb);
                        total.cpu_percent = total.cpu_percent.saturating_add(request.cpu_percent);
                    }
                }
            }
        }
    }
    for (id, (all, added)) in used {
        let Some(supervisor) = problem.supervisors.get(id) else { continue };
        let Capacity { memory_mb, cpu_percent } = supervisor.capacity;
        let memory = (Resource::Memory, memory_mb, all.memory_mb, added.memory_mb);
        let cpu = (Resource::Cpu, cpu_percent, all.cpu_percent, added.cpu_percent);
        for (resource, capacity, all, added) in [memory, cpu] {
            if added > 0 && capacity.is_some_and(|capacity| all > capacity) {
                found.push(Violation::OverCapacity { supervisor: id.clone(), resource });
            }
        }
    }
}

/// Checks the slots and returns the topology in each.
fn lint_slots<'a>(
    problem: &Problem,
    solution: &'a Solution,
    found: &mut Vec<Violation>,
) -> BTreeMap<&'a Slot, &'a TopologyId> {
    let asked: std::collections::BTreeSet<&TopologyId> = problem.topologies.iter().map(|t| &t.id).collect();
    let mut owners: BTreeMap<&Slot, &TopologyId> = BTreeMap::new();
    for (id, placement) in &solution.placements {
        let topology = || id.clone();
        if !asked.contains(id) {
            found.push(Violation::UnknownTopology { topology: topology() });
        }
        for (slot, tasks) in &placement.workers {
            let (slot, at) = (slot.clone(), slot);
            if tasks.is_empty() {
                found.push(Violation::EmptyWorker { topology: topology(), slot: slot.clone() });
            }
            if problem.occupied.contains(at) {
                found.push(Violation::OccupiedSlot { topology: topology(), slot: slot.clone() });
            }
            if let Some(first) = owners.insert(at, id) {
                let (first, second) = (first.clone(), topology());
                found.push(Violation::SlotTwice { slot: slot.clone(), first, second });
            }
            match problem.supervisors.get(&at.supervisor) {
                Some(supervisor) if supervisor.ports.contains(&at.port) => {}
                Some(_) | None => found.push(Violation::UnknownSlot { topology: topology(), slot }),
            }
        }
    }
    owners
}

fn lint_tasks(topology: &TopologyDemand, placement: &Placement, found: &mut Vec<Violation>) {
    let mut missing = topology.tasks.tasks();
    let known = missing.clone();
    let unplaced = placement.unplaced.iter().flat_map(|unplaced| unplaced.tasks.iter());
    for task in placement.workers.values().flat_map(|tasks| tasks.iter()).chain(unplaced) {
        let id = topology.id.clone();
        match (missing.remove(task), known.contains(task)) {
            (true, _) => {}
            (false, true) => found.push(Violation::TaskTwice { topology: id, task }),
            (false, false) => found.push(Violation::UnknownTask { topology: id, task }),
        }
    }
    found.extend(missing.iter().map(|task| Violation::TaskMissing { topology: topology.id.clone(), task }));
}

/// Checks that no task is added to a supervisor that is away or drained.
fn lint_added(
    problem: &Problem,
    topology: &TopologyDemand,
    before: &Placement,
    after: &Placement,
    found: &mut Vec<Violation>,
) {
    for (slot, tasks) in &after.workers {
        let Some(supervisor) = problem.supervisors.get(&slot.supervisor) else { continue };
        let stayed = |task| before.workers.get(slot).is_some_and(|tasks| tasks.contains(task));
        match supervisor.standing {
            Standing::Live => {}
            standing @ (Standing::Away | Standing::Drained | Standing::Expired) => {
                let added = tasks.iter().filter(|task| !stayed(*task));
                let (topology, slot) = (&topology.id, slot);
                found.extend(added.map(|task| Violation::AddedTo {
                    topology: topology.clone(),
                    task,
                    slot: slot.clone(),
                    standing,
                }));
            }
        }
    }
}

/// Checks that healthy tasks stay in a slot that still exists and that no other topology has.
/// If a corrupt previous solution has a task twice, only one place must stay.
fn lint_kept(
    problem: &Problem,
    topology: &TopologyDemand,
    (before, after): (&Placement, &Placement),
    owners: &BTreeMap<&Slot, &TopologyId>,
    found: &mut Vec<Violation>,
) {
    let Keep::Healthy(healthy) = &topology.keep else { return };
    let mut due = topology.tasks.tasks();
    for (slot, tasks) in &before.workers {
        let supervisor = problem.supervisors.get(&slot.supervisor);
        let lives_on = supervisor.is_some_and(|supervisor| supervisor.ports.contains(&slot.port));
        let is_others = owners.get(slot).is_some_and(|owner| **owner != topology.id);
        if !lives_on || is_others || problem.occupied.contains(slot) {
            continue;
        }
        let stays = |task| after.workers.get(slot).is_some_and(|tasks| tasks.contains(task));
        for task in tasks.iter().filter(|task| healthy.contains(*task)) {
            if due.remove(task) && !stays(task) {
                let (topology, from) = (topology.id.clone(), slot.clone());
                found.push(Violation::HealthyTaskMoved { topology, task, from });
            }
        }
    }
}
