//! Failures to start and to stay up: those that placement takes into account, and the problems that
//! operators should know.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    decide::draft::Draft, failing_problem::FailingProblem, liveness::is_of_host, plan::ClusterProblem,
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
    /// True if a worker did not come up; false if it, or a component, did not stay up.
    is_start: bool,
}

/// Returns the recent failures for placement. `given_up` has the slots that this decision gives up
/// although their supervisor is present.
///
/// A topology that fails on several supervisors is itself to blame: its failures count for its own
/// placement and for no other. What does not stay up counts for other topologies only if two of them
/// have that trouble on the same supervisor.
pub(super) fn failures<'a>(
    draft: &'a Draft<'_>,
    given_up: impl Iterator<Item = (&'a TopologyId, &'a SupervisorId)>,
) -> Failures {
    let mut evidence: Vec<Evidence<'a>> = Vec::new();
    let of_start = |(topology, supervisor, n)| Evidence { supervisor, topology, n, is_start: true };
    evidence.extend(draft.liveness.failed_placements().map(of_start));
    evidence.extend(given_up.map(|(topology, supervisor)| of_start((topology, supervisor, 1))));
    let mut failures = Failures::default();
    for (supervisor, record) in &draft.view.supervisors {
        for failure in &record.failures {
            let again = failure.n > RESTARTS_TOLERATED;
            match (failure.kind, &failure.topology) {
                (FailureKind::Supervisor, _) if again => {
                    add(&mut failures.of_supervisors, supervisor, failure.n);
                }
                (FailureKind::Launch | FailureKind::Code, Some(topology)) if is_of_host(failure) => {
                    evidence.push(Evidence { supervisor, topology, n: failure.n, is_start: true });
                }
                (FailureKind::Worker | FailureKind::Component, Some(topology)) if again => {
                    evidence.push(Evidence { supervisor, topology, n: failure.n, is_start: false });
                }
                _ => {}
            }
        }
    }
    let mut places: BTreeMap<(&TopologyId, bool), BTreeSet<&SupervisorId>> = BTreeMap::new();
    for Evidence { supervisor, topology, is_start, .. } in &evidence {
        places.entry((topology, *is_start)).or_default().insert(supervisor);
    }
    let is_own_fault = |it: &Evidence<'_>| places[&(it.topology, it.is_start)].len() > 1;
    let mut restless: BTreeMap<&SupervisorId, BTreeSet<&TopologyId>> = BTreeMap::new();
    for it in evidence.iter().filter(|it| !it.is_start && !is_own_fault(it)) {
        restless.entry(it.supervisor).or_default().insert(it.topology);
    }
    for it in &evidence {
        let own = failures.of_topologies.entry(it.topology.clone()).or_default();
        add(own, it.supervisor, it.n);
        let is_of_supervisor =
            it.is_start || restless.get(it.supervisor).is_some_and(|topologies| topologies.len() > 1);
        if is_of_supervisor && !is_own_fault(it) {
            add(&mut failures.of_supervisors, it.supervisor, it.n);
        }
    }
    failures
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
        FailureKind::Launch | FailureKind::Code if !is_silent => None,
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
