//! Failures to start and to stay up: those that placement takes into account, and the problems that
//! operators should know.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    decide::draft::Draft,
    failing_problem::FailingProblem,
    liveness::{FailedPlacements, is_of_host},
    plan::ClusterProblem,
};
use stormkeeper_coordination::cluster::{
    failure::{FailureKind, ReportedFailure},
    record::SupervisorRecord,
};
use stormkeeper_model::{
    Port, Slot, SupervisorId, TopologyId, TopologyName, assignment::AssignedWorker,
    restarts::RESTARTS_TOLERATED, task_set::TaskSet,
};
use stormkeeper_scheduler::Failures;

/// Time without a heartbeat after which the tasks of a worker are reported.
const SILENT_REPORTED_AFTER: Duration = Duration::from_secs(8);

/// Maximum number of problems of this kind that are listed for one topology.
const LISTED_MAX: usize = 5;

/// Failures of one topology on one supervisor.
struct Evidence<'a> {
    supervisor: &'a SupervisorId,
    topology: &'a TopologyId,
    n: u32,
    of: Of,
}

/// Kind of an evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A worker did not come up, and others may not come up there either.
    Start,
    /// A worker did not come up, for a reason that may be in its topology.
    StartOfTopology,
    /// A worker or a component did not stay up.
    Stay,
}

/// A slot that a decision gives up although its supervisor is present.
pub(super) struct GivenUp<'a> {
    pub(super) topology: &'a TopologyId,
    pub(super) supervisor: &'a SupervisorId,
    /// True if the supervisor has said that the reason may be in the topology.
    pub(super) is_of_topology: bool,
}

/// Returns the recent failures for placement. `given_up` has the slots that this decision gives up
/// although their supervisor is present.
///
/// A topology that fails on several supervisors, or of which a supervisor says so, is itself to
/// blame: its failures count for its own placement and for no other. What does not stay up counts
/// for other topologies only if two owners have that trouble on the same supervisor, so that no
/// owner can make a host look bad alone; where all topologies have one owner, two topologies suffice.
pub(super) fn failures<'a>(draft: &'a Draft<'_>, given_up: impl Iterator<Item = GivenUp<'a>>) -> Failures {
    let mut evidence: Vec<Evidence<'a>> = Vec::new();
    for FailedPlacements { topology, supervisor, n_of_host, n_of_topology } in
        draft.liveness.failed_placements()
    {
        let counts = [(Of::Start, n_of_host), (Of::StartOfTopology, n_of_topology)].into_iter();
        evidence.extend(counts.filter(|(_, n)| *n > 0).map(|(of, n)| Evidence {
            supervisor,
            topology,
            n,
            of,
        }));
    }
    evidence.extend(given_up.map(|GivenUp { topology, supervisor, is_of_topology }| {
        let of = if is_of_topology { Of::StartOfTopology } else { Of::Start };
        Evidence { supervisor, topology, n: 1, of }
    }));
    let mut failures = Failures::default();
    for (supervisor, record) in &draft.view.supervisors {
        for failure in &record.failures {
            let again = failure.n > RESTARTS_TOLERATED;
            match (failure.kind, &failure.topology) {
                (FailureKind::Supervisor, _) if again => {
                    add(&mut failures.of_supervisors, supervisor, failure.n);
                }
                (FailureKind::Launch | FailureKind::Code, Some(topology)) if is_of_host(failure) => {
                    evidence.push(Evidence { supervisor, topology, n: failure.n, of: Of::Start });
                }
                (FailureKind::Topology, Some(topology)) => {
                    evidence.push(Evidence { supervisor, topology, n: failure.n, of: Of::StartOfTopology });
                }
                (FailureKind::Worker | FailureKind::Component, Some(topology)) if again => {
                    evidence.push(Evidence { supervisor, topology, n: failure.n, of: Of::Stay });
                }
                _ => {}
            }
        }
    }
    let mut places: BTreeMap<(&TopologyId, bool), BTreeSet<&SupervisorId>> = BTreeMap::new();
    let place = |it: &Evidence<'a>| (it.topology, it.of == Of::Stay);
    for it in &evidence {
        places.entry(place(it)).or_default().insert(it.supervisor);
    }
    let is_own_fault = |it: &Evidence<'a>| it.of == Of::StartOfTopology || places[&place(it)].len() > 1;
    let one_owner = has_one_owner(draft);
    let mut restless: BTreeMap<&SupervisorId, BTreeSet<&str>> = BTreeMap::new();
    for it in evidence.iter().filter(|it| it.of == Of::Stay && !is_own_fault(it)) {
        let owner = draft.view.topologies.get(it.topology).map(|record| record.value.owner.as_str());
        let who = owner.filter(|_| !one_owner).unwrap_or(it.topology.as_str());
        restless.entry(it.supervisor).or_default().insert(who);
    }
    for it in &evidence {
        let own = failures.of_topologies.entry(it.topology.clone()).or_default();
        add(own, it.supervisor, it.n);
        let is_of_supervisor =
            it.of == Of::Start || restless.get(it.supervisor).is_some_and(|who| who.len() > 1);
        if is_of_supervisor && !is_own_fault(it) {
            add(&mut failures.of_supervisors, it.supervisor, it.n);
        }
    }
    failures
}

/// Returns whether all topologies have the same owner.
fn has_one_owner(draft: &Draft<'_>) -> bool {
    let mut owners = draft.view.topologies.values().map(|record| &record.value.owner);
    let first = owners.next();
    owners.all(|owner| Some(owner) == first)
}

fn add(counts: &mut BTreeMap<SupervisorId, u32>, supervisor: &SupervisorId, n: u32) {
    let count = counts.entry(supervisor.clone()).or_default();
    *count = count.saturating_add(n);
}

/// Reports what does not start or does not stay up.
pub(super) fn report(draft: &mut Draft<'_>) {
    let mut of_topologies: BTreeMap<&TopologyId, Vec<(u32, FailingProblem)>> = BTreeMap::new();
    let mut explained: BTreeSet<(&TopologyId, Slot)> = BTreeSet::new();
    let view = draft.view;
    for (supervisor, record) in &view.supervisors {
        for problem in of_supervisor(supervisor, record) {
            draft.add_finding(None, ClusterProblem::Failing(problem));
        }
        for failure in &record.failures {
            let Some((id, slot, worker)) = assigned(draft, supervisor, failure) else { continue };
            let Some(name) = view.topologies.get(id).map(|record| &record.value.name) else { continue };
            let is_silent = draft.liveness.is_silent(id, &slot, worker);
            let Some(problem) = of_topology(failure, (name, &slot, worker), is_silent) else { continue };
            if is_silent {
                explained.insert((id, slot));
            }
            of_topologies.entry(id).or_default().push((failure.n, problem));
        }
    }
    report_silent(draft, &explained);
    for (id, mut problems) in of_topologies {
        problems.sort_by(|(a, _), (b, _)| b.cmp(a));
        let n_more = problems.len().saturating_sub(LISTED_MAX);
        for (_, problem) in problems.into_iter().take(LISTED_MAX) {
            draft.add_finding(Some(id), ClusterProblem::Failing(problem));
        }
        if let Some(record) = view.topologies.get(id).filter(|_| n_more > 0) {
            let more = FailingProblem::More { topology: record.value.name.clone(), n: n_more };
            draft.add_finding(Some(id), ClusterProblem::Failing(more));
        }
    }
}

/// Problems of a supervisor itself.
fn of_supervisor(id: &SupervisorId, record: &SupervisorRecord) -> Vec<FailingProblem> {
    let (supervisor, host) = (id.clone(), record.host.clone());
    let mut problems = Vec::new();
    let restarts = record.failures.iter().find(|failure| failure.kind == FailureKind::Supervisor);
    if let Some(ReportedFailure { n, reason, .. }) = restarts {
        let (supervisor, host, reason) = (supervisor.clone(), host.clone(), reason.clone());
        problems.push(FailingProblem::SupervisorRestarts { supervisor, host, n: *n, reason });
    }
    let failed = record.failures.iter().filter(|failure| is_of_host(failure));
    let n = failed.clone().fold(0, |n: u32, failure| n.saturating_add(failure.n));
    if let Some(worst) = failed.max_by_key(|failure| failure.n) {
        let reason = worst.reason.clone();
        problems.push(FailingProblem::SupervisorFails { supervisor, host, n, reason });
    }
    problems
}

/// The worker that a failure concerns, if it is still placed there.
fn assigned<'a>(
    draft: &Draft<'a>,
    supervisor: &SupervisorId,
    failure: &'a ReportedFailure,
) -> Option<(&'a TopologyId, Slot, &'a AssignedWorker)> {
    let (id, port): (&TopologyId, Port) = (failure.topology.as_ref()?, failure.port?);
    let slot = Slot { supervisor: supervisor.clone(), port };
    let worker = draft.view.assignments.get(id)?.value.workers.get(&slot)?;
    Some((id, slot, worker))
}

fn of_topology(
    failure: &ReportedFailure,
    (name, slot, worker): (&TopologyName, &Slot, &AssignedWorker),
    is_silent: bool,
) -> Option<FailingProblem> {
    let ReportedFailure { kind, n, reason, everywhere, .. } = failure;
    let (n, reason, host, port) = (*n, reason.clone(), worker.host.clone(), slot.port);
    let (topology, supervisor, tasks) = (name.clone(), slot.supervisor.clone(), worker.tasks.clone());
    match kind {
        // A worker that came up after all is no problem; its supervisor remembers the failures.
        FailureKind::Launch | FailureKind::Code | FailureKind::Topology if !is_silent => None,
        FailureKind::Topology => {
            Some(FailingProblem::TopologyFails { tasks, topology, host, port, n, reason })
        }
        FailureKind::Launch | FailureKind::Code if *everywhere => {
            Some(FailingProblem::NoCode { tasks, supervisor, host, n, reason })
        }
        FailureKind::Launch | FailureKind::Code => {
            Some(FailingProblem::NotStarted { tasks, supervisor, host, port, n, reason })
        }
        FailureKind::Worker => Some(FailingProblem::WorkerRestarts { topology, host, port, n, reason }),
        FailureKind::Component => {
            let component = failure.component.clone()?;
            Some(FailingProblem::ComponentRestarts { topology, component, host, port, n, reason })
        }
        FailureKind::Supervisor | FailureKind::Unknown => None,
    }
}

/// Reports tasks without a heartbeat of which no supervisor says why.
fn report_silent(draft: &mut Draft<'_>, explained: &BTreeSet<(&TopologyId, Slot)>) {
    let (view, liveness) = (draft.view, draft.liveness);
    let mut silent: BTreeMap<&TopologyId, FailingProblem> = BTreeMap::new();
    for (id, slot, since) in liveness.silent_placements() {
        let reported_at = since.plus(SILENT_REPORTED_AFTER);
        if !draft.is_past(reported_at) {
            draft.wake_at(reported_at);
            continue;
        }
        let worker = view.assignments.get(id).and_then(|assignment| assignment.value.workers.get(slot));
        let Some(worker) = worker.filter(|_| !explained.contains(&(id, slot.clone()))) else { continue };
        let first = || FailingProblem::Silent {
            tasks: TaskSet::default(),
            n_workers: 0,
            supervisor: slot.supervisor.clone(),
            host: worker.host.clone(),
            port: slot.port,
        };
        if let FailingProblem::Silent { tasks, n_workers, .. } = silent.entry(id).or_insert_with(first) {
            *n_workers += 1;
            *tasks = tasks.iter().chain(worker.tasks.iter()).collect();
        }
    }
    for (id, problem) in silent {
        draft.add_finding(Some(id), ClusterProblem::Failing(problem));
    }
}
